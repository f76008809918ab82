"""From a configuration to its agent."""

from __future__ import annotations

from stormrl.agents.advantage import AdvantageActorCritic
from stormrl.agents.protocol import Behaviour
from stormrl.agents.reinforce import ActorCritic
from stormrl.config.fields import is_outside
from stormrl.config.parts import ActorCriticConfig, AgentConfig
from stormrl.config.twm import AdvantageConfig
from stormrl.worlds.own import own_class
from stormrl.worlds.protocol import World

AGENTS: dict[type, type[Behaviour]] = {
    ActorCriticConfig: ActorCritic,
    AdvantageConfig: AdvantageActorCritic,
}
"""The agent of each configuration."""


def build_agent(config: AgentConfig, world: World) -> Behaviour:
    """The agent that `config.actor_critic` is the configuration of, on top of a world model.

    Raises `UserError` if a part of one's own is not there, or is no agent.
    """
    kind = config.actor_critic.kind
    if not is_outside(kind):
        return AGENTS[type(config.actor_critic)].of(config, world)
    return own_class(kind, "actor_critic.kind", Behaviour).of(config, world)
