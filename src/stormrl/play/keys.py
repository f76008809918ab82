"""From the words of a game's actions to the buttons that a person presses for them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

IDLE = ("NOOP", "STAY", "IDLE", "NONE", "STILL")
JOYSTICK = re.compile(r"(UP|DOWN)?(LEFT|RIGHT)?(FIRE)?")


class Button(NamedTuple):
    """An action and what has to be held for it."""

    word: str
    """What the game calls it."""
    held: tuple[str, ...]
    """UP, DOWN, LEFT, RIGHT, FIRE together, or one number; nothing for being idle."""


def buttons(words: Sequence[str]) -> list[Button]:
    """What to hold for each action: the joystick where its word says so, else a number from 1."""
    numbers = iter(range(1, len(words) + 1))
    return [Button(word, _held(word) or _fallback(word, numbers)) for word in words]


def idle(words: Sequence[str]) -> int:
    """The action while nothing is held: one that does nothing, else the first."""
    return next((index for index, word in enumerate(words) if word.upper() in IDLE), 0)


def _held(word: str) -> tuple[str, ...]:
    match = JOYSTICK.fullmatch(word.upper())
    return tuple(part for part in match.groups() if part) if match else ()


def _fallback(word: str, numbers: Iterator[int]) -> tuple[str, ...]:
    return () if word.upper() in IDLE else (str(next(numbers)),)
