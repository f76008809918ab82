"""Arithmetic of an iteration, layer by layer, from the shapes of the configuration alone.

Counted in multiplications with an addition each; a floating-point operation is half of one.
"""

from typing import NamedTuple

from stormrl.config.common import HeadConfig
from stormrl.config.parts import AgentConfig, WorldModelConfig, reinforce, storm

IMAGE_CHANNELS, SIDE, KERNEL = 3, 64, 4 * 4
CONTINUES = 1


class Count(NamedTuple):
    """Multiply-adds of one call."""

    world_model: int
    encode: int
    rollout: int
    actor_critic: int

    @property
    def update(self) -> int:
        return sum(self)


def iteration(config: AgentConfig, actions: int) -> Count:
    return Count(
        world_model_update(storm(config), actions),
        reading_contexts(config, actions),
        imagined_steps(config, actions),
        actor_critic_update(config, actions),
    )


def world_model_update(config: WorldModelConfig, actions: int) -> int:
    rows, steps = config.batch_size, config.batch_length
    frames = rows * steps
    encoder, pixels_in = convolutions(config, frames), first_convolution(config, frames)
    width, latent = config.sequence.width, config.latent.size
    forward = (
        encoder
        + frames * flat(config) * latent  # posterior
        + frames * latent * flat(config)  # the decoder's stem
        + convolutions(config, frames)  # transposed ones mirror the encoder's
        + tokens(config, frames, actions)
        + config.sequence.layers * (block(config, frames) + attention(rows, steps, steps, width))
        + frames * width * latent  # prior
        + mlp(config.head, frames, width, config.two_hot.bins)
        + mlp(config.head, frames, width, CONTINUES)
    )
    # Backward every product gives two more: by its input and by its weights. Pixels and actions
    # have no gradients, but actions share their layer with the latent, which has.
    return 3 * forward - pixels_in


def reading_contexts(config: AgentConfig, actions: int) -> int:
    model, rows, steps = (
        storm(config),
        config.imagination.batch_size,
        config.imagination.context,
    )
    frames, width, latent = rows * steps, model.sequence.width, model.latent.size
    whole = block(model, frames) + attention(rows, steps, steps, width)
    # Only the last step leaves the last block; the others lend it keys and values (and queries,
    # which are projected along with them).
    projected = 3 * width * width
    newest = (frames - rows) * projected + block(model, rows) + attention(rows, 1, steps, width)
    return (
        convolutions(model, frames)
        + frames * flat(model) * latent
        + tokens(model, frames, actions)
        + (model.sequence.layers - 1) * whole
        + newest
        + rows * width * latent
    )


def imagined_steps(config: AgentConfig, actions: int) -> int:
    model, agent, rows = storm(config), reinforce(config), config.imagination.batch_size
    horizon, slots = (
        config.imagination.horizon,
        config.imagination.context + config.imagination.horizon,
    )
    width, latent = model.sequence.width, model.latent.size
    step = (
        mlp(agent.head, rows, latent + width, actions)
        + tokens(model, rows, actions)
        + model.sequence.layers * (block(model, rows) + attention(rows, 1, slots, width))
        + rows * width * latent
    )
    judged = mlp(model.head, rows * horizon, width, model.two_hot.bins) + mlp(
        model.head, rows * horizon, width, CONTINUES
    )
    return horizon * step + judged


def actor_critic_update(config: AgentConfig, actions: int) -> int:
    agent, imagination = reinforce(config), config.imagination
    state = storm(config).latent.size + storm(config).sequence.width
    acted = imagination.batch_size * imagination.horizon
    seen = imagination.batch_size * (imagination.horizon + 1)
    bins = agent.two_hot.bins
    critic, actor = mlp(agent.head, seen, state, bins), mlp(agent.head, acted, state, actions)
    valued = {"value": acted, "lambda_return": seen}[agent.slow_target]
    slow_critic = mlp(agent.head, valued, state, bins)
    # The slow critic only looks; nothing asks for gradients by the states.
    without_gradient = (seen + acted) * state * agent.head.width
    return 3 * critic + slow_critic + 3 * actor - without_gradient


def flat(config: WorldModelConfig) -> int:
    return 8 * config.image.channels * 4 * 4


def convolutions(config: WorldModelConfig, frames: int) -> int:
    """Four with kernel 4 and stride 2, of which each output pixel meets every weight once."""
    channels = [IMAGE_CHANNELS, *(config.image.channels * 2**i for i in range(4))]
    sides = [SIDE // 2 ** (i + 1) for i in range(4)]
    return sum(
        frames * side**2 * before * after * KERNEL
        for side, before, after in zip(sides, channels[:-1], channels[1:], strict=True)
    )


def first_convolution(config: WorldModelConfig, frames: int) -> int:
    return frames * (SIDE // 2) ** 2 * IMAGE_CHANNELS * config.image.channels * KERNEL


def tokens(config: WorldModelConfig, frames: int, actions: int) -> int:
    width = config.sequence.width
    return frames * ((config.latent.size + actions) * width + width * width)


def block(config: WorldModelConfig, frames: int) -> int:
    """Queries, keys, values and output; then the feed-forward part."""
    width = config.sequence.width
    return frames * (4 * width * width + 2 * width * config.sequence.feedforward)


def attention(rows: int, queries: int, keys: int, width: int) -> int:
    """Scores of every query with every key, and the values they weigh; over all heads."""
    return 2 * rows * queries * keys * width


def mlp(head: HeadConfig, rows: int, inputs: int, outputs: int) -> int:
    hidden = (head.layers - 1) * head.width * head.width
    return rows * (inputs * head.width + hidden + head.width * outputs)
