"""A learner with random experience, and each stage of an iteration as a function."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from stormrl.acting.collector import Collector
from stormrl.bench.timing import Work
from stormrl.config.parts import RunConfig
from stormrl.envs import find_protocol, make_env, spaces_of
from stormrl.experience.replay import Replay
from stormrl.learning.graphs import updates
from stormrl.learning.learner import Learner
from stormrl.learning.parameters import count_parameters
from stormrl.machine.device import Backend
from stormrl.types import Batch, Carry, Trajectory, View

ITERATIONS = 4096
"""Steps that replay has room for after the random ones."""


class ContextDream:
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

    def stages(self) -> dict[str, Work]:
        """Its halves by name."""
        return {"encode": self.encode, "rollout": self.roll_out}

    @torch.no_grad()
    def encode(self) -> tuple[Carry, View]:
        """The states that the contexts lead to."""
        with self.learner.backend.autocast():
            return self.learner.imagination.start(self.context, self.noise.start)

    @torch.no_grad()
    def roll_out(self) -> Trajectory:
        """The imagined steps alone, from states that were read before the clock started."""
        carry, view = self.started
        weight = torch.ones_like(self.noise.action[:, 0])
        with self.learner.backend.autocast():
            again = self.learner.world_model.again(carry)
            return self.learner.imagination.roll_out(again, view, weight, self.noise)


class PosteriorDream:
    """Imagination from every state of given windows, which the world model has encoded before."""

    def __init__(self, learner: Learner, batch: Batch) -> None:
        self.learner, self.batch = learner, batch
        self.noise = learner.branching_noise(batch)
        with torch.no_grad(), learner.backend.autocast():
            self.seen = learner.world_model.loss(batch, learner.loss_noise(batch)).seen

    @torch.no_grad()
    def imagine(self) -> Trajectory:
        """The policy is rolled out from every state."""
        with self.learner.backend.autocast():
            return self.learner.imagination.from_posteriors(self.batch, self.seen, self.noise)

    def stages(self) -> dict[str, Work]:
        """One: nothing is encoded for the sake of dreams."""
        return {"rollout": self.imagine}


class Workbench:
    """What an iteration of training needs, in the state it has when training begins."""

    def __init__(self, config: RunConfig, backend: Backend) -> None:
        torch.manual_seed(config.seed)
        protocol = find_protocol(config.protocol)
        env = make_env(config.env, protocol, kwargs=config.env_kwargs)
        spaces = spaces_of(env)
        warmup = config.agent.replay.warmup
        self.backend = backend
        self.learner = Learner(config.agent, spaces, backend)
        self.replay = Replay.of(warmup + ITERATIONS, spaces.observation, backend.device)
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
        for scheduled in self.updates:
            scheduled.update()
        # As in training: what was encoded by the weights before is encoded anew.
        self.learner.world_model.version += 1

    def written(self) -> Mapping[str, Work]:
        """What a captured update hides from a count: the same, operator by operator."""

        def update() -> None:
            for unit in self.learner.units():
                unit.update(self.replay, None)
            self.learner.world_model.version += 1

        def iteration() -> None:
            self.collector.step(random=False)
            update()

        return {"update": update, "iteration": iteration}

    def stages(self) -> Mapping[str, Work]:
        """Every stage by name, on the same experience and noise at every call."""
        learner, config = self.learner, self.learner.config.world_model
        batch = self.replay.sample(config.batch_size, config.window)
        batch_noise = learner.loss_noise(batch)
        dream = self._dream()
        trajectory = dream.imagine()
        return {
            "world_model": lambda: learner.learn_world(batch, batch_noise),
            **dream.stages(),
            "actor_critic": lambda: learner.learn_policy(trajectory),
            "act": self.collector.decide,
            "env": lambda: self.collector.step(random=True),
            "iteration": self.iteration,
        }

    def counted(self) -> Mapping[str, Work]:
        """The parts of an update whose operators are counted."""
        learner, dream = self.learner, self._dream()
        trajectory = dream.imagine()
        return {
            "world_model": lambda: learner.update_world_model(self.replay),
            "imagination": dream.imagine,
            "actor_critic": lambda: learner.learn_policy(trajectory),
        }

    def _dream(self) -> ContextDream | PosteriorDream:
        config = self.learner.config
        dreams, windows = config.imagination, config.world_model
        if dreams.dreams_from == "contexts":
            context = self.replay.sample(dreams.batch_size, dreams.context)
            return ContextDream(self.learner, context)
        batch = self.replay.sample(windows.batch_size, windows.window)
        return PosteriorDream(self.learner, batch)

    def parameters(self) -> dict[str, int]:
        """Parameters of both models and of each of their parts."""
        world = count_parameters(self.learner.world_model)
        agent = count_parameters(self.learner.actor_critic)
        wholes = {"world_model": world.pop("total"), "actor_critic": agent.pop("total")}
        return {**wholes, **world, **agent}
