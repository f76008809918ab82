"""Configurations from JSON, strictly: whatever is in the file, a config or a named mistake."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from stormrl.config.fields import KIND, FieldType, dotted, field_types, is_outside, kind_of
from stormrl.config.parts import RunConfig
from stormrl.config.validation import Config, shown, unchecked, validate, wrong
from stormrl.errors import UserError

CONFIG = "config.json"
"""File of a run that holds its config and where it comes from."""

Importer = Callable[[str, str], type]
"""The class that a kind like `my_package:MyConfig` names, the second word being the field that asks
for it; raises `UserError` if there is none."""


def import_nothing(kind: str, field: str) -> type:
    """The importer of those who read what a stranger may have written: refuses every kind."""
    remedy = "nothing is imported to read a run; give config_from_dict an importer that knows it"
    raise UserError(field, f"is {kind[:100]!a}, a part from outside of stormrl: {remedy}")


def config_from_dict(record: object, importer: Importer = import_nothing) -> RunConfig:
    """The run's config in a decoded JSON value; fields that are missing take their defaults.

    Raises `UserError` with the dotted name of the first field that is unknown, has no default, or
    holds a value of another type or out of range, or a kind of part that `importer` refuses.
    """
    return read_config(RunConfig, record, importer)


def read_config(config: type, record: object, importer: Importer = import_nothing) -> Any:
    """The same for any dataclass of a configuration."""
    with unchecked():
        whole = _Reader(importer).config(config, record, "")
    validate(whole)
    return whole


def part_class(kind: object, union: Any, field: str, importer: Importer = import_nothing) -> type:
    """The class of a kind, among those that a field of the type `union` may hold.

    A kind of somebody else, `my_package:MyConfig`, is what `importer` makes of it. Raises
    `UserError` for any other that is none of the union.
    """
    return _named(kind, FieldType.of(union).parts, field, importer)


def _named(kind: object, parts: tuple[type, ...], field: str, importer: Importer) -> type:
    known = {kind_of(part): part for part in parts}
    if isinstance(kind, str) and kind in known:
        return known[kind]
    if isinstance(kind, str) and is_outside(kind):
        return _own(importer(kind, field), kind, field)
    raise wrong(kind, field, f"give one of {', '.join(map(str, known))}")


def _own(part: type, kind: str, field: str) -> type:
    """Refused unless it is validated like every other part, and written as it was read."""
    if dataclasses.is_dataclass(part) and issubclass(part, Config) and kind_of(part) == kind:
        return part
    remedy = f"derive a dataclass from {Config.__module__}.Config, with this kind as its `kind`"
    raise wrong(kind, field, f"{remedy}, in place of {part.__name__}")


class _Reader(NamedTuple):
    """Makes configs of records; what the values are worth is left to the validation."""

    importer: Importer

    def config(self, config: type, record: object, path: str) -> Any:
        fields = {field.name: field for field in dataclasses.fields(config)}
        given = _known(record, fields, path)
        for name, field in fields.items():
            if name not in given and _required(field):
                raise UserError(_place(path, name), "is missing and has no default; add it")
        types = field_types(config)
        return config(
            **{name: self.value(types[name], given[name], _place(path, name)) for name in given}
        )

    def value(self, declared: FieldType, value: object, path: str) -> object:
        if value is None and declared.optional:
            return value
        if declared.parts:
            return self.part(declared, value, path)
        if declared.kinds == (float,) and type(value) is int:
            with suppress(OverflowError):
                return float(value)
        return value

    def part(self, declared: FieldType, record: object, path: str) -> object:
        """Of the kind that the record tells; an old one tells none, and means the first."""
        first = declared.parts[0]
        if kind_of(first) is None or not isinstance(record, Mapping):
            return self.config(first, record, path)
        kind = record.get(KIND, kind_of(first))
        fields = {name: value for name, value in record.items() if name != KIND}
        part = _named(kind, declared.parts, _place(path, KIND), self.importer)
        return self.config(part, fields, path)


def _known(record: object, fields: Mapping[str, object], path: str) -> Mapping[str, object]:
    """The record, if it holds nothing but fields."""
    if not isinstance(record, Mapping):
        raise wrong(record, path or "config", "give an object of fields")
    for name in record:
        if name not in fields:
            raise UserError(_place(path, name), f"is unknown; known are {', '.join(fields)}")
    return record


def _required(field: dataclasses.Field) -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def _place(path: str, name: object) -> str:
    plain = isinstance(name, str) and name.isascii() and name.isidentifier()
    return dotted(path, str(name) if plain else shown(name))
