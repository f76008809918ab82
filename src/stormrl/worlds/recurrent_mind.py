"""DreamerV3 over a stream of any length: its state is all that there is to carry."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from stormrl.nn.functional import tempered
from stormrl.types import Uniform, View
from stormrl.worlds.dreamer import DreamerWorld
from stormrl.worlds.mind import Expectation, Mind
from stormrl.worlds.rssm import State


class RecurrentMind(Mind):
    """Reward and end belong to the state that is arrived at: it is dreamt when an action is taken.

    Who sees instead of dreaming gives that state up. At another temperature than 1 the state is
    drawn anew, from the same numbers.
    """

    def __init__(self, world: DreamerWorld) -> None:
        self.world = world

    @torch.no_grad()
    def begin(self, obs: Tensor, action: Tensor, uniform: Uniform) -> None:
        """Every frame is seen, from the state of an episode's beginning on."""
        world, frames = self.world, obs.shape[1]
        before = torch.cat([action.new_zeros(1, 1), action], dim=1)
        fresh = torch.zeros_like(before, dtype=torch.bool)
        fresh[:, 0] = True
        noise = uniform((1, frames, world.config.latent.categoricals))
        states, posterior = world.rssm.observe(world.encode(obs), before, fresh, noise)
        self._at(State(states.z[:, -1], states.h[:, -1]), posterior[:, -1])

    @torch.no_grad()
    def take(self, action: int, uniform: Uniform) -> Expectation:
        """What the predictors say of the state that the prior expects."""
        world = self.world
        self._action = torch.tensor([action], device=world.device)
        h = world.rssm.step(self._state, self._action)
        self._prior = world.rssm.prior(h)
        self._numbers = uniform(self._prior.shape[:-1])
        self._next = State(world.rssm.latent.sample(self._prior, self._numbers), h)
        rewards = partial(world.reward_distribution, self._next)
        return Expectation(world.predict(self._next), self._prior, rewards)

    @torch.no_grad()
    def see(self, obs: Tensor, uniform: Uniform) -> None:
        """The state is drawn from the posterior."""
        world = self.world
        first = torch.zeros_like(self._action, dtype=torch.bool)
        noise = world.see_noise(1, uniform)
        state, view = world.see(self._state, obs, self._action, first, noise)
        assert view.belief is not None
        self._at(state, view.belief)

    @torch.no_grad()
    def dream(self, uniform: Uniform, temperature: float = 1.0) -> None:
        """The state that was dreamt is the present one."""
        probabilities = tempered(self._prior, temperature)
        z = self.world.rssm.latent.sample(probabilities, self._numbers)
        self._at(State(z, self._next.h), self._prior)

    def _at(self, state: State, belief: Tensor) -> None:
        self._state, self.view = state, View(*state, belief=belief)
