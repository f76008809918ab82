"""A learner with random experience, and each stage of an iteration as a function."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from stormrl.bench.timing import Work
from stormrl.captured import updates
from stormrl.collector import Collector
from stormrl.config import RunConfig
from stormrl.device import Backend
from stormrl.envs import PROTOCOLS, game_sizes, make_env
from stormrl.learner import Learner
from stormrl.parameters import count_parameters
from stormrl.replay import Replay
from stormrl.types import Batch, Cache, Trajectory

ITERATIONS = 4096
"""Steps that replay has room for after the random ones."""


class Dream:
    """Imagination from given contexts, whole and in its two halves."""

    def __init__(self, learner: Learner, context: Batch) -> None:
        self.learner, self.context = learner, context
        self.noise = learner.imagination_noise(context)
        self.started = self.encode()

    @torch.no_grad()
    def imagine(self) -> Trajectory:
        """Contexts are read, and the policy is rolled out."""
        with self.learner.backend.autocast():
            return self.learner.imagination(self.context, self.noise)

    @torch.no_grad()
    def encode(self) -> tuple[Tensor, Tensor, Cache]:
        """The states that the contexts lead to."""
        with self.learner.backend.autocast():
            start = self.learner.imagination.start
            return start(self.context, self.noise.posterior, self.noise.prior[:, 0])

    @torch.no_grad()
    def roll_out(self) -> Trajectory:
        """The imagined steps alone, from states that were read before the clock started."""
        z, h, cache = self.started
        # The cache moves on in place; its old keys and values are overwritten where they matter.
        fresh = cache._replace(
            visible=cache.visible.clone(),
            position=cache.position.clone(),
            slot=cache.slot.clone(),
        )
        with self.learner.backend.autocast():
            return self.learner.imagination.roll_out(z, h, fresh, self.noise)


class Workbench:
    """What an iteration of training needs, in the state it has when training begins."""

    def __init__(self, config: RunConfig, backend: Backend) -> None:
        torch.manual_seed(config.seed)
        protocol = PROTOCOLS[config.protocol]
        env = make_env(config.env, protocol)
        actions, shape = game_sizes(env)
        warmup = config.agent.replay.warmup
        self.backend = backend
        self.learner = Learner(config.agent, actions, backend)
        self.replay = Replay(warmup + ITERATIONS, shape, backend.device)
        self.collector = Collector(env, protocol, self.learner.actor(), self.replay, config.seed)
        for _ in range(warmup + 1):
            self.collector.step(random=True)
        self.updates = updates(self.learner, self.replay)

    def iteration(self) -> None:
        """What training does for one environment step."""
        self.collector.step(random=False)
        self.update()

    def update(self) -> None:
        """One world-model update and one agent update."""
        self.updates.world_model()
        self.updates.agent()

    def written(self) -> Mapping[str, Work]:
        """What a captured update hides from a count: the same, operator by operator."""

        def update() -> None:
            self.learner.update_world_model(self.replay)
            self.learner.update_agent(self.replay)

        def iteration() -> None:
            self.collector.step(random=False)
            update()

        return {"update": update, "iteration": iteration}

    def stages(self) -> Mapping[str, Work]:
        """Every stage by name, on the same experience and noise at every call."""
        learner, config = self.learner, self.learner.config
        world_model, imagination = config.world_model, config.imagination
        batch = self.replay.sample(world_model.batch_size, world_model.batch_length)
        batch_noise = learner.posterior_noise(batch)
        dream = Dream(learner, self.replay.sample(imagination.batch_size, imagination.context))
        trajectory = dream.imagine()
        return {
            "world_model": lambda: learner.learn_world(batch, batch_noise),
            "encode": dream.encode,
            "rollout": dream.roll_out,
            "actor_critic": lambda: learner.learn_policy(trajectory),
            "act": self.collector.decide,
            "env": lambda: self.collector.step(random=True),
            "iteration": self.iteration,
        }

    def counted(self) -> Mapping[str, Work]:
        """The parts of an update whose operators are counted."""
        learner, config = self.learner, self.learner.config.imagination
        dream = Dream(learner, self.replay.sample(config.batch_size, config.context))
        trajectory = dream.imagine()
        return {
            "world_model": lambda: learner.update_world_model(self.replay),
            "imagination": dream.imagine,
            "actor_critic": lambda: learner.learn_policy(trajectory),
        }

    def parameters(self) -> dict[str, int]:
        """Parameters of both models and of each of their parts."""
        world = count_parameters(self.learner.world_model)
        agent = count_parameters(self.learner.actor_critic)
        wholes = {"world_model": world.pop("total"), "actor_critic": agent.pop("total")}
        return {**wholes, **world, **agent}
