"""The real game, and the agent's view of it at every step."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stormrl.acting.game import Game
from stormrl.dreams.env import DreamContext, seen
from stormrl.envs import action_meanings, find_protocol, make_env
from stormrl.runs.agent import Agent

LEAD = 24
"""Steps, at most, that the agent plays before a context begins."""
UNNAMED = "lowest"
"""The one action that a person may choose where there are too many to be named."""


class RealGame:
    """A game in which the agent looks on, whoever plays.

    `info` has the keys of `DreamEnv`'s: the latent that the agent saw the frame as, the posterior
    it was drawn from, its value and its policy there.
    """

    def __init__(self, agent: Agent, seed: int, context: int) -> None:
        # Whatever the protocol says of training, every reset shows another game.
        protocol = replace(find_protocol(agent.config.protocol), fixed_seed_at_reset=False)
        env = make_env(agent.config.env, protocol, kwargs=agent.config.env_kwargs)
        self.game = Game(env, protocol)
        self.words = action_meanings(env) or [UNNAMED]
        self.agent = agent
        self.seed = seed
        self.length = context
        self.rng = np.random.default_rng(seed)

    @property
    def obs(self) -> np.ndarray:
        """What is seen now."""
        return self.game.obs

    @property
    def over(self) -> bool:
        """Whether the episode has ended."""
        return self.game.over

    @property
    def terminated(self) -> bool:
        """Whether it has ended in the game, not at a limit."""
        return self.game.terminated

    def close(self) -> None:
        """Free the emulator."""
        self.game.close()

    def reset(self) -> None:
        """Another episode, at a moment that has `context` frames to look back on."""
        steps = self.length - 1 + int(self.rng.integers(LEAD + 1))
        self._begin()
        for _ in range(steps):
            self.step(self.choose())
            if self.over:
                self._begin()
        while len(self.frames) < self.length and not self.over:
            self.step(self.choose())
        self.total, self.steps = 0.0, 0

    def choose(self) -> int:
        """An action drawn from the agent's policy."""
        return self.agent.actor.actions.pick(self.info["policy"], self.rng)

    def step(self, action: int) -> None:
        """Take one step and look at what it led to."""
        self.carry = self.carry._replace(action=torch.full_like(self.carry.action, action))
        done = self.game.step(action)
        self.reward, self.action, self.continues = done.reward, action, float(done.continues)
        self.total, self.steps = self.total + self.reward, self.steps + 1
        self.frames.append(self.obs)
        self.actions.append(action)
        self._look()

    def context(self) -> DreamContext:
        """The last frames, for a dream to begin at."""
        return DreamContext(np.stack(self.frames), np.array(self.actions, np.int64)[1:])

    def _begin(self) -> None:
        self.game.begin(self.seed)
        self.seed += 1
        self.carry = self.agent.actor.begin(1)
        self.frames = deque([self.obs], self.length)
        # As long as the frames: the first one has led to the first frame, or is none.
        self.actions = deque([-1], self.length)
        self.reward, self.continues, self.action = 0.0, 1.0, -1
        self.total, self.steps = 0.0, 0
        self._look()

    def _look(self) -> None:
        actor, device = self.agent.actor, self.agent.device
        now = self.game.seen(device), self.carry, self.game.first(device)
        view, opinion, self.carry = actor.look(*now, self._uniform)
        self.info: dict[str, Any] = seen(view, opinion) | {"continues": self.continues}

    def _uniform(self, shape: Sequence[int]) -> Tensor:
        return torch.from_numpy(self.rng.random(tuple(shape), np.float32)).to(self.agent.device)
