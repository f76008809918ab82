"""Fixed-shape rollouts of the policy inside the world model (STORM, section 3.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stormrl.agents.reinforce import ActorCritic
from stormrl.config.parts import ImaginationConfig
from stormrl.types import Batch, Cache, Trajectory
from stormrl.worlds.latent import WorldModel


class Noise(NamedTuple):
    """Numbers from [0, 1) for every draw of one rollout."""

    posterior: Float[Tensor, "B context K"]
    """Of no steps where dreams start from latents that were drawn before."""
    prior: Float[Tensor, "B H1 K"]
    action: Float[Tensor, "B H"]

    @classmethod
    def draw(cls, batch: int, context: int, horizon: int, k: int, device: torch.device) -> Noise:
        """Fresh noise for `batch` trajectories from the device's default generator."""
        return cls(
            posterior=torch.rand(batch, context, k, device=device),
            prior=torch.rand(batch, horizon + 1, k, device=device),
            action=torch.rand(batch, horizon, device=device),
        )


class Imagination:
    """Rolls a policy out inside a world model, from real states, without gradients.

    The parts run in turn: `start` reads contexts, or `branch` goes on from every step of windows
    whose latents are known; `advance` takes one step; `judge` predicts rewards and ends of all
    steps at once. Each is a function of tensors, to be compiled.
    """

    def __init__(
        self,
        world_model: WorldModel,
        actor_critic: ActorCritic,
        config: ImaginationConfig,
        compile: Callable[[Callable], Callable] = lambda function: function,
    ) -> None:
        self.world_model = world_model
        self.actor_critic = actor_critic
        self.config = config
        self.start = compile(self._start)
        self.branch = compile(self._branch)
        self.advance = compile(self._advance)
        self.judge = compile(self._judge)

    @torch.no_grad()
    def __call__(self, context: Batch, noise: Noise) -> Trajectory:
        """Trajectories of `horizon` steps; the first state follows the last step of the context."""
        z, h, cache = self.start(context, noise.posterior, noise.prior[:, 0])
        return self.roll_out(z, h, cache, torch.ones_like(z[:, 0]), noise)

    @torch.no_grad()
    def from_posteriors(self, batch: Batch, z: Float[Tensor, "B T Z"], noise: Noise) -> Trajectory:
        """Trajectories from every step of the windows that leaves room for the horizon.

        The first state is the latent of a frame that was seen, and the hidden state before it.
        """
        first, h, cache, weight = self.branch(batch, z)
        return self.roll_out(first, h, cache, weight, noise)

    def starts(self, length: int) -> int:
        """Steps of a window of `length` from which `from_posteriors` dreams: 1 to this one.

        The first has nothing before it. The last of a dream may be the last but one of the window:
        what the prior says after a window's last step is not trained.
        """
        return length - 1 - self.config.horizon

    @torch.no_grad()
    def roll_out(
        self,
        z: Float[Tensor, "B Z"],
        h: Float[Tensor, "B D"],
        cache: Cache,
        weight: Float[Tensor, " B"],
        noise: Noise,
    ) -> Trajectory:
        """Trajectories from given states; moves the cache on."""
        latents, hiddens, actions = [z], [h], []
        for t in range(self.config.horizon):
            action, z, h = self.advance(z, h, cache, noise.action[:, t], noise.prior[:, t + 1])
            latents.append(z)
            hiddens.append(h)
            actions.append(action)
        return self.judge(latents, hiddens, actions, weight)

    def _start(
        self, context: Batch, uniform: Tensor, first: Tensor
    ) -> tuple[Tensor, Tensor, Cache]:
        model = self.world_model
        z = model.latent.sample(model.encode(context.obs), uniform)
        length = self.config.context + self.config.horizon
        h, cache = model.sequence.prefill(z, context.action, model.resets(context.is_first), length)
        return model.latent.sample(model.latent.prior(h), first), h, cache

    def _branch(
        self, batch: Batch, z: Float[Tensor, "B T Z"]
    ) -> tuple[Tensor, Tensor, Cache, Float[Tensor, " N"]]:
        model, starts = self.world_model, self.starts(z.shape[1])
        resets = model.resets(batch.is_first)
        h, cache = model.sequence.branch(
            z[:, :starts],
            batch.action[:, :starts],
            resets[:, :starts],
            starts + self.config.horizon,
        )
        # Where an episode begins, the hidden state is of another one: there no policy is asked.
        weight = 1.0 - resets[:, 1 : starts + 1].float()
        return z[:, 1 : starts + 1].flatten(0, 1), h, cache, weight.flatten()

    def _advance(
        self,
        z: Float[Tensor, "B Z"],
        h: Float[Tensor, "B D"],
        cache: Cache,
        action_noise: Float[Tensor, " B"],
        prior_noise: Float[Tensor, "B K"],
    ) -> tuple[Int[Tensor, " B"], Tensor, Tensor]:
        model = self.world_model
        action = self.actor_critic.act(self.actor_critic.state(z, h), action_noise)
        h = model.step(z, action, cache)
        return action, model.latent.sample(model.latent.prior(h), prior_noise), h

    def _judge(
        self,
        latents: list[Tensor],
        hiddens: list[Tensor],
        actions: list[Tensor],
        weight: Float[Tensor, " B"],
    ) -> Trajectory:
        z, h = torch.stack(latents, dim=1), torch.stack(hiddens, dim=1)
        prediction = self.world_model.predict(z[:, :-1], h[:, 1:])
        continues = prediction.continues
        if self.config.continuation == "threshold":
            continues = (continues >= 0.5).float()
        action = torch.stack(actions, dim=1)
        return Trajectory(z, h, action, prediction.reward, continues, weight)
