"""Evaluation: scores of whole episodes under a named protocol, every one of them counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from typing import Protocol as Interface

import gymnasium
import numpy as np
import torch
from torch import Tensor

from stormrl.acting.game import Game
from stormrl.envs import NO_KWARGS, Protocol, make_env, spaces_of
from stormrl.machine.stop import Stopped, Stopping, never
from stormrl.seeds import UNCOUNTED_SEED
from stormrl.types import Carry, clone, obs_tensor, restart

PARALLEL = 8


class Score(NamedTuple):
    """One evaluation episode."""

    total: float
    """Undiscounted return."""
    length: int
    """Environment steps."""
    seed: int
    """Seed of the environment's reset."""
    cut_short: bool = False
    """The game had not ended after `longest_episode` steps, and was stopped there."""


class Player(Interface):
    """Whoever chooses the actions."""

    def begin(self, rows: int) -> Any:
        """What is taken along before the first step."""
        ...

    def act(
        self, obs: Tensor, carry: Any, is_first: Tensor, greedy: bool = False
    ) -> tuple[Tensor, Any]:
        """Actions for what is seen [B, ...], and what is taken along from here."""
        ...


class RandomPlayer:
    """Uniformly random actions."""

    def __init__(self, actions: int) -> None:
        self.actions = actions

    def begin(self, rows: int) -> Carry:
        """Nothing is taken along."""
        return ()

    def act(
        self, obs: Tensor, carry: Carry, is_first: Tensor, greedy: bool = False
    ) -> tuple[Tensor, Carry]:
        """Actions for what is seen [B, ...]."""
        return torch.randint(self.actions, (len(obs),)), carry


class _Table:
    """A game and the episode of an evaluation that is played there."""

    def __init__(self, env: gymnasium.Env, protocol: Protocol) -> None:
        self.game, self.limit = Game(env, protocol), longest_episode(protocol)

    def begin(self, seed: int) -> None:
        self.game.begin(seed)
        self.seed = seed

    def step(self, action: int) -> Score | None:
        game = self.game
        game.step(action)
        if not game.over and game.length < self.limit:
            return None
        return Score(game.total, game.length, self.seed, cut_short=not game.over)


def evaluate(
    player: Player,
    env_id: str,
    protocol: Protocol,
    episodes: int,
    seed: int = 0,
    device: torch.device | str = "cpu",
    stopping: Stopping = never,
    env_kwargs: Mapping[str, Any] = NO_KWARGS,
) -> list[Score]:
    """Play `episodes` whole games, seeded `seed`, `seed + 1`, ..., some of them at a time.

    An episode that was begun is always finished and counted, so long games weigh as much as short
    ones; a game that does not end is stopped after `longest_episode` steps, and its score says so.
    The random streams of the caller are left as they were.
    Raises `Stopped` as soon as `stopping`: what has been played by then favours short games.
    """
    envs = [make_env(env_id, protocol, kwargs=env_kwargs) for _ in range(min(PARALLEL, episodes))]
    devices = [device] if torch.device(device).type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            seeds = range(seed, seed + episodes)
            scores = _play_all(player, envs, seeds, protocol, device, stopping)
    finally:
        for env in envs:
            env.close()
    return sorted(scores, key=lambda score: score.seed)


def longest_episode(protocol: Protocol) -> int:
    """Steps after which a game without an end is stopped: those of the emulator's own limit."""
    return -(-protocol.max_frames // protocol.frame_skip)


def cut_short(count: int, episodes: int, protocol: Protocol) -> str:
    """What to say of episodes that were stopped."""
    limit = f"did not end within {longest_episode(protocol):,} steps and stopped there"
    return f"{count} of {episodes} episodes {limit}; give the game a time limit to choose another"


def random_scores(
    env_id: str,
    protocol: Protocol,
    episodes: int,
    seed: int = 0,
    env_kwargs: Mapping[str, Any] = NO_KWARGS,
) -> list[Score]:
    """What uniformly random play reaches under the same protocol."""
    env = make_env(env_id, protocol, kwargs=env_kwargs)
    player = RandomPlayer(spaces_of(env).action.n)
    env.close()
    return evaluate(player, env_id, protocol, episodes, seed, env_kwargs=env_kwargs)


def _play_all(
    player: Player,
    envs: Sequence[gymnasium.Env],
    seeds: Sequence[int],
    protocol: Protocol,
    device: torch.device | str,
    stopping: Stopping,
) -> list[Score]:
    tables = [_Table(env, protocol) for env in envs]
    waiting = iter(seeds)  # There may be more than fit into a list.
    for table in tables:
        table.begin(next(waiting))
    scores: list[Score] = []
    fresh = player.begin(len(tables))
    carry = clone(fresh)
    while len(scores) < len(seeds):
        if stopping():
            raise Stopped
        first = [table.game.is_first for table in tables]
        is_first = torch.tensor(first, device=device)
        if any(first):
            # Whatever the agent does between training episodes, evaluation starts each one afresh.
            carry = restart(carry, fresh, is_first)
        action, carry = player.act(
            _seen(tables, device), carry, is_first, protocol.greedy_evaluation
        )
        for table, choice in zip(tables, action.tolist(), strict=True):
            score = table.step(choice)
            if score is None:
                continue
            if score.seed != UNCOUNTED_SEED:
                scores.append(score)
            # With no game left to begin, a table plays on unseen, and the batch keeps its shape.
            table.begin(next(waiting, UNCOUNTED_SEED))
    return scores


def _seen(tables: Sequence[_Table], device: torch.device | str) -> Tensor:
    return obs_tensor(np.stack([table.game.obs for table in tables]), device)
