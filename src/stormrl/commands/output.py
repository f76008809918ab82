"""Console output: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from stormrl.disk.jsonlines import plain
from stormrl.errors import UserError


def print_json(record: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
    """One object, or a list of them, on one line; NaN and infinities become null."""
    sys.stdout.write(json.dumps(plain(record), allow_nan=False) + "\n")


def results() -> Console:
    """Where a person reads what a command has found out."""
    return Console(highlight=False)


def messages() -> Console:
    """Where a person reads what a command does."""
    return Console(stderr=True, highlight=False)


def say(console: Console, text: str) -> None:
    """Words as they are, in lines as they are: a path or command in them can be copied."""
    console.print(text, markup=False, soft_wrap=True)


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
