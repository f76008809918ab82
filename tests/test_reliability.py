"""What goes wrong while a run goes on: it is saved first, and says in one line what it was."""

import errno
import io
import math
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import av
import av.error
import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from faults import no_space
from small_runs import (
    STEPS,
    assert_same_runs,
    before_step,
    go_on,
    history,
    new_run,
    opened,
    same_bits,
)
from stormrl.cli import main
from stormrl.commands.output import messages
from stormrl.disk import checkpoint
from stormrl.disk.jsonlines import JsonLines
from stormrl.disk.run_directory import RunDirectory
from stormrl.envs import Catch
from stormrl.errors import Fault, UserError
from stormrl.history.progress import TrainingProgress
from stormrl.learning.skipped import SkippedUpdates
from stormrl.learning.state import learner_tensors
from stormrl.machine.stop import StopRequest
from stormrl.runs import whole
from stormrl.runs.trainer import Trainer

SECOND = int(np.random.default_rng(0).integers(2**31))
"""Seed of the second episode of a run with seed 0."""


class Fragile(Catch):
    """Catch that does `mischief` in its step or reset number `at`, counted over all episodes."""

    mischief = ""
    at = 0
    calls = 0

    def reset(self, **kwargs: Any) -> Any:
        type(self).calls += self.mischief == "reset"
        if self.mischief == "reset" and self.calls == self.at:
            raise OSError("the ROM is gone")
        return super().reset(**kwargs)

    def step(self, action: Any) -> Any:
        obs, reward, *rest = super().step(action)
        type(self).calls += self.mischief != "reset"
        if self.calls == self.at:
            match self.mischief:
                case "step":
                    raise ValueError("no such\ncell")
                case "reward":
                    reward = math.nan
        return obs, reward, *rest


class Moody(Catch):
    """Not even reset(seed) makes it repeat itself."""

    def _start_fall(self) -> None:
        super()._start_fall()
        self.ball_column = int(np.random.default_rng().integers(8))


@pytest.fixture(autouse=True, scope="module")
def registered() -> Any:
    for env in (Fragile, Moody, Unclosable):
        gymnasium.register(f"test/{env.__name__}-v0", f"{__name__}:{env.__name__}")
    yield
    for env in (Fragile, Moody, Unclosable):
        gymnasium.registry.pop(f"test/{env.__name__}-v0")


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a line of metrics for each step, which nothing befell."""
    path = tmp_path_factory.mktemp("runs") / "logged"
    new_run(path, log_every=1)
    go_on(path)
    return path


def fragile_run(path: Path, monkeypatch: pytest.MonkeyPatch, mischief: str, at: int) -> None:
    new_run(path, env="test/Fragile-v0")
    for name, value in {"mischief": mischief, "at": at, "calls": 0}.items():
        monkeypatch.setattr(Fragile, name, value)


@pytest.mark.parametrize(
    ("mischief", "at", "saved_at", "said"),
    [
        ("step", 30, 29, "raised in step 30 of the episode with seed 0: ValueError: no such cell"),
        ("reward", 30, 29, "gave a reward of nan in step 30 of the episode with seed 0"),
        ("reset", 2, 39, f"raised in the reset with seed {SECOND}: OSError: the ROM is gone"),
    ],
)
def test_a_run_is_saved_before_the_environment_is_blamed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mischief: str,
    at: int,
    saved_at: int,
    said: str,
) -> None:
    fragile_run(tmp_path / "run", monkeypatch, mischief, at)
    with pytest.raises(Fault) as fault:
        go_on(tmp_path / "run")
    assert fault.value.field == "env"
    assert fault.value.message == (
        f"test/Fragile-v0 {said}; the run is saved at step {saved_at}, more is in "
        f"{tmp_path}/run/failure.txt; put that right, then go on with stormrl train --resume "
        f"{tmp_path}/run"
    )
    assert "test_reliability.py" in (tmp_path / "run/failure.txt").read_text() or (
        mischief == "reward"
    )
    monkeypatch.setattr(Fragile, "mischief", "")
    trainer = go_on(tmp_path / "run")
    assert trainer.step == trainer.replay.added == STEPS
    episodes = history(tmp_path / "run", "episodes.jsonl")
    assert [(e["step"], e["length"]) for e in episodes] == [(39, 39)]
    assert trainer.replay.is_first.nonzero().flatten().tolist() == [39]


def test_a_failing_environment_is_one_line_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fragile_run(tmp_path / "run", monkeypatch, "step", 5)
    assert main(["train", "--resume", str(tmp_path / "run"), "--json"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("stormrl: env: test/Fragile-v0 raised in step 5 ")
    assert printed.err.count("\n") == 1


def test_an_environment_that_does_not_come_back_closes_its_episode(tmp_path: Path) -> None:
    new_run(tmp_path / "run", env="test/Moody-v0", steps=70)
    said = []
    go_on(tmp_path / "run", stop_at=30)
    trainer = opened(tmp_path / "run")
    trainer.progress.message = said.append  # type: ignore[method-assign]
    trainer.train()
    first, second = history(tmp_path / "run", "episodes.jsonl")
    assert (first["step"], first["length"], first["cut_short"]) == (30, 30, True)
    assert (second["step"], second["length"]) == (69, 39)
    assert "cut_short" not in second
    newest = trainer.replay.windows(torch.tensor([0]), 40)  # from step 30 on
    assert newest.is_first[0].nonzero().flatten().tolist() == [0, 39]
    assert checkpoint.load(tmp_path / "run").warnings == ()
    assert said[0].startswith("step 30: test/Moody-v0 did not come back to its saved state")


def parameters(trainer: Trainer, part: str) -> dict[str, Tensor]:
    """Everything that an update of a part may change, copied."""
    return {
        f"{group}.{name}": tensor.detach().clone()
        for group, tensors in learner_tensors(trainer.learner).items()
        for name, tensor in tensors.items()
        if group in {"world": ("world_model", "world_optimizer")}.get(part, ("actor_critic",))
    }


def test_numbers_that_are_not_finite_stop_the_run_and_are_diagnosed(tmp_path: Path) -> None:
    new_run(tmp_path / "run", max_skipped=5)
    trainer = opened(tmp_path / "run")
    before = {}

    def damage() -> None:
        before.update(parameters(trainer, "world"))
        trainer.replay.reward[:] = math.nan

    before_step(trainer, 30, damage)
    said = "^max_skipped: 6 updates of the world_model in a row met .*, at step [0-9]+; the run is"
    with pytest.raises(Fault, match=said):
        trainer.train()
    after = parameters(trainer, "world")
    assert all(same_bits(before[name], after[name]) for name in before)
    assert checkpoint.load(tmp_path / "run").step == 35
    (line,) = history(tmp_path / "run", "diagnosis.jsonl")
    assert line["written_at_step"] == line["step"] == 35
    assert (line["part"], line["skipped"], line["longest"]) == ("world_model", 6, 6)
    assert line["metrics"]["gradient_norm"] == line["metrics"]["reward"] == "nan"
    steps = {first + offset for first in line["windows"] for offset in range(line["length"])}
    assert line["damaged"] == {
        "reward": sorted(step for step in steps if step < 29),
        "continues": [],
    }


def test_gradients_that_are_not_finite_are_skipped_and_diagnosed(tmp_path: Path) -> None:
    """Three in a row stop no run that bears ten; a stop in between changes nothing of it."""
    for name, stop_at in (("whole", None), ("cut", 30)):
        new_run(tmp_path / name)
        trainer = opened(tmp_path / name)
        overflow_after(trainer, 28)
        if stop_at is not None:
            before_step(trainer, stop_at, lambda: os.kill(os.getpid(), signal.SIGTERM))
        trainer.train()
        if stop_at is not None:
            trainer = opened(tmp_path / name)
            overflow_after(trainer, 28)
            trainer.train()
    (line,) = history(tmp_path / "whole", "diagnosis.jsonl")
    assert (line["part"], line["skipped"], line["longest"], line["step"]) == ("agent", 3, 3, 31)
    assert line["metrics"]["gradient_norm"] == "inf"
    assert line["damaged"] == {"reward": [], "continues": []}
    metrics = {each["step"]: each for each in history(tmp_path / "whole", "metrics.jsonl")}
    assert metrics[35]["agent/skipped"] == pytest.approx(3 / 7, rel=1e-5)
    assert_same_runs(tmp_path / "whole", tmp_path / "cut")


def overflow_after(trainer: Trainer, step: int) -> None:
    """In the three steps that follow, a gradient of the actor overflows."""
    parameter = next(iter(trainer.learner.actor_critic.parameters()))

    def hook(gradient: Tensor) -> Tensor:
        return gradient + math.inf if step < trainer.step <= step + 3 else gradient

    parameter.register_hook(hook)


def test_counting_skipped_updates_never_asks_the_device(tmp_path: Path) -> None:
    agent = new_run(tmp_path / "run").config.agent
    with FakeTensorMode():  # Its tensors hold no numbers: whoever looks at one fails.
        skipped = SkippedUpdates(agent, torch.device("cpu"))
        metrics = {"skipped": torch.ones(()), "loss": torch.zeros(())}
        for step in range(3):
            skipped.note("world_model", step, metrics, torch.zeros(2, dtype=torch.int64))
        with pytest.raises(DataDependentOutputException):
            bool(metrics["skipped"])


class Full:
    """Stands before a file on a disk that has no space left."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, content: bytes) -> int:
        raise no_space()


def fill_metrics(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: JsonLines = trainer.recorder._metrics
    monkeypatch.setattr(lines, "_file", Full(lines._file))


def fill_tensorboard(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    writer: Any = trainer.recorder._sinks[0]
    records = writer._writer.file_writer.event_writer._async_writer._writer._writer
    monkeypatch.setattr(records, "write", Full(None).write)
    monkeypatch.setattr(records, "flush", lambda: Full(None).write(b""))


def fill_videos(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise av.error.OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(av, "open", refuse)


def test_a_full_disk_ends_the_run_and_leaves_its_checkpoint(
    logged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_run(tmp_path / "run", log_every=1)
    trainer = opened(tmp_path / "run")
    before_step(trainer, 30, lambda: fill_metrics(trainer, monkeypatch))
    with pytest.raises(UserError, match=r"^run_dir: cannot write to .*: No space left") as error:
        trainer.train()
    assert error.value.message.endswith(f"free space, then go on with {resume(tmp_path / 'run')}")
    assert checkpoint.load(tmp_path / "run").step == 25
    monkeypatch.undo()
    go_on(tmp_path / "run")
    assert_same_runs(logged, tmp_path / "run")


@pytest.mark.parametrize(
    ("fill", "said"),
    [(fill_tensorboard, "TensorBoard gets nothing more"), (fill_videos, "mp4 is not written")],
)
def test_what_is_only_looked_at_ends_no_run(
    logged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fill: Any, said: str
) -> None:
    hook = threading.excepthook
    new_run(tmp_path / "run", dream_every=40, log_every=1)
    trainer = opened(tmp_path / "run")
    told: list[str] = []
    trainer.progress.message = told.append  # type: ignore[method-assign]
    before_step(trainer, 30, lambda: fill(trainer, monkeypatch))
    assert trainer.train().finished
    assert threading.excepthook is hook
    assert [said in text for text in told] == [True]
    assert "No space left on device" in told[0]
    assert_same_runs(logged, tmp_path / "run")


class Bug(Exception):
    """Nobody knows of it."""


def fail(*args: Any, **kwargs: Any) -> Any:
    raise Bug("of one's own")


def break_second_update(trainer: Trainer) -> None:
    trainer.updates = [trainer.updates[0], trainer.updates[1]._replace(update=fail)]


def break_acting(trainer: Trainer) -> None:
    trainer.actor.act = fail


def break_progress(trainer: Trainer) -> None:
    trainer.progress.update = fail


def break_replay(trainer: Trainer) -> None:
    trainer.replay.add = fail


@pytest.mark.parametrize(
    ("break_something", "saved_at"),
    [
        (break_acting, 29),
        (break_replay, 25),  # The game has taken a step that replay does not know of.
        (break_second_update, 25),  # The world model is ahead of the agent.
        (break_progress, 30),
    ],
)
def test_whatever_is_raised_the_run_is_saved_but_no_half_step(
    logged: Path, tmp_path: Path, break_something: Any, saved_at: int
) -> None:
    new_run(tmp_path / "run", log_every=1)
    trainer = opened(tmp_path / "run")
    before_step(trainer, 30, lambda: break_something(trainer))
    with pytest.raises(Bug) as raised:
        trainer.train()
    (note,) = raised.value.__notes__
    assert f"the run is saved at step {saved_at}, more is in {tmp_path}/run/failure.txt" in note
    assert resume(tmp_path / "run") in note
    assert checkpoint.load(tmp_path / "run").step == saved_at
    assert "of one's own" in (tmp_path / "run/failure.txt").read_text()
    go_on(tmp_path / "run")
    assert_same_runs(logged, tmp_path / "run")


def test_a_run_is_saved_before_an_evaluation_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_run(tmp_path / "run", evaluation_episodes=1)
    monkeypatch.setattr("stormrl.runs.trainer.evaluate", fail)
    with pytest.raises(Bug):
        go_on(tmp_path / "run")
    assert checkpoint.load(tmp_path / "run").step == STEPS
    assert not whole.is_finished(RunDirectory.open(tmp_path / "run"), STEPS)


def test_a_run_trains_in_any_thread(tmp_path: Path) -> None:
    new_run(tmp_path / "run", steps=20)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(whole.resume, tmp_path / "run").result().finished


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_a_closed_terminal_and_a_scheduler_ask_for_a_stop(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert not stop.asked()
        for _ in range(3):  # Both are sent more than once.
            signal.raise_signal(number)
        assert stop.asked()
        signal.raise_signal(signal.SIGTERM)  # The first that insists.
    assert signal.getsignal(number) == before


BUSY = """
import hashlib, sys
from stormrl.machine.stop import StopRequest

def heard(times):
    print("heard", times, flush=True)

with StopRequest(heard) as stop:
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"one", b"long operation", {rounds})  # seconds without Python
    print("over", stop.asked(), flush=True)
"""


def test_a_stop_is_answered_in_the_middle_of_a_long_operation() -> None:
    code = BUSY.format(rounds=4_000_000)
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as busy:
        assert busy.stdout is not None
        assert busy.stdout.readline() == "ready\n"
        busy.send_signal(signal.SIGINT)
        assert busy.stdout.read() == "heard 1\nover True\n"
    assert busy.returncode == 0


def test_a_second_one_leaves_at_once() -> None:
    command = [sys.executable, "-c", BUSY.format(rounds=1_000_000_000)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as busy:
        assert busy.stdout is not None
        assert busy.stdout.readline() == "ready\n"
        for times in (1, 2):
            busy.send_signal(signal.SIGINT)
            assert busy.stdout.readline() == f"heard {times}\n"
        assert busy.wait(20) == 128 + signal.SIGINT


def test_who_asked_for_no_hangups_gets_none() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with StopRequest() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop.asked()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_run_goes_on_when_nobody_is_left_to_read_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    new_run(tmp_path / "run", steps=20)
    with os.fdopen(writing, "wb", buffering=0) as gone:
        monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(gone, write_through=True))
        with pytest.raises(BrokenPipeError):
            sys.stderr.write("is anybody there?")
        progress = TrainingProgress(20)
        assert whole.resume(tmp_path / "run", progress=progress).finished
        messages().print("nor here")
        monkeypatch.undo()


class Unclosable(Catch):
    def close(self) -> None:
        raise AttributeError("the display is gone")


def test_an_environment_that_cannot_be_closed_is_told_of_and_let_go(tmp_path: Path) -> None:
    new_run(tmp_path / "run", env="test/Unclosable-v0", steps=20)
    with pytest.warns(UserWarning, match=r"Unclosable-v0 raised in close\(\): AttributeError"):
        assert whole.resume(tmp_path / "run").finished


def resume(run: Path) -> str:
    return f"stormrl train --resume {run}"


SLOW_SAVE = """
import sys, time
from stormrl.disk import checkpoint, tensor_files
from stormrl.runs import whole

to_bytes = tensor_files.to_bytes

def slow(*args):
    if checkpoint.steps(sys.argv[1]):
        print("saving", flush=True)
        time.sleep(30)
    return to_bytes(*args)

tensor_files.to_bytes = slow
whole.resume(sys.argv[1])
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once_and_harms_no_checkpoint(
    tmp_path: Path, number: signal.Signals
) -> None:
    new_run(tmp_path / "run")
    command = [sys.executable, "-c", SLOW_SAVE, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "saving\n"
        process.send_signal(number)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)  # The first one is only a request.
        process.send_signal(number)
        assert process.wait(5) == 128 + number
    assert checkpoint.load(tmp_path / "run").warnings == ()
    assert checkpoint.load(tmp_path / "run").step == 25
    assert go_on(tmp_path / "run").step == STEPS


def test_two_processes_do_not_train_one_run(tmp_path: Path) -> None:
    new_run(tmp_path / "run")
    command = [sys.executable, "-c", SLOW_SAVE, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "saving\n"
        second = [sys.executable, "-m", "stormrl", "train", "--resume", str(tmp_path / "run")]
        done = subprocess.run(second, capture_output=True, text=True, timeout=60)
        first.kill()
    said = f"stormrl: run_dir: {tmp_path}/run is in use by process {first.pid}; wait for its end"
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{said} or stop it\n"
