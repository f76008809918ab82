"""A game: one environment and the episode in flight; every agent plays through it."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from stormrl.envs import Protocol
from stormrl.experience.replay import Transition
from stormrl.types import obs_tensor


class Game:
    """Plays by a protocol: what a lost life means for who learns from it is decided here."""

    obs: np.ndarray
    """What is seen now, uint8 [height, width, channels] or float32 [V]."""
    is_first: bool
    """Whether nothing has been done yet in this episode."""
    over: bool
    terminated: bool
    total: float
    """Undiscounted return so far."""
    length: int
    """Steps so far."""
    reward: float
    """What the last step earned."""
    seed: int
    """Seed of the reset that began the episode."""

    def __init__(self, env: gymnasium.Env, protocol: Protocol) -> None:
        self.env, self.protocol = env, protocol

    def begin(self, seed: int | None = None) -> None:
        """A new episode."""
        self.obs, info = self.env.reset(seed=seed)
        self.seed = info["episode_seed"]
        self.is_first, self.over, self.terminated = True, False, False
        self.total, self.length, self.reward = 0.0, 0, 0.0

    def step(self, action: int) -> Transition:
        """One step; what it was, from what was seen before it on.

        Raises `EnvironmentFault` if the environment fails; all is then as it was before.
        """
        obs, reward, terminated, truncated, info = self.env.step(action)
        life_lost = info["life_lost"] and self.protocol.life_loss == "termination"
        done = Transition(
            obs=self.obs,
            action=action,
            reward=float(reward),
            continues=not (terminated or life_lost),
            is_first=self.is_first,
        )
        self.obs, self.is_first, self.reward = obs, False, done.reward
        self.total, self.length = self.total + done.reward, self.length + 1
        self.terminated, self.over = bool(terminated), bool(terminated or truncated)
        return done

    def seen(self, device: torch.device | str) -> Shaped[Tensor, "1 ..."]:
        """What is seen now, as networks take it."""
        return obs_tensor(self.obs, device).unsqueeze(0)

    def first(self, device: torch.device | str) -> Tensor:
        """Whether the episode begins, bool [1]."""
        return torch.tensor([self.is_first], device=device)

    def close(self) -> None:
        """Free the environment."""
        self.env.close()

    @property
    def action_space(self) -> Any:
        """The environment's, which has a random generator of its own."""
        return self.env.action_space
