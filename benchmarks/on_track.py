"""How often the interval of `on_track` holds what it should hold, and what it shuts out.

Each published seed in turn is taken for a new run and compared with the others of its game, at
every bin of 5,000 steps from 10,000 on. Random play is played here, in the games that rise early.

    python benchmarks/on_track.py [--bins 3]
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import ale_py
import gymnasium
import numpy as np
from scipy.stats import skew, zscore

from stormrl.scores.curves import FAMILY, NEAREST, PPO, WIDTH, at, bin_ends
from stormrl.scores.on_track import FIRST, SEVERAL, Bin, ReturnScale, weak_play
from stormrl.scores.published import games
from stormrl.scores.reproduction import prediction_interval

ENDS = [end for end in bin_ends() if end >= FIRST]
EARLY = ("RoadRunner", "UpNDown", "CrazyClimber", "KungFuMaster", "Boxing")
"""Games in which DreamerV3 rises within 30,000 steps on every seed."""
SETS = {"v1": (NEAREST,), "v1 + HD + Harm": FAMILY}
LEVELS = (0.9, 0.95, 0.99)
TOLD_AT = (10_000, 15_000, 20_000, 30_000, 50_000, 100_000)


class Counts(NamedTuple):
    below: int
    inside: int
    above: int

    @classmethod
    def of(cls, bins: Iterator[Bin]) -> "Counts":
        found = [(each.mean, *each.interval) for each in bins]
        below = sum(mean < low for mean, low, _ in found)
        above = sum(mean > high for mean, _, high in found)
        return cls(below, len(found) - below - above, above)

    def __str__(self) -> str:
        below, inside, above = (f"{count / sum(self):.1%}" for count in self)
        held = f"{self.inside} of {sum(self)} inside ({inside})"
        return f"{held}, {below} below, {above} above"


def compared(game: str, end: int, value: float, published: Sequence[float], level: float) -> Bin:
    scale = ReturnScale.of(game)
    return Bin(end, (value,), tuple(published), weak_play(game, end), scale, level)


def left_out(names: Sequence[str], level: float = 0.95) -> Iterator[Bin]:
    """Every seed beside all others of these run sets."""
    for game in games():
        for end in ENDS:
            seeds = at(game, names, end)
            for i, value in enumerate(seeds):
                others = seeds[:i] + seeds[i + 1 :]
                if len(others) >= SEVERAL:
                    yield compared(game, end, value, others, level)


def others_runs(of: str, beside: Sequence[str], level: float = 0.95) -> Iterator[Bin]:
    """Every seed of a run set beside other run sets."""
    for game in games():
        for end in ENDS:
            published = at(game, beside, end)
            if len(published) >= SEVERAL:
                for value in at(game, (of,), end):
                    yield compared(game, end, value, published, level)


def skewness(scale: Callable[[str, float], float]) -> float:
    """Of all seeds of the family about the mean of their game and bin."""
    points = [np.array([scale(g, x) for x in at(g, FAMILY, end)]) for g in games() for end in ENDS]
    return float(
        skew(np.concatenate([np.asarray(zscore(each)) for each in points if each.std() > 0]))
    )


def plain_inside(names: Sequence[str]) -> float:
    """Share inside if returns were compared as they are."""
    held = []
    for each in left_out(names):
        held.append(prediction_interval(each.published, 1).holds(each.mean))
    return float(np.mean(held))


def telling(end: int, names: Sequence[str]) -> list[str]:
    """Games whose interval excludes the means of random play and PPO there."""
    return [
        game
        for game in games()
        if len(at(game, names, end)) >= SEVERAL
        and not compared(game, end, 0.0, at(game, names, end), 0.95).confused
    ]


def told_for_good(game: str, names: Sequence[str], runs: Callable[[int], Sequence[float]]) -> str:
    """First bin from which all of `runs` lie below the interval, there and in all later ones."""
    first = None
    for end in reversed(ENDS):
        low = compared(game, end, 0.0, at(game, names, end), 0.95).interval.low
        if max(runs(end)) >= low:
            break
        first = end
    return "never" if first is None else f"{first:,}"


def random_bins(game: str, count: int) -> list[float]:
    """Mean return of the episodes that end in each of `count` bins of random play.

    Four frames a step, no sticky actions, nothing drawn: the picture is not looked at.
    """
    game_id = f"ALE/{game}-v5"
    env = gymnasium.make(game_id, obs_type="ram", frameskip=4, repeat_action_probability=0.0)
    env.action_space.seed(0)
    env.reset(seed=0)
    returns: list[list[float]] = [[] for _ in range(count)]
    total = 0.0
    for step in range(count * WIDTH):
        _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        total += float(reward)
        if terminated or truncated:
            returns[step // WIDTH].append(total)
            total = 0.0
            env.reset()
    env.close()
    return [float(np.mean(each)) for each in returns if each]


def untold_steps(game: str) -> int:
    """Up to where the mean of random play would lie inside if returns were compared as they are."""
    random = weak_play(game, ENDS[0])["random play"]
    inside = [prediction_interval(at(game, FAMILY, end), 1).holds(random) for end in ENDS]
    return max((end for end, held in zip(ENDS, inside, strict=True) if held), default=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bins", type=int, default=3, help="of random play in each game")
    bins: int = parser.parse_args().bins
    for title, names in SETS.items():
        for level in LEVELS:
            print(
                f"{title}, a seed left out, level {level:.0%}: {Counts.of(left_out(names, level))}"
            )
        print(f"{title}, a seed left out, returns as they are: {plain_inside(names):.1%} inside")
    for of in (*FAMILY, "v2", PPO):
        beside = [name for name in FAMILY if name != of]
        print(f"{of} beside {' + '.join(beside)}: {Counts.of(others_runs(of, beside))}")
    print(f"skewness of returns: {skewness(lambda game, x: x):.2f}")
    print(f"skewness on the scale: {skewness(lambda game, x: ReturnScale.of(game).to(x)):.2f}")
    for title, names in SETS.items():
        for end in TOLD_AT:
            told = telling(end, names)
            print(f"{title} at {end:,}: {len(told)} games told: {', '.join(told)}")
    gymnasium.register_envs(ale_py)
    for game in EARLY:
        print(f"{game}: returns as they are, random play lies inside up to {untold_steps(game):,}")
        played = random_bins(game, bins)
        print(
            f"{game}: random play in bins of 5,000 steps: {', '.join(f'{x:,.1f}' for x in played)}"
        )
        for title, names in SETS.items():
            random = told_for_good(game, names, lambda end, played=played: played)
            ppo = told_for_good(game, names, lambda end, game=game: at(game, (PPO,), end))
            print(f"{game}, {title}: all random play is below from {random}, all PPO from {ppo}")


if __name__ == "__main__":
    main()
