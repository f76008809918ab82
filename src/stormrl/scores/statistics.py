"""Aggregate metrics (IQM, optimality gap) over runs and games, with confidence intervals.

Every function takes normalised scores by game, one for each run. Games may differ in their number
of runs. Definitions: Agarwal et al. 2021, arXiv 2108.13264.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import trim_mean

Scores = Mapping[str, Sequence[float]]
"""Normalised scores of a game's runs, by the name of the game."""

CONFIDENCE = 0.95
RESAMPLES = 2000
GOAL = 1.0
"""Score beyond which nothing is left to gain: that of a human."""

_Runs = list[NDArray[np.float64]]
_Statistic = Callable[[_Runs], NDArray[np.float64]]


class Estimate(NamedTuple):
    """A figure and its 95 % interval, which is NaN where no game has two runs."""

    value: float
    low: float
    high: float


class Aggregate(NamedTuple):
    """All scores in four figures: mean and median weigh games the same, the others runs."""

    mean: Estimate
    """Over games, of the mean of their runs."""
    median: Estimate
    """Over games, of the mean of their runs."""
    iqm: Estimate
    """Inter-quartile mean: of the middle half of all runs."""
    optimality_gap: Estimate
    """By how much all runs stay below a human on average; what they have beyond it is not
    counted."""


def aggregate(scores: Scores, *, resamples: int = RESAMPLES, seed: int = 0) -> Aggregate:
    """Mean, median, IQM and optimality gap, with stratified bootstrap intervals.

    Raises `ValueError` if there is no game, or a game has no run.
    """
    runs = _runs(scores)
    return Aggregate(*_estimates(runs, _aggregates, resamples, seed))


def performance_profile(
    scores: Scores, thresholds: Sequence[float], *, resamples: int = RESAMPLES, seed: int = 0
) -> list[Estimate]:
    """For each threshold, the fraction of all runs that score above it.

    Raises `ValueError` if there is no game, or a game has no run.
    """

    def fractions(runs: _Runs) -> NDArray[np.float64]:
        pooled = np.concatenate(runs, axis=-1)
        return np.stack([(pooled > threshold).mean(-1) for threshold in thresholds])

    return _estimates(_runs(scores), fractions, resamples, seed)


def probability_of_improvement(
    x: Scores, y: Scores, *, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """How probably a run of X scores higher than one of Y on the same game, averaged over games.

    An equal score counts half: the statistic of Mann and Whitney. Raises `ValueError` if the two
    were not run on the same games.
    """
    if x.keys() != y.keys():
        raise ValueError("both need scores on the same games")
    runs = _runs(x) + _runs({game: y[game] for game in x})

    def probability(runs: _Runs) -> NDArray[np.float64]:
        pairs = zip(runs[: len(x)], runs[len(x) :], strict=True)
        return np.mean([_wins(ours, theirs) for ours, theirs in pairs], axis=0)[None]

    (estimate,) = _estimates(runs, probability, resamples, seed)
    return estimate


def _runs(scores: Scores) -> _Runs:
    runs = [np.asarray(game, np.float64) for game in scores.values()]
    if not runs or not all(len(game) for game in runs):
        raise ValueError("every game needs a score, and there must be a game")
    return runs


def _aggregates(runs: _Runs) -> NDArray[np.float64]:
    """The four figures of runs [..., runs of the game], stacked in front: [4, ...]."""
    games = np.stack([game.mean(-1) for game in runs], axis=-1)
    pooled = np.concatenate(runs, axis=-1)
    return np.stack(
        [
            games.mean(-1),
            np.median(games, axis=-1),
            trim_mean(pooled, 0.25, axis=-1),
            GOAL - np.minimum(pooled, GOAL).mean(-1),
        ]
    )


def _wins(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fraction of the pairs that ours [..., n] win over theirs [..., m]."""
    difference = ours[..., :, None] - theirs[..., None, :]
    return (np.sign(difference) / 2 + 0.5).mean((-2, -1))


def _estimates(runs: _Runs, statistic: _Statistic, resamples: int, seed: int) -> list[Estimate]:
    values = statistic(runs)
    if all(len(game) == 1 for game in runs):
        return [Estimate(float(value), math.nan, math.nan) for value in values]
    tails = (1 - CONFIDENCE) / 2
    drawn = statistic(_resampled(runs, resamples, np.random.default_rng(seed)))
    low, high = np.quantile(drawn, (tails, 1 - tails), axis=-1)
    return [Estimate(*map(float, row)) for row in zip(values, low, high, strict=True)]


def _resampled(runs: _Runs, resamples: int, generator: np.random.Generator) -> _Runs:
    """Each game's runs drawn anew with replacement: [resamples, runs of the game]."""
    return [game[generator.integers(len(game), size=(resamples, len(game)))] for game in runs]
