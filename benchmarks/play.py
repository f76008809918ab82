"""What one step of the page costs: reality, dream and what is sent, on one thread.

python benchmarks/play.py runs/pong
"""

import argparse
import json
import statistics
import time

import torch

from stormrl.play.packets import Pace, packet, point
from stormrl.play.table import Table
from stormrl.runs.agent import Agent
from stormrl.seeds import GAME_SEED

WARM_UP = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--speed", type=float, help="steps a second to keep to, as the page does")
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = Table(Agent.load(options.run, device="cpu"), seed=GAME_SEED, context=8)
    table.advance({"real": "agent", "dream": "agent"})
    wall, cpu = [], []
    for number in range(WARM_UP + options.steps):
        began, used = time.perf_counter(), time.thread_time()
        table.advance({})
        packet(number, table, number, [point(table)], Pace(0, 0))
        cpu.append((time.thread_time() - used) * 1000)
        wall.append((time.perf_counter() - began) * 1000)
        if options.speed:
            time.sleep(max(0.0, began + 1 / options.speed - time.perf_counter()))
    table.close()
    print(json.dumps({"wall_ms": quantiles(wall[WARM_UP:]), "cpu_ms": quantiles(cpu[WARM_UP:])}))


def quantiles(values: list[float]) -> dict[str, float]:
    tenths = statistics.quantiles(values, n=10)
    return {"p10": tenths[0], "median": tenths[4], "p90": tenths[8]}


if __name__ == "__main__":
    main()
