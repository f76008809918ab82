"""From a configuration to its world model."""

from __future__ import annotations

import torch

from stormrl.config.fields import is_outside
from stormrl.config.parts import AgentConfig
from stormrl.errors import UserError
from stormrl.spaces import Spaces
from stormrl.worlds.latent import WorldModel
from stormrl.worlds.own import own_class
from stormrl.worlds.protocol import World


def build_world(config: AgentConfig, spaces: Spaces, device: torch.device) -> World:
    """The world model that `config.world_model` is the configuration of, for a device.

    Raises `UserError` if a part of one's own is not there, or is no world model.
    """
    kind = config.world_model.kind
    if not is_outside(kind):
        return WorldModel.of(config, spaces, device)
    world = own_class(kind, "world_model.kind")
    if not issubclass(world, World):
        raise UserError("world_model.kind", f"{kind} is no subclass of {World.__name__}")
    return world.of(config, spaces, device)
