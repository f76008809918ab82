"""Episode recorder: plays whole episodes and keeps every step of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from stormrl.acting.evaluate import Player, RandomPlayer, longest_episode
from stormrl.acting.game import Game
from stormrl.disk.run_directory import RunDirectory, is_pretrained
from stormrl.envs import NO_KWARGS, Protocol, action_meanings, make_env
from stormrl.envs.adapt import MOST_NAMED
from stormrl.errors import UserError
from stormrl.experience.episodes import RecordedEpisode, Recording
from stormrl.experience.replay import Transition
from stormrl.machine.stop import Stopped, Stopping, never
from stormrl.runs.agent import Agent
from stormrl.types import Carry

CONSTANT = "constant:"


class ConstantPlayer:
    """The same action always."""

    def __init__(self, action: int) -> None:
        self.action = action

    def begin(self, rows: int) -> Carry:
        """Nothing is taken along."""
        return ()

    def act(
        self, obs: Tensor, carry: Carry, is_first: Tensor, greedy: bool = False
    ) -> tuple[Tensor, Carry]:
        """Actions for what is seen [B, ...]."""
        return torch.full((len(obs),), self.action), carry


def record(
    env_id: str,
    protocol: Protocol,
    policy: str,
    episodes: int,
    seed: int = 0,
    device: str = "auto",
    stopping: Stopping = never,
    env_kwargs: Mapping[str, Any] | None = None,
) -> Recording:
    """Play `episodes` whole games, seeded `seed`, `seed + 1`, ...; fewer if `stopping` meanwhile.

    policy: `random`, `noop`, `constant:ACTION` with the action's word, or the directory of a run or
    `pretrained:NAME` (whose agent then plays on `device`). The random streams of the caller are
    left as they were. env_kwargs: arguments of the environment; by default, those that the run
    was trained with, if it was in this game. A game that does not end is truncated after
    `longest_episode` steps.
    Raises `UserError` for a policy that does not exist or that cannot play this game, `Stopped` if
    no episode is whole by then.
    """
    env = make_env(env_id, protocol, kwargs=_kwargs(env_kwargs, env_id, policy))
    try:
        actions = action_meanings(env)
        if not actions:
            problem = f"{env_id} has more actions than have a word; files of episodes name each"
            raise UserError("env", f"{problem}; record a game with up to {MOST_NAMED}")
        player, device = _player(policy, actions, device)
        devices = [device] if torch.device(device).type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            played = _play_all(
                env, player, protocol, range(seed, seed + episodes), device, stopping
            )
    finally:
        env.close()
    return Recording(env_id, protocol.name, policy, tuple(actions), tuple(played))


def _player(policy: str, actions: Sequence[str], device: str) -> tuple[Player, str]:
    """Who plays, and the device that its images have to be on."""
    if policy == "random":
        return RandomPlayer(len(actions)), "cpu"
    if policy == "noop" or policy.startswith(CONSTANT):
        word = policy.removeprefix(CONSTANT)
        return ConstantPlayer(_action(word, actions)), "cpu"
    if not is_pretrained(policy) and not Path(policy).is_dir():
        known = "random, noop, constant:ACTION, the directory of a run or pretrained:NAME"
        raise UserError("policy", f"{policy!r} is unknown; give {known}")
    return _trained(policy, actions, device)


def _kwargs(given: Mapping[str, Any] | None, env_id: str, policy: str) -> Mapping[str, Any]:
    if given is not None:
        return given
    if not is_pretrained(policy) and not Path(policy).is_dir():
        return NO_KWARGS
    config = RunDirectory.open(policy).config
    return config.env_kwargs if config.env == env_id else NO_KWARGS


def _action(word: str, actions: Sequence[str]) -> int:
    """An action by its word, however that is written, or by its number."""
    words = [action.lower() for action in actions]
    if word.lower() in words:
        return words.index(word.lower())
    if word.isdecimal() and int(word) < len(actions):
        return int(word)
    known = f"{', '.join(actions)}, or a number below {len(actions)}"
    raise UserError("policy", f"there is no action {word!r}; give one of {known}")


def _trained(run: str, actions: Sequence[str], device: str) -> tuple[Player, str]:
    agent = Agent.load(run, device=device)
    learnt = agent.spaces.action.n
    if learnt != len(actions):
        problem = f"the agent in {run} has {learnt} actions, the game {len(actions)}"
        raise UserError("policy", f"{problem}; give a run of {agent.config.env} its own game")
    return agent.actor, str(agent.device)


def _play_all(
    env: gymnasium.Env,
    player: Player,
    protocol: Protocol,
    seeds: Sequence[int],
    device: str,
    stopping: Stopping,
) -> list[RecordedEpisode]:
    """The episodes that were whole when somebody asked for a stop, or all."""
    played: list[RecordedEpisode] = []
    try:
        for seed in seeds:
            played.append(_play(env, player, protocol, seed, device, stopping))
    except Stopped:
        if not played:
            raise
    return played


def _play(
    env: gymnasium.Env,
    player: Player,
    protocol: Protocol,
    seed: int,
    device: str,
    stopping: Stopping,
) -> RecordedEpisode:
    game, carry = Game(env, protocol), player.begin(1)
    game.begin(seed)
    seen, steps = [game.obs], list[Transition]()
    while not game.over and game.length < longest_episode(protocol):
        if stopping():
            raise Stopped
        choice, carry = player.act(game.seen(device), carry, game.first(device))
        steps.append(game.step(int(choice)))
        seen.append(game.obs)
    return RecordedEpisode(
        seed=seed,
        obs=np.stack(seen),
        action=np.array([step.action for step in steps], np.int64),
        reward=np.array([step.reward for step in steps], np.float32),
        continues=np.array([step.continues for step in steps], np.float32),
        end="terminated" if game.terminated else "truncated",
    )
