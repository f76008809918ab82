"""How often `stormrl reproduce` accepts what it should accept, and what it rejects.

Each released run in turn is taken for a new one and compared with the others of its game.

    python benchmarks/reproduction.py
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from stormrl.published import STORM, STORM_RERUN, games, published_agent
from stormrl.reproduction import PPO, Comparison, Verdict, compare

LEVELS = (0.9, 0.95, 0.99)
TELLING = ("Boxing", "RoadRunner", "CrazyClimber")


@dataclass(frozen=True)
class Counts:
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
    told = verdicts[Verdict.REPRODUCED]
    return Counts(told + verdicts[Verdict.TOO_FEW], told, verdicts.total())


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
    needed = Counter(compare(game, []).runs_needed for game in games())
    print("runs needed to tell a game from random play and PPO:", dict(needed))
    never = [game for game in games() if compare(game, []).runs_needed is None]
    print("never:", ", ".join(never))
    print("source of PPO's scores:", published_agent(PPO).source)


if __name__ == "__main__":
    main()
