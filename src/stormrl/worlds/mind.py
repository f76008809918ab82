"""A world model's stream of any length, one row, for eyes: what is seen, and what is dreamt.

Everything here runs eagerly and one step at a time; learning and imagination do not need it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from stormrl.types import Batch, Carry, Prediction, Uniform, View
from stormrl.worlds.protocol import World


class Expectation(NamedTuple):
    """What is expected of an action that is taken now."""

    outcome: Prediction
    """[1]"""
    belief: Float[Tensor, "1 K C"] | None = None
    """What the next latent will be drawn from."""
    rewards: Callable[[], tuple[Float[Tensor, " bins"], Float[Tensor, "1 bins"]]] | None = None
    """Gives rewards, in natural units, and the probability of each, to those who draw."""


class Mind(ABC):
    """A moment, and what led to it.

    `begin` first. Then, again and again, `take` an action and either `see` what came of it or
    `dream` it.
    """

    view: View
    """Of the present moment, one row."""

    @abstractmethod
    def begin(
        self,
        obs: Shaped[Tensor, "1 L ..."],
        action: Int[Tensor, "1 L1"],
        uniform: Uniform,
    ) -> None:
        """The present moment is the last of L real frames with L - 1 actions between them."""

    @abstractmethod
    def take(self, action: int, uniform: Uniform) -> Expectation:
        """Do this now; what is expected of it."""

    @abstractmethod
    def see(self, obs: Shaped[Tensor, "1 ..."], uniform: Uniform) -> None:
        """The action led to this real frame."""

    @abstractmethod
    def dream(self, uniform: Uniform, temperature: float = 1.0) -> None:
        """The action led to what is drawn now; a temperature of less than 1 sharpens the draw."""


class WindowMind(Mind):
    """The mind of any world model, by the verbs of its protocol: dreams start in windows of frames.

    After `room` dreamt steps the dream starts anew, in the pictures of what was dreamt last. Knows
    no temperature: what a world model draws is its own matter. Who has dreamt begins anew to see.
    """

    def __init__(self, world: World, limit: int, room: int = 16) -> None:
        self.world, self.room = world, min(room, max(limit // 2, 1))
        self.seen = max(limit - self.room, 1)
        """Frames that a dream starts from: with its own steps, it looks back on `limit`."""

    @torch.no_grad()
    def begin(self, obs: Tensor, action: Tensor, uniform: Uniform) -> None:
        """Every frame is seen in turn."""
        self._frames, self._actions = [], []
        self._seeing = self.world.begin(1)
        self._see(obs[:, 0], action.new_zeros(1), True, uniform)
        for t in range(action.shape[1]):
            self._actions.append(action[:, t])
            self._see(obs[:, t + 1], action[:, t], False, uniform)

    @torch.no_grad()
    def take(self, action: int, uniform: Uniform) -> Expectation:
        """Dreams the step at once, whether or not it will be adopted."""
        chosen = torch.tensor([action], device=self.world.device)
        self._actions.append(chosen)
        if self._dreaming is None:
            windows = self._window()
            start, _ = self.world.dream_noise(1, windows.action.shape[1], 1, uniform)
            self._next, self._left = self.world.start(windows, self.room, start), self.room
        else:
            _, steps = self.world.dream_noise(1, 0, 1, uniform)
            self._next = self.world.dream(self._dreaming, chosen, steps[:, 0])
        outcome = self.world.judge(stacked([self.view, self._next[1]]), chosen[:, None])
        reward, continues = outcome
        return Expectation(Prediction(reward[:, 0], continues[:, 0]), self._next[1].belief)

    @torch.no_grad()
    def see(self, obs: Tensor, uniform: Uniform) -> None:
        """Adopts the frame instead of the dreamt step."""
        self._see(obs, self._actions[-1], False, uniform)

    @torch.no_grad()
    def dream(self, uniform: Uniform, temperature: float = 1.0) -> None:
        """Adopts the dreamt step."""
        carry, self.view = self._next
        self._keep(self.world.depicted(self.view))
        self._left -= 1
        self._dreaming = carry if self._left else None

    def _see(self, obs: Tensor, action: Tensor, first: bool, uniform: Uniform) -> None:
        world = self.world
        is_first = torch.tensor([first], device=world.device)
        noise = world.see_noise(1, uniform)
        self._seeing, self.view = world.see(self._seeing, obs, action, is_first, noise)
        self._keep(obs)
        self._dreaming: Carry | None = None

    def _keep(self, frame: Tensor) -> None:
        """As many frames and actions as a dream may start from."""
        self._frames = [*self._frames, frame][-self.seen :]
        self._actions = self._actions[-self.seen :]

    def _window(self) -> Batch:
        """The last frames with the action that was taken at each."""
        steps = min(len(self._frames), self.seen)
        action = torch.stack(self._actions[-steps:], dim=1)
        return Batch(
            obs=torch.stack(self._frames[-steps:], dim=1),
            action=action,
            reward=torch.zeros_like(action, dtype=torch.float32),
            continues=torch.ones_like(action, dtype=torch.float32),
            is_first=torch.zeros_like(action, dtype=torch.bool),
            row=torch.full_like(action, -1),
        )


def stacked(views: Sequence[View]) -> View:
    """What is learned from of successive moments, as one view with time second.

    What is known of the steps between them has one step less.
    """
    z = [view.z for view in views if view.z is not None]
    h = [view.h for view in views if view.h is not None]
    outcomes = [view.outcome for view in views[1:] if view.outcome is not None]
    anew = [view.anew for view in views[1:] if view.anew is not None]
    return View(
        torch.stack(z, dim=1) if z else None,
        torch.stack(h, dim=1) if h else None,
        outcome=Prediction(*(torch.stack(part, dim=1) for part in zip(*outcomes, strict=True)))
        if outcomes
        else None,
        anew=torch.stack(anew, dim=1) if anew else None,
    )
