"""STORM over a stream of any length, in windows no longer than those of training."""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stormrl.nn.functional import tempered
from stormrl.types import Uniform, View
from stormrl.worlds.latent import WorldModel
from stormrl.worlds.mind import Expectation, Mind
from stormrl.worlds.transformer import Cache


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


class LatentMind(Mind):
    """STORM's mind: real frames become latents, and dreams go on from them."""

    def __init__(self, world: WorldModel, limit: int) -> None:
        self.world, self.limit = world, limit

    @torch.no_grad()
    def begin(self, obs: Tensor, action: Tensor, uniform: Uniform) -> None:
        """All frames are encoded at once, and all but the last are the stream's beginning."""
        world = self.world
        posterior = world.encode(obs)
        z = world.latent.sample(posterior, uniform(posterior.shape[:-1]))
        self.stream = UnboundedSequence(world, self.limit)
        hidden = self.stream.extend(z[:, :-1], action) if action.shape[1] else None
        self._at(z[:, -1], hidden, posterior[:, -1])

    @torch.no_grad()
    def take(self, action: int, uniform: Uniform) -> Expectation:
        """What the predictors say of the action, and the prior of the latent that follows."""
        world, z = self.world, self.view.z
        assert z is not None
        self._hidden = self.stream.push(z, torch.tensor([action], device=z.device))
        self._prior = world.latent.prior(self._hidden)
        rewards = partial(world.reward_distribution, z, self._hidden)
        return Expectation(world.predict(z, self._hidden), self._prior, rewards)

    @torch.no_grad()
    def see(self, obs: Tensor, uniform: Uniform) -> None:
        """The latent is drawn from the frame's posterior."""
        posterior = self.world.encode(obs)
        z = self.world.latent.sample(posterior, uniform(posterior.shape[:-1]))
        self._at(z, self._hidden, posterior)

    @torch.no_grad()
    def dream(self, uniform: Uniform, temperature: float = 1.0) -> None:
        """The latent is drawn from the prior."""
        prior = self._prior
        probabilities = tempered(prior, temperature)
        z = self.world.latent.sample(probabilities, uniform(prior.shape[:-1]))
        self._at(z, self._hidden, prior)

    def _at(self, z: Tensor, hidden: Tensor | None, belief: Tensor) -> None:
        known = torch.full((1,), hidden is not None, device=z.device)
        if hidden is None:
            hidden = z.new_zeros(1, self.world.view_sizes[1])
        self.view = View(z, hidden, known, belief)
