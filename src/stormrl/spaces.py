"""Observation and action spaces as data: all that networks, replay and pages need of a game.

Made once from an environment (`stormrl.envs.spaces_of`) and kept in a run's config.json, so that
nobody starts an emulator to count actions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from stormrl.errors import UserError

LARGEST_SIDE = 4096
MOST_ACTIONS = 65_536


@dataclass(frozen=True)
class ImageSpace:
    """Pictures of whole numbers from 0 to 255."""

    height: int
    width: int
    channels: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """[height, width, channels], as environments show it."""
        return self.height, self.width, self.channels


@dataclass(frozen=True)
class DiscreteSpace:
    """One of `n` actions, counted from 0."""

    n: int
    names: tuple[str, ...] = ()
    """A word for each action, if they are known."""


@dataclass(frozen=True)
class Spaces:
    """What a game shows and what it takes."""

    observation: ImageSpace
    action: DiscreteSpace

    def to_json(self) -> dict[str, Any]:
        """Ready for JSON; `spaces_from_json` reads it."""
        return {
            "observation": {"kind": "image", **asdict(self.observation)},
            "action": {"kind": "discrete", **asdict(self.action), "names": [*self.action.names]},
        }

    def check_same(self, game: Spaces, env_id: str) -> None:
        """Raises `UserError` if the game is no longer the one that these spaces were made of."""
        if game.observation != self.observation:
            ours, theirs = list(self.observation.shape), list(game.observation.shape)
            raise _changed(env_id, f"shows pictures of {theirs}, the run was made with {ours}")
        if game.action.n != self.action.n:
            raise _changed(
                env_id, f"has {game.action.n} actions, the run was made with {self.action.n}"
            )
        now, then = ([word.lower() for word in side.action.names] for side in (game, self))
        if now != then and sorted(now) == sorted(then):
            orders = f"{', '.join(now)}, the run was made with {', '.join(then)}"
            raise _changed(env_id, f"has its actions in the order {orders}")


def spaces_from_json(record: object) -> Spaces:
    """Spaces as `Spaces.to_json` wrote them.

    Raises `UserError` with the field that is missing, unknown or out of bounds.
    """
    parts = _fields("spaces", record, {"observation", "action"})
    observation, action = parts["observation"], parts["action"]
    picture = _kind("spaces.observation", observation, "image", {"height", "width", "channels"})
    choice = _kind("spaces.action", action, "discrete", {"n", "names"})
    sides = {
        name: _whole(f"spaces.observation.{name}", value, LARGEST_SIDE)
        for name, value in picture.items()
    }
    return Spaces(
        ImageSpace(**sides),
        DiscreteSpace(_whole("spaces.action.n", choice["n"], MOST_ACTIONS), _names(choice)),
    )


def _names(choice: Mapping[str, Any]) -> tuple[str, ...]:
    names = choice["names"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError("spaces.action.names", f"is {names!r}; give a list of words")
    if names and len(names) != choice["n"]:
        raise UserError("spaces.action.names", f"has {len(names)} words for {choice['n']} actions")
    return tuple(names)


def _kind(field: str, record: object, kind: str, names: set[str]) -> dict[str, Any]:
    known = _fields(field, record, {"kind", *names})
    if known["kind"] != kind:
        raise UserError(f"{field}.kind", f"{known['kind']!r} is unknown; this version has {kind!r}")
    return {name: value for name, value in known.items() if name != "kind"}


def _fields(field: str, record: object, names: set[str]) -> Mapping[str, Any]:
    if not isinstance(record, Mapping):
        raise UserError(field, f"is {record!r}; give {', '.join(sorted(names))}")
    for name in sorted(names - record.keys()):
        raise UserError(f"{field}.{name}", "is missing; give the directory of a stormrl run")
    for name in sorted(record.keys() - names):
        raise UserError(f"{field}.{name}", f"is unknown; known are {', '.join(sorted(names))}")
    return record


def _whole(field: str, value: object, most: int) -> int:
    if type(value) is not int or not 0 < value <= most:
        raise UserError(field, f"is {value!r}; give a whole number from 1 to {most}")
    return value


def _changed(env_id: str, how: str) -> UserError:
    remedy = "play the version of the game that the run was made with, or start a new run"
    return UserError("env", f"{env_id} {how}; {remedy}")
