"""From command-line flags to typed options; a mistake in them becomes one line.

tyro reads the flags and writes the help, both from the fields of a dataclass. Its report of a
mistake fills a box, so its hook for mistakes (`tyro_mistakes`) raises a `UserError` instead.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, NoReturn, TypeVar

import tyro

from stormrl.commands.tyro_mistakes import Event, mistake, on_mistake, unrecognized
from stormrl.config.fields import field_types, hints
from stormrl.config.validation import unchecked, validate
from stormrl.errors import UserError

Options = TypeVar("Options")

AllowImport = Annotated[
    tuple[str, ...],
    tyro.conf.UseAppendAction,
    tyro.conf.arg(
        metavar="MODULE",
        help="Module of the run's environment, or of a part of one's own, that may be imported "
        "though it is not installed, from the working directory or PYTHONPATH. Its code is "
        "executed: allow what you trust.",
    ),
]
"""The flag of every command that reads what a run names."""


def _arguments(words: Sequence[str]) -> dict[str, Any]:
    """The values of `KEY=VALUE`: what JSON reads as a value is that, anything else a text."""
    return dict(map(_argument, words))


def _argument(word: str) -> tuple[str, Any]:
    name, equals, text = word.partition("=")
    if not (equals and name.isidentifier()):
        raise ValueError(repr(word))
    try:
        return name, json.loads(text)
    except (ValueError, RecursionError):
        return name, text


def argument_text(kwargs: Mapping[str, Any]) -> str:
    """Arguments as they are given on the command line."""
    return " ".join(f"{name}={_value_text(value)}" for name, value in kwargs.items())


def _value_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


EnvKwargs = Annotated[
    Mapping[str, Any],
    tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="KEY=VALUE...",
        instance_from_str=_arguments,
        is_instance=lambda value: isinstance(value, Mapping),
        str_from_instance=lambda kwargs: argument_text(kwargs).split(),
    ),
]
"""The flag of every command that builds an environment anew."""
MaxSize = Annotated[
    int,
    tyro.conf.arg(
        metavar="NUMBERS",
        help="Most numbers that a network, a batch or a memory of the run may hold: its config "
        "could ask for more than the machine has.",
    ),
]
"""The flag of every command that builds what a run describes."""

FLAT = tyro.conf.AvoidSubcommands
"""A union of parts makes no subcommands: its flags are those of the default's type."""


def parse(
    options: type[Options],
    args: Sequence[str],
    prog: str,
    default: Options | None = None,
    completed: Callable[[Options], Options] = lambda parsed: parsed,
) -> Options:
    """The options that `args` set, the others as in `default`; `--help` prints and exits.

    completed: what is not set by flags, put in before anything is validated.

    A field that may hold one of several parts has the flags of the one that stands there by
    default. Raises `UserError` for a flag that is unknown, missing, or has a value it cannot have.
    """
    given: dict[str, Any] = {} if default is None else {"default": default}
    chosen: Any = options if default is None else default

    def refuse(event: Event) -> NoReturn:
        raise _mistake(event, chosen, args)

    with on_mistake(refuse), unchecked():
        parsed = completed(tyro.cli(options, args=args, prog=prog, config=(FLAT,), **given))
    try:
        validate(parsed)
    except UserError as error:
        raise UserError(_as_flag(parsed, error.field), error.message) from None
    return parsed


def parse_some(options: type[Options], args: Sequence[str]) -> Options:
    """The same for flags among others, which are passed over."""

    def refuse(event: Event) -> NoReturn:
        raise _mistake(event, options, args=())

    with on_mistake(refuse):
        parsed, _ = tyro.cli(options, args=args, return_unknown_args=True, add_help=False)
    return parsed


def unknown_flag(token: str, options: Any) -> UserError:
    """What to say of a word that is no flag of `options`: the nearest that are."""
    name = token.partition("=")[0]
    if not name.startswith("-"):
        shown = name if any(map(str.isalnum, name)) else repr(name)
        return UserError(shown, "is not expected here; what follows a command begins with --")
    nearest = nearest_flags(name, options)
    remedy = f"did you mean {' or '.join(nearest)}?" if nearest else "--help lists the known ones"
    return UserError(name, f"is no flag of this command; {remedy}")


def nearest_flags(name: str, options: Any) -> list[str]:
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
    """Names of the flags of a dataclass and of those inside it, without leading dashes.

    Of an instance, those of the parts that it is made of.
    """
    for name, hint in hints(_class(options)).items():
        part = _part(options, name)
        flag = prefix + _named(hint, name).replace("_", "-")
        if part is None:
            yield flag
        else:
            yield from flags(part, "" if _is_unnamed(hint) else f"{flag}.")


def _class(options: Any) -> type:
    return options if isinstance(options, type) else type(options)


def _part(options: Any, name: str) -> Any:
    """The dataclass whose fields have flags of their own in the place of this field, if one has."""
    value = getattr(options, name) if not isinstance(options, type) else _default(options, name)
    if dataclasses.is_dataclass(value):
        return value
    return next(iter(field_types(_class(options))[name].parts), None)


def _default(options: type, name: str) -> Any:
    field = options.__dataclass_fields__[name]
    make = field.default_factory
    return field.default if make is dataclasses.MISSING else make()


def _named(hint: Any, name: str) -> str:
    """What a field's flag is called: like the field, unless its annotation says otherwise."""
    extras = getattr(hint, "__metadata__", ())
    return next((extra.name for extra in extras if getattr(extra, "name", None)), name)


def _is_unnamed(hint: Any) -> bool:
    """Whether the annotation says that the flags inside do without the field's own name."""
    return any(getattr(extra, "name", None) == "" for extra in getattr(hint, "__metadata__", ()))


def _mistake(event: Event, options: Any, args: Sequence[str]) -> UserError:
    # Unknown flags first of all: what seems to be missing may have been given, misspelled.
    unknown = _unknown(args, options) or unrecognized(event)
    return unknown_flag(unknown[0], options) if unknown else mistake(event)


def _unknown(args: Sequence[str], options: Any) -> list[str]:
    known = {f"--{flag}" for flag in flags(options)}
    known |= {f"--no-{flag}" for flag in flags(options)} | {"--help"}
    given = {arg: arg.partition("=")[0].replace("_", "-") for arg in args if arg.startswith("--")}
    return [arg for arg, name in given.items() if name not in known]


def _as_flag(options: Any, field: str) -> str:
    """A field by the name of its flag, which lacks what is said to do without a name."""
    name, dot, inner = field.partition(".")
    if not dot:
        return field
    inside = _as_flag(getattr(options, name), inner)
    return inside if _is_unnamed(hints(_class(options))[name]) else f"{name}.{inside}"
