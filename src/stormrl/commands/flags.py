"""From command-line flags to typed options; a mistake in them becomes one line.

tyro reads the flags and writes the help, both from the fields of a dataclass. Its report of a
mistake fills a box, so its hook for mistakes is used to raise a `UserError` instead.
"""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NoReturn, TypeVar

import tyro
from tyro import _errors as events

from stormrl.errors import UserError

Options = TypeVar("Options")

AllowImport = Annotated[
    tuple[str, ...],
    tyro.conf.UseAppendAction,
    tyro.conf.arg(
        metavar="MODULE",
        help="Module of the run's environment that may be imported though it is not installed, "
        "from the working directory or PYTHONPATH. Its code is executed: allow what you trust.",
    ),
]
"""The flag of every command that plays in the environment that a run names."""

KINDS = {"INT": "a whole number", "FLOAT": "a number"}


def parse(
    options: type[Options], args: Sequence[str], prog: str, default: Options | None = None
) -> Options:
    """The options that `args` set, the others as in `default`; `--help` prints and exits.

    Raises `UserError` for a flag that is unknown, missing, or has a value it cannot have.
    """
    given: dict[str, Any] = {} if default is None else {"default": default}

    def refuse(event: events.ParseErrorEvent) -> NoReturn:
        raise _mistake(event, options, args)

    try:
        with events.on_parse_error(refuse):
            return tyro.cli(options, args=args, prog=prog, **given)
    except UserError as error:
        raise UserError(_as_typed(error.field, args), error.message) from None


def parse_some(options: type[Options], args: Sequence[str]) -> Options:
    """The same for flags among others, which are passed over."""

    def refuse(event: events.ParseErrorEvent) -> NoReturn:
        raise _mistake(event, options, args=())

    with events.on_parse_error(refuse):
        parsed, _ = tyro.cli(options, args=args, return_unknown_args=True, add_help=False)
    return parsed


def unknown_flag(token: str, options: type) -> UserError:
    """What to say of a word that is no flag of `options`: the nearest that are."""
    name = token.partition("=")[0]
    if not name.startswith("-"):
        shown = name if any(map(str.isalnum, name)) else repr(name)
        return UserError(shown, "is not expected here; what follows a command begins with --")
    nearest = nearest_flags(name, options)
    remedy = f"did you mean {' or '.join(nearest)}?" if nearest else "--help lists the known ones"
    return UserError(name, f"is no flag of this command; {remedy}")


def nearest_flags(name: str, options: type) -> list[str]:
    """Flags of `options` that are spelled like `name`, or end in what is."""
    known: dict[str, list[str]] = {}
    for flag in flags(options):
        for key in {flag, flag.rpartition(".")[2]}:
            known.setdefault(key, []).append(f"--{flag}")
    wanted = name.lstrip("-").lower().replace("_", "-")
    for guess in (wanted, wanted.rpartition(".")[2]):
        for match in difflib.get_close_matches(guess, known, n=1, cutoff=0.6):
            return known[match][:3]
    return []


def flags(options: Any, prefix: str = "") -> Iterator[str]:
    """Names of the flags of a dataclass and of those inside it, without leading dashes."""
    for name, hint in typing.get_type_hints(options, include_extras=True).items():
        flag = prefix + name.replace("_", "-")
        kind = typing.get_args(hint)[0] if hasattr(hint, "__metadata__") else hint
        if dataclasses.is_dataclass(kind):
            yield from flags(kind, "" if _is_unnamed(hint) else f"{flag}.")
        else:
            yield flag


def _is_unnamed(hint: Any) -> bool:
    """Whether the annotation says that the flags inside do without the field's own name."""
    return any(getattr(extra, "name", None) == "" for extra in getattr(hint, "__metadata__", ()))


def _mistake(event: events.ParseErrorEvent, options: type, args: Sequence[str]) -> UserError:
    unknown = _unknown(args, options)
    if unknown:  # First of all: what seems to be missing may have been given, misspelled.
        return unknown_flag(unknown[0], options)
    match event:
        case events.UnrecognizedArgs(tokens=[token, *_]):
            return unknown_flag(token, options)
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


def _unknown(args: Sequence[str], options: type) -> list[str]:
    known = {f"--{flag}" for flag in flags(options)}
    known |= {f"--no-{flag}" for flag in flags(options)} | {"--help"}
    given = {arg: arg.partition("=")[0].replace("_", "-") for arg in args if arg.startswith("--")}
    return [arg for arg, name in given.items() if name not in known]


def _name(argument: Any) -> str:
    """The field of an argument as config.json spells it."""
    return argument.lowered.name_or_flags[-1].lstrip("-").replace("-", "_")


def _usage(argument: Any) -> str:
    flag = argument.lowered.name_or_flags[-1]
    metavar = argument.lowered.metavar
    return f"{flag} {metavar}" if flag.startswith("-") else str(metavar)


def _as_typed(field: str, args: Sequence[str]) -> str:
    """A config that is used in two places names its field without the place: the flag tells it."""
    for arg in args:
        name = arg.partition("=")[0].lstrip("-").replace("-", "_")
        if arg.startswith("--") and name.endswith(f".{field}"):
            return name
    return field
