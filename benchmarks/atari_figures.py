"""The pictures of atari_evidence.py: a panel for each game, a curve for each seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from held_actions import mean_text, policy_text, return_text
from stormrl.pictures.figures import COLOURS, GRID, INK, LINE, PALE, rolling_mean

OURS = (COLOURS[0], COLOURS[2], COLOURS[5])
"""Colours of the seeds."""
HELD, PUBLISHED = COLOURS[1], COLOURS[3]
WINDOW = 10
COLUMNS = 3

Record = Mapping[str, Any]


class Episodes(NamedTuple):
    """Training episodes of one run: when each ended, and its return."""

    steps: list[float]
    minutes: list[float]
    returns: list[float]


class Axis(NamedTuple):
    """What the curves are drawn over."""

    label: str
    episodes: str
    """Field of `Episodes`."""
    end: str
    """Field of a run that says where it ended."""
    compared: bool
    """Whether the published curve has this axis: nobody knows its minutes on this machine."""
    explanation: str
    """What there is to say of that curve."""


EXPLANATION = (
    f"dots: training episodes; line: mean of the last {WINDOW}; diamond, and numbers above: mean ± "
    "standard error of the evaluation at the end; dashed: play that sees nothing, mean ± standard "
    "error"
)
STEPS = Axis(
    "environment steps",
    "steps",
    "steps",
    True,
    "\nDreamerV3: published training episodes, 5,000 steps a bin; the range of its seeds is cut "
    "where a panel ends",
)
MINUTES = Axis("minutes of training", "minutes", "minutes", False, "")


def draw(out: Path, record: Record, episodes: Mapping[tuple[str, int], Episodes]) -> None:
    """Write steps.png and minutes.png."""
    for axis in (STEPS, MINUTES):
        figure(record, episodes, axis).savefig(out / f"{axis.episodes}.png", dpi=200)


def figure(record: Record, episodes: Mapping[tuple[str, int], Episodes], axis: Axis) -> Figure:
    """A panel for each game; the place after the last is the legend's."""
    games = record["games"]
    rows = math.ceil((len(games) + 1) / COLUMNS)
    made = Figure(figsize=(13, 4.1 * rows), layout="constrained")
    made.get_layout_engine().set(w_pad=0.16, h_pad=0.14)  # pyright: ignore
    places = list(made.subplots(rows, COLUMNS, squeeze=False).flat)
    for place, name in zip(places, games, strict=False):
        panel(place, name, games[name], coloured(record["runs"], name), episodes, axis)
    _legend(places[len(games) :], made)
    _add_words(made, f"{axis.label}, protocol {record['protocol']}", axis)
    return made


def coloured(runs: Sequence[Record], name: str) -> list[Record]:
    """The runs of a game with their colours: a seed has the same one in every game."""
    seeds = sorted({run["seed"] for run in runs})
    colours = dict(zip(seeds, cycle(OURS), strict=False))
    return [{**run, "colour": colours[run["seed"]]} for run in runs if run["game"] == name]


def panel(
    axes: Axes,
    name: str,
    baseline: Record,
    runs: Sequence[Record],
    episodes: Mapping[tuple[str, int], Episodes],
    axis: Axis,
) -> None:
    """One game: a curve for each seed, its final score, and what they are compared with."""
    end = max(run[axis.end] for run in runs)
    for run in runs:
        _draw_run(axes, run, episodes.get((name, run["seed"])), axis)
    _draw_level(axes, baseline["held"], "best held action", HELD)
    _draw_level(axes, baseline["random"], "random play", INK)
    if axis.compared and baseline["published"] is not None:
        _draw_published(axes, baseline["published"], end)
    _style(axes, axis.label, end)
    _head(axes, name, baseline, runs)


def _draw_published(axes: Axes, band: Record, end: float) -> None:
    """Median and range of the seeds: a bin's mean is drawn as wide as the bin."""
    ends = [step for step in band["steps"] if step - band["steps"][0] < end]
    edges = [0, *ends]
    low, median, high = (_bins(band[name], len(ends)) for name in ("low", "median", "high"))
    label = "DreamerV3, median of the seeds"
    axes.step(edges, median, where="post", color=PUBLISHED, linewidth=1.6, label=label)
    # One lucky seed must not press all the others flat: the range takes the room that there is.
    room = axes.get_ylim()
    style = {"color": PUBLISHED, "alpha": 0.16, "linewidth": 0, "step": "post"}
    axes.fill_between(edges, low, high, label="DreamerV3, range of the seeds", **style)
    axes.set_ylim(room)


def _bins(values: Sequence[float | None], count: int) -> np.ndarray:
    """The first bins, the last one twice: a step's right edge. What is missing is not drawn."""
    known = np.array([np.nan if value is None else value for value in values[:count]])
    return np.append(known, known[-1:])


def _draw_level(axes: Axes, found: Record, label: str, colour: str) -> None:
    mean, stderr = found["mean"], found["stderr"] or 0.0
    axes.axhspan(mean - stderr, mean + stderr, color=colour, alpha=0.14, linewidth=0)
    axes.axhline(mean, color=colour, linewidth=1.4, linestyle=(0, (5, 3)), label=label)


def _draw_run(axes: Axes, run: Record, episodes: Episodes | None, axis: Axis) -> None:
    style = {"color": run["colour"], "linewidth": 2.2, "zorder": 3}
    axes.plot([], [], label=f"seed {run['seed']}", **style)
    if episodes is not None:
        at, returns = getattr(episodes, axis.episodes), episodes.returns
        axes.scatter(at, returns, s=9, color=run["colour"], alpha=0.25, linewidths=0)
        axes.plot(at, rolling_mean(returns, WINDOW), **style)
    if run["score"] is not None:
        _draw_score(axes, run[axis.end], run["score"], run["colour"])


def _draw_score(axes: Axes, at: float, score: Record, colour: str) -> None:
    style = {"markersize": 7, "markeredgecolor": "white", "markeredgewidth": 1.2, "elinewidth": 1.6}
    stderr = score["stderr"] or 0.0
    axes.errorbar(
        at, score["mean"], stderr, fmt="D", color=colour, clip_on=False, zorder=5, **style
    )


def _style(axes: Axes, xlabel: str, end: float) -> None:
    axes.set_xlim(0, end)
    axes.set_xlabel(xlabel, fontsize=10, color=INK)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(LINE)
    for side in (axes.xaxis, axes.yaxis):
        side.set_major_formatter(EngFormatter(sep=""))
        side.set_major_locator(MaxNLocator(5))
    axes.tick_params(axis="x", colors=INK, labelsize=10, length=3)
    axes.tick_params(axis="y", colors=INK, labelsize=10, length=0)


def _head(axes: Axes, name: str, baseline: Record, runs: Sequence[Record]) -> None:
    """The game, what its runs reached, and what they are compared with."""
    axes.set_title(name, loc="left", fontsize=13, fontweight="bold", color=INK, pad=38)
    for index, run in enumerate(runs):
        _above(axes, index / len(runs), 22, _reached(run), run["colour"])
    random, held = baseline["random"], baseline["held"]
    compared = f"random {return_text(random['mean'])}; {policy_text(held)}: "
    _above(axes, 0, 7, compared + return_text(held["mean"]), PALE)


def _above(axes: Axes, x: float, points: float, text: str, colour: str) -> None:
    """Words so far above the panel, from `x` of its width on."""
    place = {"xytext": (0, points), "textcoords": "offset points", "xycoords": "axes fraction"}
    axes.annotate(text, (x, 1), color=colour, fontsize=10, **place)


def _reached(run: Record) -> str:
    """As in `seed 1: 312 ± 24`."""
    reached = standing(run) if run["score"] is None else mean_text(run["score"])
    return f"seed {run['seed']}: {reached}"


def standing(run: Record) -> str:
    """Why a run has no score."""
    return "not evaluated" if run["steps"] >= run["of_steps"] else "not finished"


def _legend(places: Sequence[Axes], figure: Figure) -> None:
    """What all panels together have drawn, seeds first, in the first of the free places."""
    for place in places:
        place.axis("off")
    drawn: dict[str, Any] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        drawn |= dict(zip(labels, handles, strict=True))
    labels = sorted(drawn, key=lambda label: (not label.startswith("seed"), label))
    places[0].legend(
        [drawn[label] for label in labels],
        labels,
        loc="upper left",
        frameon=False,
        fontsize=11,
        labelcolor=INK,
        handlelength=2.6,
        borderaxespad=0,
    )


def _add_words(figure: Figure, over: str, axis: Axis) -> None:
    """A title on top, an explanation below."""
    title = figure.suptitle(f"Return of training episodes over {over}", x=0.01, ha="left")
    title.set(fontsize=15, fontweight="bold", color=INK)
    figure.supxlabel(EXPLANATION + axis.explanation, x=0.99, ha="right", fontsize=9, color=PALE)
