"""Whole runs, for programs: what `stormrl train` and `stormrl eval` do."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import gymnasium
import torch

from stormrl.acting.evaluate import Score, evaluate
from stormrl.config.json import CONFIG, config_from_dict
from stormrl.config.limits import MAX_SIZE
from stormrl.config.parts import RunConfig, to_dict
from stormrl.disk import checkpoint
from stormrl.disk.files import read_json, replace
from stormrl.disk.run_directory import RunDirectory, migrated
from stormrl.envs import Protocol, find_protocol, make_env, spaces_of
from stormrl.envs.atari import is_atari
from stormrl.envs.make import find_spec
from stormrl.errors import UserError
from stormrl.experience.demonstration import check_demonstration
from stormrl.history.progress import Progress, SilentProgress
from stormrl.history.recorder import import_wandb
from stormrl.learning.size import check_size
from stormrl.machine.device import (
    choose_capture,
    choose_compile,
    choose_device,
    moved,
    settled,
    settled_before,
)
from stormrl.machine.memory import available_memory
from stormrl.machine.process import kept_process
from stormrl.machine.stop import Stopping, never
from stormrl.runs.agent import Agent, spaces_by_weights
from stormrl.runs.trainer import Outcome, Trainer, is_scored
from stormrl.seeds import EVALUATION_SEED
from stormrl.spaces import Spaces, bytes_of
from stormrl.worlds.own import own_config

Started = Callable[[Trainer], None]


@kept_process()
def train(
    config: RunConfig,
    run_dir: str | Path,
    progress: Progress | None = None,
    started: Started = lambda trainer: None,
    wandb: str | None = None,
) -> Outcome:
    """Train a new agent in a new directory.

    progress: shows how it goes; nothing by default. started: called before the first step. wandb:
    project of Weights & Biases to show the run in too.
    Ctrl-C saves and returns early; `resume` goes on. Raises `UserError`, before anything is
    written, if the run cannot be: unknown game or protocol, device or memory not there, nothing
    that would be learned, directory in use.
    What it sets for the process, random generators above all, is put back in the end.
    """
    config.check_trains()
    config.agent.check_positions()
    env = playable(config)
    with _closed_by_failure(env):
        spaces = spaces_of(env)
        shown_bytes = check_demonstration(config.agent, config.env, spaces)
        _check_memory(config, spaces, shown_bytes)
        if wandb is not None:
            import_wandb()
        run = RunDirectory.create(run_dir, settled(config), spaces)
        return _train(run, env, progress, started, wandb, run.discard)


@kept_process()
def resume(
    run_dir: str | Path,
    steps: int | None = None,
    progress: Progress | None = None,
    started: Started = lambda trainer: None,
    wandb: str | None = None,
    allow_import: Sequence[str] = (),
    device: str | None = None,
    max_size: int = MAX_SIZE,
) -> Outcome:
    """Go on with a run exactly where its last checkpoint was saved.

    steps: a new end of the run, beyond what it has done. A run that has finished is left as it is.
    wandb: as in `train`; what is not given again is not shown there any more. allow_import: modules
    of its environment that may be imported though they are not installed. device: another one than
    the run's, this time; from there on its bits are others. max_size: numbers that a part of it may
    hold.
    Raises `UserError` if the run cannot be read, asks for more, has gone beyond `steps`, or holds
    networks alone.
    """
    run = resumable(run_dir, allow_import)
    if run.spaces is not None:
        check_size(run.config.agent, run.spaces, max_size)
    if run.config.precision == "auto":
        precision = settled_before(moved(run.config, device)).precision
        run = _rewritten(run, dataclasses.replace(run.config, precision=precision))
    if steps is not None:
        run = _extended(run, steps)
    if is_finished(run, run.config.steps):
        return Outcome(run.config.steps, True, ())
    config = moved(run.config, device)
    env = playable(config)
    with _closed_by_failure(env):
        spaces = spaces_of(env)
        if run.spaces is None:
            run = _with_spaces(run, spaces)
            check_size(config.agent, spaces, max_size)
        _check_memory(config, spaces, 0 if run.demonstration is None else run.demonstration.bytes)
        run = dataclasses.replace(run, config=config)
        return _train(run, env, progress, started, wandb, lambda: None)


def resumable(run_dir: str | Path, allow_import: Sequence[str] = ()) -> RunDirectory:
    """The directory of a run that can be trained on.

    Raises `UserError` if it cannot be read, or was made of networks without optimizers and replay.
    """
    run = RunDirectory.open(run_dir, allow_import)
    states = checkpoint.states(run.path)
    if states and not any("replay" in state for state in states):
        problem = "holds no usable training state: networks alone, without optimizers and replay"
        raise UserError("run_dir", f"{run_dir} {problem}; start a new run")
    return run


def steps_done(run_dir: str | Path) -> int:
    """The step that a run goes on from: of its newest good checkpoint, 0 without one."""
    return checkpoint.newest(run_dir) or 0


def is_finished(run: RunDirectory, steps: int) -> bool:
    """Whether nothing is left to do up to that end: trained, saved, and scored if that is asked."""
    return steps_done(run.path) == steps and is_scored(run, steps)


def playable(config: RunConfig) -> gymnasium.Env:
    """The run's game. Raises `UserError` if this machine cannot start a run of `config`."""
    config_from_dict(to_dict(config), own_config)  # What cannot be read back must not be written.
    device = choose_device(config.device)
    choose_compile(config.compile, device)
    choose_capture(config.cuda_graph, device)
    return make_env(config.env, find_protocol(config.protocol), kwargs=config.env_kwargs)


def game_name(env_id: str) -> str:
    """As in `pong` for `ALE/Pong-v5`, fit for the name of a file."""
    return env_id.rpartition("/")[2].rpartition(":")[2].partition("-v")[0].lower()


def run_name(config: RunConfig) -> str:
    """Name of a run's directory, unless it is given one."""
    return f"{game_name(config.env)}-{config.preset}-{config.size}-seed{config.seed}"


def fresh(path: Path) -> Path:
    """`path`, or if that is there already the first of `path-2`, `path-3`, ... that is not."""
    names = (path.name if index == 1 else f"{path.name}-{index}" for index in count(1))
    return next(free for free in map(path.with_name, names) if not free.exists())


def frames_per_step(config: RunConfig) -> int | None:
    """Emulator frames in a step of the run's game; None for what is not emulated."""
    if not is_atari(find_spec(config.env)):
        return None
    return find_protocol(config.protocol).frame_skip


def agent_scores(
    agent: Agent,
    episodes: int | None = None,
    protocol: Protocol | None = None,
    seed: int = EVALUATION_SEED,
    stopping: Stopping = never,
) -> list[Score]:
    """What an agent reaches in its environment, every episode counted.

    protocol: by default the one it was trained under. episodes: by default as many as the protocol
    asks for. Raises `Stopped` as soon as `stopping`, and `UserError` if the game has changed.
    """
    protocol = protocol or find_protocol(agent.config.protocol)
    agent.check_game(protocol)
    episodes = episodes or protocol.evaluation_episodes
    config, device = agent.config, agent.device
    kwargs = config.env_kwargs
    return evaluate(agent.actor, config.env, protocol, episodes, seed, device, stopping, kwargs)


def _check_memory(config: RunConfig, spaces: Spaces, shown_bytes: int) -> None:
    """Raises `UserError` unless replay and demonstration find room; the networks are small."""
    device, steps = choose_device(config.device), min(config.agent.replay.capacity, config.steps)
    needed = steps * bytes_of(spaces.observation) + shown_bytes
    if device.type == "cuda":
        _, memory = torch.cuda.mem_get_info(device)
    else:
        memory = available_memory()
    if needed > memory:
        shown = " with the demonstration" if shown_bytes else ""
        sizes = f"takes {needed / 2**30:,.1f} GiB{shown} and {device} has {memory / 2**30:,.1f}"
        raise UserError("replay.capacity", f"{sizes}; give less")


@contextmanager
def _closed_by_failure(env: gymnasium.Env) -> Iterator[None]:
    try:
        yield
    except BaseException:
        env.close()
        raise


def _train(
    run: RunDirectory,
    env: gymnasium.Env,
    progress: Progress | None,
    started: Started,
    wandb: str | None,
    cannot_begin: Callable[[], None],
) -> Outcome:
    with run.lock():
        try:
            trainer = Trainer(run, progress or SilentProgress(), env, wandb)
            trainer.restore()
            started(trainer)
        except BaseException:
            cannot_begin()
            raise
        return trainer.train()


def _extended(run: RunDirectory, steps: int) -> RunDirectory:
    """The run with another end, in its config.json as well."""
    done = steps_done(run.path)
    if steps < done:
        raise UserError("steps", f"is {steps}, but {run.path} is at step {done}; give more")
    return _rewritten(run, dataclasses.replace(run.config, steps=steps))


def _with_spaces(run: RunDirectory, spaces: Spaces) -> RunDirectory:
    """A run of format 1 as one of today: what it saves from here on is read by no older version."""
    if steps_done(run.path):
        spaces_by_weights(run.path).check_same(spaces, run.config.env)
    return _rewritten(dataclasses.replace(run, spaces=spaces), run.config)


def _rewritten(run: RunDirectory, config: RunConfig) -> RunDirectory:
    """The run with another config, in its config.json as well."""
    record = migrated(read_json(run.path / CONFIG), run.path / CONFIG)
    spaces = None if run.spaces is None else run.spaces.to_json()
    record |= {"config": to_dict(config), "spaces": spaces}
    with run.lock():
        replace(run.path / CONFIG, json.dumps(record, indent=2).encode() + b"\n")
    return dataclasses.replace(run, config=config)
