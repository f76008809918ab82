"""Miniature models and random experience for tests, and the published arithmetic in NumPy."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stormrl.acting.actor import Acting
from stormrl.agents.reinforce import ActorCritic
from stormrl.config.common import CategoricalConfig, ConvConfig, HeadConfig
from stormrl.config.parts import AgentConfig, WorldModelConfig, storm
from stormrl.config.presets import PRESETS, agent_config
from stormrl.experience.replay import Replay
from stormrl.learning.learner import Learner
from stormrl.machine.device import Backend
from stormrl.spaces import DiscreteSpace, ImageSpace, Spaces
from stormrl.types import Batch
from stormrl.worlds.latent import WorldModel
from stormrl.worlds.memory import Memory

ACTIONS = 3
SPACES = Spaces(ImageSpace(64, 64, 3), DiscreteSpace(ACTIONS))
K, C, WIDTH = 3, 4, 16
STORMS = [name for name in PRESETS if isinstance(agent_config(name).world_model, WorldModelConfig)]
"""Presets of STORM."""
CPU = Backend(torch.device("cpu"))


def shrunk(config: AgentConfig | None = None) -> AgentConfig:
    """The same algorithm at the smallest size that still has every part."""
    config = config or AgentConfig()
    head = HeadConfig(layers=2, width=8)
    return replace(
        config,
        world_model=replace(
            config.world_model,
            image=ConvConfig(channels=2),
            latent=replace(config.world_model.latent, categoricals=K, classes=C),
            sequence=replace(
                storm(config).sequence, width=WIDTH, heads=2, feedforward=24, max_length=12
            ),
            head=head,
            batch_size=2,
            batch_length=8,
        ),
        imagination=replace(config.imagination, batch_size=4, context=3, horizon=4),
        actor_critic=replace(config.actor_critic, head=head),
        acting=replace(config.acting, context=4),
        replay=replace(config.replay, capacity=64, warmup=16),
    )


def world_model_config(**fields) -> WorldModelConfig:
    return replace(storm(shrunk()), **fields)


def world_model(**fields) -> WorldModel:
    """In evaluation mode, with BatchNorm statistics that differ from those at the start."""
    model = WorldModel(world_model_config(**fields), SPACES)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(std=0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    return model.eval()


def memory_in(carry: Acting) -> Memory:
    """What STORM's world model takes along."""
    assert isinstance(carry.world, Memory)
    return carry.world


class StormLearner(Learner):
    """A learner of STORM, to whose parts tests reach through."""

    world_model: WorldModel
    actor_critic: ActorCritic


def learner(config: AgentConfig | None = None, backend: Backend = CPU) -> StormLearner:
    return StormLearner(shrunk(config), SPACES, backend)


def random_batch(batch: int = 2, steps: int = 6, resets: tuple[tuple[int, int], ...] = ()) -> Batch:
    """Random experience; `resets` lists (row, step) at which an episode begins."""
    is_first = torch.zeros(batch, steps, dtype=torch.bool)
    for row, step in resets:
        is_first[row, step] = True
    return Batch(
        obs=torch.randint(256, (batch, steps, 3, 64, 64), dtype=torch.uint8),
        action=torch.randint(ACTIONS, (batch, steps)),
        reward=torch.randn(batch, steps) * 3,
        continues=(torch.rand(batch, steps) > 0.2).float(),
        is_first=is_first,
        row=torch.arange(batch * steps).view(batch, steps),
    )


def posterior_noise(batch: Batch) -> Tensor:
    return torch.rand(*batch.action.shape, K)


def random_latents(batch: int, steps: int, config: CategoricalConfig) -> Tensor:
    index = torch.randint(config.classes, (batch, steps, config.categoricals))
    return nn.functional.one_hot(index, config.classes).float().flatten(-2)


# Layers are reached by index, which the type checker cannot follow: Any.


def array(tensor: Any) -> np.ndarray:
    return tensor.detach().double().numpy()


def linear(layer: Any, x: np.ndarray) -> np.ndarray:
    y = x @ array(layer.weight).T
    return y if layer.bias is None else y + array(layer.bias)


def layer_norm(layer: Any, x: np.ndarray, epsilon: float) -> np.ndarray:
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return array(layer.weight) * (x - mean) / np.sqrt(variance + epsilon) + array(layer.bias)


def softmax(x: np.ndarray) -> np.ndarray:
    weights = np.exp(x - x.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def two_hidden_layers(mlp: nn.Sequential, x: np.ndarray) -> np.ndarray:
    for i in (0, 3):
        x = relu(layer_norm(mlp[i + 1], linear(mlp[i], x), 1e-5))
    return linear(mlp[6], x)


def filled_replay(device: str = "cpu") -> Replay:
    """The same random experience each time, with resets in it."""
    generator = torch.Generator().manual_seed(0)
    replay = Replay(40, (64, 64, 3), device)
    replay.obs.copy_(torch.randint(0, 256, replay.obs.shape, generator=generator))
    replay.action.copy_(torch.randint(0, 3, replay.action.shape, generator=generator))
    replay.reward.copy_(torch.randn(replay.reward.shape, generator=generator))
    replay.is_first[::9] = True
    replay.moved_to(40)
    return replay
