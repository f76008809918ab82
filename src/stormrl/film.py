"""A film of an agent's dreams, over episodes that it plays for the purpose."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch

from stormrl.agent import Agent
from stormrl.collector import Collector
from stormrl.device import Backend
from stormrl.dream import dream_rows
from stormrl.envs import PROTOCOLS, game_sizes, make_env
from stormrl.errors import UserError
from stormrl.media import Frames, stack_rows, write_gif, write_mp4
from stormrl.replay import Replay
from stormrl.types import Batch

FPS = 8
LONGEST_PLAY = 500
"""Steps of an episode that are played at most; the filmed part lies anywhere in them."""


def dream_film(agent: Agent, episodes: int, context: int, horizon: int, seed: int) -> Frames:
    """Real, reconstructed and dreamt frames, a column for each episode; uint8 [T, H, W, 3].

    The model sees `context` frames and dreams on for `horizon` under the actions that were taken,
    for less where an episode is shorter. Raises `UserError` if the model cannot look so far.
    """
    _check_length(agent, context, horizon)
    with Backend(agent.device).fork_rng():
        torch.manual_seed(seed)
        windows = play_windows(agent, episodes, context + horizon, seed)
        if windows.action.shape[1] <= context:
            shortest = f"the shortest episode has {windows.action.shape[1]} steps"
            raise UserError("context", f"is {context}, but {shortest}; give less")
        return stack_rows(dream_rows(agent.world_model, windows, context))


def write_film(paths: Iterable[Path], film: Frames) -> None:
    """Write frames [T, H, W, 3] to each path, as GIF or as MP4 by its suffix."""
    for path in paths:
        write = write_gif if path.suffix.lower() == ".gif" else write_mp4
        write(path, film, FPS)


def play_windows(agent: Agent, episodes: int, length: int, seed: int) -> Batch:
    """A window out of each of `episodes` fresh episodes, all as long as the shortest allows."""
    played = [_play(agent, seed + index) for index in range(episodes)]
    length = min([length, *map(len, played)])
    windows = []
    for replay in played:
        start = torch.randint(len(replay) - length + 1, (1,)).to(replay.device)
        windows.append(replay.windows(start, length))
    return Batch(*(torch.cat(parts) for parts in zip(*windows, strict=True)))


def _play(agent: Agent, seed: int) -> Replay:
    """An episode, or the beginning of a long one."""
    # A protocol may begin all episodes alike; a film shows different ones.
    protocol = replace(PROTOCOLS[agent.config.protocol], fixed_seed_at_reset=False)
    env = make_env(agent.config.env, protocol)
    _, shape = game_sizes(env)
    replay = Replay(LONGEST_PLAY, shape, agent.device)
    collector = Collector(env, protocol, agent.actor, replay, seed)
    while len(replay) < LONGEST_PLAY and collector.step(random=False) is None:
        pass
    env.close()
    return replay


def _check_length(agent: Agent, context: int, horizon: int) -> None:
    for name, value in (("context", context), ("horizon", horizon)):
        if value < 1:
            raise UserError(name, f"is {value}; give 1 or more")
    positions = agent.config.agent.world_model.sequence.max_length
    if context + horizon > positions:
        limit = f"the model's world_model.sequence.max_length is {positions}"
        raise UserError("horizon", f"is {horizon} after {context} steps, but {limit}; give less")
