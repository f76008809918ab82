"""Nothing on the way from training to playing needs what only Linux has."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from small_runs import new_run
from stormrl.disk import files
from stormrl.disk.lock import HeldElsewhere, held
from stormrl.machine import system

ELSEWHERE = Path(__file__).parent / "elsewhere"
SMALL = ("--env", "stormrl/Catch-v0", "--size", "toy", "--device", "cpu", "--compile", "off")
SHORT = ("--steps", "42", "--replay.warmup", "40", "--evaluation-episodes", "1")
SOFT = ("-W", "ignore:only soft file lock")


def python(*args: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """In a process of its own, from whose Python those functions are gone."""
    paths = [str(ELSEWHERE), *sys.path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    return subprocess.run(
        [sys.executable, *args], capture_output=True, text=True, env=environment, cwd=folder
    )


def test_they_are_gone(tmp_path: Path) -> None:
    code = "import os, signal; print(hasattr(os, 'sched_getaffinity'), hasattr(signal, 'SIGHUP'))"
    done = python("-c", f"{code}\nimport fcntl", folder=tmp_path)
    assert done.stdout == "False False\n"
    assert "ModuleNotFoundError: import of fcntl halted" in done.stderr


PLAY = """
import sys
from stormrl.commands import play
class Served:
    def run(self, sockets):
        sockets[0].close()
play.web_server = lambda app: Served()
sys.exit(play.main(["run", "--port", "0", "--json"]))
"""


def test_from_training_to_playing_nothing_needs_them(tmp_path: Path) -> None:
    def told(*args: str) -> dict:
        done = python(*SOFT, *args, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    command = ("-m", "stormrl")
    trained = told(*command, "train", *SMALL, *SHORT, "--run-dir", "run", "--json")
    assert (trained["finished"], trained["step"]) == (True, 42)
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert record["hardware"]["memory"] == psutil.virtual_memory().total
    further = told(*command, "train", "--resume", "run", "--steps", "44", "--json")
    assert (further["finished"], further["step"]) == (True, 44)
    assert told(*command, "eval", "run", "--episodes", "1", "--json")["episodes"] == 1
    films = told(*command, "dream", "run", "--out", "film", "--error-episodes", "1", "--json")
    assert all((tmp_path / name).stat().st_size for name in films["files"])
    assert told(*command, "report", "run", "--out", "report.html", "--json")["out"]
    assert told(*command, "doctor", "run", "--json")["env"] == "stormrl/Catch-v0"
    assert told("-c", PLAY)["url"].startswith("http")


LOCKING = """
import sys
from pathlib import Path
from stormrl.disk.lock import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("paths", [[], [str(ELSEWHERE)]], ids=["here", "elsewhere"])
def test_a_lock_keeps_others_out_and_ends_with_its_holder(tmp_path: Path, paths: list[str]) -> None:
    """Killed, that is: nothing is left to free it but the system, or whoever comes next."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [*paths, *sys.path]))}
    command = [sys.executable, "-W", "ignore", "-c", LOCKING, str(tmp_path / "lock")]

    def started() -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment
        )

    with started() as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with started() as second:
            _, error = second.communicate("\n")
        assert second.returncode == 1
        assert f"HeldElsewhere: {first.pid}" in error
        first.kill()
    with started() as third:
        said, error = third.communicate("\n")
    assert said == "held\n", error


def test_a_lock_is_for_everybody_in_one_process_too(tmp_path: Path) -> None:
    with held(tmp_path / "lock"), pytest.raises(HeldElsewhere), held(tmp_path / "lock"):
        pass
    with held(tmp_path / "lock"):
        pass


def test_cores_are_those_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "Process", lambda: SimpleNamespace(cpu_affinity=lambda: [0, 2, 5]))
    assert system.usable_cores() == 3
    monkeypatch.setattr(psutil, "Process", SimpleNamespace)  # as on macOS
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    assert system.usable_cores() == 12


def test_folders_that_no_system_call_can_flush_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows opens no folder."""

    def refuse(path: Path, flags: int) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(os, "open", refuse)
    files.sync_folder(tmp_path)
    assert files.make_folder(tmp_path / "new") == [tmp_path / "new"]


def test_a_run_made_here_is_read_there(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    code = "import sys\nfrom stormrl.disk.run_directory import RunDirectory\n"
    read = (
        f"{code}run = RunDirectory.open(sys.argv[1])\nwith run.lock():\n    print(run.config.steps)"
    )
    done = python("-W", "ignore", "-c", read, str(run.path), folder=tmp_path)
    assert done.stdout == "60\n", done.stderr
