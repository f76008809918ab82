"""From a configuration to its agent."""

from __future__ import annotations

from stormrl.agents.protocol import Behaviour
from stormrl.agents.reinforce import ActorCritic
from stormrl.config.fields import is_outside
from stormrl.config.parts import AgentConfig
from stormrl.worlds.own import own_class
from stormrl.worlds.protocol import World


def build_agent(config: AgentConfig, world: World) -> Behaviour:
    """The agent that `config.actor_critic` is the configuration of, on top of a world model.

    Raises `UserError` if a part of one's own is not there, or is no agent.
    """
    kind = config.actor_critic.kind
    if not is_outside(kind):
        return ActorCritic.of(config, world)
    return own_class(kind, "actor_critic.kind", Behaviour).of(config, world)
