"""The benchmark of beliefs begins where the ball has just vanished, and ends where it lands."""

import gymnasium
import numpy as np
import pytest

import believed
from miniature import world_model
from stormrl.config.common import TwoHotConfig
from stormrl.dreams.env import DreamEnv
from stormrl.envs import PROTOCOLS, make_env
from stormrl.envs.toy import BALL_COLOUR, CELL, GRID, PADDLE_COLOUR


@pytest.fixture
def env() -> gymnasium.Env:
    return make_env("stormrl/HiddenCatch-v0", PROTOCOLS["atari100k"])


def cells(frame: np.ndarray, colour: tuple[int, int, int]) -> list[tuple[int, int]]:
    """Row and column of the cells that end in this colour."""
    shown = (frame[CELL - 1 :: CELL, CELL - 1 :: CELL] == colour).all(-1)
    return [(int(row), int(column)) for row, column in np.argwhere(shown)]


@pytest.mark.parametrize("seed", range(8))
def test_the_ball_of_the_context_has_just_vanished(env: gymnasium.Env, seed: int) -> None:
    column, context = believed.hidden_ball(env, seed, steps=7)
    assert context.obs.shape == (8, 64, 64, 3)
    assert context.action.shape == (7,)
    assert [cells(frame, BALL_COLOUR) for frame in context.obs[-3:]] == [
        [(0, column)],
        [(1, column)],
        [],
    ]
    assert cells(context.obs[-1], PADDLE_COLOUR) == [(GRID - 1, GRID // 2)]


@pytest.mark.parametrize("paddle", range(GRID))
def test_the_way_leads_to_the_column_in_the_steps_that_are_left(paddle: int) -> None:
    moves = believed.way(paddle, 5)
    assert len(moves) == 5
    assert GRID // 2 + sum(moves) == paddle
    assert {abs(move) for move in moves} <= {0, 1}


def test_an_untrained_model_expects_nothing(env: gymnasium.Env) -> None:
    _, context = believed.hidden_ball(env, 0, steps=3)
    dream = DreamEnv(world_model(two_hot=TwoHotConfig(start="zero")))
    reward = believed.expected_reward(dream, [context] * 2, believed.way(0, 5))
    assert reward == pytest.approx(0, abs=1e-6)
