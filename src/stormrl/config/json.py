"""Configurations from JSON, strictly: whatever is in the file, a config or a named mistake."""

from __future__ import annotations

import dataclasses
import math
import reprlib
import typing
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Literal

from stormrl.config.parts import RunConfig
from stormrl.errors import UserError

CONFIG = "config.json"
"""File of a run that holds its config and where it comes from."""
LARGEST = 2**63 - 1
"""Larger integers fit no tensor and no seed."""


def config_from_dict(record: object) -> RunConfig:
    """The run's config in a decoded JSON value; fields that are missing take their defaults.

    Raises `UserError` with the dotted name of the first field that is unknown, has no default, or
    holds a value of another type or out of range.
    """
    return _config(RunConfig, record, "")


def _config(kind: Any, record: object, path: str) -> Any:
    if not isinstance(record, Mapping):
        raise _wrong(record, path or "config", "an object of fields")
    types = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name in record:
        if name not in fields:
            raise UserError(_dotted(path, name), f"is unknown; known are {', '.join(fields)}")
    for name, field in fields.items():
        if name not in record and _required(field):
            raise UserError(_dotted(path, name), "is missing and has no default; add it")
    values = {name: _value(types[name], record[name], _dotted(path, name)) for name in record}
    try:
        return kind(**values)
    except UserError as error:
        raise UserError(_located(error.field, path, fields), error.message) from None


def _value(kind: Any, value: object, path: str) -> object:
    if dataclasses.is_dataclass(kind):
        return _config(kind, value, path)
    if typing.get_origin(kind) is Literal:
        return _choice(typing.get_args(kind), value, path)
    return READERS[kind](value, path)


def _choice(choices: tuple[object, ...], value: object, path: str) -> object:
    if isinstance(value, str) and value in choices:
        return value
    raise _wrong(value, path, f"one of {', '.join(map(str, choices))}")


# `type(..) is`, where isinstance would take true for a number.
def _boolean(value: object, path: str) -> bool:
    if type(value) is bool:
        return value
    raise _wrong(value, path, "true or false")


def _integer(value: object, path: str) -> int:
    if type(value) is int and abs(value) <= LARGEST:
        return value
    raise _wrong(value, path, "a whole number below 2**63")


def _number(value: object, path: str) -> float:
    if type(value) is int or type(value) is float:
        with suppress(OverflowError):
            if math.isfinite(value):
                return float(value)
    raise _wrong(value, path, "a finite number")


def _text(value: object, path: str) -> str:
    # Half of a surrogate pair is no text either: nothing can print it.
    if isinstance(value, str) and value.isprintable():
        return value
    raise _wrong(value, path, "a text of printable characters")


READERS: dict[type, Callable[[object, str], object]] = {
    bool: _boolean,
    int: _integer,
    float: _number,
    str: _text,
}


def _required(field: dataclasses.Field) -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def _located(field: str, path: str, fields: Mapping[str, object]) -> str:
    """A config names its field as seen from itself or from the agent; this is the whole way."""
    last = field.rpartition(".")[2]
    inner = last if last in fields else field
    return f"{path}.{inner}" if path else inner


def _dotted(path: str, name: object) -> str:
    plain = isinstance(name, str) and name.isascii() and name.isidentifier()
    shown = name if plain else _shown(name)
    return f"{path}.{shown}" if path else str(shown)


def _wrong(value: object, path: str, remedy: str) -> UserError:
    return UserError(path, f"is {_shown(value)}; give {remedy}")


def _shown(value: object) -> str:
    """A short look at any value, in characters that every terminal has."""
    return reprlib.repr(value).encode("ascii", "backslashreplace").decode()
