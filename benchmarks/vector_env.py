"""ale-py's vector environment beside the Python wrappers: time of a step of eight games.

And beside both the time in which an agent chooses the actions of that step.

    python benchmarks/vector_env.py

Processor time, so that other work on the machine does not count, and wall time.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from stormrl.config.presets import SIZES, agent_config
from stormrl.envs import PROTOCOLS, make_env
from stormrl.learning.learner import Learner
from stormrl.machine.device import Backend
from stormrl.spaces import DiscreteSpace, ImageSpace, Spaces
from vector_games import vector_env  # pyright: ignore[reportMissingImports]

GAMES = {"ALE/Boxing-v5": "boxing", "ALE/Breakout-v5": "breakout", "ALE/Qbert-v5": "qbert"}
ENVS, STEPS, ACTIONS, CONTEXT = 8, 300, 18, 16
SPACES = Spaces(ImageSpace(64, 64, 3), DiscreteSpace(ACTIONS))
OFFICIAL = PROTOCOLS["official"]


def milliseconds(step: Callable[[], object], steps: int = STEPS) -> str:
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(steps):
        step()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return f"{1000 * cpu / steps:6.2f} ms of processor, {1000 * wall / steps:6.2f} ms"


def wrappers(env_id: str) -> Callable[[], object]:
    envs = [make_env(env_id, OFFICIAL) for _ in range(ENVS)]
    for seed, env in enumerate(envs):
        env.reset(seed=seed)

    def step() -> None:
        for env in envs:
            _, _, terminated, truncated, _ = env.step(0)
            if terminated or truncated:
                env.reset()

    return step


def vector(rom: str, threads: int) -> Callable[[], object]:
    env = vector_env(rom, OFFICIAL, ENVS, threads)
    env.reset(seed=0)
    idle = np.zeros(ENVS, np.int64)
    return lambda: env.step(idle)


def acting(size: str) -> Callable[[], object]:
    backend = Backend(torch.device("cpu"))
    actor = Learner(agent_config("official", size), SPACES, backend).actor()
    obs = torch.zeros(ENVS, 3, 64, 64, dtype=torch.uint8)
    is_first = torch.zeros(ENVS, dtype=torch.bool)
    carry = actor.begin(ENVS)
    for _ in range(CONTEXT):
        _, carry = actor.act(obs, carry, is_first)
    return lambda: actor.act(obs, carry, is_first)


def main() -> None:
    for size in SIZES:
        print(f"size {size:11} acting             {milliseconds(acting(size), 20)}")
    for env_id, rom in GAMES.items():
        print(f"{env_id:16} Python wrappers    {milliseconds(wrappers(env_id))}")
        for threads in (1, 2):
            print(f"{env_id:16} vector, {threads} threads {milliseconds(vector(rom, threads))}")


if __name__ == "__main__":
    main()
