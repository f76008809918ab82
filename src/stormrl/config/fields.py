"""What the types of a configuration's fields say: kinds of values, constraints, parts to choose."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from types import NoneType, UnionType
from typing import Annotated, Any

from stormrl.config.constraints import Constraint

KIND = "kind"
"""Field of JSON, and attribute of a class, that tells one part from the others of a union."""


@dataclass(frozen=True)
class FieldType:
    """The type of a field, taken apart."""

    kinds: tuple[Any, ...]
    """Types of the values that it may hold, None left out."""
    optional: bool
    """Whether it may hold None."""
    constraints: tuple[Constraint, ...]

    @classmethod
    def of(cls, hint: Any) -> FieldType:
        """What an annotation says; what it tells others than us is passed over."""
        if typing.get_origin(hint) is Annotated:
            kind, *extras = typing.get_args(hint)
            constraints = tuple(extra for extra in extras if isinstance(extra, Constraint))
            inner = cls.of(kind)
            return replace(inner, constraints=(*inner.constraints, *constraints))
        if typing.get_origin(hint) not in (typing.Union, UnionType):
            return cls((hint,), False, ())
        kinds = tuple(kind for kind in typing.get_args(hint) if kind is not NoneType)
        optional = len(kinds) < len(typing.get_args(hint))
        one = cls.of(kinds[0]) if len(kinds) == 1 else cls(kinds, False, ())
        return replace(one, optional=optional)

    @cached_property
    def parts(self) -> tuple[type, ...]:
        """The configs among them, of which a value selects one; the first is that of old runs."""
        return tuple(kind for kind in self.kinds if _is_config(kind))


def _is_config(kind: Any) -> bool:
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


@cache
def hints(config: type) -> Mapping[str, Any]:
    """Annotations of the fields of a dataclass, in their order."""
    types = typing.get_type_hints(config, include_extras=True)  # Those of the class as well.
    return {field.name: types[field.name] for field in dataclasses.fields(config)}


@cache
def field_types(config: type) -> Mapping[str, FieldType]:
    """The same, taken apart."""
    return {name: FieldType.of(hint) for name, hint in hints(config).items()}


def kind_of(part: object) -> str | None:
    """The kind of a part, or of its class; None for a config that never stands in a union."""
    return getattr(part, KIND, None)


def is_outside(kind: str | None) -> bool:
    """Whether a kind names a class of somebody else, as in `my_package:MyConfig`."""
    return kind is not None and ":" in kind


def dotted(path: str, name: str) -> str:
    """The path of a field inside what lies at `path`."""
    return f"{path}.{name}" if path else name
