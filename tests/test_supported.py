"""Spaces that cannot be trained on: the wrapper that a refusal names makes them such as can be."""

import re
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import TransformObservation

from stormrl.envs.supported import action_problem, observation_problem

RGB = spaces.Box(0, 255, (64, 64, 3), np.uint8)
HEIGHT, WIDTH = 5, 7


class Shown(gymnasium.Env):
    """Shows one thing and takes anything; its frame is a gray of 7."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 - as Gymnasium has it
    render_mode = "rgb_array"

    def __init__(self, observation: spaces.Space, action: spaces.Space, shown: Any = None) -> None:
        self.observation_space, self.action_space = observation, action
        self.shown, self.taken = shown, []

    def reset(self, *, seed=None, options=None):
        return self.shown, {}

    def step(self, action):
        self.taken.append(action)
        return self.shown, 0.0, False, False, {}

    def render(self):
        return np.full((HEIGHT, WIDTH, 3), 7, np.uint8)


def wrapped(env: gymnasium.Env, problem: str | None, **names: Any) -> gymnasium.Env:
    """The environment in the wrapper that the refusal names, as it is written there."""
    assert problem is not None
    (code,) = re.findall(r"gymnasium\.wrappers\.[A-Z].*\)(?= )", problem)
    return eval(code, {"gymnasium": gymnasium, "numpy": np, "env": env, **names})


def picture(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


GRAY, COLOURS = picture(HEIGHT, WIDTH), picture(HEIGHT, WIDTH, 3)
GRAYS = np.stack([GRAY] * 3, -1)
CAMERA = spaces.Box(0, 255, COLOURS.shape, np.uint8)
PICTURES = {
    "gray": (spaces.Box(0, 255, GRAY.shape, np.uint8), GRAY, GRAYS),
    "gray, one channel": (
        spaces.Box(0, 255, (HEIGHT, WIDTH, 1), np.uint8),
        GRAY[..., None],
        GRAYS,
    ),
    "gray, channel first": (spaces.Box(0, 255, (1, HEIGHT, WIDTH), np.uint8), GRAY[None], GRAYS),
    "channels first": (
        spaces.Box(0, 255, (3, HEIGHT, WIDTH), np.uint8),
        np.moveaxis(COLOURS, -1, 0),
        COLOURS,
    ),
    "with transparency": (
        spaces.Box(0, 255, (HEIGHT, WIDTH, 4), np.uint8),
        np.dstack([COLOURS, GRAY]),
        COLOURS,
    ),
    "from 0 to 1": (
        spaces.Box(0, 1, COLOURS.shape, np.float64),
        COLOURS / 255 + 1e-9,
        COLOURS,
    ),
    "floats from 0 to 255": (
        spaces.Box(0, 255, COLOURS.shape, np.float32),
        COLOURS.astype(np.float32),
        COLOURS,
    ),
    "gray, from 0 to 1": (spaces.Box(0, 1, GRAY.shape, np.float64), GRAY / 255 + 1e-9, GRAYS),
    "among others": (
        spaces.Dict({"position": spaces.Box(-1, 1, (2,)), "camera": CAMERA}),
        {"position": np.zeros(2), "camera": COLOURS},
        COLOURS,
    ),
    "in a tuple": (
        spaces.Tuple([spaces.Discrete(2), CAMERA]),
        (1, COLOURS),
        COLOURS,
    ),
    "a vector": (spaces.Box(-1, 1, (8,)), np.zeros(8), np.full((HEIGHT, WIDTH, 3), 7)),
    "a number": (spaces.Discrete(5), 3, np.full((HEIGHT, WIDTH, 3), 7)),
    "words alone": (spaces.Dict({"a": spaces.Text(3)}), {"a": "b"}, np.full((HEIGHT, WIDTH, 3), 7)),
}


@pytest.mark.parametrize(("space", "shown", "expected"), PICTURES.values(), ids=PICTURES)
def test_the_wrapper_that_is_named_makes_pictures(
    space: spaces.Space, shown: Any, expected: np.ndarray
) -> None:
    env = wrapped(Shown(space, spaces.Discrete(2), shown), observation_problem(space))
    assert observation_problem(env.observation_space) is None
    obs, _ = env.reset()
    assert obs.dtype == np.uint8
    assert np.array_equal(obs, expected)
    assert env.observation_space.contains(obs) or isinstance(env, TransformObservation) is False


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(0, 255, (4, 84, 84), np.uint8),
        spaces.Box(0, 255, (4, 64, 64, 3), np.uint8),
        spaces.Box(0, 255, (64, 64, 12), np.uint8),
    ],
)
def test_stacked_pictures_need_no_stack(space: spaces.Box) -> None:
    assert "leave out the wrapper that stacks them" in (observation_problem(space) or "")


ACTIONS = {
    "counted from 1": (spaces.Discrete(3, start=1), 3, {0: 1, 2: 3}),
    "counted from -1": (spaces.Discrete(3, start=-1), 3, {0: -1, 2: 1}),
    "two choices": (spaces.MultiDiscrete([2, 3]), 6, {0: [0, 0], 4: [1, 1], 5: [1, 2]}),
    "three buttons": (spaces.MultiBinary(3), 8, {0: [0, 0, 0], 5: [1, 0, 1]}),
    "a force": (spaces.Box(-1, 1, (1,)), 2, {0: [-1.0], 1: [1.0]}),
    "hundreds of combinations": (spaces.MultiDiscrete([9, 9, 9]), 2, {0: [-1.0], 1: [1.0]}),
}


@pytest.mark.parametrize(("space", "count", "meant"), ACTIONS.values(), ids=ACTIONS)
def test_the_wrapper_that_is_named_makes_actions(
    space: spaces.Space, count: int, meant: dict[int, Any]
) -> None:
    shown = Shown(RGB, space)
    env = wrapped(shown, action_problem(space), CHOSEN=[[-1.0], [1.0]])
    assert action_problem(env.action_space) is None
    assert isinstance(env.action_space, spaces.Discrete)
    assert env.action_space.n == count
    env.reset()
    for action in meant:
        env.step(action)
    assert [np.array(taken).tolist() for taken in shown.taken] == list(meant.values())


def test_what_can_be_trained_on_has_no_problem() -> None:
    assert observation_problem(RGB) is None
    assert action_problem(spaces.Discrete(4)) is None


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
        assert "supported are" not in problem
