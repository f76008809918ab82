"""Parameter counts of a configuration's networks."""

from __future__ import annotations

import torch
from torch import nn

from stormrl.agents.build import build_agent
from stormrl.config.parts import AgentConfig
from stormrl.spaces import Spaces
from stormrl.worlds.build import build_world


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Parameters of a model as `total`, then of each of its parts that has any."""
    counts = {name: _count(part) for name, part in model.named_children()}
    return {"total": _count(model), **{name: count for name, count in counts.items() if count}}


def parameters_of(config: AgentConfig, spaces: Spaces) -> dict[str, dict[str, int]]:
    """The same for `world_model` and `actor_critic`, neither of which takes memory or time."""
    with torch.device("meta"):
        world_model = build_world(config, spaces, torch.device("meta"))
        actor_critic = build_agent(config, world_model)
    return {
        "world_model": count_parameters(world_model),
        "actor_critic": count_parameters(actor_critic),
    }


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
