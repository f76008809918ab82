"""Collector: plays one environment and stores every transition in replay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import gymnasium
import numpy as np
import torch
from torch import Tensor

from stormrl.acting.actor import Acting, Actor
from stormrl.acting.game import Game
from stormrl.acting.run_state import RunState
from stormrl.disk.tensor_files import check_tensors
from stormrl.envs import Protocol, restore, snapshot
from stormrl.errors import UserError
from stormrl.experience.replay import Replay, final
from stormrl.types import named_leaves, with_leaves

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
        self.game = Game(env, protocol)
        self.actor = actor
        self.replay = replay
        env.action_space.seed(seed)
        self.game.begin(seed)
        self.stored = 0
        """Steps of the episode in flight that are in replay: all, but in the middle of a step."""
        self.finals = 0
        """Rows of replay that are no steps: what episodes ended with."""
        self.carry = actor.begin(1)

    def step(self, random: bool) -> Episode | None:
        """Take one step, at random or as the agent decides; the episode, if it ended here.

        Raises `EnvironmentFault` if the environment fails; all is then as it was before the step,
        but for the random numbers that it took.
        """
        if self.game.over:
            self.game.begin()
            self.stored = 0
        if random:
            action, carry = int(self.game.action_space.sample()), self.carry
        else:
            action, carry = self.decide()
        self.replay.add(self.game.step(action))
        if self.game.over and self.actor.world.keeps_final:
            self.replay.add(final(self.game.obs))
            self.finals += 1
        self.carry, self.stored = carry, self.game.length
        return self.episode() if self.game.over else None

    def episode(self) -> Episode:
        """The episode in flight as it stands."""
        return Episode(self.game.total, self.game.length, self.game.seed)

    def tensors(self) -> dict[str, Tensor]:
        """Carry, current image and environment, from which `restore` continues mid-episode."""
        tensors = self._own_tensors()
        for name, array in snapshot(self.game.env).items():
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
        self.carry = self._checked(with_leaves(self.carry, own, CARRY))
        game = self.game
        game.obs, game.over = own["obs"].numpy(), bool(own["over"])
        game.is_first, game.seed = state.is_first, state.episode_seed
        game.total, game.length = float(state.episode_total), state.episode_length
        self.stored = game.length
        saved = {n.removeprefix(ENV): _array(t) for n, t in tensors.items() if n.startswith(ENV)}
        _check_count(saved.get("actions"), state.episode_length)
        if restore(game.env, saved) or game.over:
            return None
        game.over = True
        return self.episode() if game.length else None

    def decide(self) -> tuple[int, Acting]:
        """The agent's next action, and what it takes along once that is taken."""
        game, device = self.game, self.replay.device
        action, carry = self.actor.act(game.seen(device), self.carry, game.first(device))
        return int(action), carry

    def _checked(self, carry: Acting) -> Acting:
        """A carry that was read from a file, where nothing in it leads out of what it indexes."""
        known = (carry.action >= 0) & (carry.action < self.actor.world.spaces.action.n)
        if bool(known.all()) and self.actor.world.can_go_on(carry.world):
            return carry
        raise UserError("checkpoint", "what its agent takes along leads nowhere; start a new run")

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
            "obs": torch.from_numpy(self.game.obs.copy()),
            "over": torch.tensor(self.game.over),
        }


def _check_count(actions: np.ndarray | None, steps: int) -> None:
    """Actions that are no list of numbers are told of where they are played."""
    if actions is not None and actions.ndim == 1 and len(actions) != steps:
        told = f"holds {len(actions)} actions of an episode of {steps} steps"
        raise UserError("checkpoint", f"{told}; start a new run")


def _array(tensor: Tensor) -> np.ndarray:
    try:
        return tensor.numpy()
    except TypeError as error:
        fault = f"holds no usable state of the environment: {error}"
        raise UserError("checkpoint", fault) from None
