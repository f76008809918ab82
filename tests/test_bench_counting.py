"""Counted arithmetic against the count by hand, and what must not change it."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

import hand_count
from miniature import ACTIONS, SPACES, learner, posterior_noise, random_batch, shrunk
from stormrl.bench.counting import count_flops, count_operators
from stormrl.bench.timing import Work
from stormrl.config.parts import AgentConfig, storm
from stormrl.config.presets import agent_config
from stormrl.learning.learner import Learner
from stormrl.machine.device import Backend
from stormrl.nn.cpu import strided


def stages(model: Learner) -> dict[str, Work]:
    config = model.config
    batch = random_batch(config.world_model.batch_size, config.world_model.batch_length)
    context = random_batch(config.imagination.batch_size, config.imagination.context)
    noise, dream_noise = posterior_noise(batch), model.imagination_noise(context)
    imagination = model.imagination
    with torch.no_grad():
        carry, view = imagination.start(context, dream_noise.start)
    trajectory = imagination(context, dream_noise)

    @torch.no_grad()
    def encode() -> None:
        imagination.start(context, dream_noise.start)

    def roll_out() -> None:
        again, weight = model.world_model.again(carry), torch.ones(len(context.action))
        imagination.roll_out(again, view, weight, dream_noise)

    return {
        "world_model": lambda: model.learn_world(batch, noise),
        "encode": encode,
        "rollout": roll_out,
        "actor_critic": lambda: model.learn_policy(trajectory),
    }


def lopsided() -> AgentConfig:
    """No two sizes alike, so that none can stand for another."""
    config = shrunk()
    model = storm(config)
    sequence = replace(model.sequence, width=20, heads=2, feedforward=28, layers=3)
    head = replace(model.head, layers=3, width=11)
    return replace(
        config,
        world_model=replace(model, sequence=sequence, head=head, batch_size=3, batch_length=7),
        imagination=replace(config.imagination, batch_size=5, context=2, horizon=6),
    )


@pytest.mark.parametrize("config", [shrunk(), lopsided()], ids=["shrunk", "lopsided"])
@pytest.mark.parametrize("stage", hand_count.Count._fields)
def test_counted_arithmetic_is_the_count_by_hand(stage: str, config: AgentConfig) -> None:
    work = stages(Learner(config, SPACES, Backend(torch.device("cpu"))))[stage]
    expected = getattr(hand_count.iteration(config, ACTIONS), stage)
    assert count_flops(work) == 2 * expected


def test_a_base_iteration_takes_one_and_a_half_trillion_operations() -> None:
    count = hand_count.iteration(agent_config("paper", "base"), actions=6)
    parts = {name: round(2 * part / 1e12, 3) for name, part in count._asdict().items()}
    assert parts == {"world_model": 0.419, "encode": 0.571, "rollout": 0.255, "actor_critic": 0.212}


def test_compiling_changes_no_count() -> None:
    batch = random_batch()
    noise = posterior_noise(batch)

    def counts(compiled: bool) -> tuple[int, int]:
        model = learner(backend=Backend(torch.device("cpu"), compiled=compiled))
        return (
            count_flops(lambda: model.learn_world(batch, noise)),
            count_operators(lambda: model.learn_world(batch, noise)),
        )

    assert counts(compiled=True) == counts(compiled=False)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_counts_whichever_kernel_computes_it(dropout: float, masked: bool) -> None:
    rows, heads, queries, keys, width = 2, 3, 5, 7, 4
    q = torch.randn(rows, heads, queries, width, requires_grad=True)
    k, v = torch.randn(2, rows, heads, keys, width).unbind()
    mask = torch.ones(queries, keys, dtype=torch.bool).tril() if masked else None

    def attend() -> None:
        F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)

    product = 2 * rows * heads * queries * keys * width
    assert count_flops(attend) == 2 * product


def test_the_fused_attention_of_cpus_counts_backward_with_the_scores_it_computes_anew() -> None:
    q, k, v = (torch.randn(2, 3, 5, 4, requires_grad=True) for _ in range(3))
    out = F.scaled_dot_product_attention(q, k, v).sum()
    # By queries, keys, values and weights, and the scores once more.
    assert count_flops(out.backward) == 5 * 2 * 2 * 3 * 5 * 5 * 4


def test_layers_that_are_arranged_anew_count_as_the_convolutions_that_they_are() -> None:
    layers = strided.Halving(3, 8), strided.Doubling(8, 3)
    pictures = torch.randn(2, 3, 8, 8), torch.randn(2, 8, 4, 4)
    expected, few = 2 * 2 * 4 * 4 * 8 * 3 * 16, strided.FEW_CHANNELS
    for layer, x in zip(layers, pictures, strict=True):
        x.requires_grad_()
        assert count_flops(lambda layer=layer, x=x: layer(x)) == expected
        assert count_flops(lambda layer=layer, x=x: layer(x).sum().backward()) == 3 * expected
    assert few == strided.FEW_CHANNELS
