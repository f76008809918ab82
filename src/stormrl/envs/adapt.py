"""Adapters (wrappers): every observation is a picture or a vector, every action a number.

Pictures of any kind and layout become bytes [height, width, channels]; everything else is
flattened to one vector, one-hot where it is a choice. Actions of several parts become the number
whose digits the parts are (`stormrl.spaces.DiscreteSpace`); a bounded number is one of a few
values, evenly spaced from bound to bound.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import gymnasium
import numpy as np
from gymnasium import spaces

from stormrl.spaces import MOST_COMBINED

SMALLEST_SIDE = 16
"""Pixels; what is smaller is a table of numbers."""
COLOURS = 4
VALUES = (11, 9, 7, 5, 3, 2)
"""How many values a bounded number may have: the most whose combinations can be counted. A few are
enough to learn control (Tang and Agrawal 2020, Seyde et al. 2021)."""
MOST_NAMED = 64
"""Actions that get a word each."""

Path: TypeAlias = str
"""Where a space lies in nested ones, as in `obs['position'][0]`."""


def leaves(space: spaces.Space, path: Path) -> Iterator[tuple[Path, spaces.Space]]:
    """Spaces that hold no others, in the order in which they are flattened."""
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            yield from leaves(part, f"{path}[{key!r}]")
    elif isinstance(space, spaces.Tuple):
        for index, part in enumerate(space.spaces):
            yield from leaves(part, f"{path}[{index}]")
    else:
        yield path, space


# Pictures.


def layout(space: spaces.Space) -> Callable[[np.ndarray], np.ndarray] | None:
    """How a picture becomes [height, width, channels]; None for what is no picture."""
    if not isinstance(space, spaces.Box) or _bytes(space) is None:
        return None
    shape = space.shape
    if len(shape) == 2 and min(shape) >= SMALLEST_SIDE:
        return lambda picture: picture[..., None]
    if len(shape) == 3 and shape[-1] <= COLOURS and min(shape[:2]) >= SMALLEST_SIDE:
        return lambda picture: picture
    if len(shape) == 3 and shape[0] <= COLOURS and min(shape[1:]) >= SMALLEST_SIDE:
        return lambda picture: np.moveaxis(picture, 0, -1)
    return None


def _bytes(space: spaces.Box) -> Callable[[np.ndarray], np.ndarray] | None:
    """How pixels become bytes; None for numbers that are no pixels."""
    if space.dtype == np.uint8:
        return lambda picture: picture
    low, high = float(space.low.min()), float(space.high.max())
    if low != 0 or space.dtype is None:
        return None
    if np.issubdtype(space.dtype, np.floating) and high == 1:
        return lambda picture: (255 * picture.clip(0, 1)).round().astype(np.uint8)
    if high == 255:
        return lambda picture: picture.clip(0, 255).round().astype(np.uint8)
    return None


class Picture(gymnasium.ObservationWrapper):
    """Pictures as bytes [height, width, channels]."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        space = env.observation_space
        assert isinstance(space, spaces.Box)
        turn, scale = layout(space), _bytes(space)
        assert turn is not None
        assert scale is not None
        self._turn, self._scale = turn, scale
        shape = turn(space.low).shape
        self.observation_space = spaces.Box(0, 255, shape, np.uint8)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """The picture, contiguous."""
        return np.ascontiguousarray(self._turn(self._scale(observation)))


# Vectors.


class Flattened(gymnasium.ObservationWrapper):
    """Everything that is shown, side by side in one vector of float32."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        size = spaces.flatdim(env.observation_space)
        self.observation_space = spaces.Box(-np.inf, np.inf, (size,), np.float32)

    def observation(self, observation: Any) -> np.ndarray:
        """Vector of float32 [size]."""
        return np.asarray(spaces.flatten(self.env.observation_space, observation), np.float32)


# Actions.


def choices(space: spaces.Space, values: int) -> list[np.ndarray]:
    """What the numbers of each part of an action mean; a bounded number gets so many values."""
    if isinstance(space, spaces.Discrete):
        return [int(space.start) + np.arange(space.n)]
    if isinstance(space, spaces.MultiBinary):
        return [np.arange(2)] * math.prod(space.shape)
    if isinstance(space, spaces.MultiDiscrete):
        starts, sizes = space.start.flatten(), space.nvec.flatten()
        return [start + np.arange(n) for start, n in zip(starts, sizes, strict=True)]
    assert isinstance(space, spaces.Box)
    bounds = zip(space.low.flatten(), space.high.flatten(), strict=True)
    return [_between(float(low), float(high), values, space) for low, high in bounds]


def _between(low: float, high: float, values: int, space: spaces.Box) -> np.ndarray:
    """Values from bound to bound."""
    if np.issubdtype(space.dtype, np.integer):
        return np.unique(np.linspace(low, high, min(values, int(high - low) + 1)).round())
    return np.linspace(low, high, values if high > low else 1)


def parts_of(space: spaces.Space) -> list[np.ndarray] | None:
    """The parts of an action, as finely as they can be counted; None if they cannot."""
    for values in VALUES:
        parts = [part for _, leaf in leaves(space, "") for part in choices(leaf, values)]
        if math.prod(map(len, parts)) <= MOST_COMBINED:
            return parts
    return None


class Numbered(gymnasium.ActionWrapper):
    """Any action as one number."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        parts = parts_of(env.action_space)
        assert parts is not None
        self._parts = parts
        sizes = tuple(map(len, parts))
        self.parts: tuple[int, ...] = sizes if len(sizes) > 1 else ()
        self.number = math.prod(sizes)
        self.action_space = spaces.Discrete(self.number)

    @property
    def words(self) -> list[str]:
        """A word for each action, if they are few."""
        if self.number > MOST_NAMED:
            return []
        every = itertools.product(*self._parts)
        return [" ".join(f"{float(value):.3g}" for value in values) for values in every]

    def action(self, action: Any) -> Any:
        """The environment's own action."""
        digits, rest = [], int(action)
        for part in reversed(self._parts):
            rest, digit = divmod(rest, len(part))
            digits.append(part[digit])
        return self._nested(self.env.action_space, iter(reversed(digits)))

    def _nested(self, space: spaces.Space, numbers: Iterator[Any]) -> Any:
        if isinstance(space, spaces.Dict):
            return {key: self._nested(part, numbers) for key, part in space.spaces.items()}
        if isinstance(space, spaces.Tuple):
            return tuple(self._nested(part, numbers) for part in space.spaces)
        if isinstance(space, spaces.Discrete):
            return space.dtype.type(next(numbers))
        assert space.shape is not None
        taken = list(itertools.islice(numbers, math.prod(space.shape)))
        return np.array(taken, space.dtype).reshape(space.shape)


def adapted(env: gymnasium.Env) -> gymnasium.Env:
    """The environment with pictures or a vector, and with numbered actions."""
    pictures = layout(env.observation_space) is not None
    env = Picture(env) if pictures else Flattened(env)
    action = env.action_space
    if isinstance(action, spaces.Discrete) and action.start == 0:
        return env
    return Numbered(env)
