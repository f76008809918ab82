"""Where ale-py's vector environment equals the Python wrappers, and where it cannot.

It keeps evaluation from using it: see docs/evaluation.md. What fails here after an upgrade of
ale-py says that this may have changed.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import pytest

from stormrl.envs import PROTOCOLS, Protocol, make_env
from vector_games import emulator_seed, vector_env

OFFICIAL, ATARI100K = PROTOCOLS["official"], PROTOCOLS["atari100k"]
GAMES = {"ALE/Breakout-v5": "breakout", "ALE/RoadRunner-v5": "road_runner"}


class Step(NamedTuple):
    """All that a player can tell of a step."""

    picture: bytes
    reward: float
    terminated: bool
    truncated: bool
    lives: int


def actions(count: int) -> Iterator[int]:
    generator = np.random.default_rng(0)
    while True:
        yield int(generator.integers(count))


def step(obs: np.ndarray, reward: Any, terminated: Any, truncated: Any, lives: Any) -> Step:
    return Step(obs.tobytes(), float(reward), bool(terminated), bool(truncated), int(lives))


def wrapped_episode(env_id: str, protocol: Protocol, seed: int) -> Iterator[Step]:
    env = make_env(env_id, protocol)
    obs, info = env.reset(seed=seed)
    yield step(obs, 0, False, False, info["lives"])
    for action in actions(env.action_space.n):  # pyright: ignore[reportAttributeAccessIssue]
        obs, reward, terminated, truncated, info = env.step(action)
        yield step(obs, reward, terminated, truncated, info["lives"])
        if terminated or truncated:
            return


def vector_episode(rom: str, protocol: Protocol, seed: int) -> Iterator[Step]:
    env: Any = vector_env(rom, protocol)
    obs, info = env.reset(seed=np.array([seed]))
    yield step(obs[0, 0], 0, False, False, info["lives"][0])
    for action in actions(env.single_action_space.n):
        obs, *ends, info = env.step(np.array([action]))
        reward, terminated, truncated = (end[0] for end in ends)
        yield step(obs[0, 0], reward, terminated, truncated, info["lives"][0])
        if terminated or truncated:
            return


@pytest.mark.parametrize("env_id", GAMES)
@pytest.mark.parametrize("seed", [1_000_003, 1_000_004])
def test_sticky_episodes_are_equal_when_the_seed_fits(env_id, seed):
    assert emulator_seed(seed) >= 0
    theirs = vector_episode(GAMES[env_id], OFFICIAL, emulator_seed(seed))
    ours = list(wrapped_episode(env_id, OFFICIAL, seed))
    assert list(theirs) == ours
    assert len(ours) > 100


def test_it_takes_no_negative_seed():
    """Half of all resets give the emulator one; it then takes the clock instead."""
    seed = 1_000_000
    assert emulator_seed(seed) < 0
    ours = list(wrapped_episode("ALE/Breakout-v5", OFFICIAL, seed))
    theirs = list(vector_episode("breakout", OFFICIAL, emulator_seed(seed)))
    assert theirs != ours
    assert np.mean([emulator_seed(seed) < 0 for seed in range(1000)]) == pytest.approx(0.5, abs=0.1)


def test_no_op_starts_are_drawn_otherwise():
    """0 to 29 idle frames instead of 1 to 30, by another generator."""
    env = make_env("ALE/Breakout-v5", ATARI100K)
    vector: Any = vector_env("breakout", ATARI100K)
    idle = []
    for seed in range(10):
        _, ours = env.reset(seed=seed)
        _, theirs = vector.reset(seed=np.array([emulator_seed(seed) % 2**31]))
        idle.append((ours["episode_frame_number"], int(theirs["episode_frame_number"][0])))
    assert all(1 <= ours <= 30 and 0 <= theirs <= 29 for ours, theirs in idle)
    assert any(ours != theirs for ours, theirs in idle)


def test_without_chance_the_two_games_are_equal():
    """Resizing, maximum of frames, rewards and lives do not differ under any protocol."""
    plain = Protocol("plain", 0.0, 0, "ignored", 1)
    ours = islice(wrapped_episode("ALE/Qbert-v5", plain, 3), 150)
    theirs = islice(vector_episode("qbert", plain, 3), 150)
    assert list(ours) == list(theirs)
