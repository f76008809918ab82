"""Whole games are learned, with the command's own settings. Minutes each: slow."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import stormrl

OPTIMAL = 5.0
"""Return of an episode in which every ball is caught."""
MEMORYLESS = 1.25
"""Most that a policy can expect in HiddenCatch that sees one frame at a time."""


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_catch_is_learned_from_scratch(tmp_path: Path, seed: int) -> None:
    returns = learned("stormrl/Catch-v0", 7_600, seed, exploring(), tmp_path)
    assert mean(returns) >= 0.9 * OPTIMAL


def exploring() -> stormrl.AgentConfig:
    """`tiny`, exploring until every column is known; more experience for each update."""
    agent = stormrl.agent_config(size="tiny")
    return replace(
        agent,
        actor_critic=replace(
            agent.actor_critic,
            entropy=0.1,
            entropy_end=0.01,
            entropy_hold=1_900,
            entropy_updates=700,
        ),
        world_model_ratio=0.5,
        agent_ratio=0.5,
    )


@pytest.mark.hours
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_hidden_catch_is_learned_from_scratch(tmp_path: Path, seed: int) -> None:
    returns = learned("stormrl/HiddenCatch-v0", 23_000, seed, remembering(), tmp_path)
    assert mean(returns) >= 0.9 * OPTIMAL


@pytest.mark.hours
def test_hidden_catch_needs_the_hidden_state(tmp_path: Path) -> None:
    agent = remembering()
    blind = replace(agent, actor_critic=replace(agent.actor_critic, state="z"))
    returns = learned("stormrl/HiddenCatch-v0", 23_000, 2, blind, tmp_path)
    assert mean(returns) < MEMORYLESS + 1


def remembering() -> stormrl.AgentConfig:
    """`tiny`, looking back on the present fall alone, and exploring until every column is known."""
    agent = stormrl.agent_config(size="tiny")
    return replace(
        agent,
        world_model=replace(agent.world_model, batch_size=8),
        imagination=replace(agent.imagination, batch_size=128, context=7),
        actor_critic=replace(
            agent.actor_critic,
            entropy=0.2,
            entropy_end=0.02,
            entropy_hold=6_000,
            entropy_updates=2_500,
        ),
        acting=replace(agent.acting, context=7),
        world_model_ratio=0.5,
        agent_ratio=0.5,
    )


def learned(
    env: str, steps: int, seed: int, agent: stormrl.AgentConfig, folder: Path
) -> Sequence[float]:
    """Returns of the evaluation that ends a training."""
    config = stormrl.RunConfig(
        env=env, steps=steps, seed=seed, size="tiny", agent=agent, device="cpu"
    )
    outcome = stormrl.train(config, folder / "run")
    assert len(outcome.scores) == config.evaluation_episodes
    return [score.total for score in outcome.scores]


def mean(returns: Sequence[float]) -> float:
    return sum(returns) / len(returns)
