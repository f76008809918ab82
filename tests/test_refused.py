"""A start that is refused leaves nothing behind, and what may only be read is read."""

import errno
import io
import itertools
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from small_runs import go_on, new_run, small_config
from stormrl.cli import main
from stormrl.config.parts import DemonstrationConfig, RunConfig
from stormrl.disk import jsonlines
from stormrl.disk.jsonlines import JsonLines, read_jsonlines
from stormrl.disk.run_directory import RunDirectory
from stormrl.envs import PROTOCOLS
from stormrl.errors import UserError
from stormrl.experience.episodes import write_recording
from stormrl.machine import memory
from stormrl.runs import whole
from stormrl.runs.recording import record
from stormrl.runs.trainer import Trainer
from stormrl.suite.plan import Task, check_games

GIB = 2**30


def groups(monkeypatch: pytest.MonkeyPatch, folder: Path, lines: str) -> None:
    (folder / "cgroup").write_text(lines)
    monkeypatch.setattr(memory, "GROUPS", folder / "cgroup")
    monkeypatch.setattr(memory, "ROOT", folder / "fs")


@pytest.mark.parametrize(
    ("lines", "files", "limit"),
    [
        ("0::/a/b\n", {"a/memory.max": "1073741824\n", "a/b/memory.max": "max\n"}, GIB),
        ("0::/outside\n", {"memory.max": "1073741824\n"}, GIB),
        ("0::/a\n", {"a/memory.max": "max\n"}, None),
        ("0::/a\n", {"a/memory.max": "4611686018427387904\n"}, None),
        (
            "4:cpu:/c\n3:memory,hugetlb:/a\n",
            {"memory/a/memory.limit_in_bytes": "1073741824\n", "c/memory.max": "1\n"},
            GIB,
        ),
        ("", {"memory.max": "1\n"}, None),
    ],
)
def test_a_container_has_the_memory_that_it_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: str, files: dict, limit: int | None
) -> None:
    groups(monkeypatch, tmp_path, "")
    machine = memory.available_memory()
    groups(monkeypatch, tmp_path, lines)
    for name, content in files.items():
        path = tmp_path / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    assert memory.available_memory() == (machine if limit is None else min(machine, limit))


def test_a_replay_that_finds_no_room_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stormrl.runs.whole.available_memory", lambda: 40 * 64 * 64 * 3 - 1)
    with pytest.raises(UserError, match=r"^replay\.capacity: takes"):
        whole.train(small_config(), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_compiling_without_a_compiler_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UserError, match=r"^compile: needs a C\+\+ compiler"):
        whole.train(small_config(compile="on"), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_what_fails_before_the_first_step_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise MemoryError

    monkeypatch.setattr("stormrl.runs.trainer.Learner", fail)
    with pytest.raises(MemoryError):
        whole.train(small_config(), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    assert whole.train(small_config(steps=20), tmp_path / "run").finished


def test_what_refuses_the_start_from_outside_leaves_nothing(tmp_path: Path) -> None:
    """Neither the folders around the run; those that were there stay, and so do others' files."""

    def refuse(trainer: Trainer) -> None:
        raise UserError("mine", "not today")

    def refuse_with_a_note(trainer: Trainer) -> None:
        (trainer.run.path / "note").write_text("mine")
        refuse(trainer)

    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="not today"):
        whole.train(small_config(), tmp_path / "there" / "new" / "run", started=refuse)
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]
    with pytest.raises(UserError, match="not today"):
        whole.train(small_config(), tmp_path / "run", started=refuse_with_a_note)
    assert {"config.json", "note"} <= {path.name for path in (tmp_path / "run").iterdir()}


def test_a_refused_login_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise UserError("wandb", "api_key not configured")

    monkeypatch.setattr("stormrl.runs.whole.import_wandb", lambda: None)
    monkeypatch.setattr("stormrl.runs.trainer.Wandb", refuse)
    with pytest.raises(UserError, match="api_key"):
        whole.train(small_config(), tmp_path / "run", wandb="project")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("after", range(2))
def test_a_disk_that_fills_while_the_directory_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    calls = itertools.count()
    sync = os.fsync

    def full(descriptor: int) -> None:
        if next(calls) > after:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left"):
        whole.train(small_config(), tmp_path / "run")
    monkeypatch.undo()
    assert whole.train(small_config(steps=17), tmp_path / "run").finished


@pytest.mark.parametrize(
    ("steps", "capacity", "field"),
    [(16, 40, "steps"), (3, 40, "steps"), (60, 16, "replay.capacity"), (16, 16, "steps")],
)
def test_a_run_that_would_never_train_is_refused(
    tmp_path: Path, steps: int, capacity: int, field: str
) -> None:
    """Warm-up takes 16 steps: the first update comes with the 17th in replay."""
    with pytest.raises(UserError, match="training begins after 16 random steps") as caught:
        whole.train(of_length(steps, capacity), tmp_path / "run")
    assert caught.value.field == field
    with pytest.raises(UserError, match="training begins after 16 random steps"):
        check_games([Task("run", of_length(steps, capacity))])
    assert list(tmp_path.iterdir()) == []


def test_one_step_beyond_the_warmup_trains_once(tmp_path: Path) -> None:
    trained: list[Trainer] = []
    whole.train(of_length(17, 17), tmp_path / "run", started=trained.append)
    assert trained[0].updated == 1


def of_length(steps: int, capacity: int) -> RunConfig:
    agent = small_config().agent
    replay = replace(agent.replay, capacity=capacity, warmup=16)
    return small_config(steps=steps, agent=replace(agent, replay=replay))


def test_room_is_made_for_the_demonstration_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """40 steps of replay and 20 of a demonstration."""
    demo = tmp_path / "demo.safetensors"
    rules = PROTOCOLS["atari100k"]
    recording = record("stormrl/Catch-v0", rules, "constant:LEFT", 2)
    write_recording(demo, recording)
    agent = replace(small_config().agent, demonstration=DemonstrationConfig(str(demo), 1, 2))
    room = (40 + recording.steps) * 64 * 64 * 3
    monkeypatch.setattr("stormrl.runs.whole.available_memory", lambda: room - 1)
    with pytest.raises(UserError, match=r"^replay\.capacity: takes .* with the demonstration"):
        whole.train(small_config(agent=agent), tmp_path / "run")
    assert list(tmp_path.iterdir()) == [demo]
    monkeypatch.setattr("stormrl.runs.whole.available_memory", lambda: room)
    assert whole.train(small_config(agent=agent, steps=45), tmp_path / "run").finished


@contextmanager
def read_only(run: Path) -> Iterator[None]:
    """Whatever would change something in the run is refused, as by a disk mounted so."""
    changing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    watching = True

    def watch(event: str, args: tuple) -> None:
        if not watching or event not in CHANGES or not isinstance(args[0], str | Path):
            return
        if not Path(args[0]).resolve().is_relative_to(run):
            return
        if event != "open" or args[2] & changing:
            raise OSError(errno.EROFS, "Read-only file system", str(args[0]))

    sys.addaudithook(watch)
    try:
        yield
    finally:
        watching = False


CHANGES = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.chmod"}


@pytest.mark.parametrize(
    "args",
    [
        ("eval", "RUN", "--episodes", "1", "--device", "cpu", "--json"),
        ("report", "RUN", "--out", "OUT/report.html", "--json"),
        ("doctor", "RUN", "--json"),
        ("dream", "RUN", "--device", "cpu", "--out", "OUT/film.json", "--json"),
        ("play", "RUN", "--port", "0", "--json"),
        ("record", "stormrl/Catch-v0", "--policy", "RUN", "--out", "OUT/x.safetensors", "--json"),
        ("export-official", "RUN", "--out", "OUT/weights"),
    ],
    ids=lambda args: args[0],
)
def test_reading_needs_no_writing(
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    args: tuple[str, ...],
) -> None:
    class Served:
        def run(self, sockets: list) -> None:
            sockets[0].close()

    monkeypatch.setattr("stormrl.commands.play.web_server", lambda app: Served())
    before = content(trained)
    with read_only(trained):
        words = (arg.replace("RUN", str(trained)).replace("OUT", str(tmp_path)) for arg in args)
        code = main([*words])
    told = capsys.readouterr()
    if args[0] == "export-official":  # Its networks are too small for that.
        assert "Read-only" not in told.err
    else:
        assert code == 0, told.err
        assert json.loads(told.out)
    assert content(trained) == before


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    whole.train(small_config(steps=20), run)
    return run


def content(run: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}


def test_eval_touches_no_history_of_a_run_that_trains(trained: Path, tmp_path: Path) -> None:
    """In the middle of a line, which the one who writes it will bring to its end."""
    run = shutil.copytree(trained, tmp_path / "run")
    for name in ("metrics.jsonl", "episodes.jsonl", "diagnosis.jsonl"):
        (run / name).write_text('{"step": 1}\n{"st')
    with RunDirectory.open(run).lock():
        assert main(["eval", str(run), "--episodes", "2", "--device", "cpu"]) == 0
    for name in ("metrics.jsonl", "episodes.jsonl", "diagnosis.jsonl"):
        assert (run / name).read_text() == '{"step": 1}\n{"st'
    assert len((run / "scores.jsonl").read_text().splitlines()) == 2


def test_a_line_that_is_being_written_is_not_cut_off(tmp_path: Path) -> None:
    path, reading = tmp_path / "scores.jsonl", jsonlines._last_line
    path.write_text('{"a": 1}\n{"b"')

    def read_and_go_on(file: io.BufferedRandom, end: int) -> bytes:
        content = reading(file, end)
        with path.open("a") as other:
            other.write(": 2}\n")
        return content

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonlines, "_last_line", read_and_go_on)
        lines = JsonLines(path)
    lines.write({"c": 3})
    lines.close()
    assert read_jsonlines(path) == [{"a": 1}, {"b": 2}, {"c": 3}]


def test_scores_of_a_run_that_cannot_be_written_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    new_run(tmp_path / "run")
    go_on(tmp_path / "run", stop_at=3)

    def refuse(*args: object) -> None:
        raise UserError("run", "is read-only")

    monkeypatch.setattr("stormrl.scores.file.write_scores", refuse)
    args = ["eval", str(tmp_path / "run"), "--episodes", "1", "--device", "cpu", "--json"]
    assert main(args) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["episodes"] == 1
    assert "kept nowhere: is read-only" in told.err
