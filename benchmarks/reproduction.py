"""How often `stormrl reproduce` accepts what it should accept, and what it rejects.

Each released run in turn is taken for a new one and compared with the others of its game.

    python benchmarks/reproduction.py
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from scipy.stats import skew, zscore

from stormrl.scores.published import STORM, STORM_RERUN, games, published_agent
from stormrl.scores.reproduction import (
    MANY,
    PPO,
    Comparison,
    ReproductionVerdict,
    compare,
    prediction_interval,
)

LEVELS = (0.9, 0.95, 0.99)
TELLING = ("Boxing", "RoadRunner", "CrazyClimber")


class Counts(NamedTuple):
    inside: int
    told: int
    runs: int


def left_out(level: float) -> Iterator[Comparison]:
    for game in games():
        seeds = published_agent(STORM).seeds[game]
        for i, score in enumerate(seeds):
            others = seeds[:i] + seeds[i + 1 :]
            yield compare(game, [score])._replace(published=others, level=level)


def later(level: float) -> Iterator[Comparison]:
    for game, seeds in published_agent(STORM_RERUN).seeds.items():
        for score in seeds:
            yield compare(game, [score])._replace(level=level)


def counts(comparisons: Iterator[Comparison]) -> Counts:
    verdicts = Counter(comparison.verdict for comparison in comparisons)
    told = verdicts[ReproductionVerdict.REPRODUCED]
    return Counts(told + verdicts[ReproductionVerdict.TOO_FEW], told, verdicts.total())


def symlog(x: np.ndarray) -> np.ndarray:
    return np.sign(x) * np.log1p(np.abs(x))


def skewness(scale: Callable[[np.ndarray], np.ndarray]) -> float:
    """Of all released runs about the mean of their game, in its standard deviations."""
    runs = [scale(np.array(seeds)) for seeds in published_agent(STORM).seeds.values()]
    return float(skew(np.concatenate([zscore(seeds) for seeds in runs if seeds.std() > 0])))


def highest_on_log_scale(game: str) -> float:
    """Upper end of the interval that would come of the logarithms of the returns."""
    seeds = symlog(np.array(published_agent(STORM).seeds[game]))
    return float(np.expm1(prediction_interval(seeds.tolist(), new=1).high))


def by_runs_needed() -> dict[int | None, list[str]]:
    grouped: dict[int | None, list[str]] = {}
    for game in games():
        grouped.setdefault(compare(game, []).runs_needed, []).append(game)
    return grouped


def main() -> None:
    for name, runs in (("one released run left out", left_out), ("later runs", later)):
        for level in LEVELS:
            found = counts(runs(level))
            share = found.inside / found.runs
            print(
                f"{name}, level {level:.0%}: {found.inside} of {found.runs} inside ({share:.1%}), "
                f"{found.told} of them told from weak play by one run"
            )
    for game in TELLING:
        for name, score in compare(game, []).weak.items():
            print(f"{game}: {name} with {score:g} is {compare(game, [score]).verdict}")
    for needed, named in sorted(by_runs_needed().items(), key=lambda item: item[0] or MANY):
        print(f"{needed or 'no number of'} runs tell {', '.join(named)}")
    print(f"skewness of the released runs: {skewness(lambda returns: returns):.2f}")
    print(f"skewness of their logarithms: {skewness(symlog):.2f}")
    for game in ("Pong", "Kangaroo", "PrivateEye"):
        print(f"{game}: by logarithms, one run up to {highest_on_log_scale(game):,.0f} would pass")
    print("source of PPO's scores:", published_agent(PPO).source)


if __name__ == "__main__":
    main()
