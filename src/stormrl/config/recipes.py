"""Settings by which whole games are learned, found by experiment (results/README.md)."""

from __future__ import annotations

from dataclasses import replace

from stormrl.config.parts import AgentConfig, RunConfig, actor_critic
from stormrl.config.presets import agent_config
from stormrl.config.twm import AdvantageConfig, TwmConfig

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


def catch_by_dreamer() -> RunConfig:
    """Catch with DreamerV3: ends are not seen coming, and a threshold would dream of none."""
    agent = _half_an_update_a_step(agent_config("dreamerv3", SIZE))
    agent = replace(
        agent,
        imagination=replace(agent.imagination, continuation="probability"),
        actor_critic=replace(
            actor_critic(agent),
            entropy=0.1,
            entropy_end=0.003,
            entropy_hold=1_500,
            entropy_updates=700,
        ),
    )
    return RunConfig(
        env="stormrl/Catch-v0", steps=6_600, preset="dreamerv3", size=SIZE, agent=agent
    )


def catch_by_twm() -> RunConfig:
    """Catch with TWM: one frame shows all, and a latent without noise tells the columns apart."""
    agent = _half_an_update_a_step(agent_config("twm", SIZE))
    world, behaviour = agent.world_model, agent.actor_critic
    assert isinstance(world, TwmConfig)
    assert isinstance(behaviour, AdvantageConfig)
    agent = replace(
        agent,
        world_model=replace(
            world,
            image=replace(world.image, frames=1),
            sequence=replace(world.sequence, dropout=0.0),
            entropy_weight=0.0,
            batch_size=8,
        ),
        actor_critic=replace(behaviour, entropy=0.3, entropy_floor=0.35),
    )
    return RunConfig(env="stormrl/Catch-v0", steps=6_000, preset="twm", size=SIZE, agent=agent)


def _half_an_update_a_step(agent: AgentConfig) -> AgentConfig:
    return replace(agent, world_model_ratio=0.5, agent_ratio=0.5)
