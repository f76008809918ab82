"""Fixed-shape rollouts of the policy inside the world model (STORM, section 3.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stormrl.agents.protocol import Behaviour
from stormrl.config.parts import ImaginationConfig
from stormrl.types import Batch, Carry, Noise, Trajectory, View
from stormrl.worlds.mind import stacked
from stormrl.worlds.protocol import World


class Imagination:
    """Rolls a policy out inside a world model, from real states, without gradients.

    The parts run in turn: `start` reads contexts, or `branch` goes on from every step of windows
    whose latents are known; `advance` takes one step; `judge` predicts rewards and ends of all
    steps at once. Each is a function of tensors, to be compiled.
    """

    def __init__(
        self,
        world: World,
        behaviour: Behaviour,
        config: ImaginationConfig,
        compile: Callable[[Callable], Callable] = lambda function: function,
    ) -> None:
        self.world = world
        self.behaviour = behaviour
        self.config = config
        self.start = compile(self._start)
        self.branch = compile(self._branch)
        self.advance = compile(self._advance)
        self.judge = compile(self._judge)

    @torch.no_grad()
    def __call__(self, context: Batch, noise: Noise) -> Trajectory:
        """Trajectories of `horizon` steps; the first state follows the last step of the context."""
        carry, view = self.start(context, noise.start)
        weight = torch.ones(len(noise.action), device=noise.action.device)
        return self.roll_out(carry, view, weight, noise)

    @torch.no_grad()
    def from_posteriors(self, batch: Batch, seen: Any, noise: Noise) -> Trajectory:
        """Trajectories from every step of the windows that leaves room for the horizon.

        `seen` is what the world model's loss gave for the same windows.
        """
        carry, view, weight = self.branch(batch, seen, noise.start)
        return self.roll_out(carry, view, weight, noise)

    @torch.no_grad()
    def roll_out(
        self, carry: Carry, view: View, weight: Float[Tensor, " B"], noise: Noise
    ) -> Trajectory:
        """Trajectories from given states; may move the carry on in place."""
        habit = self.behaviour.begin(len(weight))
        views, actions = [view], []
        for t in range(self.config.horizon):
            step_noise = noise.action[:, t], noise.steps[:, t]
            action, carry, view, habit = self.advance(carry, view, habit, *step_noise)
            views.append(view)
            actions.append(action)
        return self.judge(views, actions, weight)

    def _start(self, context: Batch, noise: tuple[Tensor, ...]) -> tuple[Carry, View]:
        return self.world.start(context, self.config.horizon, noise)

    def _branch(
        self, batch: Batch, seen: Any, noise: tuple[Tensor, ...]
    ) -> tuple[Carry, View, Float[Tensor, " N"]]:
        return self.world.branch(batch, seen, self.config.horizon, noise)

    def _advance(
        self,
        carry: Carry,
        view: View,
        habit: Carry,
        action_noise: Float[Tensor, "B *parts"],
        step_noise: Float[Tensor, "B ..."],
    ) -> tuple[Int[Tensor, " B"], Carry, View, Carry]:
        action, habit = self.behaviour.act(view, habit, action_noise)
        carry, view = self.world.dream(carry, action, step_noise)
        return action, carry, view, habit

    def _judge(
        self, views: list[View], actions: list[Tensor], weight: Float[Tensor, " B"]
    ) -> Trajectory:
        view, action = stacked(views), torch.stack(actions, dim=1)
        reward, continues = self.world.judge(view, action)
        if self.config.continuation == "threshold":
            continues = (continues >= 0.5).float()
        return Trajectory(view, action, reward, continues, weight, view.anew)
