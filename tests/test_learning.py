"""Whole games are learned, with the command's own settings. Minutes each: slow."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import stormrl
from stormrl.config.parts import RunConfig
from stormrl.config.recipes import catch, catch_by_dreamer, catch_by_twm, hidden_catch

OPTIMAL = 5.0
"""Return of an episode in which every ball is caught."""
MEMORYLESS = 1.25
"""Most that a policy can expect in HiddenCatch that sees one frame at a time."""


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_catch_is_learned_from_scratch(tmp_path: Path, seed: int) -> None:
    returns = learned(catch(), seed, tmp_path)
    assert mean(returns) >= 0.9 * OPTIMAL


@pytest.mark.hours
@pytest.mark.parametrize(
    ("recipe", "seed"),
    [*((catch_by_dreamer, seed) for seed in (1, 2, 3)), (catch_by_twm, 1)],
)
def test_catch_is_learned_by_rivals(
    tmp_path: Path, recipe: Callable[[], RunConfig], seed: int
) -> None:
    returns = learned(recipe(), seed, tmp_path)
    assert mean(returns) >= 0.9 * OPTIMAL


@pytest.mark.hours
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_hidden_catch_is_learned_from_scratch(tmp_path: Path, seed: int) -> None:
    returns = learned(hidden_catch(), seed, tmp_path)
    assert mean(returns) >= 0.9 * OPTIMAL


@pytest.mark.hours
def test_hidden_catch_needs_the_hidden_state(tmp_path: Path) -> None:
    config = hidden_catch()
    actor_critic = replace(config.agent.actor_critic, state="z")
    blind = replace(config, agent=replace(config.agent, actor_critic=actor_critic))
    returns = learned(blind, 2, tmp_path)
    assert mean(returns) < MEMORYLESS + 1


def learned(config: stormrl.RunConfig, seed: int, folder: Path) -> Sequence[float]:
    """Returns of the evaluation that ends a training."""
    config = replace(config, seed=seed, device="cpu")
    outcome = stormrl.train(config, folder / "run")
    assert len(outcome.scores) == config.evaluation_episodes
    return [score.total for score in outcome.scores]


def mean(returns: Sequence[float]) -> float:
    return sum(returns) / len(returns)
