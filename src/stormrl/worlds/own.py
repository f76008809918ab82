"""Parts of one's own: from `my_package:MyWorld` to the class, and to that of its configuration."""

from __future__ import annotations

import inspect
import sys
from typing import TypeVar

from stormrl.config.imports import ForeignId, import_for, is_missing
from stormrl.config.validation import Config
from stormrl.errors import UserError

Part = TypeVar("Part")


def own_class(kind: str, field: str, base: type[Part] = object) -> type[Part]:
    """The class that a kind names; its module is imported by the rules of `config.imports`.

    Raises `UserError` with the field if it is not there, is no subclass of `base`, or lacks a
    method of its protocol.
    """
    module, _, name = kind.partition(":")
    if module not in sys.modules:
        _import(kind, module, field)
    found = getattr(sys.modules[module], name, None)
    if not inspect.isclass(found):
        raise UserError(field, f"{module} has no class {name!r}; give module:Class")
    if not issubclass(found, base):
        raise UserError(field, f"{kind} is no subclass of {base.__name__}; see docs/extending.md")
    missing = sorted(getattr(found, "__abstractmethods__", ()))
    if missing:
        lacks = ", ".join(f"{method}()" for method in missing)
        raise UserError(field, f"{kind} lacks {lacks}; see docs/extending.md")
    return found


def own_config(kind: str, field: str) -> type:
    """The class of the configuration of a part of one's own: its `config_class`.

    Raises `UserError` as `own_class` does, and for a part without one or of another kind.
    """
    config = getattr(own_class(kind, field), "config_class", None)
    if not (inspect.isclass(config) and issubclass(config, Config)):
        remedy = "name the dataclass of its configuration there (docs/extending.md)"
        raise UserError(field, f"{kind} has no config_class; {remedy}")
    if getattr(config, "kind", None) != kind:
        raise UserError(field, f"{config.__name__}.kind is not {str(kind)!r}; let it name the part")
    return config


def _import(kind: str, module: str, field: str) -> None:
    try:
        import_for(kind, module)
    # An empty or relative module name is a ValueError or a TypeError.
    except (ImportError, ValueError, TypeError) as error:
        if isinstance(kind, ForeignId) and is_missing(module, error):
            named = f"{module!r}, named by {kind.source}, is not imported: it is not installed"
            remedy = f"if you trust it, add --allow-import {module}"
            raise UserError(field, f"{named}; {remedy}") from None
        remedy = "install the package, or put its folder on PYTHONPATH"
        raise UserError(field, f"cannot import {module!r} ({error}); {remedy}") from error
