"""Observation and action spaces as data: all that networks, replay and pages need of a game.

Made once from an environment (`stormrl.envs.spaces_of`) and kept in a run's config.json, so that
nobody starts an emulator to count actions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, TypeAlias

from stormrl.errors import UserError

LARGEST_SIDE = 4096
MOST_NUMBERS = 16_384
MOST_ACTIONS = 65_536
"""Choices of all parts together."""
MOST_COMBINED = 2**62
"""An action is one whole number, whatever it is made of."""


@dataclass(frozen=True)
class ImageSpace:
    """Pictures of whole numbers from 0 to 255."""

    dtype: ClassVar[str] = "uint8"

    height: int
    width: int
    channels: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """[height, width, channels], as environments show it."""
        return self.height, self.width, self.channels

    @property
    def tensor_shape(self) -> tuple[int, int, int]:
        """[channels, height, width], as networks take it."""
        return self.channels, self.height, self.width

    def __str__(self) -> str:
        return f"pictures of {list(self.shape)}"


@dataclass(frozen=True)
class VectorSpace:
    """Numbers side by side: whatever an environment shows without a picture, flattened."""

    dtype: ClassVar[str] = "float32"

    size: int

    @property
    def shape(self) -> tuple[int]:
        """[size], of environments and networks alike."""
        return (self.size,)

    @property
    def tensor_shape(self) -> tuple[int]:
        """[size] as well."""
        return (self.size,)

    def __str__(self) -> str:
        return f"{self.size} numbers"


ObservationSpace: TypeAlias = ImageSpace | VectorSpace


@dataclass(frozen=True)
class DiscreteSpace:
    """One of `n` actions, counted from 0."""

    n: int
    names: tuple[str, ...] = ()
    """A word for each action, if they are known."""
    parts: tuple[int, ...] = ()
    """Where an action is several choices at once: how many there are of each. The action is then
    the number whose digits they are, the first part the highest; without parts it is one choice."""

    @property
    def choices(self) -> tuple[int, ...]:
        """How many there are of each part."""
        return self.parts or (self.n,)

    def __str__(self) -> str:
        if not self.parts:
            return f"{self.n} actions"
        return f"actions of {len(self.parts)} parts ({' x '.join(map(str, self.parts))})"


def bytes_of(seen: ObservationSpace) -> int:
    """Memory that one observation takes."""
    return math.prod(seen.shape) * {"uint8": 1, "float32": 4}[seen.dtype]


@dataclass(frozen=True)
class Spaces:
    """What a game shows and what it takes."""

    observation: ObservationSpace
    action: DiscreteSpace

    def to_json(self) -> dict[str, Any]:
        """Ready for JSON; `spaces_from_json` reads it."""
        kind = {ImageSpace: "image", VectorSpace: "vector"}[type(self.observation)]
        action: dict[str, Any] = {"n": self.action.n, "names": [*self.action.names]}
        if self.action.parts:
            action["parts"] = [*self.action.parts]
        return {
            "observation": {"kind": kind, **asdict(self.observation)},
            "action": {"kind": "discrete", **action},
        }

    def check_same(self, game: Spaces, env_id: str) -> None:
        """Raises `UserError` if the game is no longer the one that these spaces were made of."""
        if game.observation != self.observation:
            told = f"shows {game.observation}, the run was made with {self.observation}"
            raise _changed(env_id, told)
        if game.action.choices != self.action.choices:
            raise _changed(env_id, f"has {game.action}, the run was made with {self.action}")
        now, then = ([word.lower() for word in side.action.names] for side in (game, self))
        if now != then and sorted(now) == sorted(then):
            orders = f"{', '.join(now)}, the run was made with {', '.join(then)}"
            raise _changed(env_id, f"has its actions in the order {orders}")


def spaces_from_json(record: object) -> Spaces:
    """Spaces as `Spaces.to_json` wrote them.

    Raises `UserError` with the field that is missing, unknown or out of bounds.
    """
    parts = _fields("spaces", record, {"observation", "action"})
    return Spaces(_observation(parts["observation"]), _action(parts["action"]))


def _observation(record: object) -> ObservationSpace:
    kind, fields = _tagged(
        "spaces.observation", record, {"image": {"height", "width", "channels"}, "vector": {"size"}}
    )
    most = {"image": LARGEST_SIDE, "vector": MOST_NUMBERS}[kind]
    whole = {
        name: _whole(f"spaces.observation.{name}", value, most) for name, value in fields.items()
    }
    return {"image": ImageSpace, "vector": VectorSpace}[kind](**whole)


def _action(record: object) -> DiscreteSpace:
    several = isinstance(record, Mapping) and "parts" in record
    names = {"n", "names", "parts"} if several else {"n", "names"}
    _, choice = _tagged("spaces.action", record, {"discrete": names})
    if not several:
        return DiscreteSpace(_whole("spaces.action.n", choice["n"], MOST_ACTIONS), _names(choice))
    field, parts = "spaces.action.parts", choice["parts"]
    if not isinstance(parts, list) or not 1 < len(parts) <= MOST_COMBINED.bit_length():
        raise UserError(field, f"is {parts!r}; give a list of two numbers or more")
    sizes = tuple(_whole(field, part, MOST_ACTIONS) for part in parts)
    n = _whole("spaces.action.n", choice["n"], MOST_COMBINED)
    if math.prod(sizes) != n:
        raise UserError(field, f"is {parts!r}, which makes no {n} actions")
    return DiscreteSpace(n, _names(choice), sizes)


def _names(choice: Mapping[str, Any]) -> tuple[str, ...]:
    names = choice["names"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError("spaces.action.names", f"is {names!r}; give a list of words")
    if names and len(names) != choice["n"]:
        raise UserError("spaces.action.names", f"has {len(names)} words for {choice['n']} actions")
    return tuple(names)


def _tagged(
    field: str, record: object, kinds: Mapping[str, set[str]]
) -> tuple[str, dict[str, Any]]:
    """The kind of a record, and its other fields."""
    kind = record.get("kind") if isinstance(record, Mapping) else None
    known = list(kinds)
    if isinstance(record, Mapping) and "kind" in record and kind not in known:
        there = " and ".join(map(repr, known))
        raise UserError(f"{field}.kind", f"{kind!r} is unknown; this version has {there}")
    kind = kind if isinstance(kind, str) else known[0]
    fields = _fields(field, record, {"kind", *kinds[kind]})
    return kind, {name: value for name, value in fields.items() if name != "kind"}


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
