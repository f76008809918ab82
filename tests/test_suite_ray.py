"""Suites on real Ray: what is killed goes on, and ends in the bits it would have had anyway."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress

import psutil
import pytest

from suite_runs import (
    GAME,
    FaultySuite,
    alive,
    amid_training,
    as_flags,
    differences,
    newest_checkpoint,
    reached,
    small_tasks,
    starts,
    suite_command,
    train_alone,
    wait_until,
)


@pytest.fixture
def suite_process():
    """Starts `stormrl suite` on a local Ray; whatever of it is left at the end is killed."""
    started: list[subprocess.Popen] = []

    def start(planned, out, *flags) -> subprocess.Popen:
        command = [*suite_command(planned, out), *flags]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, start_new_session=True, **pipes))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.mark.slow
def test_a_killed_worker_goes_on_from_its_checkpoint(tmp_path, suite_process):
    """One run, the smallest suite there is; its process gets SIGKILL amid training."""
    planned = small_tasks([1], steps=120, log_every=1, checkpoint_every=20)
    (task,) = planned
    run = tmp_path / "suite" / task.name
    suite = suite_process(planned, tmp_path / "suite", "--json")
    wait_until(lambda: amid_training(run, 120) or suite.poll() is not None, "a run in training")
    assert suite.poll() is None, suite.communicate()
    os.kill(starts(run)[0]["pid"], signal.SIGKILL)
    wait_until(lambda: not alive(starts(run)[0]["pid"]), "its end")
    lost, saved = reached(run), newest_checkpoint(run)
    printed, said = suite.communicate()
    assert suite.returncode == 0, said
    assert [start["step"] for start in starts(run)] == [0, saved]
    assert 0 <= lost - saved <= 20
    (record,) = json.loads(printed)["runs"]
    assert (record["state"], record["step"], record["attempts"]) == ("finished", 120, 2)
    train_alone(task, tmp_path / "alone")
    assert differences(planned, tmp_path / "suite", tmp_path / "alone") == {}


@pytest.mark.slow
def test_a_node_a_worker_and_the_driver_are_killed(tmp_path):
    planned = small_tasks([1, 2, 3, 4, 5, 6], steps=400, log_every=1, checkpoint_every=40)
    suite = FaultySuite(tmp_path / "suite", planned)
    with suite.cluster():
        suite.start_driver()
        suite.kill_node()
        suite.kill_worker()
        suite.kill_driver()
        suite.start_driver()
        assert suite.finish() == 0, suite.said
    twice = suite.trained_twice()
    assert 0 < sum(twice.values()) <= 40 * len(suite.interrupted)
    for task in planned:
        train_alone(task, tmp_path / "alone")
    assert differences(planned, tmp_path / "suite", tmp_path / "alone") == {}


@pytest.mark.slow
def test_stopped_suites_save_every_run_and_the_same_command_goes_on(tmp_path, suite_process):
    """Ctrl-C, then SIGTERM; kept at a URL, so that the sittings share nothing but the store."""
    planned = small_tasks([1, 2, 3], steps=300, log_every=1, checkpoint_every=1000)
    folder = tmp_path / "suite"

    def sitting(number: int, *flags: str) -> subprocess.Popen:
        scratch = str(tmp_path / f"scratch{number}")
        return suite_process(planned, f"file://{folder}", "--scratch", scratch, *flags)

    def training(number: int) -> list:
        runs = list((tmp_path / f"scratch{number}").glob("stormrl-suite-*/*"))
        begun = [run for run in runs if starts(run) and (run / "metrics.jsonl").exists()]
        return [run for run in begun if starts(run)[-1]["step"] + 10 < reached(run)]

    suite = sitting(1)
    running = wait_until(lambda: training(1), "a run in training")
    os.killpg(suite.pid, signal.SIGINT)  # as a terminal does: to everybody in the foreground
    _, said = suite.communicate()
    assert suite.returncode == 3, said
    assert "everything is saved" in said
    assert f"stormrl suite --games {GAME}" in said
    for run in running:
        assert newest_checkpoint(folder / run.name) > 10
    suite = sitting(2)
    wait_until(lambda: training(2), "a run in training again")
    suite.terminate()
    _, said = suite.communicate()
    assert suite.returncode == 3, said
    suite = sitting(3)
    _, said = suite.communicate()
    assert suite.returncode == 0, said
    for task in planned:
        train_alone(task, tmp_path / "alone")
    assert differences(planned, folder, tmp_path / "alone") == {}
    suite = sitting(4, "--json")
    printed, _ = suite.communicate()
    assert (suite.returncode, json.loads(printed)["finished"]) == (0, True)


@pytest.mark.slow
def test_a_run_that_cannot_succeed_is_given_up_in_one_line(tmp_path, suite_process):
    """A run directory that another process holds, as after the loss of contact to a machine."""
    from stormrl.disk.run_directory import RunDirectory

    planned = small_tasks([1, 2], steps=60)
    held = RunDirectory.create(tmp_path / planned[0].name, planned[0].config)
    with held.lock():
        suite = suite_process(planned, tmp_path, "--attempts", "2")
        _, said = suite.communicate()
    assert suite.returncode == 2
    last = said.splitlines()[-1]
    assert last.startswith(
        f"stormrl: suite: 1 of 2 runs are given up, the first is {held.path.name}"
    )
    assert "is in use by process" in last
    assert newest_checkpoint(tmp_path / planned[1].name) == 60


def test_training_never_imports_ray(tmp_path):
    """Nor does importing the package, or planning a suite."""
    planned = small_tasks([1], steps=20)
    code = (
        "import sys, stormrl\n"
        "from stormrl.cli import main\n"
        "train, plan = sys.argv[1].split('|'), sys.argv[2].split('|')\n"
        "assert main(train) == 0\n"
        "assert main(plan) == 0\n"
        "print([name for name in sys.modules if name.split('.')[0] == 'ray'])\n"
    )
    flags = as_flags(planned[0].config)
    train = ["train", "--env", GAME, "--run-dir", str(tmp_path / "run"), "--json", *flags]
    plan = ["suite", "--games", GAME, "--out", str(tmp_path), "--dry-run", "--json", *flags]
    done = subprocess.run(
        [sys.executable, "-c", code, "|".join(train), "|".join(plan)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_a_worker_that_hangs_is_ended_and_its_run_goes_on(tmp_path, suite_process):
    """One run; its process gets SIGSTOP amid training, and is no more at the end."""
    planned = small_tasks([1], steps=120, log_every=1, checkpoint_every=20)
    (task,) = planned
    run = tmp_path / "suite" / task.name
    suite = suite_process(planned, tmp_path / "suite", "--json", "--silence-minutes", "0.5")
    wait_until(lambda: amid_training(run, 120) or suite.poll() is not None, "a run in training")
    assert suite.poll() is None, suite.communicate()
    assert listening(suite.pid) == {"127.0.0.1"}
    hung = starts(run)[0]["pid"]
    os.kill(hung, signal.SIGSTOP)
    printed, said = suite.communicate()
    assert suite.returncode == 0, said
    assert not alive(hung)
    (record,) = json.loads(printed)["runs"]
    assert (record["state"], record["step"], record["attempts"]) == ("finished", 120, 2)
    train_alone(task, tmp_path / "alone")
    assert differences(planned, tmp_path / "suite", tmp_path / "alone") == {}


def listening(pid: int) -> set[str]:
    """Addresses on which a process and all that it has started take connections."""
    process = psutil.Process(pid)
    found = set()
    for one in [process, *process.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            ends = [end for end in one.net_connections() if end.status == psutil.CONN_LISTEN]
            found |= {end.laddr.ip.removeprefix("::ffff:") for end in ends}
    return found
