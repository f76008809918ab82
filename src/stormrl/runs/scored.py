"""Runs with evaluation scores: trained as far as they are not, evaluated unless they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from stormrl.config.json import CONFIG
from stormrl.config.parts import RunConfig
from stormrl.disk.run_directory import RunDirectory
from stormrl.envs import Protocol
from stormrl.errors import UserError
from stormrl.history.progress import Progress
from stormrl.runs import whole
from stormrl.runs.agent import Agent
from stormrl.scores.file import read_scores, write_scores
from stormrl.scores.published import game_of
from stormrl.scores.summary import mean_and_stderr
from stormrl.seeds import EVALUATION_SEED


class ScoredRun(NamedTuple):
    """A finished run and its score."""

    game: str
    """As in `Boxing`."""
    run: RunDirectory
    returns: tuple[float, ...]
    """Of its evaluation episodes."""

    @property
    def mean(self) -> float:
        """The score."""
        mean, _ = mean_and_stderr(self.returns)
        return mean


def train_on(config: RunConfig, path: Path, progress: Progress) -> bool:
    """Have the run of `config` in the directory `path`, whatever of it is there; True if finished.

    Raises `UserError` if another run is there.
    """
    if not (path / CONFIG).exists():
        return whole.train(config, path, progress).finished
    there = RunDirectory.open(path).config
    same = replace(
        config,
        device=there.device,
        compile=there.compile,
        precision=there.precision,
        evaluation_episodes=there.evaluation_episodes,
    )
    if there != same:
        remedy = "give another --folder, or take the run as it is with --runs"
        raise UserError("folder", f"{path} holds a run with other settings; {remedy}")
    return whole.resume(path, progress=progress).finished


def finished_runs(paths: Sequence[Path], games: Sequence[str]) -> list[RunDirectory]:
    """The runs of these games, or without any of all, in these directories.

    Raises `UserError` for one that is not finished, or that repeats another's game and seed.
    """
    found = distinct_runs(paths, games)
    for run in found:
        if not finished(run):
            done = f"{run.path} is at step {whole.steps_done(run.path)} of {run.config.steps}"
            remedy = f"go on with it: stormrl train --resume {run.path}"
            raise UserError("runs", f"{done}; {remedy}, or compare its curve with --unfinished")
    return found


def distinct_runs(paths: Sequence[Path], games: Sequence[str]) -> list[RunDirectory]:
    """The runs of these games, or without any of all, in these directories, finished or not.

    Raises `UserError` for one that repeats another's game and seed.
    """
    found: dict[tuple[str, int], RunDirectory] = {}
    for path in paths:
        run = RunDirectory.open(path)
        game = game_of(run.config.env)
        if games and game not in games:
            continue
        twin = found.setdefault((game, run.config.seed), run)
        if twin is not run:
            twins = f"{twin.path} and {path} both have seed {run.config.seed}"
            raise UserError("runs", f"{twins}: no two samples; leave one out")
    return list(found.values())


def finished(run: RunDirectory) -> bool:
    """Whether it has a checkpoint of its last step."""
    return whole.steps_done(run.path) >= run.config.steps


def scored(run: RunDirectory, protocol: Protocol, episodes: int, device: str) -> ScoredRun:
    """A run with its score under `protocol`: the one written down, or it is played now."""
    step = whole.steps_done(run.path)
    seeds = range(EVALUATION_SEED, EVALUATION_SEED + episodes)
    scores = read_scores(run.path, step, protocol.name, seeds)
    if scores is None:
        scores = whole.agent_scores(Agent.load(run.path, device=device), episodes, protocol)
        write_scores(run.path, step, protocol.name, scores)
    return ScoredRun(game_of(run.config.env), run, tuple(score.total for score in scores))
