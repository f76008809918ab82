"""Whole runs of a few seconds for tests: started, interrupted, killed, compared."""

import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from miniature import shrunk
from stormrl.config.parts import RunConfig
from stormrl.disk import checkpoint
from stormrl.disk.run_directory import RunDirectory
from stormrl.experience.replay import Replay
from stormrl.experience.store import ReplayStore
from stormrl.history.progress import SilentProgress
from stormrl.runs import whole
from stormrl.runs.trainer import Trainer
from stormrl.spaces import ImageSpace
from stormrl.types import Batch

STEPS = 60
WARMUP = 16


def small_config(**fields) -> RunConfig:
    """60 steps, of which replay keeps 40."""
    agent = shrunk()
    settings = {
        "env": "stormrl/Catch-v0",
        "steps": STEPS,
        "agent": replace(agent, replay=replace(agent.replay, capacity=40, warmup=WARMUP)),
        "log_every": 7,
        "checkpoint_every": 25,
        "dream_every": 0,
        "evaluation_episodes": 0,
        "compile": "off",
        "device": "cpu",
        "precision": "fp32",
    }
    return RunConfig(**(settings | fields))


def new_run(path: Path, **fields) -> RunDirectory:
    """The directory of a run of 60 steps."""
    return RunDirectory.create(path, small_config(**fields))


def opened(path: Path) -> Trainer:
    """The trainer of a run, where its last checkpoint left it."""
    trainer = Trainer(RunDirectory.open(path), SilentProgress())
    trainer.restore()
    return trainer


def before_step(trainer: Trainer, number: int, event: Callable[[], None]) -> None:
    """Let something happen right before an environment step."""
    step = trainer.collector.step

    def event_then_step(random: bool):
        if trainer.step + 1 == number:
            event()
        return step(random)

    trainer.collector.step = event_then_step


def go_on(path: Path, stop_at: int | None = None) -> Trainer:
    """Train until the end, or until a SIGTERM during step `stop_at`."""
    trainer = opened(path)
    if stop_at is not None:
        before_step(trainer, stop_at, lambda: os.kill(os.getpid(), signal.SIGTERM))
    trainer.train()
    return trainer


def history(run: Path, name: str) -> list[dict]:
    lines = [json.loads(line) for line in (run / name).read_text().splitlines()]
    for line in lines:
        line.pop("wall_s", None)  # The one thing that two runs may differ in.
    return lines


def assert_same_runs(first: Path, second: Path) -> None:
    """The same histories and, bit for bit, the same last checkpoint: every tensor in it."""
    for name in ("metrics.jsonl", "episodes.jsonl", "scores.jsonl", "diagnosis.jsonl"):
        assert history(first, name) == history(second, name)
    one, other = checkpoint.load(first), checkpoint.load(second)
    assert one.step == other.step
    assert one.tensors.keys() == other.tensors.keys()
    for group, tensors in one.tensors.items():
        assert tensors.keys() == other.tensors[group].keys()
        for name, tensor in tensors.items():
            assert same_bits(tensor, other.tensors[group][name]), (group, name)
    for steps, others in zip(stored_steps(first), stored_steps(second), strict=True):
        assert torch.equal(steps, others)


def stored_steps(run: Path) -> Batch:
    """All that replay on disk holds, oldest first."""
    directory = RunDirectory.open(run)
    seen = directory.spaces.observation if directory.spaces else ImageSpace(64, 64, 3)
    replay = Replay.of(directory.config.agent.replay.capacity, seen)
    ReplayStore(run / "replay").restore(replay, checkpoint.load(run).state["replay"])
    return replay.windows(torch.tensor([0]), len(replay))


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return (a.dtype, a.shape) == (b.dtype, b.shape) and a.numpy().tobytes() == b.numpy().tobytes()


def resume(run: str, threads: int | None) -> None:
    if threads is not None:
        torch.set_num_threads(threads)
    whole.resume(run)


def started(run: Path, threads: int | None = None) -> BaseProcess:
    """A process that goes on with a run; forked from one that has imported what it takes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["stormrl.runs.whole", "torch._dynamo", "torch.utils.tensorboard"]
    )
    process = context.Process(target=resume, args=(str(run), threads))
    process.start()
    return process
