"""Progress display while an agent trains: two live lines in a terminal, plain lines in a log."""

import math
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple, Self, TypeAlias

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import Progress as TaskProgress
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from stormrl.machine.lenient import lenient
from stormrl.machine.terminal import TextConsole

EPISODES_IN_MEAN = 20
RATE_WINDOW_S = 30.0
SAMPLE_PERIOD_S = 0.5
FORETOLD_S = 20.0
"""Seconds of updates after which it is said how long they will go on, if that is long."""
LONG_S = 3600.0


class Status(NamedTuple):
    """All that is shown at one moment; None is a number that cannot be known yet."""

    step: int
    total_steps: int
    elapsed_s: float
    steps_per_s: float | None
    updates_per_s: float | None
    updates: int
    """So far; at 0 steps are taken at random, and tell nothing of how long the rest will take."""
    mean_return: float | None
    metrics: Mapping[str, float]
    limit_s: float | None = None
    """Seconds after which training ends wherever it has got to; None if steps alone count."""

    @property
    def eta_s(self) -> float | None:
        """Seconds to go, at the present rate or until time is up."""
        ends_s = []
        if self.limit_s is not None:
            ends_s.append(self.limit_s - self.elapsed_s)
        if self.steps_per_s and self.updates:
            ends_s.append((self.total_steps - self.step) / self.steps_per_s)
        return max(min(ends_s), 0) if ends_s else None

    @property
    def done(self) -> float:
        """The part that is done, of the steps or of the time; 1 at the end."""
        timed = 0 if self.limit_s is None else self.elapsed_s / self.limit_s
        return min(max(self.step / max(self.total_steps, 1), timed), 1)


class TrainingProgress:
    """Progress on standard error, which leaves standard output to results.

    Where nobody is left to see it, it is dropped, and training goes on.

    `metrics` are shown in their order as far as the line reaches: pass few, the telling ones first.
    limit_s: seconds after which somebody will end the training, if it is not to be all the steps.
    """

    def __init__(
        self,
        total_steps: int,
        start_step: int = 0,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
        limit_s: float | None = None,
    ) -> None:
        console = console or TextConsole(file=lenient(sys.stderr))
        self._display = (
            _TerminalDisplay(console) if console.is_interactive else _LogDisplay(console)
        )
        self._clock = clock
        self._start_s = self._shown_s = clock()
        self._rates = RateWindow(RATE_WINDOW_S, SAMPLE_PERIOD_S)
        self._returns: deque[float] = deque(maxlen=EPISODES_IN_MEAN)
        self._metrics: dict[str, float] = {}
        self._step = start_step
        self._updates = 0
        self._total_steps = total_steps
        self._foretold = False
        self._limit_s = limit_s

    def __enter__(self) -> Self:
        self._display.start(self._status())
        return self

    def __exit__(self, *exception: object) -> None:
        self._display.stop(self._status())

    def update(
        self, step: int, updates: int, metrics: Mapping[str, float], episode_return: float | None
    ) -> None:
        """Take note of where training stands; cheap enough for every environment step.

        metrics: the newest values, those of earlier calls stay. episode_return: None unless an
        episode has just ended.
        """
        now_s = self._clock()
        if updates and not self._updates:
            # What was before is a thousand times as fast.
            self._rates = RateWindow(RATE_WINDOW_S, SAMPLE_PERIOD_S)
            self._first_update_s = now_s
        self._step, self._updates = step, updates
        self._metrics.update(metrics)
        self._rates.add(now_s, step, updates)
        self._foretell(now_s)
        if episode_return is not None:
            self._returns.append(episode_return)
        if now_s - self._shown_s >= self._display.period_s:
            self._shown_s = now_s
            self._display.show(self._status())

    def message(self, text: str) -> None:
        """Print a line that stays, above the bar."""
        self._display.message(text)

    def _foretell(self, now_s: float) -> None:
        """Once, as soon as it is known: that the training takes hours."""
        if self._foretold or not self._updates or now_s - self._first_update_s < FORETOLD_S:
            return
        self._foretold = True
        eta_s = self._status().eta_s
        if self._limit_s is None and eta_s is not None and eta_s >= LONG_S:
            left = f"at this pace the steps that are left take {long_text(eta_s)}"
            self.message(f"{left}; Ctrl-C saves, and smaller sizes (--size) are faster")

    def _status(self) -> Status:
        steps_per_s, updates_per_s = self._rates.per_second() or (None, None)
        return Status(
            step=self._step,
            total_steps=self._total_steps,
            elapsed_s=self._clock() - self._start_s,
            steps_per_s=steps_per_s,
            updates_per_s=updates_per_s,
            updates=self._updates,
            mean_return=statistics.fmean(self._returns) if self._returns else None,
            metrics=dict(self._metrics),
            limit_s=self._limit_s,
        )


class SilentProgress:
    """The same verbs, and nothing to see: for `--json` and for programs."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def update(
        self, step: int, updates: int, metrics: Mapping[str, float], episode_return: float | None
    ) -> None:
        """Do nothing."""

    def message(self, text: str) -> None:
        """Say nothing."""


Progress: TypeAlias = TrainingProgress | SilentProgress


class RateWindow:
    """Rates of growing counters over the last `window_s` seconds, sampled every `period_s`.

    Of counters that grow more slowly than that, over the time since the last sample but one.
    """

    def __init__(self, window_s: float, period_s: float) -> None:
        self._window_s, self._period_s = window_s, period_s
        self._samples: deque[tuple[float, ...]] = deque()
        self._newest: tuple[float, ...] = ()

    def add(self, now_s: float, *counters: float) -> None:
        """Take note of the counters at a time."""
        self._newest = (now_s, *counters)
        if not self._samples or now_s - self._samples[-1][0] >= self._period_s:
            self._samples.append(self._newest)
        while len(self._samples) > 2 and now_s - self._samples[1][0] >= self._window_s:
            self._samples.popleft()

    def per_second(self) -> tuple[float, ...] | None:
        """One rate a counter, or None before time has passed."""
        if not self._samples or self._newest[0] <= self._samples[0][0]:
            return None
        (start_s, *starts), (end_s, *ends) = self._samples[0], self._newest
        return tuple(
            (end - start) / (end_s - start_s) for start, end in zip(starts, ends, strict=True)
        )


class _TerminalDisplay:
    """Two lines that are redrawn in place."""

    period_s = 0.2

    def __init__(self, console: Console) -> None:
        # Only standard error is rerouted above the bar: standard output stays what it is.
        self._live = Live(console=console, auto_refresh=False, redirect_stdout=False)

    def start(self, status: Status) -> None:
        self._live.start()
        self.show(status)

    def show(self, status: Status) -> None:
        self._live.update(_two_lines(status), refresh=True)

    def message(self, text: str) -> None:
        self._live.console.print(text, markup=False, highlight=False)

    def stop(self, status: Status) -> None:
        self.show(status)
        self._live.stop()


class _LogDisplay:
    """Whole lines, far apart: fit for a pipe or a CI log."""

    period_s = 30.0

    def __init__(self, console: Console) -> None:
        self._console = console

    def start(self, status: Status) -> None:
        pass

    def show(self, status: Status) -> None:
        self.message(
            " · ".join([_steps(status), _percent(status), _time(status), *_figures(status)])
        )

    def message(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def stop(self, status: Status) -> None:
        self.show(status)


def _two_lines(status: Status) -> RenderableType:
    line = Table.grid(padding=(0, 1), expand=True)
    line.add_column(ratio=1)
    for _ in range(3):
        line.add_column(no_wrap=True)
    line.add_row(
        ProgressBar(total=1, completed=status.done),
        Text(_percent(status), "bold"),
        _steps(status),
        Text(_time(status), "cyan"),
    )
    figures = Text(" · ".join(_figures(status)), "dim", no_wrap=True, overflow="ellipsis")
    return Group(line, figures)


def _steps(status: Status) -> str:
    if status.limit_s is not None:
        return f"{status.step:,} steps"
    return f"{status.step:,}/{status.total_steps:,} steps"


def _percent(status: Status) -> str:
    # Rounded down: 100% is said only of what is finished.
    return f"{math.floor(round(100 * status.done, 6))}%"


def _time(status: Status) -> str:
    if status.done >= 1:
        return f"took {duration_text(status.elapsed_s)}"
    if not status.updates and status.step and status.limit_s is None:
        return "collecting random steps"
    return "ETA --" if status.eta_s is None else f"ETA {duration_text(status.eta_s)}"


def _figures(status: Status) -> list[str]:
    losses = {name.rsplit("/", 1)[-1]: value for name, value in status.metrics.items()}
    return [
        f"return {short_number(status.mean_return)}",
        f"{short_number(status.steps_per_s)} steps/s",
        f"{short_number(status.updates_per_s)} updates/s",
        *(f"{name} {short_number(value)}" for name, value in losses.items()),
    ]


@contextmanager
def busy(console: Console, text: str) -> Iterator[None]:
    """While entered, a live line says what goes on and for how long; in a log, `text` alone."""
    if not console.is_interactive:
        console.print(text, markup=False, highlight=False, soft_wrap=True)
        yield
        return
    columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
    start_s = time.monotonic()
    with TaskProgress(*columns, console=console, transient=True, redirect_stdout=False) as live:
        live.add_task(text, total=None)
        yield
    took = duration_text(time.monotonic() - start_s)
    console.print(f"{text}: took {took}", markup=False, highlight=False, soft_wrap=True)


def short_number(value: float | None) -> str:
    """A number in few characters; -- for one that is not known."""
    if value is None:
        return "--"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def long_text(seconds: float) -> str:
    """Hours, or days where there are several, as in 3.5 hours."""
    hours = seconds / 3600
    return f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:.1f} days"


def duration_text(seconds: float) -> str:
    """Hours, minutes and seconds, as in 1:05:09."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
