"""Published learning curves, seed by seed, which come with the package.

A point of a curve is the mean return of the *training* episodes that ended within 5,000 environment
steps; it stands at the last of these steps. No sticky actions in any of them.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from stormrl.scores.published import PREFIX, game_of, games

WIDTH = 5_000
"""Environment steps of a bin, four emulator frames each."""
NEAREST = "v1"
"""The nearest published relative of STORM."""
FAMILY = ("v1", "HD", "Harm")
"""Run sets of one code, made by two groups."""
PPO = "ppo"

Curve = tuple[float | None, ...]
"""Mean return by bin; None where no episode ended."""


class RunSet(NamedTuple):
    """Runs of one algorithm by one group."""

    name: str
    title: str
    seeds: int
    """Of each game."""
    compute: str
    """How much it trained for each environment step."""
    source: str
    """Repository, commit and file that the returns stand in."""


class RandomPlay(NamedTuple):
    """Episodes of random play in the same game, without sticky actions."""

    mean: float
    deviation: float
    """Standard deviation of one episode."""
    episodes: int


class PublishedBand(NamedTuple):
    """Curves of several seeds, bin by bin; NaN where no seed ended an episode."""

    steps: tuple[int, ...]
    low: tuple[float, ...]
    """The lowest seed."""
    median: tuple[float, ...]
    high: tuple[float, ...]
    """The highest seed."""

    def until(self, step: float) -> PublishedBand:
        """Its bins up to the one in which `step` lies."""
        kept = 1 + sum(end < step for end in self.steps)
        return PublishedBand(
            self.steps[:kept], self.low[:kept], self.median[:kept], self.high[:kept]
        )


_AN_UPDATE_A_STEP = "an update of 16 x 64 steps at every step"
_ABOUT = {
    "v1": ("DreamerV3 of 2023", _AN_UPDATE_A_STEP),
    "HD": ("DreamerV3 of 2023, run by the authors of HarmonyDream", _AN_UPDATE_A_STEP),
    "Harm": ("HarmonyDream on DreamerV3 of 2023", _AN_UPDATE_A_STEP),
    "v2": ("DreamerV3 of 2024", "an update of 16 x 64 steps at every fourth step"),
    "ppo": ("PPO", "no world model"),
}
"""Title and compute of each run set."""

CAVEATS = {
    "ChopperCommand": "the authors of HarmonyDream ended its episodes after 5,400 frames; of the "
    "other runs hardly any episode ended",
}
"""By game: in what its curves differ from all others."""


def run_sets() -> list[RunSet]:
    """Every run set that there are curves of."""
    return [run_set(name) for name in _ABOUT]


def run_set(name: str) -> RunSet:
    """A run set. Raises `KeyError` for a name that no run set has."""
    title, compute = _ABOUT[name]
    seeds = min(len(curves(game, name)) for game in games())
    return RunSet(name, title, seeds, compute, _tables()["sources"][name])


def game_with_curves(env_id: str) -> str | None:
    """As in `Pong` for `ALE/Pong-v5`; None for an environment that there are no curves of."""
    game = game_of(env_id)
    return game if env_id.startswith(PREFIX) and game in _tables()["curves"] else None


def bin_ends() -> tuple[int, ...]:
    """The last environment step of each bin."""
    return tuple(_tables()["bins_end_env_steps"])


def curves(game: str, name: str) -> tuple[Curve, ...]:
    """Of each seed of a run set. Raises `KeyError` if there are none."""
    return tuple(map(tuple, _tables()["curves"][game][name]))


def at(game: str, names: Sequence[str], end: int) -> tuple[float, ...]:
    """Of each seed of these run sets that ended an episode, its mean return in the bin up to `end`.

    Raises `KeyError` for an unknown game or run set, `ValueError` if no bin ends there.
    """
    place = bin_ends().index(end)
    points = [curve[place] for name in names for curve in curves(game, name)]
    return tuple(point for point in points if point is not None)


def band(game: str, names: Sequence[str] = FAMILY) -> PublishedBand:
    """Lowest, median and highest seed of these run sets. Raises `KeyError` if there are none."""
    ends = bin_ends()
    points = [_spread(at(game, names, end)) for end in ends]
    low, median, high = zip(*points, strict=True)
    return PublishedBand(ends, low, median, high)


def random_play(game: str) -> RandomPlay:
    """Of the first 6,000 steps of PPO, which had learned nothing yet.

    Raises `KeyError` for an unknown game.
    """
    record = _tables()["random_episode_stats_from_ppo_first_24k_frames"][game]
    return RandomPlay(record["mean"], record["sd"], record["n"])


def _spread(points: Sequence[float]) -> tuple[float, float, float]:
    if not points:
        return math.nan, math.nan, math.nan
    return min(points), statistics.median(points), max(points)


@cache
def _tables() -> dict[str, Any]:
    file = resources.files("stormrl") / "data" / "early_curves.json"
    return json.loads(file.read_text(encoding="utf-8"))
