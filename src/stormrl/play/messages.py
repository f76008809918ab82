"""What a page may ask for: every message is checked before it means anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

LARGEST = 512
"""Bytes of a message; a connection that sends more is closed."""

ORDERS = ("step", "reset", "sync")
"""Things to do once, without a value."""

MEASURED = ("speed", "temperature")
"""Their values are floats, however they are written."""


class Command(NamedTuple):
    """A checked message. Of several with one name that wait, the last one counts."""

    name: str
    value: Any = True


def parse(text: str | None, actions: int) -> Command:
    """The command in a message. Raises ValueError for anything that is none."""
    if not isinstance(text, str) or len(text) > LARGEST:
        raise ValueError("a message is a short text")
    try:
        message = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(message, dict):
        raise ValueError("a message is an object")
    name: Any = message.get("name")
    value: Any = message.get("value")
    if name in ORDERS and message.keys() == {"name"}:
        return Command(name)
    if not isinstance(name, str) or name not in VALUES or message.keys() != {"name", "value"}:
        raise ValueError("no such message")
    if not VALUES[name](value) or (name == "action" and value >= actions):
        raise ValueError(f"{name}: no such value")
    return Command(name, float(value) if name in MEASURED else value)


def _one_of(*words: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value in words


def _number(low: float, high: float) -> Callable[[Any], bool]:
    # No number that is not finite lies between, and whole ones of any length can be compared.
    return lambda value: type(value) in (int, float) and low <= value <= high


def _whole(high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and 0 <= value <= high


def _truth(value: Any) -> bool:
    return type(value) is bool


VALUES: dict[str, Callable[[Any], bool]] = {
    "action": _whole(2**16),
    "paused": _truth,
    "recording": _truth,
    "view": _one_of("both", "dream"),
    "real": _one_of("you", "agent"),
    "dream": _one_of("you", "agent", "real"),
    "speed": _number(1, 60),
    "temperature": _number(0, 3),
    "seen": _whole(2**53),
}
"""By name: whether a value can be had. `action` must also be one of the game's."""
