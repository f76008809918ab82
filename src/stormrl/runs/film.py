"""Videos and pictures of an agent's dreams, over episodes that it plays for the purpose."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from stormrl.acting.collector import Collector
from stormrl.dreams.open_loop import OpenLoopError, open_loop_error
from stormrl.dreams.scenes import Scene, picture_rows, scenes
from stormrl.dreams.strips import LABELS, QUANTITIES, common_span, legend, panel, strip_rows
from stormrl.envs import find_protocol, make_env
from stormrl.errors import UserError
from stormrl.experience.replay import Replay
from stormrl.machine.device import Backend
from stormrl.machine.stop import Stopped, Stopping, never
from stormrl.pictures.media import (
    BORDER,
    GAP,
    Frames,
    Image,
    Row,
    contact_sheet,
    stack_rows,
    write_gif,
    write_mp4,
)
from stormrl.runs.agent import Agent
from stormrl.types import Batch

FPS = 8
LONGEST_PLAY = 500
"""Steps of an episode that are played at most; the filmed part lies anywhere in them."""
WINDOWS = 8
"""Windows of an episode, at most, that its open-loop error is measured on."""
COLUMNS = 16
"""Frames in a row of the contact sheet, at most."""


class Dreams(NamedTuple):
    """Dreams about freshly played episodes."""

    filmed: Sequence[Scene]
    """One scene of each of the first episodes."""
    error: OpenLoopError
    """Over several windows of every episode."""


def dream_film(agent: Agent, episodes: int, context: int, horizon: int, seed: int) -> Frames:
    """Real, reconstructed and dreamt frames, a column for each episode; uint8 [T, H, W, 3].

    The model sees `context` frames and dreams on for `horizon` under the actions that were taken,
    for less where an episode is shorter; in the last row the policy acts. Raises `UserError` for
    lengths that cannot be.
    """
    return film(dreams(agent, episodes, context, horizon, seed).filmed)


def dreams(
    agent: Agent,
    episodes: int,
    context: int,
    horizon: int,
    seed: int,
    temperature: float = 1.0,
    error_episodes: int = 1,
    stopping: Stopping = never,
) -> Dreams:
    """Scenes to look at, out of `episodes` fresh ones, and the open-loop error of more.

    Episode `i` is played with seed `seed + i`. Raises `UserError` for lengths that cannot be or a
    game that has changed, and `Stopped` as soon as `stopping`.
    """
    _check_lengths(context, horizon)
    agent.check_game(find_protocol(agent.config.protocol))
    with Backend(agent.device).fork_rng():
        torch.manual_seed(seed)
        count = max(episodes, error_episodes)
        played = [_play(agent, seed + index, stopping) for index in range(count)]
        length = min([context + horizon, *map(len, played)])
        if length <= context:
            shortest = f"the shortest episode has {length} steps"
            raise UserError("context", f"is {context}, but {shortest}; give less")
        filmed = _scenes(agent, _anywhere(played[:episodes], length), context, temperature)
        measured = [
            _scenes(agent, _spread(replay, length), context, temperature)
            for replay in _until(stopping, played[: max(error_episodes, 1)])
        ]
    return Dreams(filmed, open_loop_error(measured))


def film(filmed: Sequence[Scene]) -> Frames:
    """The scenes side by side with their curves, uint8 [T, H, W, 3]."""
    return stack_rows([*picture_rows(filmed), *strip_rows(filmed)])


def sheet(filmed: Sequence[Scene]) -> Image:
    """All scenes on one picture below each other, time from left to right."""
    return np.concatenate([_scene_sheet(scene, filmed) for scene in filmed])


def write_film(paths: Iterable[Path], film: Frames) -> None:
    """Write frames [T, H, W, 3] to each path, as GIF or as MP4 by its suffix."""
    for path in paths:
        write = write_gif if path.suffix.lower() == ".gif" else write_mp4
        write(path, film, FPS)


def _until(stopping: Stopping, played: Sequence[Replay]) -> Iterator[Replay]:
    for replay in played:
        if stopping():
            raise Stopped
        yield replay


def _anywhere(played: Sequence[Replay], length: int) -> Batch:
    """One window of each episode, drawn from torch's default generator."""
    windows = []
    for replay in played:
        start = torch.randint(len(replay) - length + 1, (1,)).to(replay.device)
        windows.append(replay.windows(start, length))
    return Batch(*(torch.cat(parts) for parts in zip(*windows, strict=True)))


def _spread(replay: Replay, length: int) -> Batch:
    """Windows of an episode that do not overlap: evenly over it, from anywhere on."""
    count = min(WINDOWS, len(replay) // length)
    every = len(replay) // count
    first = torch.randint(len(replay) - (count - 1) * every - length + 1, (1,))
    start = first + every * torch.arange(count)
    return replay.windows(start.to(replay.device), length)


def _scenes(agent: Agent, batch: Batch, context: int, temperature: float) -> list[Scene]:
    limit = agent.config.agent.dreamt_steps
    return scenes(agent.world_model, agent.actor_critic, batch, context, temperature, limit)


def _scene_sheet(scene: Scene, filmed: Sequence[Scene]) -> Image:
    """Frames of every course, and under them the curves in the same columns."""
    length = len(scene.real.frames)
    every = -(-length // COLUMNS)
    rows = picture_rows([scene])
    column = rows[0].frames.shape[2] + 2 * BORDER + GAP
    width = column * len(range(0, length, every)) - GAP - 2 * BORDER
    places = (np.arange(length) / every) * column + (column - GAP) / 2 - BORDER
    places = np.minimum(places, width - 1)
    curves = [
        Row(LABELS[name], panel(scene, name, common_span(filmed, name), places, width)[None])
        for name in QUANTITIES
    ]
    note = Row("", legend(width)[None], None, False)
    return contact_sheet(rows, every, [*curves, note])


def _play(agent: Agent, seed: int, stopping: Stopping = never) -> Replay:
    """An episode, or the beginning of a long one."""
    # A protocol may begin all episodes alike; a film shows different ones.
    protocol = replace(find_protocol(agent.config.protocol), fixed_seed_at_reset=False)
    env = make_env(agent.config.env, protocol, kwargs=agent.config.env_kwargs)
    replay = Replay.of(LONGEST_PLAY, agent.spaces.observation, agent.device)
    try:
        collector = Collector(env, protocol, agent.actor, replay, seed)
        while len(replay) < LONGEST_PLAY and collector.step(random=False) is None:
            if stopping():
                raise Stopped
    finally:
        env.close()
    return replay


def _check_lengths(context: int, horizon: int) -> None:
    for name, value in (("context", context), ("horizon", horizon)):
        if value < 1:
            raise UserError(name, f"is {value}; give 1 or more")
    if context + horizon > LONGEST_PLAY:
        limit = f"no more than {LONGEST_PLAY} steps of an episode are played"
        raise UserError("horizon", f"is {horizon} after {context} steps, but {limit}; give less")
