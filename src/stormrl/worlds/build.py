"""From a configuration to its world model."""

from __future__ import annotations

import torch

from stormrl.config.dreamer import DreamerConfig
from stormrl.config.fields import is_outside
from stormrl.config.parts import AgentConfig, WorldModelConfig
from stormrl.config.twm import TwmConfig
from stormrl.spaces import Spaces
from stormrl.worlds.dreamer import DreamerWorld
from stormrl.worlds.latent import WorldModel
from stormrl.worlds.own import own_class
from stormrl.worlds.protocol import World
from stormrl.worlds.twm import TwmWorld

WORLDS: dict[type, type[World]] = {
    WorldModelConfig: WorldModel,
    DreamerConfig: DreamerWorld,
    TwmConfig: TwmWorld,
}
"""The world model of each configuration."""


def build_world(config: AgentConfig, spaces: Spaces, device: torch.device) -> World:
    """The world model that `config.world_model` is the configuration of, for a device.

    Raises `UserError` if a part of one's own is not there, or is no world model.
    """
    kind = config.world_model.kind
    if not is_outside(kind):
        return WORLDS[type(config.world_model)].of(config, spaces, device)
    return own_class(kind, "world_model.kind", World).of(config, spaces, device)
