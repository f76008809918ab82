"""Figures as inline SVG whose colours are the page's: readable in light, in dark and on paper.

Small ones, that stand side by side on a desk and below each other on a phone.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import EngFormatter, MaxNLocator, NullFormatter, PercentFormatter

from stormrl.disk.jsonlines import is_number
from stormrl.pictures.figures import Curve, rolling_mean, seed_band
from stormrl.report.reading import Run, Series
from stormrl.report.scores import THRESHOLDS, AgentRow
from stormrl.scores.curves import PublishedBand, band, game_with_curves
from stormrl.scores.on_track import FIRST
from stormrl.scores.statistics import Estimate

PALETTE = 8
"""Colours that curves take in turn: `--c0` to `--c7` of the page."""
# Stand-ins while matplotlib draws; the page's own take their place in the text of the SVG.
_INK, _PALE, _GRID = "#000001", "#000002", "#000003"
_COLOURS = tuple(f"#0000{index:02x}" for index in range(0x10, 0x10 + PALETTE))
_VARIABLES = {_INK: "--ink", _PALE: "--pale", _GRID: "--grid"} | {
    colour: f"--c{index}" for index, colour in enumerate(_COLOURS)
}

SMALL = (3.5, 2.2)
WIDE = (4.6, 3.0)
LONGEST_NAME = 44
"""Characters of a title."""
POINTS = 60
"""Points of a curve; a page of hundreds of runs stays small."""
ROUND = (1, 2, 2.5, 5, 10)
"""Ticks are these, times a power of ten."""
WINDOW = 10
"""Episodes in a trailing mean."""
AHEAD = {"dream": "dream", "copy": "last real frame, held", "reconstruction": "reconstruction"}
"""Curves of the open-loop error and what they are called, in the order of their colours."""

_STYLE: Any = {
    "svg.fonttype": "none",  # Words stay words: they can be searched, and take the page's font.
    "font.family": "sans-serif",
    "font.size": 8.5,
    "svg.hashsalt": "stormrl",  # The same figure is the same text.
}
# What a page with many figures has once, in its own style, or must not have twice.
_DISPENSABLE = (
    re.compile(r"<metadata>.*?</metadata>", re.DOTALL),
    re.compile(r"<style.*?</style>", re.DOTALL),
    re.compile(r"(?<=<g) id=\"[^\"]*\""),
    re.compile(r" font-family: [^;\"]*;?"),
)


class Line(NamedTuple):
    """A curve with an optional band."""

    x: Sequence[float]
    y: Sequence[float]
    colour: int
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


def colour_of(index: int) -> int:
    """The palette's colour of the `index`-th curve."""
    return index % PALETTE


def learning_curves(
    title: str, variants: Mapping[str, Sequence[Run]], size: tuple[float, float] = SMALL
) -> Markup:
    """Training returns of a game: for each variant the mean over seeds and its interval.

    Behind them, as far as they go, published runs of the game if there are any.
    """
    drawn = [
        _mean_curve([run.returns() for run in runs], colour_of(index))
        for index, runs in enumerate(variants.values())
    ]
    found = [line for line in drawn if line is not None]
    behind = published_behind([run for runs in variants.values() for run in runs], found)
    return lines(title, found, "environment steps", size=size, behind=behind)


def published_behind(runs: Sequence[Run], drawn: Sequence[Line]) -> PublishedBand | None:
    """Published curves of the game of these runs, up to the bin in which the drawn lines end.

    None if there are none, or no line.
    """
    games = {game_with_curves(run.config.env) for run in runs}
    if not drawn or len(games) != 1 or None in games:
        return None
    end = max(FIRST, *(line.x[-1] for line in drawn))
    return band(*filter(None, games)).until(end)


def metric_curves(title: str, runs: Sequence[tuple[int, Series]]) -> Markup:
    """A metric over steps, a line for each run in the colour of its number."""
    drawn = [Line(*_thinned(series), colour) for colour, series in runs if series.steps]
    positive = all(value > 0 for line in drawn for value in line.y)
    spread = positive and _orders_of_magnitude(drawn) > 1.5
    return lines(title, drawn, "environment steps", log=spread)


def open_loop(title: str, error: Mapping[str, Any]) -> Markup:
    """Squared error of dreams, of a held frame and of reconstructions by steps ahead."""
    drawn = [
        Line(error["ahead"], error[name]["mean"], index, *_interval(error[name]))
        for index, name in enumerate(AHEAD)
    ]
    return lines(title, drawn, "steps ahead")


def performance_profiles(profiles: Mapping[str, Sequence[Estimate]]) -> Markup:
    """Fraction of runs above each human-normalised score; the first agent's line is the boldest."""
    figure, axes = _blank(WIDE)
    for index, estimates in reversed(list(enumerate(profiles.values()))):
        value, low, high = np.array(estimates).T
        colour = _COLOURS[colour_of(index)]
        axes.plot(THRESHOLDS, value, color=colour, linewidth=2.2 if index == 0 else 1.2)
        if index == 0:
            axes.fill_between(THRESHOLDS, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.axvline(1.0, color=_PALE, linewidth=0.8, linestyle=(0, (3, 3)))
    axes.set_xscale("log")
    axes.set_xticks([0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylim(0, 1)
    axes.set_xlabel("human-normalised score", color=_PALE)
    axes.set_ylabel("runs above it", color=_PALE)
    return _svg(figure, "Fraction of runs above each human-normalised score")


def aggregates(title: str, name: str, rows: Sequence[AgentRow]) -> Markup:
    """One aggregate of every agent that has it, sorted, with its interval; ours coloured."""
    estimates = [(row.name, getattr(row.aggregate, name), row.published is None) for row in rows]
    return _dots(title, estimates)


def improvements(rows: Sequence[AgentRow]) -> Markup:
    """How probably a run of the report beats one of each agent."""
    estimates = [(row.name, row.improvement, False) for row in rows if row.improvement is not None]
    return _dots("probability of improvement", estimates, middle=0.5)


def lines(
    title: str,
    drawn: Sequence[Line],
    xlabel: str,
    log: bool = False,
    size: tuple[float, float] = SMALL,
    behind: PublishedBand | None = None,
) -> Markup:
    """A figure of curves, behind which a band may lie."""
    figure, axes = _blank(size)
    if behind is not None:
        axes.fill_between(*behind[:2], behind.high, color=_PALE, alpha=0.16, linewidth=0)
        axes.plot(behind.steps, behind.median, color=_PALE, linewidth=1)
    for line in drawn:
        colour = _COLOURS[line.colour]
        if line.low is not None and line.high is not None:
            axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.2, linewidth=0)
        faint = 0.9 if len(drawn) <= PALETTE else max(0.9 * (PALETTE / len(drawn)) ** 0.5, 0.25)
        axes.plot(line.x, line.y, color=colour, linewidth=1.4, alpha=faint)
    if log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=ROUND))
        axes.yaxis.set_major_formatter(lambda value, _: _short(value))
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=ROUND))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    _set_title(axes, title)
    axes.set_xlabel(xlabel, color=_PALE)
    if not drawn:
        axes.text(
            0.5, 0.5, "too little recorded", transform=axes.transAxes, ha="center", color=_PALE
        )
    return _svg(figure, title)


def _dots(
    title: str, estimates: Sequence[tuple[str, Estimate, bool]], middle: float | None = None
) -> Markup:
    known = [estimate for estimate in estimates if math.isfinite(estimate[1].value)]
    known.sort(key=lambda estimate: estimate[1].value)
    figure, axes = _blank((WIDE[0], 0.6 + 0.17 * len(known)))
    for place, (_, estimate, ours) in enumerate(known):
        colour = _COLOURS[0] if ours else _PALE
        axes.plot([estimate.low, estimate.high], [place, place], color=colour, linewidth=1.6)
        axes.plot(estimate.value, place, "o", color=colour, markersize=5 if ours else 3.5)
    if middle is not None:
        axes.axvline(middle, color=_PALE, linewidth=0.8, linestyle=(0, (3, 3)))
    names = [_short_name(name.partition(" (")[0]) for name, _, _ in known]
    axes.set_yticks(range(len(known)), names, parse_math=False)
    for label, (_, _, ours) in zip(axes.get_yticklabels(), known, strict=True):
        label.set(color=_COLOURS[0] if ours else _INK, fontweight="bold" if ours else "normal")
    axes.margins(x=0.04)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=_GRID, linewidth=0.7)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=ROUND))
    _set_title(axes, title)
    return _svg(figure, title)


def _mean_curve(seeds: Sequence[Series], colour: int) -> Line | None:
    """Of the trailing means; with a band where two seeds or more have an overlap."""
    curves = [Curve(*ordered) for ordered in map(_ordered, seeds) if len(ordered.steps) > 1]
    if not curves:
        return None
    if len(curves) > 1:
        band = seed_band(curves, WINDOW, POINTS)
        if band.steps[0] < band.steps[-1]:
            steps, mean, low, high = (array.tolist() for array in band)
            return Line(steps, mean, colour, low, high)
    longest = max(curves, key=lambda curve: len(curve.steps))
    means = rolling_mean(longest.returns, WINDOW).tolist()
    return Line(*_thinned(Series(list(longest.steps), means)), colour)


def _ordered(series: Series) -> Series:
    points = sorted(zip(series.steps, series.values, strict=True), key=lambda point: point[0])
    return Series([step for step, _ in points], [value for _, value in points])


def _thinned(series: Series) -> Series:
    """At most `POINTS` points of it, the last one included."""
    count = len(series.steps)
    if count <= POINTS:
        return series
    kept = np.linspace(0, count - 1, POINTS).round().astype(int).tolist()
    return Series([series.steps[i] for i in kept], [series.values[i] for i in kept])


def _orders_of_magnitude(drawn: Sequence[Line]) -> float:
    values = [value for line in drawn for value in line.y]
    return math.log10(max(values) / min(values)) if values else 0.0


def _interval(curve: Mapping[str, Any]) -> tuple[Sequence[float] | None, Sequence[float] | None]:
    low, high = curve.get("low"), curve.get("high")
    whole = all(
        isinstance(end, list) and len(end) == len(curve["mean"]) and all(map(is_number, end))
        for end in (low, high)
    )
    return (low, high) if whole else (None, None)


def _blank(size: tuple[float, float]) -> tuple[Figure, Axes]:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02))
        axes = figure.add_subplot()
    figure.patch.set_visible(False)
    axes.patch.set_visible(False)
    axes.grid(axis="y", color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.margins(x=0.01)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_GRID)
    axes.tick_params(which="both", colors=_PALE, length=0, labelsize=8)
    return figure, axes


def _set_title(axes: Axes, title: str) -> None:
    # A name may hold dollar signs, between which matplotlib would look for mathematics.
    words = {"fontsize": 9.5, "color": _INK, "fontweight": "bold", "parse_math": False}
    axes.set_title(_short_name(title), loc="left", **words)


def _svg(figure: Figure, title: str) -> Markup:
    """The figure as an element for the page, with the page's colours and a name for ears."""
    text = io.StringIO()
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # The browser has glyphs for a name where matplotlib's font has none.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    body = text.getvalue()
    body = body[body.index("<svg") :]
    for pattern in _DISPENSABLE:
        body = pattern.sub("", body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var({variable})")
    label = Markup('<svg role="img" aria-label="{}" ').format(title)
    # Matplotlib has escaped every text that it drew.
    return label + Markup(re.sub(r"\s*\n\s*", "\n", body.removeprefix("<svg ")))


def _short_name(text: str) -> str:
    return text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


def swatches(labels: Iterable[str]) -> list[tuple[int, str]]:
    """Colour and name of each curve, for a legend."""
    return [(colour_of(index), label) for index, label in enumerate(labels)]
