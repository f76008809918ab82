"""Sequence model: one token a step, a causal Transformer over them (STORM, equation 2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from stormrl.config.parts import TransformerConfig
from stormrl.nn.attention import EPSILON, Block, attention_bias, cacheable
from stormrl.nn.choices import Choices
from stormrl.nn.precision import compute_dtype


class Cache(NamedTuple):
    """Keys and values of every token so far, one tensor per block, written in place.

    On a CPU they are float32, whatever the networks compute in: `nn.attention.cacheable`.
    """

    keys: tuple[Tensor, ...]
    """Per block: [B, heads, length, D / heads]."""
    values: tuple[Tensor, ...]
    """Per block: [B, heads, length, D / heads]."""
    visible: Bool[Tensor, "B length"]
    """Slots that hold a token of the current episode."""
    position: Int[Tensor, " B"]
    """Position that the next token gets."""
    slot: Int[Tensor, "1"]
    """Slot that the next token is written to."""


class ActionMixer(nn.Module):
    """Joins a latent and an action into one token."""

    def __init__(self, latent: int, actions: Choices, width: int) -> None:
        super().__init__()
        self.actions = actions
        self.layers = nn.Sequential(
            nn.Linear(latent + actions.total, width, bias=False),
            nn.LayerNorm(width),
            nn.ReLU(),
            nn.Linear(width, width, bias=False),
            nn.LayerNorm(width),
        )

    def forward(self, z: Float[Tensor, "*n Z"], action: Int[Tensor, "*n"]) -> Float[Tensor, "*n D"]:
        """One token for each latent and action."""
        dtype = compute_dtype(z)
        return self.layers(torch.cat([z.to(dtype), self.actions.one_hot(action, dtype)], dim=-1))


class Transformer(nn.Module):
    """Causal Transformer with learned positions, in parallel over time or step by step.

    A token sees the earlier tokens of its own episode, and its position counts from the first
    of them: what the model meets in training, imagination and acting is then the same thing.
    """

    def __init__(self, config: TransformerConfig, latent: int, actions: Choices) -> None:
        super().__init__()
        self.config = config
        self.mixer = ActionMixer(latent, actions, config.width)
        self.positions = nn.Embedding(config.max_length, config.width)
        self.norm = nn.LayerNorm(config.width, eps=EPSILON)
        self.blocks: nn.ModuleList = nn.ModuleList(
            Block(
                config.width,
                config.heads,
                config.feedforward,
                config.dropout,
                config.attention_dropout,
            )
            for _ in range(config.layers)
        )

    def forward(
        self,
        z: Float[Tensor, "B T Z"],
        action: Int[Tensor, "B T"],
        is_first: Bool[Tensor, "B T"],
    ) -> Float[Tensor, "B T D"]:
        """Hidden states of a whole sequence."""
        mask, position = episode_mask(is_first)
        x, bias = self._tokens(z, action, position), attention_bias(mask)
        for block in self.blocks:
            x, _, _ = block(x, bias)
        return x

    def prefill(
        self,
        z: Float[Tensor, "B T Z"],
        action: Int[Tensor, "B T"],
        is_first: Bool[Tensor, "B T"],
        length: int,
    ) -> tuple[Float[Tensor, "B D"], Cache]:
        """Hidden state of the last step, and a cache of `length` slots that begins with them all.

        Of the earlier steps, the last block is asked for keys and values alone.
        """
        mask, position = episode_mask(is_first)
        x, bias = self._tokens(z, action, position), attention_bias(mask)
        steps = z.shape[1]
        *earlier, last = self.blocks
        assert isinstance(last, Block)
        seen = []
        for block in earlier:
            x, k, v = block(x, bias)
            seen.append((k, v))
        x, k, v = last.newest(x, bias)
        seen.append((k, v))
        cache = Cache(
            keys=tuple(_with_room(k, length) for k, _ in seen),
            values=tuple(_with_room(v, length) for _, v in seen),
            visible=F.pad(mask[:, 0, -1], (0, length - steps)),
            position=position[:, -1] + 1,
            slot=torch.full((1,), steps, device=z.device),
        )
        return x.squeeze(1), cache

    def branch(
        self,
        z: Float[Tensor, "B S Z"],
        action: Int[Tensor, "B S"],
        is_first: Bool[Tensor, "B S"],
        length: int,
    ) -> tuple[Float[Tensor, "B*S D"], Cache]:
        """Hidden state of every step, and a cache of `length` slots for each to go on from alone.

        Row b * S + s is what `prefill` gives for the first s + 1 steps of window b.
        """
        mask, position = episode_mask(is_first)
        x, bias = self._tokens(z, action, position), attention_bias(mask)
        steps = z.shape[1]
        keys, values = [], []
        for block in self.blocks:
            x, k, v = block(x, bias)
            keys.append(_with_room(k, length).repeat_interleave(steps, dim=0))
            values.append(_with_room(v, length).repeat_interleave(steps, dim=0))
        cache = Cache(
            keys=tuple(keys),
            values=tuple(values),
            visible=F.pad(mask.squeeze(1).flatten(0, 1), (0, length - steps)),
            position=position.flatten() + 1,
            slot=torch.full((1,), steps, device=z.device),
        )
        return x.flatten(0, 1), cache

    def step(
        self, z: Float[Tensor, "B Z"], action: Int[Tensor, " B"], cache: Cache
    ) -> Float[Tensor, "B D"]:
        """Hidden state after one more token; the cache moves on in place."""
        x = self._tokens(z, action, cache.position).unsqueeze(1)
        cache.visible.index_fill_(1, cache.slot, True)
        bias = attention_bias(cache.visible)[:, None, None]
        for block, keys, values in zip(self.blocks, cache.keys, cache.values, strict=True):
            assert isinstance(block, Block)
            x = block.step(x, keys, values, cache.slot, bias)
        cache.slot.add_(1)
        cache.position.add_(1)
        return x.squeeze(1)

    def _tokens(self, z: Tensor, action: Tensor, position: Tensor) -> Tensor:
        return self.norm(self.mixer(z, action) + self.positions(position))


def _with_room(seen: Tensor, length: int) -> Float[Tensor, "B heads length d"]:
    return F.pad(cacheable(seen), (0, 0, 0, length - seen.shape[2]))


def episode_mask(
    is_first: Bool[Tensor, "B T"],
) -> tuple[Bool[Tensor, "B 1 T T"], Int[Tensor, "B T"]]:
    """Which earlier steps each step may see, and how many steps of its episode lie before it."""
    steps = torch.arange(is_first.shape[1], device=is_first.device)
    # The step at which the episode of each step begins, or the window does.
    begin = torch.where(is_first, steps, 0).cummax(dim=1).values
    causal = steps[:, None] >= steps[None, :]
    same_episode = steps[None, None, :] >= begin[:, :, None]
    return (causal & same_episode).unsqueeze(1), steps - begin
