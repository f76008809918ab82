import itertools
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from faults import assert_tells_of_full_disk, crash, damages, failures, full_disk
from stormrl.config.parts import RunConfig
from stormrl.config.presets import agent_config
from stormrl.disk import run_directory
from stormrl.disk.run_directory import RunDirectory
from stormrl.errors import UserError
from stormrl.machine import provenance

CONFIG = RunConfig(env="stormrl/Catch-v0", seed=3, agent=agent_config("official", "toy"))


def rewrite(path: Path, **fields: Any) -> None:
    record = json.loads((path / "config.json").read_text()) | fields
    (path / "config.json").write_text(json.dumps(record))


def test_a_run_is_opened_with_the_config_it_was_made_with(tmp_path: Path) -> None:
    made = RunDirectory.create(tmp_path / "runs" / "a", CONFIG)
    opened = RunDirectory.open(str(tmp_path / "runs" / "a"))
    assert opened == made == RunDirectory(tmp_path / "runs" / "a", CONFIG)


def test_the_config_file_says_where_a_result_comes_from(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path, CONFIG)
    record = json.loads((tmp_path / "config.json").read_text())
    assert list(record) == [
        "format",
        "config",
        "spaces",
        "versions",
        "commit",
        "hardware",
        "command",
    ]
    assert record["format"] == run_directory.FORMAT
    assert record["config"]["agent"]["world_model"]["latent"]["classes"] == 16
    python = ".".join(map(str, sys.version_info[:3]))
    assert record["versions"].items() >= {"python": python}.items()
    assert record["versions"].keys() == {"python", "torch", "gymnasium", "ale_py", "stormrl"}
    assert record["hardware"].keys() == {"cpu", "cores", "memory", "gpu"}
    assert record["hardware"]["memory"] > 2**28
    assert record["command"] == sys.argv


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_is_that_of_the_packages_own_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "provenance.py"
    monkeypatch.setattr(provenance, "__file__", str(source))
    source.touch()
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "first")
    assert provenance.commit() is None, "installed inside of somebody else's repository"
    git(tmp_path, "add", "provenance.py")
    git(tmp_path, "commit", "-q", "-m", "second")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert provenance.commit() == commit
    source.write_text("edited")
    assert provenance.commit() == f"{commit}-dirty"


def test_a_directory_in_use_is_refused_with_two_ways_out(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path / "a", CONFIG)
    before = (tmp_path / "a" / "config.json").read_bytes()
    with pytest.raises(
        UserError, match=r"another name, or .* stormrl train --resume .*/a$"
    ) as error:
        RunDirectory.create(tmp_path / "a", replace(CONFIG, seed=4))
    assert error.value.field == "run_dir"
    assert (tmp_path / "a" / "config.json").read_bytes() == before


def test_a_foreign_directory_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    for attempt in (
        lambda: RunDirectory.create(tmp_path, CONFIG),
        lambda: RunDirectory.open(tmp_path),
    ):
        with pytest.raises(UserError, match=r"^run_dir: "):
            attempt()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("file", "is a file, or lies in one"),
        ("file/a", "is a file, or lies in one"),
        ("a" * 300, "File name too long"),
        ("a\0b", "cannot be the name of a directory"),
        ("a\ud800b", "cannot be the name of a directory"),
    ],
)
def test_an_impossible_path_is_refused(tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=message):
        RunDirectory.create(f"{tmp_path}/{path}", CONFIG)
    with pytest.raises(UserError, match=r"^run_dir: "):
        RunDirectory.open(f"{tmp_path}/{path}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission_is_said(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot be written: Permission denied"):
        RunDirectory.create(tmp_path / "a", CONFIG)
    tmp_path.chmod(0o700)
    run = RunDirectory.create(tmp_path / "a", CONFIG)
    (tmp_path / "a" / ".lock").unlink()
    (tmp_path / "a").chmod(0o500)
    with pytest.raises(UserError, match="cannot be locked: Permission denied"), run.lock():
        pass


def test_refusals_of_the_system_are_user_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", deny)
    with pytest.raises(UserError, match="cannot be written: Permission denied; give another place"):
        RunDirectory.create(tmp_path / "a", CONFIG)
    monkeypatch.undo()
    run = RunDirectory.create(tmp_path / "a", CONFIG)
    (tmp_path / "a" / ".lock").unlink(missing_ok=True)
    (tmp_path / "a" / ".lock").mkdir()
    with pytest.raises(UserError, match="cannot be locked: "), run.lock():
        pass


@pytest.mark.parametrize("fault", [full_disk, crash])
def test_a_directory_whose_making_failed_can_be_made_again(tmp_path: Path, fault: Any) -> None:
    paths = (tmp_path / str(number) for number in itertools.count())
    attempted = []

    def attempt() -> None:
        attempted.append(next(paths))
        RunDirectory.create(attempted[-1], CONFIG)

    for raised in failures(fault, attempt):
        if fault is full_disk:
            assert_tells_of_full_disk(raised)
        path = attempted[-1]
        if not (path / "config.json").exists():
            RunDirectory.create(path, CONFIG)
        assert RunDirectory.open(path).config == CONFIG


def test_a_damaged_config_is_said(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path, CONFIG)
    path = tmp_path / "config.json"
    path.write_bytes(path.read_bytes().rstrip())  # Without the line break every byte means much.
    for damage in damages(path):
        if damage != "flipped":  # It may well be another valid config.
            with pytest.raises(UserError, match=r"config\.json"):
                RunDirectory.open(tmp_path)


def test_a_link_out_of_the_run_is_refused(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", CONFIG)
    (tmp_path / "precious").write_text("all I have")
    (run.path / "videos").mkdir()
    (run.path / "scores.jsonl").symlink_to("metrics.jsonl")
    RunDirectory.open(run.path)
    for name, target in (("metrics.jsonl", "../precious"), ("videos/old", tmp_path)):
        (run.path / name).symlink_to(target)
        with pytest.raises(UserError, match=f"run/{name}: is a link out of the run"):
            RunDirectory.open(run.path)
        (run.path / name).unlink()


def test_a_missing_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^run_dir: .*/none does not exist"):
        RunDirectory.open(tmp_path / "none")
    with pytest.raises(UserError, match=r"^run_dir: .* has no config\.json"):
        RunDirectory.open(tmp_path)


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (3, "is 3 in .*, written by a newer version; this stormrl reads up to 2; upgrade"),
        (0, "is 0 in .*, which is no longer read; use the version of stormrl that wrote it"),
        (None, "is missing in "),
        (True, "is missing in "),
        ("1", "is missing in "),
    ],
)
def test_other_formats_are_refused_with_a_way_out(
    tmp_path: Path, version: object, message: str
) -> None:
    RunDirectory.create(tmp_path, CONFIG)
    rewrite(tmp_path, format=version)
    with pytest.raises(UserError, match=f"^format: {message}"):
        RunDirectory.open(tmp_path)


def test_an_older_format_is_migrated_step_by_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    RunDirectory.create(tmp_path, CONFIG)
    config = json.loads((tmp_path / "config.json").read_text())["config"]
    game = config.pop("env")
    rewrite(tmp_path, format=-1, config=config | {"game": game})

    def renamed(old: str, new: str) -> Any:
        def migrate(record: dict[str, Any]) -> dict[str, Any]:
            fields = dict(record["config"])
            return record | {"config": fields | {new: fields.pop(old)}}

        return migrate

    def dropping(name: str, migrate: Any) -> Any:
        def dropped(record: dict[str, Any]) -> dict[str, Any]:
            record = migrate(record)
            return record | {"config": {k: v for k, v in record["config"].items() if k != name}}

        return dropped

    migrations = {
        -1: dropping("game", renamed("game", "environment")),
        0: dropping("environment", renamed("environment", "env")),
    }
    monkeypatch.setattr(run_directory, "FORMAT", 1)
    monkeypatch.setattr(run_directory, "MIGRATIONS", migrations)
    assert RunDirectory.open(tmp_path).config == CONFIG


def test_a_wrong_field_is_named(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path, CONFIG)
    rewrite(tmp_path, config={"env": "a", "steps": "many"})
    with pytest.raises(UserError, match=r"^steps: is 'many'; give a whole number"):
        RunDirectory.open(tmp_path)


HOLDER = """
import sys, time
from stormrl.disk.run_directory import RunDirectory
with RunDirectory.open(sys.argv[1]).lock():
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_kept_out_until_the_first_is_gone(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, CONFIG)
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(UserError, match=f"is in use by process {holder.pid};"), run.lock():
            pass
        assert RunDirectory.open(tmp_path) == run, "looking is allowed"
        holder.send_signal(signal.SIGKILL)
    with run.lock():
        assert (tmp_path / ".lock").read_text().split()[0] == str(os.getpid())


def test_the_lock_is_free_again_after_use(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, CONFIG)
    refused = pytest.raises(UserError, match=f"in use by process {os.getpid()}")
    for _ in range(2):
        with run.lock(), refused, run.lock():
            pass
    with pytest.raises(KeyboardInterrupt), run.lock():
        raise KeyboardInterrupt
    with run.lock():
        pass
