"""The published systems other than STORM, each at the smallest size that still has every part."""

from collections.abc import Callable
from dataclasses import replace

import twm_miniature as miniature
from miniature import C, K
from stormrl.config.common import CategoricalConfig, ConvConfig
from stormrl.config.dreamer import DreamerConfig
from stormrl.config.parts import AgentConfig
from stormrl.config.presets import agent_config
from stormrl.config.twm import PretrainingConfig

WIDTH, HIDDEN = 10, 8
"""Of the recurrent state, and of the layers around it."""


def dreamer() -> AgentConfig:
    """The preset at the smallest size that still has every part."""
    config = agent_config("dreamerv3")
    assert isinstance(config.world_model, DreamerConfig)
    head = replace(config.world_model.head, width=8)
    world = replace(
        config.world_model,
        image=ConvConfig(2),
        latent=CategoricalConfig(K, C),
        width=WIDTH,
        hidden=HIDDEN,
        head=head,
        batch_size=2,
        batch_length=6,
    )
    return replace(
        config,
        world_model=world,
        imagination=replace(config.imagination, context=3, horizon=4),
        actor_critic=replace(config.actor_critic, head=head),
        acting=replace(config.acting, context=4),
        replay=replace(config.replay, capacity=64, warmup=16),
    )


def twm() -> AgentConfig:
    """The preset at the smallest size that still has every part, pre-training included."""
    config = agent_config("twm")
    return replace(
        config,
        world_model=miniature.world_config(batch_length=4, pretraining=PretrainingConfig(3, 2)),
        actor_critic=miniature.agent_config(pretraining=4),
        imagination=replace(config.imagination, batch_size=6, horizon=4),
        replay=replace(config.replay, capacity=64, warmup=16),
        world_model_ratio=0.5,
        agent_ratio=0.5,
    )


SYSTEMS: dict[str, Callable[[], AgentConfig]] = {"dreamerv3": dreamer, "twm": twm}
