"""The sequence model against its equations, episode by episode, in float64 NumPy."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from miniature import (
    ACTIONS,
    WIDTH,
    C,
    K,
    array,
    layer_norm,
    linear,
    random_latents,
    relu,
    softmax,
    world_model_config,
)
from stormrl.config.common import CategoricalConfig
from stormrl.config.parts import TransformerConfig
from stormrl.nn.choices import Choices
from stormrl.worlds.transformer import Transformer, episode_mask

LATENT = CategoricalConfig(K, C)
STEPS = 7


@pytest.fixture
def model() -> Transformer:
    return Transformer(world_model_config().sequence, LATENT.size, Choices(ACTIONS)).eval()


def inputs(batch: int = 3, steps: int = STEPS) -> tuple[Tensor, Tensor]:
    return random_latents(batch, steps, LATENT), torch.randint(ACTIONS, (batch, steps))


def resets_at(*steps_by_row: tuple[int, ...], steps: int = STEPS) -> Tensor:
    is_first = torch.zeros(len(steps_by_row), steps, dtype=torch.bool)
    for row, firsts in enumerate(steps_by_row):
        is_first[row, list(firsts)] = True
    return is_first


NO_RESETS = resets_at((), (), ())
RESETS = resets_at((0,), (3,), (2, 3, 6))


def hidden_states_of_an_episode(model: Transformer, z: np.ndarray, action: np.ndarray):
    """Equations 3 and 4 for one episode: z [T, Z], action [T]."""
    mixer = model.mixer.layers
    one_hot = np.eye(ACTIONS)[action]
    x = linear(mixer[0], np.concatenate([z, one_hot], axis=-1))
    x = relu(layer_norm(mixer[1], x, 1e-5))
    x = layer_norm(mixer[4], linear(mixer[3], x), 1e-5)
    x = layer_norm(model.norm, x + array(model.positions.weight)[: len(z)], 1e-6)
    blocks: Any = model.blocks
    for block in blocks:
        x = layer_norm(block.attention.norm, x + attention(block.attention, x), 1e-6)
        inner = relu(linear(block.feedforward.expand, x))
        x = layer_norm(block.feedforward.norm, x + linear(block.feedforward.contract, inner), 1e-6)
    return x


def attention(layer: Any, x: np.ndarray) -> np.ndarray:
    """Each head by itself, each query by itself, over the steps up to its own."""
    size = WIDTH // layer.heads
    query, key, value = np.split(array(layer.qkv.weight), 3)
    output = np.zeros_like(x)
    for head, t in itertools.product(range(layer.heads), range(len(x))):
        part = slice(head * size, (head + 1) * size)
        past = x[: t + 1]
        scores = (past @ key[part].T) @ (query[part] @ x[t]) / np.sqrt(size)
        output[t, part] = softmax(scores) @ (past @ value[part].T)
    return linear(layer.out, output)


def test_hidden_states_are_those_of_each_episode_alone(model: Transformer) -> None:
    z, action = inputs()
    h = array(model(z, action, RESETS))
    for row in range(3):
        firsts = RESETS[row].nonzero().flatten().tolist()
        for begin, end in itertools.pairwise([0, *firsts, STEPS]):
            if begin == end:
                continue
            episode = hidden_states_of_an_episode(
                model, array(z)[row, begin:end], action[row, begin:end].numpy()
            )
            np.testing.assert_allclose(h[row, begin:end], episode, atol=1e-5)


def test_a_change_at_one_step_changes_no_output_before_it(model: Transformer) -> None:
    z, action = inputs()
    h = model(z, action, NO_RESETS)
    for t in range(STEPS):
        other_z, other_action = z.clone(), action.clone()
        other_z[:, t] = random_latents(3, 1, LATENT)[:, 0]
        other_action[:, t] = (action[:, t] + 1) % ACTIONS
        changed = model(other_z, other_action, NO_RESETS)
        assert torch.equal(changed[:, :t], h[:, :t])
        assert not torch.isclose(changed[:, t], h[:, t]).all(-1).any()


def test_gradients_reach_the_past_of_the_same_episode_alone(model: Transformer) -> None:
    z, action = inputs()
    z.requires_grad_()
    h = model(z, action, RESETS)
    begin = episode_starts(RESETS)
    for row, t in itertools.product(range(3), range(STEPS)):
        (gradient,) = torch.autograd.grad(h[row, t, 0], z, retain_graph=True)
        reached = gradient.abs().sum(-1) > 0
        expected = torch.zeros_like(reached)
        expected[row, begin[row][t] : t + 1] = True
        assert torch.equal(reached, expected)


def episode_starts(is_first: Tensor) -> list[list[int]]:
    rows = is_first.tolist()
    return [
        [max((i for i in range(t + 1) if row[i]), default=0) for t in range(STEPS)] for row in rows
    ]


def test_mask_and_positions_by_hand() -> None:
    mask, position = episode_mask(resets_at((), (2,), steps=4))
    assert position.tolist() == [[0, 1, 2, 3], [0, 1, 0, 1]]
    assert mask.int().tolist() == [
        [[[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]],
        [[[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]],
    ]


@pytest.mark.parametrize("is_first", [NO_RESETS, RESETS], ids=["one episode", "resets"])
@pytest.mark.parametrize("context", [1, 4, STEPS])
def test_cached_steps_equal_the_parallel_pass(
    model: Transformer, is_first: Tensor, context: int
) -> None:
    """The context may hold resets; the steps after it belong to its last episode."""
    z, action = inputs()
    is_first = is_first.clone()
    is_first[:, context:] = False
    expected = model(z, action, is_first)
    h, cache = model.prefill(z[:, :context], action[:, :context], is_first[:, :context], STEPS)
    torch.testing.assert_close(h, expected[:, context - 1], rtol=0, atol=1e-5)
    with torch.no_grad():
        for t in range(context, STEPS):
            h = model.step(z[:, t], action[:, t], cache)
            torch.testing.assert_close(h, expected[:, t], rtol=0, atol=1e-5)


def test_a_prefilled_cache_continues_positions_of_the_last_episode(model: Transformer) -> None:
    z, action = inputs()
    _, cache = model.prefill(z[:, :5], action[:, :5], RESETS[:, :5], length=9)
    assert cache.position.tolist() == [5, 2, 2]
    assert cache.slot.tolist() == [5]
    assert cache.visible.int().tolist() == [
        [1, 1, 1, 1, 1, 0, 0, 0, 0],
        [0, 0, 0, 1, 1, 0, 0, 0, 0],
        [0, 0, 0, 1, 1, 0, 0, 0, 0],
    ]


def test_every_step_of_a_window_branches_off_as_its_beginning_would(model: Transformer) -> None:
    """Three steps read at once, then two of its own for each of the nine branches."""
    z, action = inputs()
    steps, length = 3, 6
    h, cache = model.branch(z[:, :steps], action[:, :steps], RESETS[:, :steps], length)
    branches = [model(z[:, : s + 1], action[:, : s + 1], RESETS[:, : s + 1]) for s in range(steps)]
    together = torch.stack([whole[:, -1] for whole in branches], dim=1).flatten(0, 1)
    torch.testing.assert_close(h, together, rtol=0, atol=1e-5)
    own_z, own_action = z.repeat(3, 1, 1)[:, :2], action.repeat(3, 1)[:, :2]
    with torch.no_grad():
        for t in range(2):
            h = model.step(own_z[:, t], own_action[:, t], cache)
    for row in range(9):
        window, s = divmod(row, steps)
        window_z = torch.cat([z[window, : s + 1], own_z[row]])[None]
        window_action = torch.cat([action[window, : s + 1], own_action[row]])[None]
        is_first = torch.cat([RESETS[window, : s + 1], torch.zeros(2, dtype=torch.bool)])[None]
        expected = model(window_z, window_action, is_first)[0, -1]
        torch.testing.assert_close(h[row], expected, rtol=0, atol=1e-5)


NO_DROPOUT = TransformerConfig(
    width=WIDTH, layers=1, heads=2, feedforward=24, dropout=0.0, attention_dropout=0.0
)


def test_dropout_is_on_in_training_and_off_in_evaluation() -> None:
    for which in ("dropout", "attention_dropout"):
        config = replace(NO_DROPOUT, **{which: 0.5})
        model = Transformer(config, LATENT.size, Choices(ACTIONS))
        z, action = inputs()
        assert not torch.equal(model(z, action, NO_RESETS), model(z, action, NO_RESETS))
        model.eval()
        assert torch.equal(model(z, action, NO_RESETS), model(z, action, NO_RESETS))


def test_without_dropout_training_equals_evaluation() -> None:
    model = Transformer(NO_DROPOUT, LATENT.size, Choices(ACTIONS))
    z, action = inputs()
    trained = model(z, action, RESETS)
    torch.testing.assert_close(model.eval()(z, action, RESETS), trained)


def test_a_compiled_mixer_computes_in_the_type_it_was_given(model: Transformer) -> None:
    """PyTorch 2.11 compiled a scattered one-hot to float32, and products of two types raise."""
    z, action = inputs()
    compiled = torch.compile(model.mixer, fullgraph=True, dynamic=False)
    with torch.autocast("cpu", torch.bfloat16):
        token, expected = compiled(z, action), model.mixer(z, action)
    torch.testing.assert_close(token, expected, atol=0.03, rtol=0)
