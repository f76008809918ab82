"""Recurrent state-space model (RSSM): a GRU, and a latent that is drawn in view of its history."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from stormrl.config.dreamer import DreamerConfig
from stormrl.nn.choices import Choices
from stormrl.nn.heads import hidden
from stormrl.nn.initialise import initialise
from stormrl.worlds.categorical import CategoricalLatent


class State(NamedTuple):
    """A moment, or several: all that the model carries from step to step."""

    z: Float[Tensor, "*n Z"]
    """The latent that was drawn."""
    h: Float[Tensor, "*n D"]
    """The recurrent state: everything before it."""


class RSSM(nn.Module):
    """h_t = GRU(h_(t-1), z_(t-1), a_(t-1)), posterior q(z_t | h_t, o_t), prior p(z_t | h_t).

    DreamerV3 (arXiv 2301.04104, first version, equation 3), with the learned beginning of its code.
    """

    def __init__(self, config: DreamerConfig, embedding: int, actions: Choices) -> None:
        super().__init__()
        layer = replace(config.head, width=config.hidden)
        width, latent = config.width, config.latent.size
        self.actions = actions
        self.cell_input = nn.Sequential(*hidden(latent + actions.total, layer))
        self.cell = nn.Sequential(
            nn.Linear(width + config.hidden, 3 * width, bias=False),
            nn.LayerNorm(3 * width, layer.epsilon),
        )
        self.posterior_input = nn.Sequential(*hidden(width + embedding, layer))
        self.prior_input = nn.Sequential(*hidden(width, layer))
        self.latent = CategoricalLatent(config.latent, config.hidden, config.hidden)
        initialise(self, config.head.weights)
        self.start = nn.Parameter(torch.zeros(width))
        """The recurrent state at an episode's beginning, before its tanh."""

    def initial(self, rows: int) -> State:
        """Before an episode's first observation: a learned h, and the prior's mode there."""
        h = self.start.tanh().expand(rows, -1)
        best = self.prior(h).argmax(-1)
        z = F.one_hot(best, self.latent.config.classes).to(h.dtype).flatten(-2)
        return State(z, h)

    def prior(self, h: Float[Tensor, "*n D"]) -> Float[Tensor, "*n K C"]:
        """Probabilities of the latent, before anything is seen."""
        return self.latent.prior(self.prior_input(h))

    def step(self, state: State, action: Int[Tensor, " B"]) -> Float[Tensor, "B D"]:
        """The recurrent state after an action."""
        return self._cell(state, self._action_input(action))

    def observe(
        self,
        embedding: Float[Tensor, "B T E"],
        action: Int[Tensor, "B T"],
        fresh: Bool[Tensor, "B T"],
        noise: Float[Tensor, "B T K"],
        state: State | None = None,
    ) -> tuple[State, Float[Tensor, "B T K C"]]:
        """States [B, T, ..] of what is seen, step by step, and the posteriors they are drawn from.

        `action[t]` led to `embedding[t]`. Where `fresh`, an episode begins: neither state nor
        action before it count. `state` is that before the first step; without one, that of an
        episode's beginning.
        """
        rows, steps = action.shape
        beginning = self.initial(rows)
        state = beginning if state is None else state
        # What does not depend on the history is multiplied for all steps at once.
        actions = self._action_input(action) * ~fresh.unsqueeze(-1)
        first, *rest = self.posterior_input
        assert isinstance(first, nn.Linear)
        before, after = first.weight.split([state.h.shape[-1], embedding.shape[-1]], dim=1)
        seen = F.linear(embedding, after)
        states, posteriors = [], []
        for t in range(steps):
            begins = fresh[:, t, None]
            z = torch.where(begins, beginning.z, state.z)
            h = torch.where(begins, beginning.h, state.h)
            h = self._cell(State(z, h), actions[:, t])
            x = F.linear(h, before) + seen[:, t]
            for layer in rest:
                x = layer(x)
            posterior = self.latent.posterior(x)
            state = State(self.latent.sample(posterior, noise[:, t]), h)
            states.append(state)
            posteriors.append(posterior)
        z, h = (torch.stack(parts, dim=1) for parts in zip(*states, strict=True))
        return State(z, h), torch.stack(posteriors, dim=1)

    def _action_input(self, action: Int[Tensor, "*n"]) -> Float[Tensor, "*n U"]:
        """What the first layer makes of one-hot actions: columns of its weights."""
        return self.actions.embedded(action, self._first_weight().T[-self.actions.total :])

    def _cell(self, state: State, action: Float[Tensor, "B U"]) -> Float[Tensor, "B D"]:
        """A GRU whose three gates share one normalisation; it starts out keeping what it has."""
        _, *rest = self.cell_input
        x = F.linear(state.z, self._first_weight()[:, : -self.actions.total]) + action
        for layer in rest:
            x = layer(x)
        gates = self.cell(torch.cat([state.h.to(x.dtype), x], dim=-1)).float()
        reset, candidate, update = gates.chunk(3, dim=-1)
        update = (update - 1).sigmoid()
        candidate = (reset.sigmoid() * candidate).tanh()
        return update * candidate + (1 - update) * state.h

    def _first_weight(self) -> Float[Tensor, "U ZA"]:
        first = self.cell_input[0]
        assert isinstance(first, nn.Linear)
        return first.weight
