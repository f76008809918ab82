"""What was played, kept as files: episodes and a video."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from stormrl.experience.episodes import RecordedEpisode, Recording, write_recording
from stormrl.pictures.media import Image, stream_mp4, upscale
from stormrl.pictures.vectors import shown

LONGEST = 5_000
"""Steps of a recording; about 120 MB while it is being made."""
SCALE = 4


class Played(NamedTuple):
    """One step on one side."""

    action: int
    reward: float
    continues: float
    obs: np.ndarray
    """What it led to."""
    end: Literal["terminated", "truncated"] | None
    """How the episode ended there, if it did."""


class Tape:
    """The steps on one side; whenever a game begins or is left, an episode does too."""

    def __init__(self) -> None:
        self.episodes: list[RecordedEpisode] = []
        self.first: np.ndarray | None = None
        self.steps: list[Played] = []

    def begin(self, obs: np.ndarray | None) -> None:
        """A game that starts with `obs`; without one nothing is recorded until it does."""
        self.finish("truncated")
        self.first, self.steps = obs, []

    def add(self, step: Played) -> None:
        """One more step, unless the game is over."""
        if self.first is None:
            return
        self.steps.append(step)
        if step.end is not None:
            self.finish(step.end)
            self.first, self.steps = None, []

    def finish(self, end: Literal["terminated", "truncated"]) -> None:
        """The steps so far as an episode; the next one would go on from here."""
        steps, first = self.steps, self.first
        if not steps or first is None:
            return
        continues = np.array([step.continues > 0.5 for step in steps], np.float32)
        if end == "terminated":
            continues[-1] = 0
        self.episodes.append(
            RecordedEpisode(
                seed=None,  # Where a recording begins, the game is not fresh from a reset.
                obs=np.stack([first, *(step.obs for step in steps)]),
                action=np.array([step.action for step in steps], np.int64),
                reward=np.array([step.reward for step in steps], np.float32),
                continues=continues,
                end=end,
            )
        )
        self.first, self.steps = steps[-1].obs, []


class PlayFilm(NamedTuple):
    """A whole recording."""

    tapes: dict[str, Tape]
    """By side: real and dream."""
    frames: list[dict[str, np.ndarray]]
    """By step the frames that were shown, by side."""
    fps: float


def save(
    film: PlayFilm, stem: Path, env: str, protocol: str, run: str, words: Sequence[str]
) -> list[Path]:
    """Write an episode file for each side on which something was played, and a video."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = []
    for side, tape in film.tapes.items():
        tape.finish("truncated")
        if tape.episodes:
            path = stem.with_name(f"{stem.name}-{side}.safetensors")
            policy = f"play, in the {'dream' if side == 'dream' else 'game'} of {run}"
            recording = Recording(env, protocol, policy, tuple(words), tuple(tape.episodes))
            write_recording(path, recording)
            paths.append(path)
    if film.frames:
        path = stem.with_name(f"{stem.name}.mp4")
        stream_mp4(path, _pictures(film), film.fps)
        paths.append(path)
    return paths


def _pictures(film: PlayFilm) -> Iterator[Image]:
    """Frames of the video, made as they are written: a long one would not fit into memory."""
    sides = [side for side in film.tapes if any(side in seen for seen in film.frames)]
    blank = np.zeros_like(next(iter(film.frames[0].values())))
    for seen in film.frames:
        frames = [upscale(shown(seen.get(side, blank)), SCALE) for side in sides]
        gap = np.zeros((frames[0].shape[0], 8, 3), np.uint8)
        yield np.concatenate([part for frame in frames for part in (gap, frame)][1:], axis=1)
