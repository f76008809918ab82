"""Algorithms and sizes, as functions that edit a configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from stormrl.config.common import SizeSettings
from stormrl.config.dreamer import HEAD, DreamerConfig
from stormrl.config.parts import AgentConfig, actor_critic, storm
from stormrl.config.twm import AdvantageConfig, TwmConfig
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


def lean(config: AgentConfig) -> AgentConfig:
    """STORM, and what was seen to learn more in the same time (docs/lean.md)."""
    world_model, agent = storm(config), actor_critic(config)
    return replace(
        config,
        world_model=replace(
            world_model,
            two_hot=replace(world_model.two_hot, mean="natural", start="zero"),
            free_nats_for="representation",
        ),
        actor_critic=replace(agent, two_hot=replace(agent.two_hot, mean="natural", start="zero")),
        replay=replace(config.replay, rewarded=0.125),
    )


def dreamerv3(config: AgentConfig) -> AgentConfig:
    """DreamerV3 in its first version, size S: the column of STORM's table (docs/fidelity.md)."""
    return replace(
        config,
        world_model=DreamerConfig(),
        imagination=replace(
            config.imagination, dreams_from="posteriors", horizon=15, continuation="threshold"
        ),
        actor_critic=replace(
            config.actor_critic,
            head=HEAD,
            two_hot=replace(actor_critic(config).two_hot, start="zero"),
            optimizers="two",
            counted="by_continuation",
            gamma=1 - 1 / 333,
            unimix=0.01,
        ),
    )


def twm(config: AgentConfig) -> AgentConfig:
    """TWM: Transformer-XL over latents, actions and rewards, as released (docs/fidelity.md)."""
    return replace(
        config,
        world_model=TwmConfig(),
        imagination=replace(
            config.imagination, dreams_from="posteriors", batch_size=400, context=1, horizon=15
        ),
        actor_critic=AdvantageConfig(),
        replay=replace(config.replay, warmup=5_000, balance=20.0),
        world_model_ratio=25 / 19,
        agent_ratio=25 / 19,
    )


def base(config: AgentConfig) -> AgentConfig:
    """The paper's layers: 16.5 M parameters in the world model."""
    return config


def small(config: AgentConfig) -> AgentConfig:
    """4.5 M parameters: a game on a workstation's CPU or a small GPU."""
    return _sized(
        config,
        SizeSettings(
            channels=16,
            categoricals=24,
            width=256,
            windows=8,
            window_length=48,
            rollouts=256,
            context=8,
            horizon=16,
            acting=16,
            world_rate=2e-4,
            agent_rate=1e-4,
            entropy=3e-3,
            policy_unimix=0.01,
            warmup=1024,
            ratio=1.0,
        ),
    )


def tiny(config: AgentConfig) -> AgentConfig:
    """1.1 M parameters: Atari games on two CPU cores."""
    # A process of this size pays by the operator: four times the frames and six times the imagined
    # states of `toy` cost three times the time. Five steps of play for each update.
    return _sized(
        config,
        SizeSettings(
            channels=8,
            categoricals=16,
            width=128,
            windows=8,
            window_length=32,
            rollouts=256,
            context=4,
            horizon=12,
            acting=10,
            world_rate=1e-3,
            agent_rate=3e-4,
            entropy=1e-3,
            policy_unimix=0.01,
            warmup=4096,
            ratio=0.2,
        ),
    )


def toy(config: AgentConfig) -> AgentConfig:
    """1.1 M parameters as well: the toy games within minutes on two CPU cores."""
    # Where minutes count, the actor takes longest to learn: short windows and rollouts give it more
    # updates in the same time.
    return _sized(
        config,
        SizeSettings(
            channels=8,
            categoricals=16,
            width=128,
            windows=4,
            window_length=17,
            rollouts=64,
            context=8,
            horizon=8,
            acting=15,
            world_rate=1e-3,
            agent_rate=1e-3,
            entropy=3e-2,
            policy_unimix=0.01,
            warmup=1024,
            ratio=1.0,
        ),
    )


DEMONSTRATED = 4
"""Windows of the agent's own experience for each one of a demonstration, as in the paper."""


def _sized(config: AgentConfig, scale: SizeSettings) -> AgentConfig:
    return replace(
        config,
        world_model=config.world_model.sized(scale),
        imagination=replace(
            config.imagination,
            batch_size=scale.rollouts,
            context=scale.context,
            horizon=scale.horizon,
        ),
        acting=replace(config.acting, context=scale.acting),
        replay=replace(config.replay, warmup=scale.warmup),
        world_model_ratio=scale.ratio,
        agent_ratio=scale.ratio,
        demonstration=replace(
            config.demonstration,
            world_model_windows=scale.windows // DEMONSTRATED,
            imagination_windows=scale.rollouts // DEMONSTRATED,
        ),
        actor_critic=config.actor_critic.sized(scale),
    )


def _world_model(**fields: Any) -> Edit:
    return lambda config: replace(config, world_model=replace(config.world_model, **fields))


def _layers(count: int) -> Edit:
    return lambda config: _world_model(sequence=replace(storm(config).sequence, layers=count))(
        config
    )


def _state(kind: str) -> Edit:
    return lambda config: replace(config, actor_critic=replace(config.actor_critic, state=kind))


PRESETS: dict[str, Edit] = {
    "paper": paper,
    "official": official,
    "lean": lean,
    "dreamerv3": dreamerv3,
    "twm": twm,
}
SIZES: dict[str, Edit] = {"toy": toy, "tiny": tiny, "small": small, "base": base}
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
