"""Parameter counts of a configuration's networks."""

from __future__ import annotations

import torch
from torch import nn

from stormrl.agents.features import agent_state
from stormrl.agents.reinforce import ActorCritic
from stormrl.config.parts import AgentConfig
from stormrl.worlds.latent import WorldModel


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Parameters of a model as `total`, then of each of its parts that has any."""
    counts = {name: _count(part) for name, part in model.named_children()}
    return {"total": _count(model), **{name: count for name, count in counts.items() if count}}


def parameters_of(config: AgentConfig, actions: int) -> dict[str, dict[str, int]]:
    """The same for `world_model` and `actor_critic`, neither of which takes memory or time."""
    with torch.device("meta"):
        world_model = WorldModel(config.world_model, actions)
        state = agent_state(config.actor_critic.state, world_model)
        actor_critic = ActorCritic(config.actor_critic, state, actions)
    return {
        "world_model": count_parameters(world_model),
        "actor_critic": count_parameters(actor_critic),
    }


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
