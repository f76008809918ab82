"""A start that is refused leaves nothing behind, and what may only be read is read."""

import json
from pathlib import Path

import pytest

from small_runs import go_on, new_run, small_config
from stormrl.cli import main
from stormrl.errors import UserError
from stormrl.machine import memory
from stormrl.runs import whole

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
    assert whole.train(small_config(steps=3), tmp_path / "run").finished


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
