"""The learner owns the optimizers: one update of the world model, one of actor and critic."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim.adam import adam

from stormrl.acting.actor import Actor
from stormrl.agents.build import build_agent
from stormrl.agents.protocol import Behaviour
from stormrl.config.common import OptimizerConfig
from stormrl.config.parts import AgentConfig
from stormrl.errors import UserError
from stormrl.experience.replay import Replay, joined
from stormrl.learning.imagination import Imagination
from stormrl.machine.device import Backend
from stormrl.nn.private import check_takes
from stormrl.spaces import Spaces
from stormrl.types import Batch, Noise, Trajectory
from stormrl.worlds.build import build_world
from stormrl.worlds.protocol import Group, Phase, World, rollout_noise

Metrics = dict[str, Tensor]

_GROUP = re.compile(r"[a-z][a-z0-9_]*")
_NORM_EPSILON = 1e-6  # that of torch.nn.utils.clip_grad_norm_


class Updated(NamedTuple):
    """What one update of a part was about."""

    metrics: Metrics
    rows: Int[Tensor, "B T"]
    """Those of replay that it was made from (`Batch.row`)."""


Update = Callable[[Replay, Replay | None], dict[str, Updated]]
"""Takes replay and demonstration; tells of each part that it updated."""


class Unit(NamedTuple):
    """What is updated together, from one batch."""

    ratio: float
    """Updates for each environment step."""
    update: Update


class Early(NamedTuple):
    """A phase before the agent acts for the first time."""

    updates: int
    update: Callable[[Replay], dict[str, Updated]]


class Learner:
    """World model and actor-critic with their optimizers.

    An update takes tensors and leaves its metrics on the device; nothing in it waits for the host.
    A gradient that is not finite leaves parameters, optimizer and statistics as they were and
    counts in the metric `skipped`.
    """

    def __init__(self, config: AgentConfig, spaces: Spaces, backend: Backend) -> None:
        self.config = config
        self.backend = backend
        world = build_world(config, spaces, backend.device)
        self.world_model = world.to(backend.device).eval()
        self.actor_critic = build_agent(config, self.world_model).to(backend.device)
        self.world_groups, self.agent_groups = checked_groups(self.world_model, self.actor_critic)
        self.world_optimizers = _optimizers(self.world_groups, backend)
        self.agent_optimizers = _optimizers(self.agent_groups, backend)
        self.imagination = Imagination(
            self.world_model, self.actor_critic, config.imagination, backend.compile
        )
        if config.imagination.dreams_from == "posteriors":
            # A world model without branches is refused now, not when the first update is due.
            length, horizon = config.world_model.window, config.imagination.horizon
            self.world_model.branches(length, horizon)
        self._world_loss = backend.compile(self.world_model.loss)
        self._early_loss = backend.compile(self.world_model.early_loss)
        self._agent_loss = backend.compile(self.actor_critic.loss)

    def update_world_model(self, replay: Replay, demonstration: Replay | None = None) -> Updated:
        """One optimizer step of the world model on a batch from replay and demonstration."""
        batch = self._batch(replay, demonstration)
        return Updated(self.learn_world(batch, self.loss_noise(batch)), batch.row)

    def update_agent(self, replay: Replay, demonstration: Replay | None = None) -> Updated:
        """Imagine from contexts in replay and demonstration, then a step of actor and critic."""
        config = self.config.imagination
        context = replay.sample(config.batch_size, config.context)
        if demonstration is not None:
            windows = self.config.demonstration.imagination_windows
            context = joined(context, demonstration.sample(windows, config.context))
        metrics = self.learn_agent(context, self.imagination_noise(context))
        return Updated(metrics, context.row)

    def update_both(
        self, replay: Replay, demonstration: Replay | None = None
    ) -> dict[str, Updated]:
        """Both steps on one batch: the dreams start from the states that the world model saw."""
        batch = self._batch(replay, demonstration)
        parts = self.learn_both(batch, self.loss_noise(batch), self.branching_noise(batch))
        return {part: Updated(metrics, batch.row) for part, metrics in parts.items()}

    def units(self) -> list[Unit]:
        """What training has to update, and how often."""
        config = self.config
        if config.imagination.dreams_from == "posteriors":
            return [Unit(config.world_model_ratio, self.update_both)]
        return [
            Unit(config.world_model_ratio, _named("world_model", self.update_world_model)),
            Unit(config.agent_ratio, _named("agent", self.update_agent)),
        ]

    def phases(self) -> list[Early]:
        """What is learned before the agent acts for the first time, in turn."""
        world = [
            Early(phase.updates, partial(self.update_early, group, phase))
            for group, phase in self.world_model.phases().items()
        ]
        return [*world, Early(self.actor_critic.early_updates, self.update_agent_early)]

    def update_early(self, group: str, phase: Phase, replay: Replay) -> dict[str, Updated]:
        """One step of one group of the world model, on windows of which all are as likely."""
        batch = replay.sample(phase.windows, phase.length)
        with _training(self.world_model):
            with self.backend.autocast():
                lesson = self._early_loss(group, batch, self.loss_noise(batch))
            lesson.losses[group].backward()
        optimizers, groups = (
            {group: self.world_optimizers[group]},
            {group: self.world_groups[group]},
        )
        metrics = lesson.metrics | apply_gradients(optimizers, groups)
        return {"world_model": Updated(metrics, batch.row)}

    def update_agent_early(self, replay: Replay) -> dict[str, Updated]:
        """One step of the agent on real trajectories."""
        dreams = self.config.imagination
        steps = self.world_model.remembered_steps(dreams.horizon)
        batch = replay.sample(dreams.batch_size, steps)
        with self.backend.autocast():
            trajectory = self.world_model.remembered(batch, self.uniform)
            loss, metrics = self.actor_critic.early_loss(trajectory)
        loss.backward()
        metrics |= apply_gradients(self.agent_optimizers, self.agent_groups)
        return {"agent": Updated(metrics, batch.row)}

    def learn_world(self, batch: Batch, noise: Tensor) -> Metrics:
        """World-model step on a given batch and noise."""
        return self._learn_world(batch, noise)[0]

    def learn_both(self, batch: Batch, loss_noise: Tensor, noise: Noise) -> dict[str, Metrics]:
        """World-model step on a given batch, then actor-critic step on dreams from its states."""
        world, seen = self._learn_world(batch, loss_noise)
        with self.backend.autocast():
            trajectory = self.imagination.from_posteriors(batch, seen, noise)
        return {"world_model": world, "agent": self.learn_policy(trajectory)}

    def _learn_world(self, batch: Batch, noise: Tensor) -> tuple[Metrics, Any]:
        statistics = _Statistics(self.world_model)
        with _training(self.world_model):
            with self.backend.autocast():
                losses, metrics, seen = self._world_loss(batch, noise)
            torch.autograd.backward(list(losses.values()))
        metrics |= apply_gradients(self.world_optimizers, self.world_groups)
        statistics.restore_if(metrics["skipped"])
        return metrics, seen

    def learn_agent(self, context: Batch, noise: Noise) -> Metrics:
        """Actor-critic step on given contexts and noise."""
        with self.backend.autocast():
            trajectory = self.imagination(context, noise)
        return self.learn_policy(trajectory)

    def learn_policy(self, trajectory: Trajectory) -> Metrics:
        """Actor-critic step on given trajectories."""
        statistics = _Statistics(self.actor_critic)
        with self.backend.autocast():
            loss, metrics = self._agent_loss(trajectory, _taken(self.agent_optimizers))
        loss.backward()
        metrics |= apply_gradients(self.agent_optimizers, self.agent_groups)
        self.actor_critic.updated(1 - metrics["skipped"])
        statistics.restore_if(metrics["skipped"])
        return metrics

    def actor(self) -> Actor:
        """The policy for a real environment; it follows the learner's updates."""
        return Actor(self.world_model, self.actor_critic)

    def loss_noise(self, batch: Batch) -> Tensor:
        """Fresh noise for the world model's loss on a batch."""
        return self.world_model.loss_noise(batch, self.uniform)

    def imagination_noise(self, context: Batch) -> Noise:
        """Fresh noise for the rollouts from these contexts."""
        rollouts, steps = context.action.shape
        horizon = self.config.imagination.horizon
        return rollout_noise(self.world_model, rollouts, steps, horizon, self.uniform)

    def branching_noise(self, batch: Batch) -> Noise:
        """Fresh noise for the rollouts from the states of these windows."""
        windows, length = batch.action.shape
        horizon = self.config.imagination.horizon
        rollouts = self.world_model.rollouts(windows, length, horizon)
        return rollout_noise(self.world_model, rollouts, 0, horizon, self.uniform)

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Fresh numbers from [0, 1) on the learner's device."""
        return torch.rand(*shape, device=self.backend.device)

    def _batch(self, replay: Replay, demonstration: Replay | None) -> Batch:
        config = self.config.world_model
        batch = self._own_batch(replay)
        if demonstration is None:
            return batch
        windows = self.config.demonstration.world_model_windows
        return joined(batch, demonstration.sample(windows, config.window))

    def _own_batch(self, replay: Replay) -> Batch:
        config, drawing = self.config.world_model, self.config.replay
        if drawing.balance:
            return replay.sample_balanced(config.batch_size, config.window, drawing.balance)
        rewarded = math.ceil(drawing.rewarded * config.batch_size)
        return replay.sample(config.batch_size, config.window, rewarded)


def checked_groups(world: World, behaviour: Behaviour) -> tuple[dict[str, Group], dict[str, Group]]:
    """The optimizer groups of a world model and of an agent.

    Raises `UserError` unless their names can be those of files, and each is of one group alone, and
    every parameter is in one group of its owner.
    """
    world_groups, agent_groups = world.groups(), behaviour.groups()
    _check_groups(world, "world", world_groups, taken=agent_groups)
    _check_groups(behaviour, "agent", agent_groups, taken={})
    return world_groups, agent_groups


def _check_groups(
    owner: nn.Module, field: str, groups: Mapping[str, Group], taken: Collection[str]
) -> None:
    for name in groups:
        if not _GROUP.fullmatch(name) or name in taken:
            remedy = " ".join(["give letters, digits and _", *(f"not `{name}`" for name in taken)])
            raise UserError(field, f"{type(owner).__name__} calls a group {name!r}; {remedy}")
    grouped = [id(p) for group in groups.values() for p in group.parameters]
    wanted = {id(p) for p in owner.parameters() if p.requires_grad}
    if len(grouped) != len(set(grouped)) or set(grouped) != wanted:
        remedy = "put every parameter that is trained into one group"
        raise UserError(field, f"groups of {type(owner).__name__} overlap or lack some; {remedy}")


def _named(part: str, update: Callable[[Replay, Replay | None], Updated]) -> Update:
    return lambda replay, demonstration: {part: update(replay, demonstration)}


class _Statistics:
    """Running statistics, which a loss moves, as they were before it."""

    def __init__(self, module: nn.Module) -> None:
        self.live = list(module.buffers())
        self.before = [tensor.clone() for tensor in self.live]

    def restore_if(self, skipped: Float[Tensor, ""]) -> None:
        """Put them back where `skipped` is 1, without asking the device which it is."""
        back = skipped > 0
        for live, before in zip(self.live, self.before, strict=True):
            torch.where(back, before, live, out=live)


@contextmanager
def _training(module: nn.Module) -> Iterator[None]:
    module.train()
    try:
        yield
    finally:
        module.eval()


def _optimizers(groups: Mapping[str, Group], backend: Backend) -> dict[str, torch.optim.Adam]:
    return {
        name: _adam(group.parameters, group.optimizer, backend) for name, group in groups.items()
    }


def _adam(
    parameters: Sequence[nn.Parameter], config: OptimizerConfig, backend: Backend
) -> torch.optim.Adam:
    # A tensor learning rate is read anew by a captured graph; a Python number would be baked in.
    rate = torch.tensor(config.learning_rate, device=backend.device)
    return torch.optim.Adam(
        parameters,
        lr=rate,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        fused=True,
        capturable=backend.device.type == "cuda",
    )


check_takes(adam, "grad_scale", "found_inf")  # As `_step` hands them over.


def _taken(optimizers: Mapping[str, torch.optim.Adam]) -> Float[Tensor, ""]:
    """Steps that optimizers have taken, where their parameters are; skipped updates are none."""
    optimizer = next(iter(optimizers.values()))
    first = optimizer.param_groups[0]["params"][0]
    taken = optimizer.state.get(first, {}).get("step")
    return torch.zeros((), device=first.device) if taken is None else taken


def apply_gradients(
    optimizers: Mapping[str, torch.optim.Adam], groups: Mapping[str, Group]
) -> Metrics:
    """Clip the gradients and apply them; without effect if any norm is not finite.

    The largest norm is the one that is told.
    """
    norms = [_gradient_norm(optimizer) for optimizer in optimizers.values()]
    clips = [group.optimizer.clip for group in groups.values()]
    norm = norms[0] if len(norms) == 1 else torch.stack(norms).amax()
    skipped = (~torch.isfinite(norm)).float()
    for optimizer, own, clip in zip(optimizers.values(), norms, clips, strict=True):
        # The fused kernel reads both on the device, without a wait for the host; it divides the
        # gradients as it goes, which saves a pass over all of them.
        optimizer.grad_scale = ((own + _NORM_EPSILON) / clip).clamp(min=1.0)  # type: ignore[attr-defined]
        optimizer.found_inf = skipped  # type: ignore[attr-defined]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return {"gradient_norm": norm, "skipped": skipped}


def _gradient_norm(optimizer: torch.optim.Adam) -> Float[Tensor, ""]:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
