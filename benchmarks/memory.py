"""Memory of a long run, and what checkpoints of a full replay cost.

    python benchmarks/memory.py --steps 100000

A miniature agent with few updates plays on after its replay is full. Prints one JSON object.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from miniature import shrunk  # pyright: ignore[reportMissingImports]
from stormrl.config.parts import RunConfig
from stormrl.disk.run_directory import RunDirectory
from stormrl.history.progress import SilentProgress
from stormrl.runs.trainer import Trainer

MIB = 2**20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--capacity", type=int, default=20_000)
    parser.add_argument("--ratio", type=float, default=0.02)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder) / "run", options)))
    return 0


def measure(path: Path, options: argparse.Namespace) -> dict:
    trainer = Trainer(RunDirectory.create(path, config(options)), SilentProgress())
    # Twice the capacity: by then the first chunks of replay have been deleted as well.
    full_at = 2 * options.capacity
    peaks: list[int] = []
    saves: list[tuple[int, float]] = []
    again: list[float] = []
    save, advance = trainer.save, trainer._advance

    def timed_save() -> None:
        saves.append((trainer.step, seconds_of(save)))
        # The same again: all steps are on the disk now, so this is the cost beyond what is new.
        again.append(seconds_of(save))

    def sampled_advance() -> None:
        advance()
        if trainer.step == full_at:
            peaks.append(peak_bytes())

    trainer.save, trainer._advance = timed_save, sampled_advance
    trainer.train()
    peaks.append(peak_bytes())
    seconds = sorted(taken for step, taken in saves if step > options.capacity)
    return {
        "steps": options.steps,
        "capacity": options.capacity,
        "replay_mib": trainer.replay.obs.nbytes / MIB,
        "peak_when_full_mib": peaks[0] / MIB,
        "growth_mib": (peaks[1] - peaks[0]) / MIB,
        "checkpoint_every": trainer.config.checkpoint_every,
        "checkpoint_median_s": seconds[len(seconds) // 2],
        "checkpoint_worst_s": seconds[-1],
        "checkpoint_beyond_new_worst_s": max(again),
    }


def seconds_of(action: Callable[[], None]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def config(options: argparse.Namespace) -> RunConfig:
    agent = shrunk()
    agent = replace(
        agent,
        replay=replace(agent.replay, capacity=options.capacity, warmup=1024),
        world_model_ratio=options.ratio,
        agent_ratio=options.ratio,
    )
    return RunConfig(
        env="stormrl/Catch-v0",
        steps=options.steps,
        agent=agent,
        device="cpu",
        compile="off",
        evaluation_episodes=0,
        dream_every=0,
    )


def peak_bytes() -> int:
    """The most memory that the process has had so far: what it has now goes up and down."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    raise SystemExit(main())
