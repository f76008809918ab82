"""Plays one environment and stores what happens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import gymnasium
import numpy as np
import torch
from torch import Tensor

from stormrl.acting import Actor
from stormrl.envs import Protocol, restore, snapshot
from stormrl.replay import Replay, Transition
from stormrl.run_state import RunState
from stormrl.types import Memory


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
        self.is_first = True
        self.total, self.length = 0.0, 0

    def step(self, random: bool) -> Episode | None:
        """Take one step, at random or as the agent decides; the episode, if it ended here."""
        action = int(self.env.action_space.sample()) if random else self.decide()
        obs, reward, terminated, truncated, info = self.env.step(action)
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
        return self.end_episode() if terminated or truncated else None

    def end_episode(self) -> Episode:
        """Close the episode in flight and start the next."""
        finished = Episode(self.total, self.length, self.seed)
        self.obs, info = self.env.reset()
        self.seed = info["episode_seed"]
        self.is_first, self.total, self.length = True, 0.0, 0
        return finished

    def tensors(self) -> dict[str, Tensor]:
        """Memory, current image and environment, from which `restore` continues mid-episode."""
        tensors = {f"memory.{name}": tensor for name, tensor in self.memory._asdict().items()}
        tensors["obs"] = torch.from_numpy(self.obs.copy())
        for name, array in snapshot(self.env).items():
            tensors[f"env.{name}"] = torch.from_numpy(array)
        return tensors

    def restore(self, tensors: Mapping[str, Tensor], state: RunState) -> Episode | None:
        """Continue from a saved state.

        If the environment does not come back to it, a new episode begins, and the one that was
        in flight is returned as it stood.
        """
        device = self.replay.device
        self.memory = Memory(*(tensors[f"memory.{name}"].to(device) for name in Memory._fields))
        self.obs, self.is_first = tensors["obs"].numpy(), state.is_first
        self.total, self.length = float(state.episode_total), state.episode_length
        self.seed = state.episode_seed
        saved = {
            name.removeprefix("env."): tensor.numpy()
            for name, tensor in tensors.items()
            if name.startswith("env.")
        }
        return None if restore(self.env, saved) else self.end_episode()

    def decide(self) -> int:
        """The agent's next action, which it remembers as taken."""
        is_first = torch.tensor([self.is_first], device=self.replay.device)
        action, self.memory = self.actor.act(self._image(self.obs), self.memory, is_first)
        return int(action)

    def _image(self, obs: np.ndarray) -> Tensor:
        return torch.from_numpy(obs).to(self.replay.device).permute(2, 0, 1).unsqueeze(0)
