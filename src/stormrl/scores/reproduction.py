"""Prediction intervals: whether new runs of a game agree with the released runs of STORM.

The reference is those five runs alone: the authors' later ones had half the width and another
protocol. Returns are compared on their own scale, on which the released runs of a game show no skew
and their mean is what papers report.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from scipy.stats import t as student_t

from stormrl.config.parts import RunConfig
from stormrl.config.presets import agent_config
from stormrl.scores.published import (
    PRESET,
    PROTOCOL,
    SIZE,
    STEPS,
    STORM,
    published_agent,
    reference,
)

LEVEL = 0.95
PPO = "PPO (DreamerV3 paper)"
MANY = 100
"""Runs of a game that nobody makes."""


class Interval(NamedTuple):
    """Both ends belong to it."""

    low: float
    high: float

    def holds(self, value: float) -> bool:
        """Whether `value` lies in it."""
        return self.low <= value <= self.high


class ReproductionVerdict(StrEnum):
    """What new runs say; the value is for people."""

    REPRODUCED = "reproduced"
    OUTSIDE = "outside"
    TOO_FEW = "too few seeds to tell"


EXIT_CODES = {
    ReproductionVerdict.REPRODUCED: 0,
    ReproductionVerdict.OUTSIDE: 1,
    ReproductionVerdict.TOO_FEW: 3,
}


class Comparison(NamedTuple):
    """New runs of a game beside the released ones."""

    game: str
    scores: tuple[float, ...]
    """Mean return of each new run."""
    published: tuple[float, ...]
    """Mean return of each released run."""
    weak: Mapping[str, float]
    """Mean return of what has not learned the game: random play, and PPO after as many steps."""
    level: float = LEVEL

    @property
    def mean(self) -> float:
        """Of the new runs; NaN without any."""
        return statistics.fmean(self.scores) if self.scores else math.nan

    @property
    def interval(self) -> Interval:
        """Where the mean of as many runs is expected, and that of one if there is none yet."""
        return prediction_interval(self.published, max(len(self.scores), 1), self.level)

    @property
    def inside(self) -> bool:
        """Whether the mean of the new runs lies in the interval."""
        return self.interval.holds(self.mean)

    @property
    def confused(self) -> list[str]:
        """Weak play that the interval of so many runs does not exclude."""
        return [name for name, score in self.weak.items() if self.interval.holds(score)]

    @property
    def verdict(self) -> ReproductionVerdict:
        """A mean inside says nothing as long as weak play would lie inside as well."""
        if not self.scores:
            return ReproductionVerdict.TOO_FEW
        if not self.inside:
            return ReproductionVerdict.OUTSIDE
        return ReproductionVerdict.TOO_FEW if self.confused else ReproductionVerdict.REPRODUCED

    @property
    def runs_needed(self) -> int | None:
        """Fewest runs whose interval excludes weak play; None if no number of them does."""
        for count in range(1, MANY + 1):
            interval = prediction_interval(self.published, count, self.level)
            if not any(map(interval.holds, self.weak.values())):
                return count
        return None

    def as_dict(self) -> dict[str, Any]:
        """What is known, JSON-able."""
        return {
            "game": self.game,
            "verdict": self.verdict.value,
            "scores": list(self.scores),
            "mean": self.mean,
            "inside": self.inside if self.scores else None,
            "interval": list(self.interval),
            "level": self.level,
            "published": list(self.published),
            "weak": dict(self.weak),
            "confused": self.confused,
            "runs_needed": self.runs_needed,
        }


def prediction_interval(published: Sequence[float], new: int, level: float = LEVEL) -> Interval:
    """Where the mean of `new` more runs lies with probability `level`, for runs spread normally.

    mean ± t s sqrt(1/m + 1/new), with mean and standard deviation s of the m published runs and
    Student's t of m - 1 degrees of freedom. Raises `ValueError` for fewer than two published runs.
    """
    if len(published) < 2:
        raise ValueError("one run says nothing about the spread of others")
    quantile = float(student_t.ppf((1 + level) / 2, len(published) - 1))
    spread = statistics.stdev(published) * math.sqrt(1 / len(published) + 1 / new)
    middle = statistics.fmean(published)
    return Interval(middle - quantile * spread, middle + quantile * spread)


def compare(game: str, scores: Sequence[float]) -> Comparison:
    """New runs of `game`, one mean return each, beside the released ones.

    Raises `KeyError` for a game outside of the Atari 100k benchmark.
    """
    scale = reference(game)
    if scale is None:
        raise KeyError(game)
    weak = {"random play": scale.random, "PPO": published_agent(PPO).means[game]}
    return Comparison(game, tuple(scores), published_agent(STORM).seeds[game], weak)


def exit_code(comparisons: Iterable[Comparison]) -> int:
    """0: all reproduced. 1: a game lies outside. 3: none does, but some cannot be told yet."""
    verdicts = {comparison.verdict for comparison in comparisons}
    for verdict in (ReproductionVerdict.OUTSIDE, ReproductionVerdict.TOO_FEW):
        if verdict in verdicts:
            return EXIT_CODES[verdict]
    return EXIT_CODES[ReproductionVerdict.REPRODUCED]


def differences(config: RunConfig) -> list[str]:
    """In what a run is not what the released ones were; its score then says less about them."""
    expected = {"preset": PRESET, "size": SIZE, "protocol": PROTOCOL, "steps": STEPS}
    found = [
        f"{name} {getattr(config, name)} instead of {value}"
        for name, value in expected.items()
        if getattr(config, name) != value
    ]
    if not found and config.agent != agent_config(PRESET, SIZE):
        found.append(f"settings other than those of preset {PRESET}")
    return found
