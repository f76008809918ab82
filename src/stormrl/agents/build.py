"""From a configuration to its agent."""

from __future__ import annotations

from stormrl.agents.features import agent_state
from stormrl.agents.protocol import Behaviour
from stormrl.agents.reinforce import ActorCritic
from stormrl.config.parts import AgentConfig
from stormrl.worlds.protocol import World


def build_agent(config: AgentConfig, world: World) -> Behaviour:
    """The agent that `config.actor_critic` is the configuration of, on top of a world model."""
    state = agent_state(config.actor_critic.state, world)
    return ActorCritic(config.actor_critic, state, world.spaces.action.n)
