"""TWM's sequence model against its equations in float64 NumPy, and step by step."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import twm_miniature as miniature
from miniature import array, layer_norm, linear, softmax
from stormrl.config.twm import TransformerXLConfig
from stormrl.nn.choices import Choices
from stormrl.nn.relative import position_codes
from stormrl.worlds.transformer_xl import TransformerXL, token_mask

ACTIONS, LATENT = 3, 12
CONFIG = TransformerXLConfig(
    width=8, layers=2, heads=2, head_width=6, feedforward=10, memory=3, dropout=0.0
)


def model(**fields: Any) -> TransformerXL:
    made = TransformerXL(replace(CONFIG, **fields), LATENT, Choices(ACTIONS)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return made


def experience(rows: int = 2, steps: int = 9) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Latents, actions, rewards, and ends in the second row."""
    ends = torch.zeros(rows, steps, dtype=torch.bool)
    ends[1, [1, 2, 5]] = True
    return (
        torch.randn(rows, steps, LATENT),
        torch.randint(ACTIONS, (rows, steps)),
        torch.randn(rows, steps),
        ends,
    )


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def may_see(query: int, key: int, memory: int, ends: list[int]) -> bool:
    """Of tokens, by the words of the paper's code: 3 a step, latent, action, reward."""
    step, kind = divmod(query, 3)
    furthest = 3 * (step - memory) if kind == 2 else query - 3 * (memory + 1)
    same_episode = not any(key // 3 <= end < step for end in ends)
    return furthest <= key <= query and same_episode


def code(distance: int, width: int) -> np.ndarray:
    angle = distance / 10_000 ** (np.arange(0, width, 2) / width)
    return np.stack([np.sin(angle), np.cos(angle)], axis=-1).ravel()


def hidden_states(net: TransformerXL, z: Tensor, action: Tensor, reward: Tensor, ends: Tensor):
    """Token by token and head by head, for one row."""
    c, x = net.config, []
    for t in range(len(action)):
        x.append(silu(linear(net.latent[0], array(z[t]))))
        x.append(array(net.action.weight)[action[t]])
        x.append(silu(linear(net.reward[0], array(reward[t : t + 1]))))
    x = np.stack(x[:-1])
    over = [t for t, end in enumerate(ends.tolist()) if end]
    root = np.sqrt({"width": c.width, "head": c.head_width}[c.scale])
    u, v = array(net.content_bias), array(net.position_bias)
    blocks: Any = net.blocks
    for block in blocks:
        layer, d = block.attention, c.head_width
        q, k, value = np.split(array(layer.qkv.weight), 3)
        position = array(layer.position.weight)
        attended = np.zeros((len(x), c.heads * d))
        for head in range(c.heads):
            part = slice(head * d, (head + 1) * d)
            for i in range(len(x)):
                keys = [j for j in range(i + 1) if may_see(i, j, c.memory, over)]
                query = q[part] @ x[i]
                scores = [
                    (query + u[head]) @ (k[part] @ x[j])
                    + (query + v[head]) @ (position[part] @ code(i - j, c.width))
                    for j in keys
                ]
                weights = softmax(np.array(scores) / root)
                attended[i, part] = weights @ (x[keys] @ value[part].T)
        x = layer_norm(block.norm1, x + linear(layer.out, attended), 1e-5)
        inner = silu(linear(block.expand, x))
        x = layer_norm(block.norm2, x + linear(block.contract, inner), 1e-5)
    return x[1::3]


@pytest.mark.parametrize("scale", ["width", "head"])
def test_hidden_states(scale: str) -> None:
    torch.manual_seed(0)
    net, inputs = model(scale=scale), experience()
    found = net(*inputs)
    for row in range(2):
        expected = hidden_states(net, *(part[row] for part in inputs))
        np.testing.assert_allclose(array(found[row]), expected, atol=1e-5)


def test_codes_of_positions() -> None:
    expected = np.stack([code(distance, 8) for distance in range(30)])
    np.testing.assert_allclose(array(position_codes(30, 8)), expected, atol=1e-5)


def test_what_a_token_may_see() -> None:
    """A window of 3 steps, and no step before an end."""
    ends = torch.tensor([[False, False, False, True, False, False, False]])
    mask = token_mask(ends, reach=12)[0, 0]
    for query in range(20):
        for key in range(20):
            assert bool(mask[query, key]) == may_see(query, key, 3, [3]), (query, key)


@pytest.mark.parametrize("context", [1, 2, 5])
def test_step_by_step_is_the_parallel_pass(context: int) -> None:
    """Also beyond what the memory holds, and across ends."""
    torch.manual_seed(1)
    net, (z, action, reward, ends) = model(), experience()
    expected = net(z, action, reward, ends)
    past = [part[:, :context] for part in (z, action, reward, ends)]
    h, cache = net.prefill(*past, length=9)
    torch.testing.assert_close(h, expected[:, context - 1], atol=1e-5, rtol=0)
    for t in range(context, 9):
        h = net.step(z[:, t], action[:, t], reward[:, t - 1], ends[:, t - 1], cache)
        torch.testing.assert_close(h, expected[:, t], atol=1e-5, rtol=0)


def test_dropout_is_on_in_training_alone() -> None:
    net, inputs = model(dropout=0.5), experience()
    assert torch.equal(net(*inputs), net(*inputs))
    net.train()
    assert not torch.equal(net(*inputs), net(*inputs))


def test_the_memory_of_the_published_size_is_two_actions_and_16_steps() -> None:
    """The window that training shows at base is what a dream of 15 steps looks back on."""
    config = miniature.TwmConfig()
    assert 3 * (config.batch_length + 1) - 1 <= 3 * (config.sequence.memory + 1)
