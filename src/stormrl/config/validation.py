"""One walk through a configuration, which knows where it is and calls every mistake by its path."""

from __future__ import annotations

import math
import reprlib
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, Literal, NamedTuple

from stormrl.config.fields import FieldType, dotted, field_types, is_outside, kind_of
from stormrl.errors import UserError

LARGEST = 2**63 - 1
"""Larger integers fit no tensor and no seed."""

_checking: ContextVar[bool] = ContextVar("checking", default=True)


class Config:
    """Base of every frozen dataclass of a configuration: it is validated when it is made.

    What is made in Python names its mistakes as seen from itself: it cannot know where it will
    stand. Who makes all parts of a whole does so `unchecked`, and validates the whole.
    """

    def __post_init__(self) -> None:
        if _checking.get():
            validate(self)

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong between fields: the path of one of them from here, and the remedy.

        Asked once every field by itself has a value that its type allows.
        """
        yield from ()


@contextmanager
def unchecked() -> Iterator[None]:
    """Configs that are made inside are not validated: their whole will be, with whole paths."""
    token = _checking.set(False)
    try:
        yield
    finally:
        _checking.reset(token)


def validate(config: object, path: str = "") -> None:
    """Raises `UserError` with the path of the first field whose value cannot be.

    Walks through a dataclass, and through those in it, from `path` on: a value must be of the
    field's type, keep the constraints in it, and get along with the other fields (`problems`).
    """
    for name, declared in field_types(type(config)).items():
        _check(getattr(config, name), declared, dotted(path, name))
    if isinstance(config, Config):
        for field, remedy in config.problems():
            raise UserError(dotted(path, field), remedy)


def wrong(value: object, path: str, remedy: str) -> UserError:
    """What to say of a value, with a short look at it."""
    return UserError(path, f"is {shown(value)}; {remedy}")


def shown(value: object) -> str:
    """A short look at any value, in characters that every terminal has."""
    return reprlib.repr(value).encode("ascii", "backslashreplace").decode()


def _check(value: object, declared: FieldType, path: str) -> None:
    if value is None and declared.optional:
        return
    if declared.parts:
        _check_part(value, declared.parts, path)
    elif len(declared.kinds) == 1:
        _check_plain(value, declared, path)


def _check_part(value: object, parts: tuple[type, ...], path: str) -> None:
    # No subclass: its kind would be that of another class, and JSON would bring back that one.
    if type(value) not in parts and not (kind_of(parts[0]) and _is_own_part(value)):
        named = " or ".join(part.__name__ for part in parts)
        raise wrong(value, path, f"give a value of the type {named}")
    validate(value, path)


def _is_own_part(value: object) -> bool:
    """Whether it is of a kind that somebody else made, good for a field whose parts have kinds."""
    return isinstance(value, Config) and is_outside(kind_of(value))


def _check_plain(value: object, declared: FieldType, path: str) -> None:
    (kind,) = declared.kinds
    plain = PLAIN.get(kind) or _other(kind)
    if not plain.is_one(value):
        raise wrong(value, path, plain.remedy)
    for constraint in declared.constraints:
        remedy = constraint.check(value)
        if remedy is not None:
            raise wrong(value, path, remedy)
    if not plain.fits(value):
        raise wrong(value, path, plain.remedy)


class Plain(NamedTuple):
    """A type of values that are no configs."""

    is_one: Callable[[object], bool]
    """Whether a value is of the type at all; constraints are asked only then."""
    fits: Callable[[Any], bool]
    """Whether it is one that can be kept and computed with; asked last."""
    remedy: str


def _any(value: object) -> bool:
    return True


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return _is_whole(value) or isinstance(value, float)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # A whole number above every float.
        return False


# Half of a surrogate pair is no text either: nothing can print it.
PLAIN: dict[Any, Plain] = {
    bool: Plain(lambda value: isinstance(value, bool), _any, "give true or false"),
    int: Plain(_is_whole, lambda value: abs(value) <= LARGEST, "give a whole number below 2**63"),
    float: Plain(_is_number, _is_finite, "give a finite number"),
    str: Plain(
        lambda value: isinstance(value, str), str.isprintable, "give a text of printable characters"
    ),
}


@cache
def _other(kind: Any) -> Plain:
    """One of the words of a `Literal`, or an instance of any class."""
    if typing.get_origin(kind) is Literal:
        words = typing.get_args(kind)
        pairs = [(type(word), word) for word in words]
        remedy = f"give one of {', '.join(map(str, words))}"
        # A word equals no value of another type, and true is not 1.
        return Plain(lambda value: (type(value), value) in pairs, _any, remedy)
    cls = typing.get_origin(kind) or kind
    if not isinstance(cls, type):
        return Plain(_any, _any, "")
    return Plain(
        lambda value: isinstance(value, cls), _any, f"give a value of the type {cls.__name__}"
    )
