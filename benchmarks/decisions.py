"""What decisions about speed bring: the plain way and ours, in turn, in one process.

    python benchmarks/decisions.py --sizes toy base --out results/decisions.json

Each pair computes the same numbers but for rounding, which is checked first. Prints a table of
medians and of how many times faster ours is (lowest and highest of the rounds). Tensors have the
shapes of one update in the device's own precision, gradients included where training takes them.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

from stormrl.agents.features import agent_state
from stormrl.agents.reinforce import ActorCritic
from stormrl.bench.timing import first_seconds, seconds
from stormrl.bench.workbench import Workbench
from stormrl.config.parts import AgentConfig, RunConfig
from stormrl.config.presets import SIZES, agent_config
from stormrl.experience.replay import Replay
from stormrl.machine.allocator import keep_freed_memory
from stormrl.machine.device import choose_backend
from stormrl.machine.provenance import provenance
from stormrl.nn.attention import Block, SelfAttention, attention_bias, cacheable
from stormrl.nn.choices import Choices
from stormrl.nn.conv import Encoder
from stormrl.nn.cpu.batch_norm import BatchNorm
from stormrl.nn.cpu.strided import Doubling, Halving, halve_relu
from stormrl.nn.functional import symlog, two_hot_cross_entropy, two_hot_position
from stormrl.nn.layers import FOR_CPU
from stormrl.nn.precision import compute_dtype
from stormrl.spaces import DiscreteSpace, ImageSpace, Spaces
from stormrl.types import View
from stormrl.worlds.latent import WorldModel
from stormrl.worlds.transformer import Transformer, episode_mask

CPU = torch.device("cpu")
ACTIONS = 6
SPACES = Spaces(ImageSpace(64, 64, 3), DiscreteSpace(ACTIONS))
BINS, LOW, HIGH = 255, -20.0, 20.0
Way = Callable[[], Tensor]
Forward = Callable[[Tensor], Tensor]


class Decision(NamedTuple):
    """Two ways to the same numbers."""

    what: str
    plain: Way
    ours: Way
    tolerance: float = 0.0
    """Largest difference, as a share of the largest number: ways that round otherwise."""


def main() -> int:
    options = _options()
    keep_freed_memory()
    torch.set_flush_denormal(True)
    found = [
        {"size": size} | measured(decision, options.repeats)
        for size in options.sizes
        for decision in decisions(agent_config("paper", size))
    ]
    found += [allocator(size, options.repeats) for size in options.sizes]
    show(found)
    if options.out:
        facts = {"threads": torch.get_num_threads(), **provenance()}
        options.out.write_text(json.dumps({"decisions": found, **facts}, indent=2) + "\n")
    return 0


def decisions(config: AgentConfig) -> list[Decision]:
    """Every decision, on tensors of one update."""
    torch.manual_seed(0)
    makers = (
        gather,
        last_layer,
        few_channels,
        small_pictures,
        norm,
        one_query,
        cached_type,
        last_step,
        read_images,
        with_relu,
        two_hot,
        shared_states,
        clip,
    )
    return [make(config) for make in makers]


def gather(config: AgentConfig) -> Decision:
    """Frames of one batch of contexts, out of a replay of 4,096 steps."""
    replay = Replay(4096, (64, 64, 3), CPU)
    replay.obs.random_(0, 256)
    count = config.imagination.batch_size * config.imagination.context
    index = torch.randint(4096, (count,))
    return Decision(
        "replay reads whole steps",
        lambda: replay.obs[index],
        lambda: replay.obs.index_select(0, index),
    )


def last_layer(config: AgentConfig) -> Decision:
    """The decoder's last layer and its gradients."""
    layer = Doubling(config.world_model.image.channels, 3, bias=True)
    plain = functools.partial(nn.ConvTranspose2d.forward, layer)
    return _layer("decoder's last layer", config, layer, plain, 32)


def few_channels(config: AgentConfig) -> Decision:
    """The decoder's stage before the last, and its gradients."""
    channels = config.world_model.image.channels
    layer = Doubling(2 * channels, channels)
    plain = functools.partial(nn.ConvTranspose2d.forward, layer)
    return _layer("decoder's stage before the last", config, layer, plain, 16)


def small_pictures(config: AgentConfig) -> Decision:
    """The encoder's last stage and its gradients."""
    channels = config.world_model.image.channels
    layer = Halving(4 * channels, 8 * channels)
    plain = functools.partial(nn.Conv2d.forward, layer)
    return _layer("encoder's last stage", config, layer, plain, 8)


def norm(config: AgentConfig) -> Decision:
    """The normalisation of the largest pictures, and its gradients."""
    channels = config.world_model.image.channels
    layer = BatchNorm(channels)
    plain = functools.partial(nn.BatchNorm2d.forward, layer)
    return _layer("BatchNorm of the largest pictures", config, layer, plain, 32)


def _layer(what: str, config: AgentConfig, layer: nn.Module, plain: Forward, side: int) -> Decision:
    """A layer of the world model on the pictures of one update, forward and backward."""
    layer.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    frames = config.world_model.batch_size * config.world_model.batch_length
    before = getattr(layer, "in_channels", config.world_model.image.channels)
    x = _channels_last(frames, before, side, side).requires_grad_()
    grad = _channels_last(*layer(x.float()).shape)

    def run(forward: Forward) -> Tensor:
        return _gradients(forward(x), grad, x, *layer.parameters())

    return Decision(what, lambda: run(plain), lambda: run(layer), tolerance=0.02)


def clip(config: AgentConfig) -> Decision:
    """Clipping the gradients of a world model and taking Adam's step with them."""
    model = WorldModel(config.world_model, SPACES, layers=FOR_CPU)
    parameters = list(model.parameters())
    adam = torch.optim.Adam(parameters, lr=0.0, fused=True)
    for p in parameters:
        p.grad = torch.randn_like(p)

    def apart() -> Tensor:
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1e9)
        adam.grad_scale = None  # type: ignore[attr-defined]
        adam.step()
        return norm

    def together() -> Tensor:
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        adam.grad_scale = (norm / 1e9).clamp(min=1.0)  # type: ignore[attr-defined]
        adam.step()
        return norm

    return Decision("gradients clipped within Adam's step", apart, together, tolerance=1e-5)


class Query(NamedTuple):
    """One imagined step that looks back on a full cache."""

    attention: SelfAttention
    x: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    visible: Tensor

    def attend(self, k: Tensor, v: Tensor) -> Tensor:
        with torch.no_grad():
            return self.attention.attend(self.x, self.q, k, v, attention_bias(self.visible))


def query(config: AgentConfig) -> Query:
    sequence, dream = config.world_model.sequence, config.imagination
    length = dream.context + dream.horizon
    shape = (dream.batch_size, sequence.heads, length, sequence.width // sequence.heads)
    q, k, v = (torch.randn(shape).to(_dtype()) for _ in range(3))
    return Query(
        SelfAttention(sequence.width, sequence.heads, 0.0, 0.0).eval(),
        torch.randn(dream.batch_size, 1, sequence.width),
        q[:, :, :1],
        k,
        v,
        torch.ones(dream.batch_size, 1, 1, length, dtype=torch.bool),
    )


def one_query(config: AgentConfig) -> Decision:
    """Attention of one imagined step over the cache, output layer and norm included."""
    step = query(config)
    attention = step.attention

    @torch.no_grad()
    def fused() -> Tensor:
        mixed = F.scaled_dot_product_attention(step.q, step.k, step.v, attn_mask=step.visible)
        return attention.norm(step.x + attention.out(mixed.transpose(1, 2).flatten(2)))

    return Decision(
        "attention for one query, written out",
        fused,
        lambda: step.attend(step.k, step.v),
        tolerance=0.02,
    )


def cached_type(config: AgentConfig) -> Decision:
    """The same attention over a cache in the networks' type and in the one that it is kept in."""
    step = query(config)
    k, v = cacheable(step.k), cacheable(step.v)
    return Decision(
        "keys and values of dreams in float32",
        lambda: step.attend(step.k, step.v),
        lambda: step.attend(k, v),
        tolerance=0.02,
    )


def last_step(config: AgentConfig) -> Decision:
    """The last block over contexts, of which the rollout takes the last step."""
    sequence, dream = config.world_model.sequence, config.imagination
    block = (
        Transformer(sequence, config.world_model.latent.size, Choices(ACTIONS)).eval().blocks[-1]
    )
    assert isinstance(block, Block)
    x = torch.randn(dream.batch_size, dream.context, sequence.width)
    mask, _ = episode_mask(torch.zeros(dream.batch_size, dream.context, dtype=torch.bool))

    @torch.no_grad()
    def whole() -> Tensor:
        return block(x, attention_bias(mask))[0][:, -1:]

    @torch.no_grad()
    def newest() -> Tensor:
        return block.newest(x, attention_bias(mask))[0]

    return Decision("the last step alone leaves the last block", whole, newest, tolerance=0.02)


def with_relu(config: AgentConfig) -> Decision:
    """The encoder's first stage over contexts, outside of training."""
    channels = config.world_model.image.channels
    layer = Halving(3, channels)
    count = config.imagination.batch_size * config.imagination.context
    x = torch.randn(count, 3, 64, 64).to(_dtype()).contiguous(memory_format=torch.channels_last)
    weight, bias = layer.weight.to(x.dtype), torch.randn(channels).to(x.dtype)

    @torch.no_grad()
    def apart() -> Tensor:
        return F.relu(F.conv2d(x, weight, bias, stride=2, padding=1), inplace=True)

    @torch.no_grad()
    def fused() -> Tensor:
        return halve_relu(x, weight, bias)

    return Decision("convolution and ReLU as one kernel", apart, fused, tolerance=0.02)


def read_images(config: AgentConfig) -> Decision:
    """Contexts to embeddings, outside of training."""
    encoder = Encoder(3, config.world_model.image.channels, FOR_CPU)
    count = config.imagination.batch_size * config.imagination.context
    images = torch.randint(256, (count, 64, 64, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    encoder.train()
    with torch.no_grad():
        encoder(images[:64])  # running statistics that are worth something
    encoder.eval()

    @torch.no_grad()
    def apart() -> Tensor:
        pixels = images.to(compute_dtype(images))
        return encoder.stages(
            F.conv2d(pixels, encoder.first.weight / 255, stride=2, padding=1)
        ).flatten(1)

    @torch.no_grad()
    def folded() -> Tensor:
        return encoder(images)

    return Decision("BatchNorm inside the weights", apart, folded, tolerance=0.05)


def two_hot(config: AgentConfig) -> Decision:
    """A two-hot loss of all imagined steps, and its gradient."""
    steps = config.imagination.batch_size * config.imagination.horizon
    logits = torch.randn(steps, BINS).requires_grad_()
    target = torch.randn(steps) * 3

    def wide() -> Tensor:
        lower, weight = two_hot_position(symlog(target), BINS, LOW, HIGH)
        wanted = F.one_hot(lower, BINS) * (1 - weight)[:, None]
        wanted = wanted + F.one_hot(lower + 1, BINS) * weight[:, None]
        return _gradients(-(wanted * logits.log_softmax(-1)).sum(-1), None, logits)

    def narrow() -> Tensor:
        return _gradients(two_hot_cross_entropy(logits, target, LOW, HIGH), None, logits)

    return Decision("two-hot loss without the wide target", wide, narrow, tolerance=1e-4)


def shared_states(config: AgentConfig) -> Decision:
    """Actor, critic and slow critic on all imagined states, gradients included."""
    world_model = WorldModel(config.world_model, SPACES, layers=FOR_CPU)
    state = agent_state(config.actor_critic.state, world_model)
    agent = ActorCritic(config.actor_critic, state, Choices(ACTIONS))
    shape = (config.imagination.batch_size, config.imagination.horizon)
    z = torch.randn(*shape, config.world_model.latent.size)
    h = torch.randn(*shape, config.world_model.sequence.width)

    def run(states: Tensor) -> Tensor:
        outputs = agent.actor(states), agent.critic(states), agent.slow_critic(states)
        total = sum(output.float().square().mean() for output in outputs)
        assert isinstance(total, Tensor)
        return _gradients(total, None, agent.critic[0].weight)  # pyright: ignore[reportArgumentType]

    return Decision(
        "states converted once for three networks",
        lambda: run(torch.cat([z, h], dim=-1)),
        lambda: run(state(View(z, h))),
        tolerance=0.02,
    )


def measured(decision: Decision, repeats: int) -> dict[str, Any]:
    """Times of both ways, in turn. Raises `AssertionError` if they disagree."""
    dtype = _dtype()
    with torch.autocast("cpu", dtype) if dtype != torch.float32 else nullcontext():
        plain, ours = decision.plain().float(), decision.ours().float()
        scale = float(plain.abs().max())
        torch.testing.assert_close(ours, plain, rtol=0, atol=decision.tolerance * scale)
        rounds = [
            (first_seconds(decision.plain, CPU), first_seconds(decision.ours, CPU))
            for _ in range(repeats)
        ]
    return summary(decision.what, rounds)


def allocator(size: str, repeats: int) -> dict[str, Any]:
    """Whole iterations with freed memory given back to the system, and kept."""
    rounds = []
    for _ in range(2):
        pair = [_iterations(size, repeats, kept=kept) for kept in (False, True)]
        rounds += list(zip(*pair, strict=True))
    return {"size": size} | summary("freed memory is kept (whole iteration)", rounds)


def summary(what: str, rounds: list[tuple[float, float]]) -> dict[str, Any]:
    """Medians, and how many times faster ours was in each round."""
    faster = sorted(plain / ours for plain, ours in rounds)
    return {
        "what": what,
        "plain_s": statistics.median(plain for plain, _ in rounds),
        "ours_s": statistics.median(ours for _, ours in rounds),
        "faster": statistics.median(faster),
        "lowest": faster[0],
        "highest": faster[-1],
    }


def show(found: list[dict[str, Any]]) -> None:
    table = Table("size", "decision", "plain", "ours", "faster")
    for row in found:
        spread = f"{row['faster']:.1f} ({row['lowest']:.1f} to {row['highest']:.1f})"
        times = (f"{row[way] * 1e3:.2f} ms" for way in ("plain_s", "ours_s"))
        table.add_row(row["size"], row["what"], *times, spread)
    Console().print(table)


def iterations(size: str, repeats: int, kept: bool) -> list[float]:
    """Seconds of whole iterations of training in this process."""
    if kept:
        keep_freed_memory()
    torch.set_flush_denormal(True)
    agent = agent_config("paper", size)
    config = RunConfig(env="stormrl/Catch-v0", size=size, agent=agent, device="cpu")
    return seconds(Workbench(config, choose_backend(config)).iteration, repeats, CPU)


def _iterations(size: str, repeats: int, kept: bool) -> list[float]:
    """In a process of its own: what one has done to its memory cannot be taken back."""
    flags = [
        "--sizes",
        size,
        "--repeats",
        str(repeats),
        "--iterations",
        "kept" if kept else "freed",
    ]
    command = [sys.executable, __file__, *flags]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _gradients(result: Tensor, grad: Tensor | None, *leaves: Tensor | None) -> Tensor:
    """Gradients of the leaves, one after the other; of the sum, without `grad`."""
    wanted = [leaf for leaf in leaves if leaf is not None]
    found = torch.autograd.grad(result if grad is not None else result.sum(), wanted, grad)
    return torch.cat([gradient.flatten().float() for gradient in found])


def _channels_last(*shape: int) -> Tensor:
    return torch.randn(shape).to(_dtype()).contiguous(memory_format=torch.channels_last)


def _dtype() -> torch.dtype:
    return choose_backend(RunConfig(env="stormrl/Catch-v0", device="cpu")).dtype


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", nargs="+", choices=tuple(SIZES), default=["toy", "base"])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--iterations", choices=("kept", "freed"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.iterations:
        times = iterations(options.sizes[0], options.repeats, options.iterations == "kept")
        print(json.dumps(times))
        sys.exit(0)
    return options


if __name__ == "__main__":
    sys.exit(main())
