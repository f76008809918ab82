"""What a person sees while a suite runs: a live table, or plain lines in a log."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Self

from rich.console import Console, JustifyMethod
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from stormrl.history.progress import duration_text, short_number
from stormrl.machine.lenient import lenient
from stormrl.machine.terminal import TextConsole
from stormrl.suite.session import Entry, State

LOG_PERIOD_S = 30.0
ORDER: tuple[State, ...] = ("running", "failed", "stopped", "waiting", "finished")
"""Where a table has no room for all runs, the last ones are counted only."""
STYLES: dict[State, str] = {
    "running": "cyan",
    "failed": "bold red",
    "stopped": "yellow",
    "waiting": "dim",
    "finished": "green",
}
COLUMNS: tuple[tuple[str, JustifyMethod, int], ...] = (
    ("run", "left", 12),
    ("state", "left", 8),
    ("progress", "left", 8),
    ("step", "right", 7),
    ("return", "right", 6),
    ("steps/s", "right", 7),
    ("ETA", "right", 7),
    ("attempt", "right", 7),
    ("machine", "left", 7),
)
"""Header, alignment and least width of each column."""
WIDE_ONLY = {"progress", "attempt", "machine"}
WIDE = 100
BAR = 10
AROUND_TABLE = 4
"""Lines that the table takes beside its rows, and one for the prompt."""


class SuiteDisplay:
    """On standard error, which leaves standard output to results."""

    def __init__(
        self, console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console or TextConsole(file=lenient(sys.stderr), highlight=False)
        self._live = Live(
            console=self._console, auto_refresh=False, redirect_stdout=False, transient=True
        )
        self._clock, self._shown_s = clock, clock()

    def __enter__(self) -> Self:
        if self._console.is_interactive:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._console.is_interactive:
            self._live.stop()

    def show(self, entries: Mapping[str, Entry]) -> None:
        """How all runs stand."""
        if self._console.is_interactive:
            rows = max(self._console.height - AROUND_TABLE, 1)
            table = suite_table(list(entries.values()), rows, self._console.width)
            self._live.update(table, refresh=True)
        elif self._clock() - self._shown_s >= LOG_PERIOD_S:
            self._shown_s = self._clock()
            self.message(summary(list(entries.values())))

    def message(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, markup=False, soft_wrap=True)


def suite_table(entries: Sequence[Entry], rows: int, width: int = WIDE) -> Table:
    """A row for each run, the first `rows` of them, and a line about all.

    width: characters there are; below `WIDE`, bars, attempts and machines are left out.
    """
    shown = [
        index
        for index, (header, *_) in enumerate(COLUMNS)
        if width >= WIDE or header not in WIDE_ONLY
    ]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), caption_justify="left")
    for header, justify, least in map(COLUMNS.__getitem__, shown):
        column = Column(header, justify=justify, no_wrap=True, overflow="ellipsis")
        table.columns.append(dataclasses.replace(column, min_width=least))
    ordered = sorted(entries, key=lambda entry: ORDER.index(entry.state))
    for entry in ordered[:rows]:
        cells = _row(entry)
        table.add_row(*(cells[index] for index in shown))
    hidden = f" · {len(entries) - rows} more not shown" if len(entries) > rows else ""
    table.caption = Text(summary(entries) + hidden, "dim")
    return table


def summary(entries: Sequence[Entry]) -> str:
    """One line about all runs."""
    counts = Counter(entry.state for entry in entries)
    parts = [f"{counts[state]} {state}" for state in ORDER if counts[state]]
    rate = sum(entry.standing.steps_per_s or 0 for entry in entries if entry.state == "running")
    if rate:
        parts.append(f"{short_number(rate)} steps/s")
        parts.append(f"ETA {duration_text(_steps_left(entries) / rate)}")
    return " · ".join(parts)


def eta_s(entry: Entry) -> float | None:
    """Seconds until a run ends at its present rate, None if that is not known."""
    rate = entry.standing.steps_per_s
    if entry.state != "running" or not rate:
        return None
    return (entry.task.config.steps - entry.standing.step) / rate


def _row(entry: Entry) -> tuple[str | Text | ProgressBar, ...]:
    standing, steps, left_s = entry.standing, entry.task.config.steps, eta_s(entry)
    return (
        entry.task.name,
        Text(entry.state, STYLES[entry.state]),
        ProgressBar(total=steps, completed=standing.step, width=BAR),
        f"{standing.step:,}",
        short_number(standing.mean_return),
        short_number(standing.steps_per_s),
        "--" if left_s is None else duration_text(left_s),
        str(standing.attempts or "--"),
        standing.host or "--",
    )


def _steps_left(entries: Sequence[Entry]) -> int:
    return sum(
        entry.task.config.steps - entry.standing.step
        for entry in entries
        if entry.state in ("running", "waiting")
    )
