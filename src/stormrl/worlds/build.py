"""From a configuration to its world model."""

from __future__ import annotations

import torch

from stormrl.config.parts import AgentConfig
from stormrl.spaces import Spaces
from stormrl.worlds.latent import WorldModel
from stormrl.worlds.protocol import World


def build_world(config: AgentConfig, spaces: Spaces, device: torch.device) -> World:
    """The world model that `config.world_model` is the configuration of, for a device."""
    return WorldModel.of(config, spaces, device)
