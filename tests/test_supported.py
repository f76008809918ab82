"""Any space: what becomes of it, by arithmetic of its own, and what is refused and how."""

from collections import OrderedDict
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from stormrl.envs.adapt import Numbered, adapted
from stormrl.envs.gate import gated
from stormrl.envs.supported import action_problem, observation_problem
from stormrl.spaces import MOST_COMBINED

RGB = spaces.Box(0, 255, (64, 64, 3), np.uint8)
HEIGHT, WIDTH = 20, 30


class Shown(gymnasium.Env):
    """Shows one thing and takes anything."""

    def __init__(self, observation: spaces.Space, action: spaces.Space, shown: Any = None) -> None:
        self.observation_space, self.action_space = observation, action
        self.shown, self.taken = shown, []

    def reset(self, *, seed=None, options=None):
        return self.shown, {}

    def step(self, action):
        self.taken.append(action)
        return self.shown, 0.0, False, False, {}


def picture(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


GRAY, COLOURS, FOUR = (
    picture(HEIGHT, WIDTH),
    picture(HEIGHT, WIDTH, 3),
    picture(HEIGHT, WIDTH, 4),
)
PICTURES = {
    "colours": (spaces.Box(0, 255, COLOURS.shape, np.uint8), COLOURS, COLOURS),
    "gray": (spaces.Box(0, 255, GRAY.shape, np.uint8), GRAY, GRAY[..., None]),
    "one channel": (
        spaces.Box(0, 255, (HEIGHT, WIDTH, 1), np.uint8),
        GRAY[..., None],
        GRAY[..., None],
    ),
    "channel first": (
        spaces.Box(0, 255, (1, HEIGHT, WIDTH), np.uint8),
        GRAY[None],
        GRAY[..., None],
    ),
    "channels first": (
        spaces.Box(0, 255, (3, HEIGHT, WIDTH), np.uint8),
        np.moveaxis(COLOURS, -1, 0),
        COLOURS,
    ),
    "with transparency": (spaces.Box(0, 255, FOUR.shape, np.uint8), FOUR, FOUR),
    "four grays": (
        spaces.Box(0, 255, (4, HEIGHT, WIDTH), np.uint8),
        np.moveaxis(FOUR, -1, 0),
        FOUR,
    ),
    "from 0 to 1": (spaces.Box(0, 1, COLOURS.shape, np.float64), COLOURS / 255, COLOURS),
    "floats to 255": (
        spaces.Box(0, 255, COLOURS.shape, np.float32),
        COLOURS.astype(np.float32),
        COLOURS,
    ),
}


@pytest.mark.parametrize(("space", "shown", "expected"), PICTURES.values(), ids=PICTURES)
def test_pictures_of_any_kind_become_bytes(
    space: spaces.Space, shown: np.ndarray, expected: np.ndarray
) -> None:
    assert observation_problem(space) is None
    env = adapted(gated(Shown(space, spaces.Discrete(2), shown)))
    obs, _ = env.reset()
    assert obs.dtype == np.uint8
    assert np.array_equal(obs, expected)
    assert env.observation_space == spaces.Box(0, 255, expected.shape, np.uint8)


VECTORS = {
    "a vector": (spaces.Box(-1, 1, (3,)), np.array([0.5, -1, 0], np.float32), [0.5, -1, 0]),
    "a table": (spaces.Box(-9, 9, (2, 2), np.int64), np.array([[1, 2], [3, 4]]), [1, 2, 3, 4]),
    "a tiny picture": (spaces.Box(0, 255, (1, 2, 1), np.uint8), picture(1, 2, 1), None),
    "a choice": (spaces.Discrete(3, start=5), np.int64(6), [0, 1, 0]),
    "choices": (spaces.MultiDiscrete([2, 3]), np.array([1, 2]), [0, 1, 0, 0, 1]),
    "switches": (spaces.MultiBinary(3), np.array([1, 0, 1], np.int8), [1, 0, 1]),
    "nested": (
        spaces.Dict(
            b=spaces.Tuple([spaces.Discrete(2), spaces.Box(-1, 1, (1,))]),
            a=spaces.Dict(x=spaces.MultiBinary(2)),
        ),
        OrderedDict(
            b=(np.int64(1), np.array([0.25], np.float32)), a={"x": np.array([0, 1], np.int8)}
        ),
        [0, 1, 0.25, 0, 1],
    ),
}


@pytest.mark.parametrize(("space", "shown", "expected"), VECTORS.values(), ids=VECTORS)
def test_everything_else_becomes_numbers(space: spaces.Space, shown: Any, expected: Any) -> None:
    assert observation_problem(space) is None
    obs, _ = adapted(gated(Shown(space, spaces.Discrete(2), shown))).reset()
    assert obs.dtype == np.float32
    assert obs.tolist() == (shown.flatten().tolist() if expected is None else expected)


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (spaces.Dict(pose=spaces.Box(-1, 1, (2,)), words=spaces.Text(3)), r"obs['words'] is Text"),
        (spaces.Tuple([spaces.Sequence(spaces.Discrete(2))]), "obs[0] is Sequence"),
        (spaces.Dict(camera=RGB, pose=spaces.Discrete(2)), "obs['camera'] is a picture among"),
        (spaces.Box(0, 255, (4, 64, 64, 3), np.uint8), "leave out the wrapper that stacks them"),
        (spaces.Box(0, 255, (64, 64, 12), np.uint8), "leave out the wrapper that stacks them"),
        (spaces.Dict(), "observations are Dict(): 0 numbers"),
    ],
)
def test_what_cannot_be_seen_is_named_by_its_path(space: spaces.Space, words: str) -> None:
    assert words in (observation_problem(space) or "")


ACTIONS = {
    "counted from -1": (spaces.Discrete(3, start=-1), [3], {0: -1, 2: 1}),
    "two choices": (spaces.MultiDiscrete([2, 3]), [2, 3], {0: [0, 0], 4: [1, 1], 5: [1, 2]}),
    "choices from 1": (spaces.MultiDiscrete([2, 2], start=[1, 5]), [2, 2], {0: [1, 5], 2: [2, 5]}),
    "three buttons": (spaces.MultiBinary(3), [2, 2, 2], {0: [0, 0, 0], 5: [1, 0, 1]}),
    "a force": (spaces.Box(-2, 2, (1,)), [11], {0: [-2], 5: [0], 6: [0.4], 10: [2]}),
    "two forces": (spaces.Box(np.array([0, -1]), np.array([1, 1])), [11, 11], {12: [0.1, -0.8]}),
    "whole numbers": (spaces.Box(0, 3, (1,), np.int32), [4], {0: [0], 3: [3]}),
}


@pytest.mark.parametrize(("space", "parts", "meant"), ACTIONS.values(), ids=ACTIONS)
def test_actions_of_any_kind_are_numbers(
    space: spaces.Space, parts: list[int], meant: dict[int, Any]
) -> None:
    assert action_problem(space) is None
    shown = Shown(RGB, space, picture(64, 64, 3))
    env = adapted(gated(shown))
    assert isinstance(env, Numbered)
    assert env.action_space == spaces.Discrete(int(np.prod(parts)))
    assert [*env.parts] == (parts if len(parts) > 1 else [])
    env.reset()
    for action in meant:
        env.step(action)
        assert space.contains(shown.taken[-1])
    for taken, expected in zip(shown.taken, meant.values(), strict=True):
        np.testing.assert_allclose(taken, expected, rtol=1e-6, atol=1e-7)


def test_a_nested_action_is_put_together() -> None:
    space = spaces.Dict(jump=spaces.Discrete(2), go=spaces.Tuple([spaces.Box(-1, 1, (1, 2))]))
    shown = Shown(RGB, space, picture(64, 64, 3))
    env = Numbered(shown)
    assert env.parts == (2, 11, 11)
    env.step((1 * 11 + 10) * 11 + 5)
    assert space.contains(shown.taken[0])
    assert shown.taken[0]["go"][0].tolist() == [[1, 0]]
    assert shown.taken[0]["jump"] == 1


def test_many_forces_get_fewer_values_each() -> None:
    """So many that their combinations can still be counted."""
    for dimensions, values in ((17, 11), (18, 9), (19, 9), (39, 3), (60, 2)):
        parts = Numbered(Shown(RGB, spaces.Box(-1, 1, (dimensions,)))).parts
        assert parts == (values,) * dimensions
        assert values**dimensions <= MOST_COMBINED
    assert "too many parts" in (action_problem(spaces.Box(-1, 1, (63,))) or "")


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (spaces.Dict(a=spaces.Box(-np.inf, np.inf, (2,))), "action['a'] is Box(-inf, inf"),
        (spaces.Text(3), "action is Text"),
        (spaces.Dict(), "there is nothing to choose"),
    ],
)
def test_what_cannot_be_chosen_is_named_by_its_path(space: spaces.Space, words: str) -> None:
    assert words in (action_problem(space) or "")


@pytest.mark.parametrize(
    ("module", "remedy"), [("gym.spaces.box", "shimmy"), ("dm_env.specs", "gymnasium.spaces")]
)
def test_another_librarys_space_is_told_apart(module: str, remedy: str) -> None:
    """It prints like Gymnasium's own."""
    cls = type("Box", (), {"__module__": module, "__repr__": lambda self: repr(RGB)})
    for problem in (observation_problem(cls()), action_problem(cls())):
        assert problem is not None
        assert f"is a {module}.Box, which is none of Gymnasium's spaces" in problem
        assert remedy in problem
