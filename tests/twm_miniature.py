"""TWM at the smallest size that still has every part, with weights that follow from names."""

import zlib
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from stormrl.agents.advantage import AdvantageActorCritic
from stormrl.agents.features import agent_state
from stormrl.config.common import CategoricalConfig
from stormrl.config.parts import ImaginationConfig
from stormrl.config.twm import (
    AdvantageConfig,
    PerceptronConfig,
    StackedFramesConfig,
    TransformerXLConfig,
    TwmConfig,
)
from stormrl.experience.replay import Replay
from stormrl.learning.imagination import Imagination
from stormrl.nn.choices import Choices
from stormrl.nn.functional import products_so_far, sample_index, straight_through
from stormrl.runs.twm_weights import Names, twm_names
from stormrl.spaces import DiscreteSpace, ImageSpace, Spaces
from stormrl.types import Batch, Noise
from stormrl.worlds.protocol import Group, rollout_noise
from stormrl.worlds.twm import TwmWorld

ACTIONS = 3
K, C, WIDTH, MEMORY = 3, 4, 16, 16
HORIZON = 5


class Draws(NamedTuple):
    loss: Tensor
    dream: Noise


class Setting(NamedTuple):
    """All that an update is a function of."""

    world: TwmWorld
    agent: AdvantageActorCritic
    batch: Batch
    noise: Draws


def spaces(actions: int = ACTIONS) -> Spaces:
    return Spaces(ImageSpace(64, 64, 3), DiscreteSpace(actions))


def world_config(**fields: Any) -> TwmConfig:
    config = TwmConfig(
        image=StackedFramesConfig(channels=2),
        latent=CategoricalConfig(K, C, unimix=0.0),
        sequence=TransformerXLConfig(
            width=WIDTH, layers=2, heads=2, head_width=6, feedforward=24, dropout=0.0
        ),
        latent_head=PerceptronConfig(layers=2, width=12),
        head=PerceptronConfig(layers=2, width=10),
        batch_size=2,
        batch_length=5,
    )
    return replace(config, **fields)


def agent_config(**fields: Any) -> AdvantageConfig:
    return replace(AdvantageConfig(head=PerceptronConfig(layers=2, width=11)), **fields)


def parts(
    world: TwmConfig, agent: AdvantageConfig, actions: int = ACTIONS, dreams: int = 6
) -> tuple[TwmWorld, AdvantageActorCritic]:
    model = TwmWorld(world, spaces(actions), dreams).eval()
    state = agent_state(agent.state, model)
    return model, AdvantageActorCritic(agent, state, Choices(actions))


def setting() -> Setting:
    """With weights that their modules have as well, and experience with ends and resets."""
    return _setting(*parts(world_config(), agent_config()))


def base_setting() -> Setting:
    """The same at the published size, without dropout."""
    sequence = TransformerXLConfig(dropout=0.0)
    config = TwmConfig(sequence=sequence, batch_size=20)
    return _setting(*parts(config, AdvantageConfig(), 6, dreams=64), horizon=15)


def _setting(world: TwmWorld, agent: AdvantageActorCritic, horizon: int = HORIZON) -> Setting:
    filled(world, agent)
    config = world.config
    batch = random_batch(config.batch_size, config.window, world.spaces.action.n)
    generator = np.random.RandomState(5)

    def uniform(shape) -> Tensor:
        return torch.from_numpy(generator.random_sample(tuple(shape)).astype(np.float32))

    loss = world.loss_noise(batch, uniform)
    rows = world.rollouts(config.batch_size, config.window, horizon)
    return Setting(
        world, agent, batch, Draws(loss, rollout_noise(world, rows, 0, horizon, uniform))
    )


def random_batch(rows: int, steps: int, actions: int = ACTIONS, seed: int = 0) -> Batch:
    generator = np.random.RandomState(seed)
    obs = generator.randint(256, size=(rows, steps, 64, 64, 3)).astype(np.uint8)
    continues = (generator.random_sample((rows, steps)) > 0.15).astype(np.float32)
    return Batch(
        obs=torch.from_numpy(obs).permute(0, 1, 4, 2, 3),
        action=torch.from_numpy(generator.randint(actions, size=(rows, steps))),
        reward=torch.from_numpy(generator.standard_normal((rows, steps)).astype(np.float32)),
        continues=torch.from_numpy(continues),
        is_first=torch.from_numpy(generator.random_sample((rows, steps)) > 0.85),
        row=torch.arange(rows * steps).reshape(rows, steps),
    )


def weights(name: str, shape: torch.Size) -> Tensor:
    """Numbers that follow from a name of theirs, on every machine the same."""
    size = int(np.prod(shape[1:])) or 1
    generator = np.random.RandomState(zlib.crc32(name.encode()))
    values = generator.standard_normal(tuple(shape)) * (1.4 / np.sqrt(size))
    return torch.from_numpy(values.astype(np.float32))


@torch.no_grad()
def fill(module: nn.Module, skip: tuple[str, ...] = ()) -> None:
    """Their agent with the weights of its names."""
    for name, parameter in module.named_parameters():
        if not name.endswith(skip or ("no such name",)):
            parameter.copy_(weights(name, parameter.shape))


def filled(world: TwmWorld, agent: AdvantageActorCritic) -> Names:
    """Ours with the same."""
    names = twm_names(world, agent)
    for table, module in ((names.world, world), (names.agent, agent)):
        tensors = module.state_dict()
        for theirs, ours in table.items():
            tensors[ours].copy_(weights(theirs, tensors[ours].shape))
    return names


def computed(setting: Setting) -> dict[str, Tensor]:
    """What ours makes of a setting, by the names of `benchmarks/twm_authors.py`."""
    world, agent, batch, noise = setting
    lead, found = world.config.lead, {}
    draw = noise.loss[..., :-1]
    with torch.no_grad():
        logits = world.encode(world.stacks(batch.obs, batch.is_first)[:, lead:])
        found["posterior"] = logits
        z = drawn(logits, torch.cat([draw, draw[:, -1:]], dim=1))
        found["images"] = world.images(z[:, 1:-1])[..., ::9, ::9]
        action, reward = batch.action[:, lead:-1], batch.reward[:, lead:-1].tanh()
        ends = (batch.continues[:, lead:-1] == 0) | batch.is_first[:, lead + 1 :]
        found["hidden"] = world.sequence(z[:, :-1], action, reward, ends)
        expected = world.expect(found["hidden"])
        found["prior"], found["reward"] = expected.logits, expected.reward
        found["discount"] = expected.discount.sigmoid()
    lesson = world.loss(batch, noise.loss)
    constant = 0.5 * np.log(2 * np.pi)
    metrics = lesson.metrics
    pixels = 64 * 64 * world.config.image.frames
    found["loss.dec_loss"] = metrics["reconstruction"] + constant * pixels
    found["loss.enc_prior_ce"] = metrics["consistency"]
    found["loss.z_pred_ce"] = metrics["dynamics"]
    found["loss.reward_loss"] = 10 * (metrics["reward"] + constant)
    found["loss.discount_loss"] = 50 * metrics["continuation"]
    found["loss.z_norm_ent"] = metrics["posterior_entropy"] / np.log(world.config.latent.classes)
    names = twm_names(world, agent)
    _update(torch.stack([*lesson.losses.values()]).sum(), world.groups())
    found |= _sizes(world, names.world)
    imagination = Imagination(world, agent, ImaginationConfig(horizon=noise.dream.action.shape[1]))
    trajectory = imagination.from_posteriors(batch, lesson.seen, noise.dream)
    assert trajectory.view.z is not None
    discount = world.config.discount * trajectory.continues
    found["dream.z"], found["dream.action"] = trajectory.view.z, trajectory.action
    found["dream.reward"] = trajectory.reward
    found["dream.over"] = trajectory.restarts
    loss, metrics = agent.loss(trajectory, torch.zeros(()))
    weight = products_so_far(discount, trajectory.restarts)
    found["dream.weight"] = weight
    found["agent.policy"] = metrics["policy"] + 0.01 * metrics["missing_entropy"]
    found["agent.value"] = metrics["value"] + constant * weight.mean()
    found["agent.returns"] = metrics["imagined_return"]
    _update(loss, agent.groups())
    found |= _sizes(agent, names.agent)
    return {name: tensor.detach().float() for name, tensor in found.items()}


def drawn(logits: Tensor, uniform: Tensor) -> Tensor:
    probs = logits.exp()
    return straight_through(sample_index(probs, uniform), probs).flatten(-2)


def replay(steps: int, actions: int = ACTIONS) -> Replay:
    """Random experience with an end now and then."""
    generator = torch.Generator().manual_seed(0)
    held = Replay(steps, (64, 64, 3))
    held.obs.copy_(torch.randint(0, 256, held.obs.shape, generator=generator))
    held.action.copy_(torch.randint(0, actions, held.action.shape, generator=generator))
    held.reward.copy_(torch.randn(held.reward.shape, generator=generator))
    held.continues[49::50] = 0
    held.is_first[::50] = True
    held.moved_to(steps)
    return held


def _update(loss: Tensor, groups: dict[str, Group]) -> None:
    """One step of each optimizer, as PyTorch's own would take it."""
    loss.backward()
    for group in groups.values():
        c = group.optimizer
        torch.nn.utils.clip_grad_norm_(group.parameters, c.clip)
        optimizer = torch.optim.Adam(group.parameters, c.learning_rate, eps=c.epsilon)
        optimizer.param_groups[0]["weight_decay"] = c.weight_decay
        optimizer.step()


def _sizes(module: nn.Module, table: dict[str, str]) -> dict[str, Tensor]:
    tensors = module.state_dict()
    return {f"after.{theirs}": sample(tensors[ours]) for theirs, ours in table.items()}


def sample(parameter: Tensor) -> Tensor:
    """A few numbers out of many."""
    return parameter.detach().flatten()[:: max(1, parameter.numel() // 4)][:4].clone()
