"""Collector: plays one environment and stores every transition in replay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import gymnasium
import numpy as np
import torch
from torch import Tensor

from stormrl.acting.actor import Actor
from stormrl.acting.run_state import RunState
from stormrl.disk.tensor_files import check_tensors
from stormrl.envs import Protocol, restore, snapshot
from stormrl.errors import UserError
from stormrl.experience.replay import Replay, Transition
from stormrl.types import Memory, image_tensor

ENV = "env."
"""Prefix of the environment's own tensors among the collector's."""


class Episode(NamedTuple):
    """A finished episode."""

    total: float
    """Undiscounted return."""
    length: int
    """Environment steps."""
    seed: int
    """Seed of the reset that began it."""


class Collector:
    """One environment, the agent's memory in it, and the episode in flight."""

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
        self.memory = actor.begin(1, self._image(self.obs).shape[1:])
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
            action, memory = int(self.env.action_space.sample()), self.memory
        else:
            action, memory = self.decide()
        obs, reward, terminated, truncated, info = self.env.step(action)
        self.memory = memory
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
        """Memory, current image and environment, from which `restore` continues mid-episode."""
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
        own = self._unencoded() | own
        check_tensors(self._own_tensors(), own, "collector")
        device = self.replay.device
        self.memory = Memory(*(own[f"memory.{name}"].to(device) for name in Memory._fields))
        self.obs, self.over = own["obs"].numpy(), bool(own["over"])
        self.is_first, self.seed = state.is_first, state.episode_seed
        self.total, self.length = float(state.episode_total), state.episode_length
        saved = {n.removeprefix(ENV): _array(t) for n, t in tensors.items() if n.startswith(ENV)}
        if restore(self.env, saved) or self.over:
            return None
        self.over = True
        return self.episode() if self.length else None

    def decide(self) -> tuple[int, Memory]:
        """The agent's next action, and its memory once that is taken."""
        is_first = torch.tensor([self.is_first], device=self.replay.device)
        action, memory = self.actor.act(self._image(self.obs), self.memory, is_first)
        return int(action), memory

    def _begin_episode(self) -> None:
        self.obs, info = self.env.reset()
        self.seed = info["episode_seed"]
        self.is_first, self.over, self.total, self.length = True, False, 0.0, 0

    def _unencoded(self) -> dict[str, Tensor]:
        """What checkpoints lack that were written when acting encoded its frames at every step."""
        return {
            "memory.posterior": torch.zeros_like(self.memory.posterior),
            "memory.encoded_by": torch.full_like(self.memory.encoded_by, -1),
        }

    def _own_tensors(self) -> dict[str, Tensor]:
        tensors = {f"memory.{name}": tensor for name, tensor in self.memory._asdict().items()}
        return tensors | {
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
