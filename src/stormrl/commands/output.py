"""Console output: results on standard output, everything else on standard error."""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Column, Table
from rich.text import Text

from stormrl.disk.jsonlines import plain
from stormrl.errors import UserError
from stormrl.machine.lenient import lenient
from stormrl.machine.terminal import TextConsole

STDOUT, STDERR = 1, 2
C_LIBRARY = "ucrtbase" if sys.platform == "win32" else None
"""Where output of C is held back; None is the process itself."""
_apart: list[TextIO] = []


def print_json(record: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
    """One object, or a list of them, on one line; NaN and infinities become null."""
    stream = _apart[-1] if _apart else sys.stdout
    stream.write(json.dumps(plain(record), allow_nan=False) + "\n")
    stream.flush()


@contextmanager
def results_apart() -> Iterator[None]:
    """While entered, standard output is kept for `print_json` alone.

    Whatever a game prints, by itself or by a library that knows nothing of Python, goes to standard
    error.
    """
    with _real_output() as real, redirect_stdout(sys.stderr):
        _apart.append(real)
        try:
            yield
        finally:
            _apart.pop()


@contextmanager
def _real_output() -> Iterator[TextIO]:
    """Standard output under another descriptor, where it has one."""
    try:
        is_real = sys.stdout.fileno() == STDOUT
    except (OSError, ValueError):
        is_real = False
    if not is_real:
        yield sys.stdout
        return
    sys.stdout.flush()
    with os.fdopen(os.dup(STDOUT), "w", encoding=sys.stdout.encoding) as real:
        os.dup2(STDERR, STDOUT)
        try:
            yield real
        finally:
            ctypes.CDLL(C_LIBRARY).fflush(None)  # What a library in C still holds back.
            os.dup2(real.fileno(), STDOUT)


def results() -> Console:
    """Where a person reads what a command has found out."""
    return TextConsole(highlight=False)


def messages() -> Console:
    """Where a person reads what a command does; dropped if nobody is left to."""
    return TextConsole(file=lenient(sys.stderr), highlight=False)


def say(console: Console, text: str) -> None:
    """Words as they are, in lines as they are: a path or command in them can be copied."""
    console.print(text, markup=False, soft_wrap=True)


def busy(console: Console, text: str) -> Status:
    """Shown while it is entered: what goes on, in words as they are."""
    return console.status(Text(text))


def warn(warnings: Iterable[str]) -> None:
    """What a person should know before they trust a result, whatever becomes of standard output."""
    for text in warnings:
        say(messages(), text)


def print_facts(console: Console, facts: Mapping[str, str]) -> None:
    """Names and what there is to say of them, a line each: whole, so that it can be copied."""
    width = max(map(len, facts))
    for name, text in facts.items():
        console.print(f"  [cyan]{name:{width}}[/]  {escape(text)}", soft_wrap=True)


def table(
    title: str, columns: Sequence[Column | str], rows: Sequence[Sequence[str | Text]]
) -> Table:
    """A titled table without lines."""
    made = Table(box=None, pad_edge=False, title=Text(title, "bold"), title_justify="left")
    made.padding = (0, 2, 0, 0)
    for column in columns:
        made.columns.append(Column(column) if isinstance(column, str) else column)
    for row in rows:
        made.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    return made


def number(header: str) -> Column:
    """A column of right-aligned numbers."""
    return Column(header, justify="right", no_wrap=True)


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Turns the system's refusal to write what `--out` names into a `UserError`."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        raise UserError("out", f"{out} cannot be written: {why}; give another place") from None
