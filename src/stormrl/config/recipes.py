"""Settings by which whole games are learned, found by experiment (results/README.md)."""

from __future__ import annotations

from dataclasses import replace

from stormrl.config.parts import AgentConfig, RunConfig
from stormrl.config.presets import agent_config

SIZE = "toy"


def catch() -> RunConfig:
    """Catch within minutes: explores until every column is known; more play for each update."""
    agent = _half_an_update_a_step(agent_config(size=SIZE))
    agent = replace(
        agent,
        actor_critic=replace(
            agent.actor_critic,
            entropy=0.1,
            entropy_end=0.01,
            entropy_hold=1_900,
            entropy_updates=700,
        ),
    )
    return RunConfig(env="stormrl/Catch-v0", steps=7_600, size=SIZE, agent=agent)


def hidden_catch() -> RunConfig:
    """HiddenCatch: looks back on the present fall alone, explores until every column is known."""
    agent = _half_an_update_a_step(agent_config(size=SIZE))
    agent = replace(
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
    )
    return RunConfig(env="stormrl/HiddenCatch-v0", steps=23_000, size=SIZE, agent=agent)


def _half_an_update_a_step(agent: AgentConfig) -> AgentConfig:
    return replace(agent, world_model_ratio=0.5, agent_ratio=0.5)
