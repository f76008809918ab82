"""The learner owns the optimizers: one update of the world model, one of actor and critic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stormrl.actor_critic import ActorCritic, StateSizes
from stormrl.config import AgentConfig, OptimizerConfig
from stormrl.device import Backend
from stormrl.imagination import Imagination, Noise
from stormrl.replay import Replay
from stormrl.types import Batch
from stormrl.world_model import WorldModel

Metrics = dict[str, Tensor]


class Learner:
    """World model and actor-critic with their optimizers.

    An update takes tensors and leaves its metrics on the device; nothing in it waits for the host.
    A gradient that is not finite leaves parameters, optimizer and statistics as they were and
    counts in the metric `skipped`.
    """

    def __init__(self, config: AgentConfig, actions: int, backend: Backend) -> None:
        self.config = config
        self.backend = backend
        sizes = StateSizes(z=config.world_model.latent.size, h=config.world_model.sequence.width)
        self.world_model = WorldModel(config.world_model, actions).to(backend.device).eval()
        self.actor_critic = ActorCritic(config.actor_critic, sizes, actions).to(backend.device)
        self.world_optimizer = _adam(self.world_model, config.world_model.optimizer, backend)
        self.agent_optimizer = _adam(self.actor_critic, config.actor_critic.optimizer, backend)
        self.imagination = Imagination(
            self.world_model, self.actor_critic, config.imagination, backend.compile
        )
        self._world_loss = backend.compile(self.world_model.loss)
        self._agent_loss = backend.compile(self.actor_critic.loss)

    def update_world_model(self, replay: Replay) -> Metrics:
        """One optimizer step of the world model on a batch from replay."""
        config = self.config.world_model
        batch = replay.sample(config.batch_size, config.batch_length)
        return self.learn_world(batch, self.posterior_noise(batch))

    def update_agent(self, replay: Replay) -> Metrics:
        """Imagine from contexts in replay, then one optimizer step of actor and critic."""
        config = self.config.imagination
        context = replay.sample(config.batch_size, config.context)
        return self.learn_agent(context, self.imagination_noise())

    def learn_world(self, batch: Batch, uniform: Float[Tensor, "B T K"]) -> Metrics:
        """World-model step on a given batch and noise."""
        with _training(self.world_model), _guarded(self.world_model) as buffers:
            with self.backend.autocast():
                loss, metrics = self._world_loss(batch, uniform)
            loss.backward()
            metrics |= _step(self.world_optimizer, self.config.world_model.optimizer.clip)
            buffers.keep_if(metrics["skipped"])
        return metrics

    def learn_agent(self, context: Batch, noise: Noise) -> Metrics:
        """Actor-critic step on given contexts and noise."""
        with _guarded(self.actor_critic) as buffers:
            with self.backend.autocast():
                trajectory = self.imagination(context, noise)
                loss, metrics = self._agent_loss(trajectory)
            loss.backward()
            metrics |= _step(self.agent_optimizer, self.config.actor_critic.optimizer.clip)
            buffers.keep_if(metrics["skipped"])
        self.actor_critic.update_slow_critic()
        return metrics

    def posterior_noise(self, batch: Batch) -> Float[Tensor, "B T K"]:
        """Fresh noise for the posterior draws of one batch."""
        k = self.config.world_model.latent.categoricals
        return torch.rand(*batch.action.shape, k, device=self.backend.device)

    def imagination_noise(self) -> Noise:
        """Fresh noise for one set of rollouts."""
        config = self.config.imagination
        k = self.config.world_model.latent.categoricals
        return Noise.draw(config.batch_size, config, k, self.backend.device)


class _Buffers:
    """Statistics of a module before an update, to be put back if the update is not applied."""

    def __init__(self, module: nn.Module) -> None:
        self.live = [b for b in module.buffers() if b.is_floating_point()]
        self.before = [b.clone() for b in self.live]

    def keep_if(self, skipped: Float[Tensor, ""]) -> None:
        for live, before in zip(self.live, self.before, strict=True):
            live.copy_(torch.where(skipped > 0, before, live))


@contextmanager
def _guarded(module: nn.Module) -> Iterator[_Buffers]:
    yield _Buffers(module)


@contextmanager
def _training(module: nn.Module) -> Iterator[None]:
    module.train()
    try:
        yield
    finally:
        module.eval()


def _adam(module: nn.Module, config: OptimizerConfig, backend: Backend) -> torch.optim.Adam:
    parameters = [p for p in module.parameters() if p.requires_grad]
    # A tensor learning rate is read anew by a captured graph; a Python number would be baked in.
    rate = torch.tensor(config.learning_rate, device=backend.device)
    return torch.optim.Adam(
        parameters,
        lr=rate,
        eps=config.epsilon,
        fused=True,
        capturable=backend.device.type == "cuda",
    )


def _step(optimizer: torch.optim.Adam, clip: float) -> Metrics:
    """Clip the gradients and apply them; without effect if their norm is not finite."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(parameters, clip)
    skipped = (~torch.isfinite(norm)).float()
    # The fused kernel reads this flag on the device: no wait for the host.
    optimizer.found_inf = skipped  # type: ignore[attr-defined]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {"gradient_norm": norm.detach(), "skipped": skipped}
