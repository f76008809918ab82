"""Sequence model of TWM: three tokens a step (latent, action, reward) and a Transformer-XL."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from stormrl.config.twm import TransformerXLConfig
from stormrl.nn.attention import attention_bias, cacheable
from stormrl.nn.choices import Choices
from stormrl.nn.precision import compute_dtype
from stormrl.nn.relative import RelativeAttention, RelativeBlock, position_codes
from stormrl.nn.silu import start_uniformly

TOKENS = 3
"""Of a step: latent, action, reward, in this order. The newest step has no reward yet."""
ACTION = 1
"""Place of the action among them; the hidden state of a step is read there."""


class XLCache(NamedTuple):
    """The memory: keys and values of every token so far, one tensor per block, written in place.

    They are what a block makes of the hidden states before it, which therefore need not be kept.
    """

    keys: tuple[Tensor, ...]
    """Per block: [B, heads, length, d]."""
    values: tuple[Tensor, ...]
    """Per block: [B, heads, length, d]."""
    visible: Bool[Tensor, "B length"]
    """Slots that hold a token of the current episode."""
    slot: Int[Tensor, "1"]
    """Slot that the next token is written to."""


class TransformerXL(nn.Module):
    """Causal Transformer with relative positions, in parallel over time or step by step.

    The hidden state of a step is that of its action's token. No token sees one of an episode before
    its own, or one that lies further back than the memory.
    """

    codes: Tensor

    def __init__(self, config: TransformerXLConfig, latent: int, actions: Choices) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.latent = nn.Sequential(nn.Linear(latent, width), nn.SiLU())
        self.actions = actions
        self.action = nn.Embedding(actions.total, width)
        self.reward = nn.Sequential(nn.Linear(1, width), nn.SiLU())
        start_uniformly(self)
        self.blocks: nn.ModuleList = nn.ModuleList(self._block() for _ in range(config.layers))
        shape = config.heads, config.head_width
        self.content_bias = nn.Parameter(nn.init.xavier_uniform_(torch.empty(shape)))
        self.position_bias = nn.Parameter(nn.init.xavier_uniform_(torch.empty(shape)))
        longest = TOKENS * (config.memory + 2)  # Further back, nothing is seen.
        self.register_buffer("codes", position_codes(longest, width), persistent=False)

    def forward(
        self,
        z: Float[Tensor, "B T Z"],
        action: Int[Tensor, "B T"],
        reward: Float[Tensor, "B T"],
        ends: Bool[Tensor, "B T"],
    ) -> Float[Tensor, "B T D"]:
        """Hidden states of a whole sequence; reward and end of its last step are not looked at."""
        x, mask = self._tokens(z, action, reward), attention_bias(token_mask(ends, self._reach))
        tokens = x.shape[1]
        codes = self._codes(torch.arange(tokens + 2, -1, -1, device=x.device))
        for block in self.blocks[:-1]:
            x, _, _ = _run(block, x, x, codes[2:], (tokens, 1), self._biases, mask)
        # The last block is asked about actions alone.
        asking, seen = x[:, ACTION::TOKENS], mask[:, :, ACTION::TOKENS]
        columns = tokens + 1, TOKENS
        return _run(self.blocks[-1], x, asking, codes, columns, self._biases, seen)[0]

    def prefill(
        self,
        z: Float[Tensor, "B T Z"],
        action: Int[Tensor, "B T"],
        reward: Float[Tensor, "B T"],
        ends: Bool[Tensor, "B T"],
        length: int,
    ) -> tuple[Float[Tensor, "B D"], XLCache]:
        """Hidden state of the last step, and a cache with slots for `length` steps in all.

        Of the earlier steps, the last block is asked for keys and values alone.
        """
        x, mask = self._tokens(z, action, reward), attention_bias(token_mask(ends, self._reach))
        tokens = x.shape[1]
        codes = self._codes(torch.arange(tokens, -1, -1, device=x.device))
        keys, values = [], []
        for block in self.blocks:
            last = block is self.blocks[-1]
            asking, seen = (x[:, -1:], mask[:, :, -1:]) if last else (x, mask)
            columns = 1 if last else tokens, 1
            x, k, v = _run(block, x, asking, codes, columns, self._biases, seen)
            keys.append(_with_room(k, TOKENS * length))
            values.append(_with_room(v, TOKENS * length))
        episode = _episodes(ends)
        visible = (episode == episode[:, -1:]).repeat_interleave(TOKENS, dim=1)[:, :tokens]
        cache = XLCache(
            keys=tuple(keys),
            values=tuple(values),
            visible=F.pad(visible, (0, TOKENS * length - tokens)),
            slot=torch.full((1,), tokens, device=z.device),
        )
        return x.squeeze(1), cache

    def step(
        self,
        z: Float[Tensor, "B Z"],
        action: Int[Tensor, " B"],
        reward: Float[Tensor, " B"],
        ended: Bool[Tensor, " B"],
        cache: XLCache,
    ) -> Float[Tensor, "B D"]:
        """Hidden state after one more step; the cache moves on in place.

        reward, ended: what followed the action before, whose token is still missing.
        """
        asked = self.reward(reward[:, None, None].to(compute_dtype(z)))
        seen = self.latent(z.to(compute_dtype(z)))[:, None]
        x = torch.cat([asked, seen, self._embedded(action)[:, None].to(seen.dtype)], dim=1)
        mask = attention_bias(self._step_mask(ended, cache))[:, None]
        length = cache.visible.shape[1]
        places = torch.arange(length + 2, device=z.device)
        codes = self._codes(cache.slot + (TOKENS - 1) - places)
        for block, keys, values in zip(self.blocks, cache.keys, cache.values, strict=True):
            assert isinstance(block, RelativeBlock)
            last = block is self.blocks[-1]
            asking, shown = (x[:, -1:], mask[:, :, -1:]) if last else (x, mask)
            q, k, v = block.attention.project(x, asking)
            slots = cache.slot + torch.arange(TOKENS, device=z.device)
            keys.index_copy_(2, slots, k.to(keys.dtype))
            values.index_copy_(2, slots, v.to(values.dtype))
            columns = 0 if last else TOKENS - 1, 1
            attended = block.attention.attend(
                (q, keys, values), codes, columns, self._biases, shown
            )
            x = block.finish(asking, attended)
        cache.slot.add_(TOKENS)
        return x.squeeze(1)

    @property
    def _reach(self) -> int:
        """How many tokens back latent and action may look; the reward one less."""
        return TOKENS * (self.config.memory + 1)

    @property
    def _biases(self) -> tuple[Tensor, Tensor]:
        return self.content_bias, self.position_bias

    def _block(self) -> RelativeBlock:
        c = self.config
        scale = {"width": c.width, "head": c.head_width}[c.scale]
        attention = RelativeAttention(c.width, c.heads, c.head_width, c.dropout, scale)
        return RelativeBlock(attention, c.width, c.feedforward)

    def _embedded(self, action: Int[Tensor, "*n"]) -> Float[Tensor, "*n D"]:
        return self.actions.embedded(action, self.action.weight)

    def _tokens(self, z: Tensor, action: Tensor, reward: Tensor) -> Float[Tensor, "B N D"]:
        """Latent, action and reward of each step in turn, without the last reward."""
        dtype = compute_dtype(z)
        seen, paid = self.latent(z.to(dtype)), self.reward(reward[..., None].to(dtype))
        done = self._embedded(action).to(seen.dtype)
        return torch.stack([seen, done, paid], dim=2).flatten(1, 2)[:, :-1]

    def _codes(self, distance: Int[Tensor, " M"]) -> Float[Tensor, "M D"]:
        """Codes of distances; whatever lies behind a query or out of reach has any."""
        codes = self.codes[distance.clamp(0, len(self.codes) - 1)]
        return F.dropout(codes, self.config.dropout, self.training)

    def _step_mask(self, ended: Bool[Tensor, " B"], cache: XLCache) -> Bool[Tensor, "B 3 length"]:
        """What reward, latent and action of a step may see, which join what is visible.

        The reward belongs to the step before, and to its episode.
        """
        slots = torch.arange(cache.visible.shape[1], device=ended.device)
        age = cache.slot - slots  # Of the reward's token, which stands first.
        before = cache.visible | (age == 0)
        now = (before & ~ended[:, None]) | ((age < 0) & (age > -TOKENS))
        cache.visible.copy_(now)
        reach = self._reach
        reward = before & (age <= reach - 1)
        latent = now & (age >= -1) & (age <= reach - 1)
        return torch.stack([reward, latent, now & (age <= reach - 2)], dim=1)


def token_mask(ends: Bool[Tensor, "B T"], reach: int) -> Bool[Tensor, "B 1 N N"]:
    """Which tokens each token may see: of its own episode, and up to `reach` tokens back."""
    episode = _episodes(ends).repeat_interleave(TOKENS, dim=1)[:, :-1]
    places = torch.arange(episode.shape[1], device=ends.device)
    age = places[:, None] - places
    furthest = reach - (places % TOKENS == TOKENS - 1).long()
    near = (age >= 0) & (age <= furthest[:, None])
    return ((episode[:, :, None] == episode[:, None]) & near).unsqueeze(1)


def _episodes(ends: Bool[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """Number of the episode of each step within its window; ends: whether it ended with a step."""
    return F.pad(ends.long().cumsum(1), (1, 0))[:, :-1]


def _run(
    block: nn.Module,
    x: Float[Tensor, "B N D"],
    asking: Float[Tensor, "B Q D"],
    codes: Tensor,
    columns: tuple[int, int],
    biases: tuple[Tensor, Tensor],
    mask: Tensor,
) -> tuple[Float[Tensor, "B Q D"], Tensor, Tensor]:
    """A block's output for those who ask; also keys and values of all, to start a cache from."""
    assert isinstance(block, RelativeBlock)
    q, k, v = block.attention.project(x, asking)
    attended = block.attention.attend((q, k, v), codes, columns, biases, mask)
    return block.finish(asking, attended), k, v


def _with_room(seen: Tensor, length: int) -> Float[Tensor, "B heads length d"]:
    return F.pad(cacheable(seen), (0, 0, 0, length - seen.shape[2]))
