"""Episode recorder: plays whole episodes and keeps every step of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gymnasium
import numpy as np
import torch
from torch import Tensor

from stormrl.acting.evaluate import Player, RandomPlayer, longest_episode
from stormrl.acting.game import Game
from stormrl.disk.run_directory import is_pretrained
from stormrl.envs import Protocol, action_meanings, make_env
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
        """Actions for images [B, channels, height, width]."""
        return torch.full((len(obs),), self.action), carry


def record(
    env_id: str,
    protocol: Protocol,
    policy: str,
    episodes: int,
    seed: int = 0,
    device: str = "auto",
    stopping: Stopping = never,
) -> Recording:
    """Play `episodes` whole games, seeded `seed`, `seed + 1`, ...; fewer if `stopping` meanwhile.

    policy: `random`, `noop`, `constant:ACTION` with the action's word, or the directory of a run or
    `pretrained:NAME` (whose agent then plays on `device`). The random streams of the caller are
    left as they were. A game that does not end is truncated after `longest_episode` steps.
    Raises `UserError` for a policy that does not exist or that cannot play this game, `Stopped` if
    no episode is whole by then.
    """
    env = make_env(env_id, protocol)
    try:
        actions = action_meanings(env)
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
        word = policy.removeprefix(CONSTANT).upper()
        return ConstantPlayer(_action(word, actions)), "cpu"
    if not is_pretrained(policy) and not Path(policy).is_dir():
        known = "random, noop, constant:ACTION, the directory of a run or pretrained:NAME"
        raise UserError("policy", f"{policy!r} is unknown; give {known}")
    return _trained(policy, actions, device)


def _action(word: str, actions: Sequence[str]) -> int:
    if word not in actions:
        raise UserError("policy", f"there is no action {word!r}; give one of {', '.join(actions)}")
    return actions.index(word)


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
        choice, carry = player.act(game.image(device), carry, game.first(device))
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
