"""Collector: plays one environment and stores every transition in replay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import gymnasium
import numpy as np
import torch
from torch import Tensor

from stormrl.acting.actor import Acting, Actor
from stormrl.acting.run_state import RunState
from stormrl.disk.tensor_files import check_tensors
from stormrl.envs import Protocol, restore, snapshot
from stormrl.errors import UserError
from stormrl.experience.replay import Replay, Transition
from stormrl.types import image_tensor, named_leaves, with_leaves

ENV = "env."
"""Prefix of the environment's own tensors among the collector's."""
CARRY, MEMORY = "carry.", "memory."
"""Prefixes of the carry's tensors, today and in format 1."""


class Episode(NamedTuple):
    """A finished episode."""

    total: float
    """Undiscounted return."""
    length: int
    """Environment steps."""
    seed: int
    """Seed of the reset that began it."""


class Collector:
    """One environment, what the actor takes along in it, and the episode in flight."""

    def __init__(
        self, env: gymnasium.Env, protocol: Protocol, actor: Actor, replay: Replay, seed: int
    ) -> None:
        self.env = env
        self.protocol = protocol
        self.actor = actor
        self.replay = replay
        self.env.action_space.seed(seed)
        self.obs, info = env.reset(seed=seed)
        self.seed: int = info["episode_seed"]
        self.carry = actor.begin(1)
        self.is_first, self.over = True, False
        self.total, self.length = 0.0, 0

    def step(self, random: bool) -> Episode | None:
        """Take one step, at random or as the agent decides; the episode, if it ended here.

        Raises `EnvironmentFault` if the environment fails; all is then as it was before the step,
        but for the random numbers that it took.
        """
        if self.over:
            self._begin_episode()
        if random:
            action, carry = int(self.env.action_space.sample()), self.carry
        else:
            action, carry = self.decide()
        obs, reward, terminated, truncated, info = self.env.step(action)
        self.carry = carry
        life_lost = info["life_lost"] and self.protocol.life_loss == "termination"
        self.replay.add(
            Transition(
                obs=self.obs,
                action=action,
                reward=float(reward),
                continues=not (terminated or life_lost),
                is_first=self.is_first,
            )
        )
        self.obs, self.is_first = obs, False
        self.total, self.length = self.total + float(reward), self.length + 1
        self.over = bool(terminated or truncated)
        return self.episode() if self.over else None

    def episode(self) -> Episode:
        """The episode in flight as it stands."""
        return Episode(self.total, self.length, self.seed)

    def tensors(self) -> dict[str, Tensor]:
        """Carry, current image and environment, from which `restore` continues mid-episode."""
        tensors = self._own_tensors()
        for name, array in snapshot(self.env).items():
            tensors[f"{ENV}{name}"] = torch.from_numpy(array)
        return tensors

    def restore(self, tensors: Mapping[str, Tensor], state: RunState) -> Episode | None:
        """Continue from a saved state.

        If the environment does not come back to it, a new episode will begin, and the one that was
        in flight is returned as it stood. Raises `UserError` if the tensors are not of this kind.
        """
        own = {name: tensor for name, tensor in tensors.items() if not name.startswith(ENV)}
        own = self._as_named_today(own)
        check_tensors(self._own_tensors(), own, "collector")
        self.carry = with_leaves(self.carry, own, CARRY)
        self.obs, self.over = own["obs"].numpy(), bool(own["over"])
        self.is_first, self.seed = state.is_first, state.episode_seed
        self.total, self.length = float(state.episode_total), state.episode_length
        saved = {n.removeprefix(ENV): _array(t) for n, t in tensors.items() if n.startswith(ENV)}
        if restore(self.env, saved) or self.over:
            return None
        self.over = True
        return self.episode() if self.length else None

    def decide(self) -> tuple[int, Acting]:
        """The agent's next action, and what it takes along once that is taken."""
        is_first = torch.tensor([self.is_first], device=self.replay.device)
        action, carry = self.actor.act(self._image(self.obs), self.carry, is_first)
        return int(action), carry

    def _begin_episode(self) -> None:
        self.obs, info = self.env.reset()
        self.seed = info["episode_seed"]
        self.is_first, self.over, self.total, self.length = True, False, 0.0, 0

    def _as_named_today(self, own: dict[str, Tensor]) -> dict[str, Tensor]:
        """Checkpoints of format 1 kept the world model's carry under another name, and no other."""
        old = {n.removeprefix(MEMORY): t for n, t in own.items() if n.startswith(MEMORY)}
        if not old:
            return own
        rest = {name: tensor for name, tensor in own.items() if not name.startswith(MEMORY)}
        world = self.actor.world.saved(old)
        return {
            **rest,
            **{f"{CARRY}world.{name}": tensor for name, tensor in world.items()},
            f"{CARRY}action": torch.zeros_like(self.carry.action),
        }

    def _own_tensors(self) -> dict[str, Tensor]:
        return named_leaves(self.carry, CARRY) | {
            "obs": torch.from_numpy(self.obs.copy()),
            "over": torch.tensor(self.over),
        }

    def _image(self, obs: np.ndarray) -> Tensor:
        return image_tensor(obs, self.replay.device).unsqueeze(0)


def _array(tensor: Tensor) -> np.ndarray:
    try:
        return tensor.numpy()
    except TypeError as error:
        fault = f"holds no usable state of the environment: {error}"
        raise UserError("checkpoint", fault) from None
