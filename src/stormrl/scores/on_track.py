"""Learning-curve comparison: whether a run is where published runs were after as many steps.

Training returns are compared in bins of 5,000 steps with the learning curves of DreamerV3 of 2023,
whose runs lie in a prediction interval for one run more. Equal steps are not equal compute, so what
a run does otherwise is told beside the verdict.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from stormrl.config.parts import RunConfig
from stormrl.disk.jsonlines import is_number
from stormrl.envs import PROTOCOLS
from stormrl.scores.curves import (
    CAVEATS,
    FAMILY,
    PPO,
    WIDTH,
    at,
    bin_ends,
    game_with_curves,
    random_play,
    run_set,
)
from stormrl.scores.reproduction import LEVEL, Interval, prediction_interval

FIRST = 10_000
"""Environment steps before which nothing is said."""
TRAIN_RATIO = 1024
"""Steps that the published world models were trained on for each step played."""
SEVERAL = 2
"""Fewest seeds that tell a spread."""


class TrackVerdict(StrEnum):
    """What a run's training returns say; the value is for people."""

    WITHIN = "within"
    BELOW = "below"
    ABOVE = "above"
    UNTOLD = "within, as weak play would be"
    EARLY = "too early to tell"
    NO_EPISODE = "no episode to tell by"


class ReturnScale(NamedTuple):
    """Distance from random play: in its own spread while that is small, in orders beyond.

    Seeds of one algorithm differ by points at first and by factors once they have learned.
    """

    middle: float
    unit: float

    @classmethod
    def of(cls, game: str) -> ReturnScale:
        """A unit is the deviation of a random episode, and a point where these do not differ."""
        random = random_play(game)
        return cls(random.mean, max(random.deviation, 1.0))

    def to(self, value: float) -> float:
        """A return on this scale."""
        return math.asinh((value - self.middle) / self.unit)

    def back(self, place: float) -> float:
        """The return at a place of this scale."""
        return self.middle + self.unit * math.sinh(place)


class Bin(NamedTuple):
    """Training episodes of a run that ended within `WIDTH` steps, beside the published ones."""

    end: int
    """The last of these steps."""
    returns: tuple[float, ...]
    """Of the run's episodes."""
    published: tuple[float, ...]
    """Mean return of each published seed in the same steps."""
    weak: Mapping[str, float]
    """Mean return of what learns nothing so early: random play, and PPO in the same steps."""
    scale: ReturnScale
    level: float = LEVEL

    @property
    def mean(self) -> float:
        """Of the run's episodes; NaN without any."""
        return statistics.fmean(self.returns) if self.returns else math.nan

    @property
    def interval(self) -> Interval:
        """Where one run more is expected. Raises `ValueError` below two published seeds."""
        places = [self.scale.to(value) for value in self.published]
        return Interval(*map(self.scale.back, prediction_interval(places, 1, self.level)))

    @property
    def confused(self) -> list[str]:
        """Weak play that the interval does not exclude."""
        interval = self.interval
        return [name for name, score in self.weak.items() if interval.holds(score)]

    @property
    def verdict(self) -> TrackVerdict:
        """A mean inside says nothing as long as weak play would lie inside as well."""
        low, high = self.interval
        if not self.returns:
            return TrackVerdict.NO_EPISODE
        if self.mean < low:
            return TrackVerdict.BELOW
        if self.mean > high:
            return TrackVerdict.ABOVE
        return TrackVerdict.UNTOLD if self.confused else TrackVerdict.WITHIN

    def as_dict(self) -> dict[str, Any]:
        """What is known, JSON-able."""
        return {
            "first_step": self.end - WIDTH + 1,
            "last_step": self.end,
            "episodes": len(self.returns),
            "mean": self.mean,
            "interval": list(self.interval),
            "seeds": len(self.published),
            "weak": dict(self.weak),
            "confused": self.confused,
            "verdict": self.verdict.value,
        }


class Track(NamedTuple):
    """How a run's training returns lie beside the published learning curves of its game."""

    game: str
    step: int
    """How far the run is."""
    bins: tuple[Bin, ...]
    """That are complete, from the first."""

    @property
    def judged(self) -> Bin | None:
        """The newest complete bin that is not too early, and in which an episode ended."""
        late = (each for each in reversed(self.bins) if each.end >= FIRST and each.returns)
        return next(late, None)

    @property
    def verdict(self) -> TrackVerdict:
        """That of the newest bin alone, as a run may fall behind and catch up."""
        if self.judged is not None:
            return self.judged.verdict
        return TrackVerdict.EARLY if self.step < FIRST else TrackVerdict.NO_EPISODE


def compare_curve(
    game: str, episodes: Sequence[tuple[float, float]], step: int, names: Sequence[str] = FAMILY
) -> Track:
    """A run's training episodes, by the step at which each ended and its return, beside these sets.

    step: how far the run is; bins beyond it are left out. Raises `KeyError` for a game or run set
    without curves.
    """
    scale = ReturnScale.of(game)
    ends = [end for end in bin_ends() if end <= step and len(at(game, names, end)) >= SEVERAL]
    bins = (
        Bin(end, _returns(episodes, end), at(game, names, end), weak_play(game, end), scale)
        for end in ends
    )
    return Track(game, step, tuple(bins))


def weak_play(game: str, end: int) -> dict[str, float]:
    """Mean return in the bin up to step `end` of what is not to be taken for such a run."""
    return {
        "random play": random_play(game).mean,
        "PPO": statistics.fmean(at(game, (PPO,), end)),
    }


def track(config: RunConfig, episodes: Sequence[Mapping[str, Any]], step: int = 0) -> Track | None:
    """How a run with these lines of episodes.jsonl stands; None if there are no curves of its game.

    step: how far the run is, if that is beyond its newest episode. Episodes that a resumed run
    closed before their end are left out.
    """
    game = game_with_curves(config.env)
    if game is None:
        return None
    found = list(_whole_episodes(episodes))
    newest = max((int(end) for end, _ in found), default=0)
    return compare_curve(game, found, max(step, newest))


def track_record(config: RunConfig, found: Track | None) -> dict[str, Any]:
    """A `track` of a run of `config`, JSON-able, also if there are no curves to compare with."""
    if found is None:
        return {"applicable": False, "reason": not_applicable(config)}
    judged = found.judged
    return {
        "applicable": True,
        "game": found.game,
        "step": found.step,
        "verdict": found.verdict.value,
        "judged": None if judged is None else judged.as_dict(),
        "level": LEVEL,
        "published": [run_set(name)._asdict() for name in FAMILY],
        "caveat": CAVEATS.get(found.game),
        "differences": differences(config),
        "bins": [each.as_dict() for each in found.bins],
    }


def not_applicable(config: RunConfig) -> str:
    """Why a run cannot be compared."""
    return f"no learning curves of {config.env} are published here; there are those of 26 ALE games"


def differences(config: RunConfig) -> list[str]:
    """In what a run is not what the published ones were, its algorithm and size apart."""
    return list(_differences(config))


def _differences(config: RunConfig) -> Iterator[str]:
    rules, agent = PROTOCOLS.get(config.protocol), config.agent
    if rules is None or rules.sticky_actions:
        yield f"protocol {config.protocol} instead of one without sticky actions"
    window = agent.world_model.batch_size * agent.world_model.batch_length
    ratio = agent.world_model_ratio * window
    if ratio != TRAIN_RATIO:
        yield f"{ratio:,.4g} steps trained on for each step played instead of {TRAIN_RATIO:,}"
    if agent.demonstration.path:
        yield "a demonstration instead of none"


def _returns(episodes: Sequence[tuple[float, float]], end: int) -> tuple[float, ...]:
    return tuple(total for step, total in episodes if end - WIDTH < step <= end)


def _whole_episodes(lines: Sequence[Mapping[str, Any]]) -> Iterator[tuple[float, float]]:
    for line in lines:
        step, total = line.get("step"), line.get("return")
        if is_number(step) and is_number(total) and not line.get("cut_short"):
            yield step, total
