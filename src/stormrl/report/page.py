"""An overview laid out as one HTML file that needs nothing beside itself.

Names and texts from run directories are anybody's: the template escapes all of them.
"""

from __future__ import annotations

import base64
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from stormrl import __version__
from stormrl.config.parts import to_dict
from stormrl.disk.jsonlines import is_number
from stormrl.report import figures
from stormrl.report.groups import Variant, labelled
from stormrl.report.overview import Overview, causes
from stormrl.report.reading import Run
from stormrl.report.scores import COLUMNS, PROFILED
from stormrl.scores.curves import CAVEATS, FAMILY, RunSet, run_set
from stormrl.scores.on_track import differences
from stormrl.scores.reproduction import Comparison
from stormrl.scores.statistics import Estimate

LARGEST_VIDEO = 4 * 2**20
"""Bytes; a longer film is left where it is."""
FEW = 2
"""Games whose learning curves are drawn larger."""
METRICS = {
    "world_model/reconstruction": "reconstruction loss",
    "world_model/reward": "reward loss",
    "world_model/continuation": "continuation loss",
    "world_model/kl": "KL of posterior and prior",
    "agent/entropy": "policy entropy",
    "agent/value": "critic loss",
    "agent/imagined_return": "imagined return",
    "agent/return_scale": "range of imagined returns",
}
"""What is drawn of metrics.jsonl, with its name on the page."""


class Strip(NamedTuple):
    """A comparison as a strip: places from 0 to 100."""

    left: float
    width: float
    mean: float
    published: list[float]


class EmbeddedVideo(NamedTuple):
    """A video with all its bytes in its address."""

    title: str
    address: str


def html(overview: Overview, with_videos: bool = True) -> str:
    """The page."""
    environment = Environment(
        loader=PackageLoader("stormrl.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": figure, "interval": interval, "share": share}
    columns = [row.published for row in _published_rows(overview) if row.name in COLUMNS]
    return environment.get_template("page.html").render(
        overview=overview,
        version=__version__,
        columns=columns,
        strip=strip,
        key_figures=KEY_FIGURES,
        standings=[(standing, _standing_figures(standing)) for standing in overview.standings],
        published=_published_rows(overview),
        profiled=PROFILED,
        learning=_learning(overview),
        few=len(overview.games) <= FEW,
        variant_legend=figures.swatches(overview.variants),
        metrics=_metrics(overview),
        metric_legend=_colours(overview)[1],
        open_loop=_open_loop(overview),
        ahead_legend=figures.swatches(figures.AHEAD.values()),
        films=_films(overview) if with_videos else [],
        runs=[(run, _runtime(run), causes(run), run.track) for run in overview.runs],
        curves=_published_curves(overview),
        unlike=_unlike(overview),
        caveats=_caveats(overview),
        setups=_setups(overview),
        origins=_origins(overview.runs),
    )


KEY_FIGURES = {
    "iqm": "IQM",
    "optimality_gap": "optimality gap",
    "mean": "mean",
    "median": "median",
}
"""Aggregates and what they are called."""


def figure(value: float | None, decimals: int | None = None) -> str:
    """As in `0.561`, `12.3` and `26,182`; a dash for what is not known."""
    if value is None or not math.isfinite(value):
        return "\N{EN DASH}"
    if decimals is not None:
        return f"{value:.{decimals}f}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def interval(estimate: Estimate) -> str:
    """As in `0.51 to 0.61`; empty where there is none."""
    if math.isnan(estimate.low):
        return ""
    return f"{estimate.low:.2f} to {estimate.high:.2f}"


def share(value: float) -> str:
    """In whole per cent."""
    return f"{value:.0%}"


def strip(comparison: Comparison) -> Strip:
    """Where the interval, the published runs and the new mean lie beside each other."""
    low, high = comparison.interval
    places = (low, high, comparison.mean, *comparison.published)
    start, stop = min(places), max(places)
    span = (stop - start) or 1.0

    def place(value: float) -> float:
        return round(100 * (value - start) / span, 2)

    published = [place(value) for value in comparison.published]
    return Strip(place(low), place(high) - place(low), place(comparison.mean), published)


def _published_rows(overview: Overview) -> Sequence[Any]:
    rows = overview.standings[0].rows if overview.standings else []
    return [row for row in rows if row.published is not None]


def _standing_figures(standing: Any) -> dict[str, Any]:
    return {
        "aggregates": [
            figures.aggregates(title, name, standing.rows) for name, title in KEY_FIGURES.items()
        ],
        "profile": figures.performance_profiles(standing.profiles),
        "profile_legend": figures.swatches(standing.profiles),
        "improvement": figures.improvements(standing.rows),
    }


def _learning(overview: Overview) -> list[Markup]:
    size = figures.WIDE if len(overview.games) <= FEW else figures.SMALL
    found = []
    for game in overview.games:
        runs = {variant: _of(overview, game, variant) for variant in overview.variants}
        found.append(figures.learning_curves(game, runs, size))
    return found


def _published_curves(overview: Overview) -> list[RunSet]:
    """What is drawn behind the learning curves; nothing if there are none of any game."""
    if all(run.track is None for run in overview.runs):
        return []
    return [run_set(name) for name in FAMILY]


def _unlike(overview: Overview) -> list[str]:
    """In what the runs that are compared are not what those with published curves were."""
    compared = [run for run in overview.runs if run.track is not None]
    return sorted({words for run in compared for words in differences(run.config)})


def _caveats(overview: Overview) -> list[str]:
    return [f"{game}: {CAVEATS[game]}" for game in overview.games if game in CAVEATS]


def _of(overview: Overview, game: str, variant: str) -> list[Run]:
    groups = overview.groups
    return [run for group in groups if group[:2] == (game, variant) for run in group.runs]


def _metrics(overview: Overview) -> list[Markup]:
    colours, _ = _colours(overview)
    return [
        figures.metric_curves(
            title,
            [
                (colour, run.series(name))
                for run, colour in zip(overview.runs, colours, strict=True)
            ],
        )
        for name, title in METRICS.items()
    ]


def _colours(overview: Overview) -> tuple[list[int], list[tuple[int, str]]]:
    """A colour for each run, and what the colours stand for: what few enough runs differ in."""
    labels = labelled(overview.runs)
    by_variant = [labels[Variant.of(run)] for run in overview.runs]
    by_game = [run.config.env for run in overview.runs]
    by_run = [run.name for run in overview.runs]
    for names in (by_variant, by_game, by_run):
        distinct = list(dict.fromkeys(names))
        if 1 < len(distinct) <= figures.PALETTE:
            return [distinct.index(name) for name in names], figures.swatches(distinct)
    return [0] * len(overview.runs), []


def _open_loop(overview: Overview) -> list[Markup]:
    return [
        figures.open_loop(f"{group.name}, {run.name}", run.open_loop)
        for group in overview.groups
        for run in _first([run for run in group.runs if run.open_loop is not None])
        if run.open_loop is not None
    ]


def _films(overview: Overview) -> list[EmbeddedVideo]:
    """One for each game and variant: a page of hundreds must still be sent by mail."""
    return [
        EmbeddedVideo(f"{group.name}, {run.name}", address)
        for group in overview.groups
        for run in _first([run for run in group.runs if run.video is not None])
        if (address := _address(run)) is not None
    ]


def _first(runs: Sequence[Run]) -> Sequence[Run]:
    return sorted(runs, key=lambda run: run.config.seed)[:1]


def _address(run: Run) -> str | None:
    """The film as a data URI; None if it cannot be read or is too long."""
    try:
        if run.video is None or run.video.stat().st_size > LARGEST_VIDEO:
            return None
        content = run.video.read_bytes()
    except OSError:
        return None
    return f"data:video/mp4;base64,{base64.b64encode(content).decode()}"


def _runtime(run: Run) -> dict[str, float | None]:
    """How long the run took, and how fast it was from its first line of metrics to its last."""
    lines = [line for line in run.metrics if is_number(line.get("wall_s"))]
    if not lines:
        return {"hours": None, "steps_per_s": None, "updates_per_s": None}
    first, last = lines[0], lines[-1]
    return {
        "hours": last["wall_s"] / 3600,
        "steps_per_s": _rate(first, last, "step"),
        "updates_per_s": _rate(first, last, "update"),
    }


def _rate(first: Mapping[str, Any], last: Mapping[str, Any], name: str) -> float | None:
    start, end = first.get(name), last.get(name)
    seconds = last["wall_s"] - first["wall_s"]
    if not is_number(start) or not is_number(end) or seconds <= 0:
        return None
    return (end - start) / seconds


def _setups(overview: Overview) -> list[dict[str, Any]]:
    """The configuration of each variant, seed and game left out."""
    labels = labelled(overview.runs)
    samples = {labels[Variant.of(run)]: run for run in reversed(overview.runs)}
    return [
        {
            "label": label,
            "variant": Variant.of(samples[label]),
            "config": json.dumps(to_dict(samples[label].config), indent=2),
            "command": _command(samples[label].record),
        }
        for label in overview.variants
    ]


def _command(record: Mapping[str, Any]) -> str:
    """As it was typed, without the folder of the program."""
    words = record.get("command")
    if not isinstance(words, list) or not words:
        return ""
    program, *rest = map(str, words)
    return " ".join([program.rpartition("/")[2], *rest])


def _origins(runs: Sequence[Run]) -> dict[str, list[tuple[str, int]]]:
    """Versions, commits and machines, each with the number of runs that came from it."""
    return {
        "commit": _counted(run.record.get("commit") for run in runs),
        "versions": _counted(_facts(run.record.get("versions")) for run in runs),
        "hardware": _counted(_facts(run.record.get("hardware")) for run in runs),
    }


def _counted(values: Iterable[object]) -> list[tuple[str, int]]:
    return Counter(
        "unknown" if value in (None, "") else str(value) for value in values
    ).most_common()


def _facts(record: object) -> str:
    if not isinstance(record, Mapping):
        return ""
    return ", ".join(f"{name} {_fact(name, value)}" for name, value in record.items() if value)


def _fact(name: str, value: object) -> str:
    if name == "memory" and is_number(value):
        return f"{value / 2**30:.0f} GiB"
    return str(value)
