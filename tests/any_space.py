"""Random spaces, nested up to three deep, and a small game that shows and takes them."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from hypothesis import strategies as st

ENV_ID = "test/Anything-v0"
LENGTH = 7
SIDES = st.tuples(st.integers(16, 20), st.integers(16, 24))


class Anything(gymnasium.Env):
    """Shows samples of its space, and pays for actions by their place in theirs."""

    def __init__(self, observation: spaces.Space, action: spaces.Space) -> None:
        self.observation_space, self.action_space = observation, action

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        self.time = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any):
        assert self.action_space.contains(action), action
        self.time += 1
        numbers = np.asarray(spaces.flatten(self.action_space, action), np.float64)
        reward = float(np.tanh(numbers.sum()))
        return self.observation_space.sample(), reward, self.time == LENGTH, False, {}


def pictures() -> st.SearchStrategy[spaces.Space]:
    """Of every kind and layout."""

    def box(sides: tuple[int, int], layout: str, channels: int, kind: str) -> spaces.Box:
        shape = {"grey": sides, "last": (*sides, channels), "first": (channels, *sides)}[layout]
        high = 1 if kind == "float64" else 255
        return spaces.Box(0, high, shape, np.dtype(kind).type)

    kinds = st.sampled_from(["uint8", "float32", "float64"])
    return st.builds(
        box, SIDES, st.sampled_from(["grey", "last", "first"]), st.integers(1, 4), kinds
    )


def numbers(bounded: bool) -> st.SearchStrategy[spaces.Space]:
    """Leaves without pixels."""
    shapes = st.sampled_from([(), (1,), (3,), (2, 2)])
    sizes = st.lists(st.integers(1, 4), min_size=1, max_size=3)
    lows = st.sampled_from([-1.0, 0.0, -7.5] if bounded else [-np.inf, -1.0, 0.0])
    kinds = st.sampled_from([np.float32, np.float64])

    def box(shape: tuple[int, ...], low: float, kind: type) -> spaces.Box:
        return spaces.Box(low, 2.0 if np.isfinite(low) else np.inf, shape, kind)

    return st.one_of(
        st.builds(box, shapes, lows, kinds),
        st.builds(
            lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 6), st.integers(-3, 3)
        ),
        st.builds(spaces.MultiDiscrete, sizes),
        st.builds(spaces.MultiBinary, st.integers(1, 4)),
    )


def nested(leaf: st.SearchStrategy[spaces.Space]) -> st.SearchStrategy[spaces.Space]:
    """Leaves in Dict and Tuple, up to three deep."""

    def around(inner: st.SearchStrategy[spaces.Space]) -> st.SearchStrategy[spaces.Space]:
        parts = st.lists(inner, min_size=1, max_size=2)
        named = st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=2)
        return st.one_of(st.builds(spaces.Tuple, parts), st.builds(spaces.Dict, named))

    return st.one_of(leaf, around(leaf), around(around(leaf)))


OBSERVATIONS = st.one_of(pictures(), nested(numbers(bounded=False)))
ACTIONS = nested(numbers(bounded=True))
