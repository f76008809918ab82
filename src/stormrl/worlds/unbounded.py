"""Sliding-window inference: the sequence model over a stream of any length."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stormrl.types import Cache
from stormrl.worlds.latent import WorldModel


class UnboundedSequence:
    """Hidden states of one episode's steps, each pushed in turn.

    Of a window of training all steps but the last have taught the prior what follows, whatever
    `max_length` allows. When those are used up, the last half of the steps is read again as the
    beginning of a new window: training's windows begin anywhere in an episode too. Up to there
    every hidden state is that of `WorldModel.observe` on all steps; after it, on those since the
    window's beginning.
    """

    def __init__(self, world_model: WorldModel, limit: int | None = None) -> None:
        self.model = world_model
        self.limit = limit or world_model.config.batch_length - 1
        """Most steps that a hidden state looks back on."""
        self.z: list[Tensor] = []
        self.action: list[Tensor] = []
        self.cache: Cache | None = None

    def __len__(self) -> int:
        """Steps in the current window."""
        return len(self.action)

    @torch.no_grad()
    def push(self, z: Float[Tensor, "B Z"], action: Int[Tensor, " B"]) -> Float[Tensor, "B D"]:
        """Hidden state after one more latent and the action taken there."""
        full = len(self) == self.limit
        if full:
            kept = min(max(self.limit // 2 - 1, 1), self.limit - 1)
            self.z, self.action = self.z[self.limit - kept :], self.action[self.limit - kept :]
        self.z.append(z)
        self.action.append(action)
        if full or self.cache is None:
            return self._prime()
        return self.model.step(z, action, self.cache)

    @torch.no_grad()
    def extend(self, z: Float[Tensor, "B T Z"], action: Int[Tensor, "B T"]) -> Float[Tensor, "B D"]:
        """Hidden state after several steps at once, with which the stream begins.

        Of more steps than the limit, the last ones count.
        """
        self.z, self.action = list(z.unbind(1)), list(action.unbind(1))
        self.z, self.action = self.z[-self.limit :], self.action[-self.limit :]
        return self._prime()

    def _prime(self) -> Float[Tensor, "B D"]:
        z, action = torch.stack(self.z, 1), torch.stack(self.action, 1)
        is_first = torch.zeros_like(action, dtype=torch.bool)
        hidden, self.cache = self.model.sequence.prefill(z, action, is_first, self.limit)
        return hidden
