"""Small environments wrong in random ways, for Hypothesis, and what may follow of each.

A game shows in its picture how many steps it has played, so that every row that is stored can be
compared with what should have been.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from hypothesis import strategies as st

from stormrl.acting.collector import Collector
from stormrl.acting.evaluate import RandomPlayer
from stormrl.envs import PROTOCOLS, action_meanings, make_env, spaces_of
from stormrl.envs.check import check_env
from stormrl.envs.faults import EnvironmentFault
from stormrl.errors import UserError
from stormrl.experience.replay import Replay

ENV_ID = "test/Wrong-v0"
PROTOCOL = PROTOCOLS["atari100k"]
STEPS, LENGTH = 12, 5

PICTURES: dict[str, Callable[[np.ndarray], Any]] = {
    "float32": lambda a: a.astype(np.float32) / 255,
    "float64": lambda a: a.astype(float),
    "int64": lambda a: a.astype(np.int64),
    "bool": lambda a: a > 0,
    "list": lambda a: a.tolist(),
    "none": lambda a: None,
    "grey": lambda a: a[..., 0],
    "channels first": lambda a: a.transpose(2, 0, 1),
    "stacked": lambda a: a[None],
    "smaller": lambda a: a[:-1],
    "empty": lambda a: a[:0],
    "text": lambda a: "picture",
    "dict": lambda a: {"image": a},
    "objects": lambda a: a.astype(object),
}
VIEWS: dict[str, Callable[[np.ndarray], Any]] = {
    "as it is": lambda a: a,
    "upside down": lambda a: a[::-1],
    "columns in memory": lambda a: np.asfortranarray(a),
    "part of a larger one": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "locked": lambda a: np.frombuffer(a.tobytes(), np.uint8).reshape(a.shape),
    "matrix-like": lambda a: a.view(type("Sub", (np.ndarray,), {})),
}
REWARDS = [
    *(
        None,
        "1",
        "",
        b"1",
        np.nan,
        np.inf,
        -np.inf,
        1e39,
        -1e300,
        10**400,
        1j,
        [1.0],
        [[1], [2, 3]],
    ),
    *(np.ones(1), np.ones((2, 2)), {}, object(), np.float64(1e39), torch.tensor([1.0, 2.0])),
]
FINE_REWARDS = [0, 1, True, -2.5, 1e9, np.float16(1), np.int8(-1), np.array(2.0), torch.tensor(0.5)]
FLAGS = [None, "yes", [], np.zeros(2, bool), 2, -1, 0.5, np.nan, object(), {}]
FINE_FLAGS = [False, 0, np.False_, np.zeros((), bool), torch.tensor(False), 0.0]
INFOS = [None, [], (), 3, "info", {"lives": None}, {"lives": [3]}, {"lives": "3"}, {"lives": 1.5}]
FINE_INFOS = [{}, {"lives": 3}, {"lives": np.int64(2)}, {"life_lost": 7, "episode_seed": "x"}]
RETURNS: list[Callable[[tuple], Any]] = [
    lambda r: r[:-1],
    lambda r: (*r, {}),
    lambda r: None,
    lambda r: r[0],
    lambda r: 5,
    lambda r: iter(r),
    lambda r: {"obs": r[0]},
]


class Silent(Exception):
    """Its words cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class Panic(BaseException):
    """As extension modules raise them: no Exception."""


RAISED = [
    *(ValueError("two\nlines"), KeyError("x"), SystemExit(3), SystemExit("bye"), Silent(), Panic()),
    *(MemoryError(), RecursionError("deep"), StopIteration(), AssertionError(), OSError(5, "gone")),
    *(gymnasium.error.Error("gym"), UserError("env", "mine"), UnicodeError("\x1b[31mred")),
]
SPACES = [
    *(None, 3, spaces.Box(0, 1, (64, 64, 3), np.float32), spaces.Box(0, 255, (64, 64), np.uint8)),
    *(spaces.Dict({"a": spaces.Discrete(2)}), spaces.Box(0, 255, (3, 64, 64), np.uint8)),
]
ACTIONS = [None, 3, spaces.Discrete(2, start=1), spaces.MultiBinary(2), spaces.Box(-1, 1, (2,))]
WORDS = [None, [], ["a"], ["a", "a"], ["a", 1], 5, "ab", ["a", "\x1b[2J"], ("up", "down")]
MOMENTS = ["construction", "reset", "step", "render", "close", "words", "spaces"]


@dataclass(frozen=True)
class Wrong:
    """What is done wrong, from which step on (0 is the reset)."""

    what: str
    value: Any
    at: int


def _choices(what: str, values: Any) -> st.SearchStrategy[Wrong]:
    return st.builds(Wrong, st.just(what), st.sampled_from(list(values)), st.integers(0, STEPS))


WRONGS = st.one_of(
    _choices("picture", PICTURES.values()),
    _choices("reward", REWARDS),
    _choices("terminated", FLAGS),
    _choices("truncated", FLAGS),
    _choices("info", INFOS),
    _choices("returned", RETURNS),
    *(_choices(moment, RAISED) for moment in MOMENTS),
    _choices("observation space", SPACES),
    _choices("action space", ACTIONS),
)
GAMES = st.fixed_dictionaries(
    {
        "wrongs": st.lists(WRONGS, max_size=2),
        "view": st.sampled_from(list(VIEWS.values())),
        "size": st.sampled_from([8, 64, 80]),
        "reward": st.sampled_from(FINE_REWARDS),
        "flag": st.sampled_from(FINE_FLAGS),
        "info": st.sampled_from(FINE_INFOS),
        "words": st.sampled_from(WORDS),
        "inplace": st.booleans(),
        "limit": st.booleans(),
    }
)


def wrong_game(drawn: dict[str, Any]) -> type[gymnasium.Env]:  # noqa: C901 - many small methods
    """The class of a game that is wrong as drawn."""
    size = drawn["size"]

    class WrongGame(gymnasium.Env):
        metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

        def __init__(self, render_mode: str | None = None) -> None:
            self.played = self.time = 0
            self.canvas = np.zeros((size, size, 3), np.uint8)
            self._raise("construction")
            box = spaces.Box(0, 255, (size, size, 3), np.uint8)
            self.observation_space = self._other("observation space", box)
            self.action_space = self._other("action space", spaces.Discrete(2))

        def reset(self, *, seed: Any = None, options: Any = None) -> Any:
            super().reset(seed=seed)
            self.time = 0
            self._raise("reset")
            info = self._other("info", drawn["info"])
            return self._returned((self._picture(), info))

        def step(self, action: Any) -> Any:
            self.played, self.time = self.played + 1, self.time + 1
            self._raise("step")
            over = self.time >= LENGTH or drawn["flag"]
            given = {"reward": drawn["reward"], "terminated": over, "truncated": drawn["flag"]}
            values = [self._other(name, value) for name, value in given.items()]
            return self._returned((self._picture(), *values, self._other("info", drawn["info"])))

        def render(self) -> Any:
            self._raise("render")
            return self.canvas

        def close(self) -> None:
            self._raise("close")

        def get_action_meanings(self) -> Any:
            self._raise("words")
            return drawn["words"]

        def _picture(self) -> Any:
            canvas = self.canvas if drawn["inplace"] else self.canvas.copy()
            canvas[:] = 20 * self.time + 3
            return self._made("picture", drawn["view"](canvas))

        def _returned(self, values: tuple) -> Any:
            return self._made("returned", values)

        def _active(self, what: str) -> list[Any]:
            return [w.value for w in drawn["wrongs"] if w.what == what and self.played >= w.at]

        def _made(self, what: str, value: Any) -> Any:
            for change in self._active(what):
                return change(value)
            return value

        def _other(self, what: str, value: Any) -> Any:
            return next(iter(self._active(what)), value)

        def _raise(self, what: str) -> None:
            for error in self._active(what):
                raise error

    return WrongGame


class NoActor:
    """Stands where an agent would act: everything is played at random."""

    class world:
        keeps_final = False

    def begin(self, rows: int) -> tuple:
        return ()


def game_is_played_or_refused(drawn: dict[str, Any]) -> bool:
    """Whether it was played to the end; a refusal is told as the environment's, in one line.

    Whatever is in replay by then, of a game that was refused too, is what was shown.
    """
    gymnasium.registry.pop(ENV_ID, None)
    limit: dict[str, Any] = {"max_episode_steps": LENGTH} if drawn["limit"] else {}
    made: Any = wrong_game(drawn)
    gymnasium.register(ENV_ID, made, **limit)
    seen: list[Replay] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _play(seen)
        except UserError as refusal:
            _check_refusal(refusal)
            played = False
        else:
            played = True
    for replay in seen:
        _check_rows(replay, drawn)
    return played


def check_agrees(drawn: dict[str, Any]) -> None:
    """`check_env` approves of no game that is refused, and ends in no traceback."""
    played = game_is_played_or_refused(drawn)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            approved = check_env(ENV_ID).ok
        except UserError:
            approved = False
    assert played or not approved


def _check_refusal(refusal: UserError) -> None:
    """It is told as the environment's: a fault of its code, or what it is made for."""
    assert refusal.field == "env"
    assert "\n" not in refusal.message
    words = ("Gymnasium", "cannot be built", "without bounds", "no fixed size", "has a memory")
    fault = isinstance(refusal, EnvironmentFault)
    assert fault or any(word in refusal.message for word in words), refusal


def _play(seen: list[Replay]) -> None:
    env = make_env(ENV_ID, PROTOCOL)
    try:
        spaces = spaces_of(env)
        assert len(action_meanings(env)) in (0, spaces.action.n)
        assert RandomPlayer(2).begin(1) == ()
        replay = Replay.of(64, spaces.observation)
        seen.append(replay)
        actor: Any = NoActor()
        collector = Collector(env, PROTOCOL, actor, replay, 0)
        for _ in range(STEPS):
            collector.step(random=True)
    finally:
        env.close()


def _check_rows(replay: Replay, drawn: dict[str, Any]) -> None:
    """Every row shows its time in the episode, whole, and holds the reward that was given."""
    rows = len(replay)
    obs = replay.obs[:rows].flatten(1)
    times = []
    for first in replay.is_first[:rows].tolist():
        times.append(0 if first else times[-1] + 1)
    expected = torch.tensor([20 * time + 3 for time in times], dtype=torch.uint8)
    assert torch.equal(obs, expected[:, None].expand_as(obs))
    assert torch.equal(replay.reward[:rows], torch.full((rows,), float(drawn["reward"])))
