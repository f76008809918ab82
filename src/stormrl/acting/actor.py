"""The actor: an agent in real environments, several at once, one a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from stormrl.agents.protocol import Behaviour, Opinion, where_known
from stormrl.nn.choices import Choices
from stormrl.nn.functional import log_probability
from stormrl.types import Carry, Uniform, View, restart
from stormrl.worlds.protocol import World


class Acting(NamedTuple):
    """What an actor takes along from step to step."""

    world: Carry
    agent: Carry
    action: Int[Tensor, " B"]
    """What was done last. Who does something else than the actor chose writes it here."""


class Actor:
    """World model and policy in a real environment."""

    def __init__(self, world: World, behaviour: Behaviour) -> None:
        self.world = world
        self.behaviour = behaviour
        self.actions = Choices(*world.spaces.action.choices)

    def begin(self, rows: int) -> Acting:
        """What is taken along before the first step."""
        action = torch.zeros(rows, dtype=torch.int64, device=self.world.device)
        return Acting(self.world.begin(rows), self.behaviour.begin(rows), action)

    @torch.no_grad()
    def act(
        self,
        obs: Shaped[Tensor, "B ..."],
        carry: Acting,
        is_first: Bool[Tensor, " B"],
        greedy: bool = False,
    ) -> tuple[Int[Tensor, " B"], Acting]:
        """Choose actions. Draws from the device's default generator.

        With nothing to look back on, every action is as likely: the policy is only ever trained on
        states that follow some real steps.
        """
        world, view, habit = self._see(obs, carry, is_first, self._uniform)
        chances, habit = self.behaviour.chances(view, habit)
        opinion = where_known(view.known, Opinion(chances), self.actions)
        log_probs = log_probability(opinion.probabilities)
        if not greedy:
            # The largest of log-probabilities plus Gumbel noise is a draw from the policy.
            log_probs = log_probs - torch.log(-torch.log(torch.rand_like(log_probs)))
        action = self.actions.best(log_probs)
        return action, Acting(world, habit, action)

    @torch.no_grad()
    def look(
        self,
        obs: Shaped[Tensor, "B ..."],
        carry: Acting,
        is_first: Bool[Tensor, " B"],
        uniform: Uniform,
    ) -> tuple[View, Opinion, Acting]:
        """See what is there now, and what the agent makes of it; whoever acts writes the action."""
        world, view, habit = self._see(obs, carry, is_first, uniform)
        opinion, habit = self.behaviour.opinion(view, habit)
        opinion = where_known(view.known, opinion, self.actions)
        return view, opinion, Acting(world, habit, carry.action)

    def _see(
        self, obs: Tensor, carry: Acting, is_first: Tensor, uniform: Uniform
    ) -> tuple[Carry, View, Carry]:
        noise = self.world.see_noise(len(obs), uniform)
        world, view = self.world.see(carry.world, obs, carry.action, is_first, noise)
        return world, view, restart(carry.agent, self.behaviour.begin(len(obs)), is_first)

    def _uniform(self, shape: Sequence[int]) -> Tensor:
        return torch.rand(*shape, device=self.world.device)
