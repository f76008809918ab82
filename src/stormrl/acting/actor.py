"""Actor, from observations to actions: what the agent remembers, and the policy's view of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from stormrl.agents.reinforce import ActorCritic
from stormrl.config.parts import ActingConfig
from stormrl.types import Memory
from stormrl.worlds.latent import WorldModel


def empty_memory(
    batch: int,
    length: int,
    image_shape: Sequence[int],
    device: torch.device | str,
    latent_shape: Sequence[int] = (0, 0),
) -> Memory:
    """Memory of agents that have not acted yet; images are [channels, height, width]."""
    return Memory(
        obs=torch.zeros(batch, length, *image_shape, dtype=torch.uint8, device=device),
        action=torch.zeros(batch, length, dtype=torch.int64, device=device),
        is_first=torch.zeros(batch, length, dtype=torch.bool, device=device),
        posterior=torch.zeros(batch, length, *latent_shape, device=device),
        encoded_by=torch.zeros((), dtype=torch.int64, device=device),
        filled=torch.zeros(batch, dtype=torch.int64, device=device),
    )


def remember(
    memory: Memory,
    obs: UInt8[Tensor, "B channels height width"],
    action: Int[Tensor, " B"],
    is_first: Bool[Tensor, " B"],
    posterior: Float[Tensor, "B K C"],
) -> Memory:
    """Memory after one more step; once full, the oldest step is forgotten.

    The posterior is of the same weights as those that are remembered.
    """
    length = memory.action.shape[1]
    full = memory.filled == length
    slot = memory.filled.clamp(max=length - 1)
    rows = torch.arange(len(slot), device=slot.device)

    def appended(history: Tensor, newest: Tensor) -> Tensor:
        wide = full.view(-1, *[1] * (history.ndim - 1))
        history = torch.where(wide, history.roll(-1, dims=1), history)
        history[rows, slot] = newest
        return history

    return Memory(
        obs=appended(memory.obs, obs),
        action=appended(memory.action, action),
        is_first=appended(memory.is_first, is_first),
        posterior=appended(memory.posterior, posterior),
        encoded_by=memory.encoded_by,
        filled=slot + 1,
    )


class Actor:
    """The policy in a real environment (several at once: each row is one environment)."""

    def __init__(
        self, world_model: WorldModel, actor_critic: ActorCritic, config: ActingConfig
    ) -> None:
        self.world_model = world_model
        self.actor_critic = actor_critic
        self.config = config
        self.weights = 0
        """Number of the world model's weights: who changes them gives them another one. As long as
        it stays, frames that were encoded are not encoded again."""

    def begin(self, batch: int, image_shape: Sequence[int]) -> Memory:
        """Memory before the first step; images are [channels, height, width]."""
        device = next(self.world_model.parameters()).device
        latent = self.world_model.latent.config
        shape = latent.categoricals, latent.classes
        memory = empty_memory(batch, self.config.context, image_shape, device, shape)
        return memory._replace(encoded_by=torch.full_like(memory.encoded_by, self.weights))

    def forget(self, memory: Memory, is_first: Bool[Tensor, " B"]) -> Memory:
        """Memory at the start of a step: emptied where an episode begins, if it is per episode."""
        if self.config.memory == "endless":
            return memory
        return memory._replace(filled=torch.where(is_first, 0, memory.filled))

    @torch.no_grad()
    def act(
        self,
        obs: UInt8[Tensor, "B channels height width"],
        memory: Memory,
        is_first: Bool[Tensor, " B"],
        greedy: bool = False,
    ) -> tuple[Int[Tensor, " B"], Memory]:
        """Choose actions and remember the step. Draws from the device's default generator.

        With nothing to look back on, the action is uniformly random: the policy is only ever
        trained on states that follow some real steps.
        """
        memory = self.recall(self.forget(memory, is_first))
        current = self.world_model.encode(obs)
        batch, k = len(obs), self.world_model.latent.config.categoricals
        noise = torch.rand(batch, self.config.context + 1, k, device=obs.device)
        log_probs = self.policy(current, memory, noise)
        if greedy:
            action = log_probs.argmax(-1)
        else:
            # The largest of log-probabilities plus Gumbel noise is a draw from the policy.
            gumbel = -torch.log(-torch.log(torch.rand_like(log_probs)))
            action = (log_probs + gumbel).argmax(-1)
        return action, remember(memory, obs, action, is_first, current)

    def recall(self, memory: Memory) -> Memory:
        """Memory whose frames were encoded by the present weights; anew only if they were not."""
        if int(memory.encoded_by) == self.weights:
            return memory
        return memory._replace(
            posterior=self.world_model.encode(memory.obs),
            encoded_by=torch.full_like(memory.encoded_by, self.weights),
        )

    def policy(
        self,
        posterior: Float[Tensor, "B K C"],
        memory: Memory,
        uniform: Float[Tensor, "B L1 K"],
    ) -> Float[Tensor, "B A"]:
        """Log-probabilities of the actions where the current frame has been encoded.

        `uniform` is noise for every frame, the newest last.
        """
        z, h = self.state(posterior, memory, uniform)
        log_probs = self.actor_critic.policy(self.actor_critic.state(z, h))
        unknown = -torch.full_like(log_probs, log_probs.shape[-1]).log()
        return torch.where(memory.filled[:, None] > 0, log_probs, unknown)

    def state(
        self,
        posterior: Float[Tensor, "B K C"],
        memory: Memory,
        uniform: Float[Tensor, "B L1 K"],
    ) -> tuple[Float[Tensor, "B Z"], Float[Tensor, "B D"]]:
        """Latent and hidden state on which the policy decides.

        The hidden state is that of the last remembered step. The latent is drawn from the current
        frame's posterior, or from the prior predicted before that frame was seen.
        """
        model = self.world_model
        seen = torch.cat([memory.posterior, posterior.unsqueeze(1)], dim=1)
        z = model.latent.sample(seen, uniform)
        hidden = model.observe(z[:, :-1], memory.action, memory.is_first)
        rows = torch.arange(len(z), device=z.device)
        # Unused places lie behind the last remembered step: causality keeps them out of it.
        h = hidden[rows, memory.filled.clamp(min=1) - 1]
        if self.config.latent == "prior":
            return model.latent.sample(model.latent.prior(h), uniform[:, -1]), h
        return z[:, -1], h
