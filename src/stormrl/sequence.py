"""Sequence model: one token a step, a causal Transformer over them (STORM, equation 2)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from stormrl.config import TransformerConfig
from stormrl.nn.attention import EPSILON, Block
from stormrl.nn.precision import compute_dtype
from stormrl.types import Cache


class ActionMixer(nn.Module):
    """Joins a latent and an action into one token."""

    def __init__(self, latent: int, actions: int, width: int) -> None:
        super().__init__()
        self.actions = actions
        self.layers = nn.Sequential(
            nn.Linear(latent + actions, width, bias=False),
            nn.LayerNorm(width),
            nn.ReLU(),
            nn.Linear(width, width, bias=False),
            nn.LayerNorm(width),
        )

    def forward(self, z: Float[Tensor, "*n Z"], action: Int[Tensor, "*n"]) -> Float[Tensor, "*n D"]:
        """One token for each latent and action."""
        dtype = compute_dtype(z)
        one_hot = F.one_hot(action, self.actions).to(dtype)
        return self.layers(torch.cat([z.to(dtype), one_hot], dim=-1))


class Transformer(nn.Module):
    """Causal Transformer with learned positions, in parallel over time or step by step.

    A token sees the earlier tokens of its own episode, and its position counts from the first
    of them: what the model meets in training, imagination and acting is then the same thing.
    """

    def __init__(self, config: TransformerConfig, latent: int, actions: int) -> None:
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
        x, mask, _ = self._tokens(z, action, is_first)
        for block in self.blocks:
            x, _, _ = block(x, mask)
        return x

    def prefill(
        self,
        z: Float[Tensor, "B T Z"],
        action: Int[Tensor, "B T"],
        is_first: Bool[Tensor, "B T"],
        length: int,
    ) -> tuple[Float[Tensor, "B T D"], Cache]:
        """Hidden states of a sequence, and a cache of `length` slots that begins with it."""
        x, mask, position = self._tokens(z, action, is_first)
        steps = z.shape[1]
        keys, values = [], []
        for block in self.blocks:
            x, k, v = block(x, mask)
            keys.append(F.pad(k, (0, 0, 0, length - steps)))
            values.append(F.pad(v, (0, 0, 0, length - steps)))
        cache = Cache(
            keys=tuple(keys),
            values=tuple(values),
            visible=F.pad(mask[:, 0, -1], (0, length - steps)),
            position=position[:, -1] + 1,
            slot=torch.full((1,), steps, device=z.device),
        )
        return x, cache

    def step(
        self, z: Float[Tensor, "B Z"], action: Int[Tensor, " B"], cache: Cache
    ) -> Float[Tensor, "B D"]:
        """Hidden state after one more token; the cache moves on in place."""
        token = self.mixer(z, action) + self.positions(cache.position)
        x = self.norm(token).unsqueeze(1)
        cache.visible.index_fill_(1, cache.slot, True)
        visible = cache.visible[:, None, None]
        for block, keys, values in zip(self.blocks, cache.keys, cache.values, strict=True):
            assert isinstance(block, Block)
            x = block.step(x, keys, values, cache.slot, visible)
        cache.slot.add_(1)
        cache.position.add_(1)
        return x.squeeze(1)

    def _tokens(self, z: Tensor, action: Tensor, is_first: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mask, position = episode_mask(is_first)
        tokens = self.mixer(z, action) + self.positions(position)
        return self.norm(tokens), mask, position


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
