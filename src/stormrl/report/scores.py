"""Scores beside the published ones: by game, and all games together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from stormrl.report.groups import GameRuns
from stormrl.scores.published import (
    STORM,
    PublishedAgent,
    agent_names,
    games,
    human_normalised,
    normalised,
    published_agent,
)
from stormrl.scores.reproduction import Comparison, compare, differences
from stormrl.scores.statistics import (
    Aggregate,
    Estimate,
    Scores,
    aggregate,
    performance_profile,
    probability_of_improvement,
)
from stormrl.scores.summary import mean_and_stderr

COLUMNS = (STORM, "DreamerV3", "IRIS", "DIAMOND", "BBF")
"""Agents whose scores stand beside a game's."""
PROFILED = (STORM, "DreamerV3", "IRIS", "TWM", "DIAMOND")
"""Agents whose performance profile is drawn."""
THRESHOLDS = tuple(np.geomspace(0.05, 10, 49).tolist())
UNKNOWN = Estimate(math.nan, math.nan, math.nan)


class GameRow(NamedTuple):
    """A game's scores, its published ones, and whether they agree."""

    game: GameRuns
    mean: float
    """NaN if no run was evaluated."""
    stderr: float
    """Of the mean; NaN below two runs."""
    human_normalised: float | None
    published: Mapping[str, float]
    comparison: Comparison | None
    """None for games that were not published, or without scores."""
    reservations: list[str]
    """In what these runs are not what the published ones were."""


class AgentRow(NamedTuple):
    """An agent's aggregates over the games of the report."""

    name: str
    aggregate: Aggregate
    improvement: Estimate | None
    """Probability that a run of the report scores higher; None where single runs are not known."""
    published: PublishedAgent | None
    """None for the runs of the report."""


class VariantStanding(NamedTuple):
    """One variant among the published agents, over the games that it was scored on."""

    variant: str
    games: list[str]
    runs: int
    rows: list[AgentRow]
    """Its own first."""
    profiles: Mapping[str, list[Estimate]]
    """Fractions of runs above `THRESHOLDS`, by agent."""


def game_rows(groups: Sequence[GameRuns]) -> list[GameRow]:
    """A row for each game and variant."""
    return [_game_row(group) for group in groups]


def standings(groups: Sequence[GameRuns]) -> list[VariantStanding]:
    """For each variant that was scored on published games."""
    variants = dict.fromkeys(group.variant for group in groups)
    found = [_standing(variant, groups) for variant in variants]
    return [standing for standing in found if standing is not None]


def _game_row(group: GameRuns) -> GameRow:
    scores = group.scores
    mean, stderr = mean_and_stderr(scores) if scores else (math.nan, math.nan)
    known = group.name in games()
    return GameRow(
        group,
        mean,
        stderr,
        human_normalised(group.name, mean) if scores else None,
        {name: published_agent(name).means[group.name] for name in COLUMNS} if known else {},
        compare(group.name, scores) if known and scores else None,
        sorted({words for run in group.runs for words in differences(run.config)}) if known else [],
    )


def _standing(variant: str, groups: Sequence[GameRuns]) -> VariantStanding | None:
    own = [group for group in groups if group.variant == variant and group.scores]
    scores = normalised({group.name: group.scores for group in own})
    if not scores:
        return None
    names = [game for game in games() if game in scores]
    agents = [published_agent(name) for name in agent_names()]
    rows = [_row(agent, scores) for agent in agents if agent.means]
    profiled = {variant: scores} | {
        name: _restricted(published_agent(name).seeds, scores) for name in PROFILED
    }
    return VariantStanding(
        variant,
        names,
        sum(map(len, scores.values())),
        [AgentRow(variant, aggregate(scores), None, None), *rows],
        {name: performance_profile(of, THRESHOLDS) for name, of in profiled.items()},
    )


def _row(agent: PublishedAgent, ours: Scores) -> AgentRow:
    if agent.seeds:
        theirs = _restricted(agent.seeds, ours)
        better = probability_of_improvement(ours, theirs)
        return AgentRow(agent.name, aggregate(theirs), better, agent)
    means = _restricted({game: [score] for game, score in agent.means.items()}, ours)
    of_means = aggregate(means)
    # Figures over single runs do not follow from means.
    known = of_means._replace(iqm=UNKNOWN, optimality_gap=UNKNOWN)
    return AgentRow(agent.name, known, None, agent)


def _restricted(returns: Mapping[str, Sequence[float]], to: Scores) -> dict[str, list[float]]:
    """Human-normalised scores on the games of `to` alone."""
    return normalised({game: returns[game] for game in to})
