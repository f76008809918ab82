"""Spaces as data: from a game to config.json and back, and a game that has changed."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from small_runs import small_config
from stormrl.envs import PROTOCOLS, make_env, spaces_of
from stormrl.errors import UserError
from stormrl.runs import whole
from stormrl.runs.agent import Agent
from stormrl.spaces import DiscreteSpace, ImageSpace, Spaces, VectorSpace, spaces_from_json

PONG = Spaces(
    ImageSpace(64, 64, 3),
    DiscreteSpace(6, ("NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE")),
)


def test_what_a_game_shows_and_takes() -> None:
    env = make_env("ALE/Pong-v5", PROTOCOLS["atari100k"])
    assert spaces_of(env) == PONG
    env.close()


@pytest.mark.parametrize(
    "spaces", [PONG, Spaces(VectorSpace(3), DiscreteSpace(11**17, (), (11,) * 17))]
)
def test_spaces_survive_json(spaces: Spaces) -> None:
    assert spaces_from_json(json.loads(json.dumps(spaces.to_json()))) == spaces


@pytest.mark.parametrize(
    ("part", "name", "value", "message"),
    [
        ("observation", "kind", "sound", r"^spaces\.observation\.kind: 'sound' is unknown"),
        ("observation", "height", 0, r"^spaces\.observation\.height: is 0; give a whole number"),
        ("observation", "width", 10**9, r"^spaces\.observation\.width: is 1000000000; give"),
        ("action", "n", True, r"^spaces\.action\.n: is True; give a whole number"),
        ("action", "n", 7, r"^spaces\.action\.names: has 6 words for 7 actions"),
        ("action", "names", "NOOP", r"^spaces\.action\.names: is 'NOOP'; give a list of words"),
        (
            "action",
            "parts",
            [2, 4],
            r"parts: is \[2, 4\], which makes no 6 actions",
        ),
        ("action", "parts", [6], r"^spaces\.action\.parts: is \[6\]; give a list of two numbers"),
        ("action", "low", 1, r"^spaces\.action\.low: is unknown; known are "),
    ],
)
def test_a_damaged_record_is_refused_with_its_field(
    part: str, name: str, value: Any, message: str
) -> None:
    record = PONG.to_json()
    record[part][name] = value
    with pytest.raises(UserError, match=message):
        spaces_from_json(record)


class _Sized(gymnasium.Env):
    """A game that another version of its package gave another number of actions."""

    actions = 3
    observation_space = gymnasium.spaces.Box(0, 255, (64, 64, 3), np.uint8)

    def __init__(self, **options: Any) -> None:
        self.action_space = gymnasium.spaces.Discrete(self.actions)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros((64, 64, 3), np.uint8), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.zeros((64, 64, 3), np.uint8), 0.0, False, False, {}


gymnasium.register("test/Sized-v0", _Sized)


def test_a_game_that_has_changed_is_refused_and_its_agent_still_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(small_config(), env="test/Sized-v0", steps=20, evaluation_episodes=0)
    whole.train(config, tmp_path / "run")
    monkeypatch.setattr(_Sized, "actions", 4)
    with pytest.raises(UserError, match="has 4 actions, the run was made with 3 actions; play"):
        whole.resume(tmp_path / "run", steps=24)
    assert Agent.load(tmp_path / "run").spaces.action.n == 3


def test_an_agent_is_loaded_without_its_game(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole.train(replace(small_config(), steps=20, evaluation_episodes=0), tmp_path / "run")

    def refuse(*args: Any, **options: Any) -> None:
        raise AssertionError("a game was made")

    monkeypatch.setattr(gymnasium, "make", refuse)
    assert Agent.load(tmp_path / "run").spaces.action.names == ("LEFT", "STAY", "RIGHT")
