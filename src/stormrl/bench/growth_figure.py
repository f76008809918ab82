"""The figure of a sweep: seconds of each stage over one dimension, both axes logarithmic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FixedLocator, LogLocator, NullFormatter, NullLocator

from stormrl.bench.growth import DIMENSIONS
from stormrl.pictures.figures import COLOURS, GRID, INK, LINE, PALE, add_words

STAGES = ("iteration", "world_model", "encode", "rollout", "actor_critic")


def growth_figure(path: str | Path, growth: Mapping[str, Any]) -> None:
    """Draw what `stormrl bench --grow` has measured; the suffix of `path` chooses the format.

    A line is a stage, its legend says with which power of the dimension the cost grows; dots are
    the least time that the iteration's arithmetic takes.
    """
    benches = growth["benches"]
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.add_subplot()
    for stage, colour in zip(STAGES, COLOURS, strict=False):
        _draw_stage(axes, stage, colour, growth, benches)
    _draw_limit(axes, growth["values"], benches)
    _style(axes, DIMENSIONS[growth["grow"]].label, growth["values"])
    _add_words(figure, growth["grow"], benches[0])
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=200)


def _draw_stage(
    axes: Axes, stage: str, colour: str, growth: Mapping[str, Any], benches: Sequence[Any]
) -> None:
    times = [bench["stages"][stage] for bench in benches]
    low, middle, high = ([time[key] for time in times] for key in ("p10_s", "median_s", "p90_s"))
    exponent = growth["exponents"].get(stage)
    label = stage.replace("_", " ") + ("" if exponent is None else f": exponent {exponent:.2f}")
    width = 2.6 if stage == "iteration" else 1.6
    axes.fill_between(growth["values"], low, high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(
        growth["values"], middle, "o-", color=colour, linewidth=width, markersize=4, label=label
    )


def _draw_limit(axes: Axes, values: Sequence[int], benches: Sequence[Any]) -> None:
    limits = [
        bench["stages"]["iteration"]["flops"] / bench["peak"]["matmul_flops_per_s"]
        for bench in benches
    ]
    label = "iteration at the device's peak"
    axes.plot(values, limits, ":", color=PALE, linewidth=1.6, label=label)


def _style(axes: Axes, xlabel: str, values: Sequence[int]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator(list(values)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(EngFormatter("s", sep=" "))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(xlabel, fontsize=11, color=INK)
    axes.set_ylabel("time of one call", fontsize=11, color=INK)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(LINE)
    axes.tick_params(colors=INK, labelsize=10, length=0, which="both")


def _add_words(figure: Figure, dimension: str, bench: Mapping[str, Any]) -> None:
    mode = "compiled" if bench["compile"] else "eager"
    title = f"Cost over {dimension}: {bench['size']}, {bench['device']}, {bench['dtype']}, {mode}"
    machine = f"{bench['device_name']}, {bench['threads']} CPU thread(s)"
    add_words(figure, title, f"{machine}; line: median, band: p10 to p90")
