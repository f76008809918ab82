"""Figures for people: learning curves, drawn without a display and without global state."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import EngFormatter
from scipy.stats import bootstrap

Values: TypeAlias = Sequence[float] | npt.NDArray[Any]

INK, PALE, LINE, GRID = "#2d3038", "#7a7d85", "#a9acb3", "#e3e4e8"
# Okabe and Ito's palette: its colours stay apart with any colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


class Curve(NamedTuple):
    """One seed's training episodes: the environment step at which each ended, and its return."""

    steps: Values
    returns: Values


class ConfidenceBand(NamedTuple):
    """A mean over seeds and its interval, at the same steps."""

    steps: npt.NDArray[np.float64]
    mean: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]


def learning_curve(
    path: str | Path,
    curves: Mapping[str, Sequence[Curve]],
    title: str,
    random_return: tuple[float, float] | None = None,
    window: int = 10,
    xlabel: str = "environment steps",
    ylabel: str = "episode return",
    frames_per_step: int | None = None,
) -> None:
    """Returns over steps, a colour for each label: every episode a dot, their trailing mean a line.

    curves: the seeds of each label; several are drawn as their mean with a 95 % bootstrap band.
    random_return: the random agent's mean and standard error. window: episodes in a trailing mean.
    frames_per_step: emulator frames a step, for a second axis on top. The suffix of `path` chooses
    the format: .png, .svg or .pdf.
    """
    figure = Figure(figsize=(8, 4.5), layout=ConstrainedLayoutEngine(w_pad=0.14, h_pad=0.08))
    axes = figure.add_subplot()
    for (label, seeds), colour in zip(curves.items(), cycle(COLOURS), strict=False):
        _draw_seeds(axes, label, seeds, window, colour)
    if random_return is not None:
        _draw_level(axes, "random agent", *random_return)
    _style(axes, xlabel, ylabel)
    if frames_per_step is not None:
        _add_frames_axis(axes, frames_per_step)
    add_words(figure, title, _explanation(curves, window))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=200)


def error_curves(path: str | Path, open_loop: Mapping[str, Any], game: str) -> None:
    """Error of dreams over steps ahead, beside a copy of the last frame and a reconstruction.

    open_loop: what `OpenLoopError.as_dict` gives. The suffix of `path` chooses the format.
    """
    figure = Figure(figsize=(8, 4.5), layout=ConstrainedLayoutEngine(w_pad=0.14, h_pad=0.08))
    axes = figure.add_subplot()
    labels = {"dream": "dream", "copy": "copy of the last frame", "reconstruction": "frame is seen"}
    for (name, label), colour in zip(labels.items(), (COLOURS[4], INK, COLOURS[0]), strict=True):
        band = open_loop[name]
        steps = open_loop["ahead"]
        axes.fill_between(steps, band["low"], band["high"], color=colour, alpha=0.18, linewidth=0)
        axes.plot(steps, band["mean"], color=colour, linewidth=2, label=label)
    _style(axes, "steps ahead of the last frame seen", "mean squared error of pixels in [0, 1]")
    axes.set_ylim(bottom=0)
    ahead, episodes = open_loop["sees_ahead"], open_loop["episodes"]
    title = f"{game}: dreams beat a copy for {ahead} steps"
    add_words(figure, title, f"{episodes} episodes; band: 95 % bootstrap interval of the mean")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=200)


def rolling_mean(returns: Values, window: int) -> npt.NDArray[np.float64]:
    """At each index the mean of the last `window` values, of fewer while there are fewer."""
    sums = np.cumsum(np.concatenate([[0.0], np.asarray(returns, np.float64)]))
    ends = np.arange(1, len(sums))
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def seed_band(seeds: Sequence[Curve], window: int, points: int = 200) -> ConfidenceBand:
    """Mean over seeds of their trailing means, with its 95 % bootstrap interval.

    It spans the steps at which every seed has episodes, in `points` equal parts.
    """
    start = max(np.min(seed.steps) for seed in seeds)
    stop = min(np.max(seed.steps) for seed in seeds)
    grid = np.linspace(start, stop, points)
    lines = [np.interp(grid, seed.steps, rolling_mean(seed.returns, window)) for seed in seeds]
    interval = bootstrap((lines,), np.mean, axis=0, method="percentile", n_resamples=2000, rng=0)
    return ConfidenceBand(grid, np.mean(lines, axis=0), *interval.confidence_interval)


def _draw_seeds(axes: Axes, label: str, seeds: Sequence[Curve], window: int, colour: str) -> None:
    seeds = [seed for seed in seeds if len(seed.steps)]
    for seed in seeds:
        alpha = 0.3 / len(seeds) ** 0.5
        axes.scatter(seed.steps, seed.returns, s=9, color=colour, alpha=alpha, linewidths=0)
    if len(seeds) == 1:
        line = rolling_mean(seeds[0].returns, window)
        axes.plot(seeds[0].steps, line, color=colour, linewidth=2, label=label)
    elif seeds:
        band = seed_band(seeds, window)
        axes.fill_between(band.steps, band.low, band.high, color=colour, alpha=0.22, linewidth=0)
        text = f"{label}, {len(seeds)} seeds"
        axes.plot(band.steps, band.mean, color=colour, linewidth=2, label=text)


def _draw_level(axes: Axes, label: str, mean: float, stderr: float) -> None:
    decimals = 0 if stderr >= 10 else 2
    text = f"{label} {mean:,.{decimals}f} ± {stderr:,.{decimals}f}"
    axes.axhspan(mean - stderr, mean + stderr, color=INK, alpha=0.15, linewidth=0)
    axes.axhline(mean, color=INK, linewidth=1.3, linestyle=(0, (5, 3)), label=text)


def _style(axes: Axes, xlabel: str, ylabel: str) -> None:
    axes.set_xlabel(xlabel, fontsize=11, color=INK)
    axes.set_ylabel(ylabel, fontsize=11, color=INK)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(x=0.01)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(LINE)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.tick_params(axis="x", colors=INK, labelsize=10, length=3)
    axes.tick_params(axis="y", colors=INK, labelsize=10, length=0)


def _add_frames_axis(axes: Axes, frames_per_step: int) -> None:
    convert = (lambda steps: steps * frames_per_step, lambda frames: frames / frames_per_step)
    top = axes.secondary_xaxis("top", functions=convert)
    top.set_xlabel("emulator frames", fontsize=10, color=INK)
    top.spines["top"].set_color(LINE)
    top.xaxis.set_major_formatter(EngFormatter(sep=""))
    top.tick_params(colors=INK, labelsize=10, length=3)


def add_words(figure: Figure, title: str, explanation: str) -> None:
    """Title and legend on top, an explanation below."""
    # The legend carries the title: the layout then keeps both clear of each other and of the axes.
    handles, labels = figure.axes[0].get_legend_handles_labels()
    legend = figure.legend(
        handles,
        labels,
        loc="outside upper left",
        title=title,
        title_fontproperties={"size": 14, "weight": "bold"},
        alignment="left",
        ncols=3,
        frameon=False,
        fontsize=10,
        labelcolor=INK,
    )
    legend.get_title().set_color(INK)
    figure.supxlabel(explanation, x=0.983, ha="right", fontsize=8.5, color=PALE)


def _explanation(curves: Mapping[str, Sequence[Curve]], window: int) -> str:
    several = any(len(seeds) > 1 for seeds in curves.values())
    band = " over seeds; band: 95 % bootstrap interval of that mean" if several else ""
    return f"dots: episodes; line: mean of the last {window} episodes{band}"
