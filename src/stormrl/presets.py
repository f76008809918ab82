"""Algorithms and sizes, as functions that edit a configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from stormrl.config import (
    AgentConfig,
    CategoricalConfig,
    ConvConfig,
    HeadConfig,
)
from stormrl.errors import UserError

Edit = Callable[[AgentConfig], AgentConfig]


def paper(config: AgentConfig) -> AgentConfig:
    """The published equations."""
    return config


def official(config: AgentConfig) -> AgentConfig:
    """The authors' released code, its deviations from the equations included."""
    return replace(
        config,
        world_model=replace(
            config.world_model, free_nats_over="batch", episode_boundaries="ignore"
        ),
        imagination=replace(config.imagination, continuation="threshold"),
        actor_critic=replace(config.actor_critic, bootstrap="current", slow_target="lambda_return"),
        acting=replace(config.acting, latent="prior", memory="endless"),
    )


def base(config: AgentConfig) -> AgentConfig:
    """The paper's layers: 16.5 M parameters in the world model."""
    return config


def small(config: AgentConfig) -> AgentConfig:
    """About 2 M parameters: a game on a workstation's CPU or a small GPU."""
    return _sized(
        config,
        channels=16,
        categoricals=24,
        width=256,
        batch=(8, 48),
        rollouts=256,
        learning_rates=(2e-4, 1e-4),
    )


def tiny(config: AgentConfig) -> AgentConfig:
    """About half a million parameters: minutes on two CPU cores."""
    return _sized(
        config,
        channels=8,
        categoricals=16,
        width=128,
        batch=(8, 32),
        rollouts=64,
        learning_rates=(1e-3, 3e-4),
    )


def _sized(
    config: AgentConfig,
    channels: int,
    categoricals: int,
    width: int,
    batch: tuple[int, int],
    rollouts: int,
    learning_rates: tuple[float, float],
) -> AgentConfig:
    world_model, actor_critic = config.world_model, config.actor_critic
    world_rate, agent_rate = learning_rates
    return replace(
        config,
        world_model=replace(
            world_model,
            image=ConvConfig(channels),
            latent=CategoricalConfig(categoricals, categoricals),
            sequence=replace(world_model.sequence, width=width, heads=4, feedforward=2 * width),
            head=HeadConfig(width=width),
            optimizer=replace(world_model.optimizer, learning_rate=world_rate),
            batch_size=batch[0],
            batch_length=batch[1],
        ),
        imagination=replace(config.imagination, batch_size=rollouts),
        actor_critic=replace(
            actor_critic,
            head=HeadConfig(width=width),
            optimizer=replace(actor_critic.optimizer, learning_rate=agent_rate),
        ),
    )


def _world_model(**fields: Any) -> Edit:
    return lambda config: replace(config, world_model=replace(config.world_model, **fields))


def _layers(count: int) -> Edit:
    return lambda config: _world_model(sequence=replace(config.world_model.sequence, layers=count))(
        config
    )


def _state(kind: str) -> Edit:
    return lambda config: replace(config, actor_critic=replace(config.actor_critic, state=kind))


PRESETS: dict[str, Edit] = {"paper": paper, "official": official}
SIZES: dict[str, Edit] = {"tiny": tiny, "small": small, "base": base}
ABLATIONS: dict[str, Edit] = {
    "decoder-at-rear": _world_model(decoder_input="prior"),
    "predictor-at-front": _world_model(predictor_input="latent"),
    "layers-2": _layers(2),
    "layers-4": _layers(4),
    "layers-6": _layers(6),
    "state-zh": _state("zh"),
    "state-z": _state("z"),
    "state-h": _state("h"),
    "state-frame": _state("frame"),
}
"""The paper's ablations, each of them one edit of a preset (docs/fidelity.md)."""


def agent_config(preset: str = "paper", size: str = "base") -> AgentConfig:
    """Configuration of a named algorithm at a named size.

    Raises `UserError` for a name that does not exist.
    """
    return _named(SIZES, "size", size)(_named(PRESETS, "preset", preset)(AgentConfig()))


def _named(edits: dict[str, Edit], field: str, name: str) -> Edit:
    if name not in edits:
        raise UserError(field, f"{name!r} is unknown; give one of {', '.join(edits)}")
    return edits[name]
