"""Parse errors of tyro as one-line mistakes: the only module that knows its private hook for them.

The public API prints a mistake in a box and ends the process, so nothing else tells what it was.
tyro may change the hook in any release, hence `check`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import tyro

from stormrl.errors import UserError

KINDS = {"INT": "a whole number", "FLOAT": "a number"}
NEEDED = {
    "ParseErrorEvent": set[str](),
    "UnrecognizedArgs": {"tokens"},
    "MissingArgs": {"missing_arguments"},
    "InvalidChoice": {"argument", "value", "choices"},
    "BadValue": {"argument"},
    "InstantiationFailure": {"argument", "message"},
}
"""What is used of tyro's events: their names and fields."""


def check(hooks: Any) -> None:
    """Raises `UserError` if `hooks` is no module of mistakes as this one knows it."""
    missing = [] if hasattr(hooks, "on_parse_error") else ["on_parse_error"]
    for name, needed in NEEDED.items():
        event = getattr(hooks, name, None)
        there = {f.name for f in dataclasses.fields(event)} if event is not None else set()
        missing += [name] if event is None else [f"{name}.{field}" for field in needed - there]
    if missing:
        remedy = "pip install 'tyro>=1.0.14,<1.1'"
        raise UserError("tyro", f"{tyro.__version__} lacks {', '.join(sorted(missing))}; {remedy}")


check(getattr(tyro, "_errors", None))

from tyro import _errors  # noqa: E402 - checked before it is used

events = _errors

Event = events.ParseErrorEvent
on_mistake = events.on_parse_error


def unrecognized(event: Event) -> list[str]:
    """Words on the command line that belong to no flag."""
    return event.tokens if isinstance(event, events.UnrecognizedArgs) else []


def mistake(event: Event) -> UserError:
    """What to say of it: the field as config.json spells it, and the remedy."""
    match event:
        case events.MissingArgs(missing_arguments=[missing, *_]):
            return UserError(_name(missing.arg), f"is missing; give {_usage(missing.arg)}")
        case events.InvalidChoice(argument=argument, value=value, choices=choices):
            message = f"{value!r} is unknown; give one of {', '.join(choices)}"
            return UserError(_name(argument), message)
        case events.BadValue(argument=argument):
            return UserError(_name(argument), f"has no value; give {_usage(argument)}")
        case events.InstantiationFailure(argument=None, message=message):
            # A config that refused its values; tyro kept the text of its `UserError`.
            return UserError(*message.split(": ", maxsplit=1))
        case events.InstantiationFailure(argument=argument, message=message) if argument:
            value = message.rpartition(": ")[2]
            kind = KINDS.get(str(argument.lowered.metavar), str(argument.lowered.metavar))
            return UserError(_name(argument), f"is {value}; give {kind}")
    return UserError("flags", f"cannot be understood ({type(event).__name__}); see --help")


def _name(argument: Any) -> str:
    return argument.lowered.name_or_flags[-1].lstrip("-").replace("-", "_")


def _usage(argument: Any) -> str:
    flag = argument.lowered.name_or_flags[-1]
    metavar = argument.lowered.metavar
    return f"{flag} {metavar}" if flag.startswith("-") else str(metavar)
