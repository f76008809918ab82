"""Baselines that an agent's returns in a game are measured by, from what the package holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from scipy.stats import mannwhitneyu

from stormrl.disk import pretrained
from stormrl.disk.pretrained import Pretrained
from stormrl.scores import curves, published
from stormrl.scores.curves import NEAREST, band, game_with_curves, run_set
from stormrl.scores.held_actions import HeldAction, held_action


class Yardsticks(NamedTuple):
    """Of one game; None for what is not known of it."""

    held: HeldAction | None = None
    """The best held action, under the same protocol."""
    pretrained: Pretrained | None = None
    """The agent that comes with the package, under the same protocol."""
    storm: float | None = None
    """Mean of STORM's released runs at their end, under a protocol of their own."""


class PublishedThen(NamedTuple):
    """Training episodes of published runs after as many environment steps as an agent has had."""

    agent: str
    end: int
    """Last step of the bin in which they ended."""
    low: float
    """The lowest seed."""
    median: float
    high: float
    """The highest seed."""


def yardsticks(env_id: str, protocol: str) -> Yardsticks:
    """All that there is to measure by. Raises `UserError` if a pretrained agent is damaged."""
    played = (env_id, protocol)
    agents = (a for a in pretrained.agents() if (a.config.env, a.protocol) == played)
    return Yardsticks(held_action(env_id, protocol), next(agents, None), storm_mean(env_id))


def storm_mean(env_id: str) -> float | None:
    """STORM's published mean after 100,000 environment steps; None for other games."""
    if not env_id.startswith(published.PREFIX):
        return None
    return published.published_agent(published.STORM).means.get(published.game_of(env_id))


def published_then(env_id: str, step: int) -> PublishedThen | None:
    """DreamerV3 after `step` environment steps; None where no curve or no episode is published."""
    game = game_with_curves(env_id)
    if game is None or step > curves.bin_ends()[-1]:
        return None
    until = band(game, (NEAREST,)).until(step)
    if math.isnan(until.median[-1]):
        return None
    title = run_set(NEAREST).title
    return PublishedThen(title, until.steps[-1], until.low[-1], until.median[-1], until.high[-1])


def chance(returns: Sequence[float], others: Sequence[float]) -> float:
    """One-sided Mann-Whitney test: how probable such returns are if they are no better."""
    if len({*returns, *others}) == 1:
        return 1.0
    return float(mannwhitneyu(returns, others, alternative="greater").pvalue)
