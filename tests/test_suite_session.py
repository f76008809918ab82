"""Handing out, trying again, giving up and stopping, with machines that do as they are told."""

import dataclasses
import os
import stat
import tempfile
import time
from contextlib import nullcontext

import pytest

from small_runs import before_step, small_config
from stormrl.config.parts import to_dict
from stormrl.disk import checkpoint, private
from stormrl.runs.trainer import Trainer
from stormrl.suite import session as sessions
from stormrl.suite.heartbeat import NEAR_S, Heartbeat, Sign, last_sign
from stormrl.suite.plan import SuitePlan, Task, tasks
from stormrl.suite.session import SuiteSession
from stormrl.suite.share import Share
from stormrl.suite.standing import Standing, read_standing
from stormrl.suite.storage import Storage
from stormrl.suite.table import eta_s, suite_table, summary
from stormrl.suite.work import THREADS, Ended, Job, work


class ScriptedPool:
    """Ends every attempt at a job as its script says; a number is a checkpoint it leaves first.

    What can be called is what a job does that goes on.
    """

    def __init__(self, storage: Storage, **scripts: list) -> None:
        self.storage, self.scripts = storage, scripts
        self.submitted: list[Job] = []
        self.stopped = False
        self.killed: list[tuple[str, Sign]] = []
        self._open: list[Job] = []

    def submit(self, job: Job, share: Share) -> None:
        self.submitted.append(job)
        self._open.append(job)

    def wait(self, timeout_s: float) -> list[tuple[str, Ended]]:
        job = self._open.pop(0)
        if self.stopped:
            return [(job.name, Ended(0, False))]
        outcome = self.scripts[job.name].pop(0)
        if callable(outcome):
            outcome()
            time.sleep(timeout_s)
            self._open.append(job)
            return []
        if isinstance(outcome, int):
            checkpoint.save(self.storage.path(job.name), outcome, {}, {})
            outcome = Ended(outcome, False, "the machine is gone")
        return [(job.name, outcome)]

    @property
    def pending(self) -> bool:
        return bool(self._open)

    def stop(self) -> None:
        self.stopped = True

    def kill(self, name: str, sign: Sign) -> None:
        self._open = [job for job in self._open if job.name != name]
        self.killed.append((name, sign))


class Clock:
    """Waiting takes no time."""

    now_s = 0.0

    def time(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "sleep", made.sleep)
    return made


DONE = Ended(60, True)
LOST = Ended(0, False, "the machine is gone")


def named(name: str) -> Task:
    return Task(name, small_config())


def run(folder, clock, scripts, stopping=lambda: False, **fields):
    storage = Storage(str(folder))
    plan = SuitePlan({named(name): read_standing(storage, name) for name in scripts})
    session = SuiteSession(plan, storage, attempts=3, clock=clock.time, **fields)
    pool, said = ScriptedPool(storage, **scripts), []
    session.run(pool, Share(2), stopping, lambda entries: None, said.append)
    return session, pool, said


def test_lost_runs_are_tried_again_after_a_growing_pause(tmp_path, clock):
    session, pool, said = run(tmp_path, clock, {"a": [LOST, LOST, DONE], "b": [DONE]})
    assert [job.name for job in pool.submitted] == ["a", "b", "a", "a"]
    assert {entry.state for entry in session.entries.values()} == {"finished"}
    assert said == ["a goes on from step 0: the machine is gone"] * 2
    assert clock.now_s == 2 + 4


def test_a_run_that_gets_nowhere_is_given_up_and_the_others_go_on(tmp_path, clock):
    session, pool, said = run(tmp_path, clock, {"a": [LOST] * 3, "b": [DONE]})
    states = {name: entry.state for name, entry in session.entries.items()}
    assert states == {"a": "failed", "b": "finished"}
    assert session.entries["a"].error == "the machine is gone"
    assert said[-1] == "a is given up at step 0: the machine is gone"
    assert len(pool.submitted) == 4


def test_an_attempt_that_got_further_starts_the_count_again(tmp_path, clock):
    """Seven machines are lost in a row, and the run finishes: every third left a checkpoint."""
    script = [LOST, LOST, 10, LOST, 20, LOST, 30, DONE]
    session, pool, _ = run(tmp_path, clock, {"a": script})
    assert session.entries["a"].state == "finished"
    assert len(pool.submitted) == 8


def test_what_is_finished_is_not_handed_out(tmp_path, clock):
    run(tmp_path, clock, {"a": [60, DONE]})
    session, pool, _ = run(tmp_path, clock, {"a": [], "b": [DONE]})
    assert [job.name for job in pool.submitted] == ["b"]
    assert session.entries["a"].state == "finished"


def test_a_request_to_stop_reaches_every_run(tmp_path, clock):
    session, pool, said = run(tmp_path, clock, {"a": [], "b": []}, stopping=lambda: True)
    assert pool.submitted == []  # asked before anything was handed out
    requests = iter([False, True, True, True])
    session, pool, said = run(
        tmp_path, clock, {"a": [LOST], "b": []}, stopping=lambda: next(requests)
    )
    assert pool.stopped
    assert [job.name for job in pool.submitted] == ["a", "b"]
    assert {entry.state for entry in session.entries.values()} == {"waiting", "stopped"}
    assert "Ctrl-C again" in said[-1]


def nothing() -> None:
    pass


def test_an_attempt_that_falls_silent_is_ended_and_the_run_goes_on(tmp_path, clock):
    """`a` gives two signs and hangs, `b` works on and says so, `c` has not begun."""
    storage = Storage(str(tmp_path))

    def sign(name: str):
        return lambda: Heartbeat(storage, name, clock.time)()

    def working():
        storage.write(b'{"host": "x", "pid": 1, "number": %d}' % (clock.now_s * 2), ".suite", "b")

    # Of an earlier sitting, which says nothing of this one.
    storage.write(b'{"host": "x", "pid": 7, "number": 9}', ".suite", "a")
    hangs = [nothing, lambda: storage.write(b"{", ".suite", "a"), sign("a"), *[nothing] * 12]
    scripts = {"a": [*hangs, DONE], "b": [*[working] * 14, DONE], "c": [DONE]}
    session, pool, said = run(tmp_path, clock, scripts, silence_s=6.0)
    assert {entry.state for entry in session.entries.values()} == {"finished"}
    ((name, killed),) = pool.killed
    assert (name, killed.pid) == ("a", os.getpid())
    assert [job.name for job in pool.submitted] == ["a", "b", "c", "a"]
    (line,) = said
    assert line.startswith("a goes on from step 0: process")
    assert line.endswith("gave no sign of life for 0.1 minutes; it was ended")


def test_signs_come_now_and_then_and_cost_no_run(tmp_path, clock):
    storage = Storage(str(tmp_path / "suite"))
    alive = Heartbeat(storage, "a", clock.time)
    assert last_sign(storage, "a") is None
    numbers = []
    for _ in range(6):
        alive()
        sign = last_sign(storage, "a")
        assert sign is not None
        numbers.append(sign.number)
        clock.sleep(NEAR_S / 2)
    assert numbers == [0, 0, 1, 1, 2, 2]
    (tmp_path / "file").write_text("")
    Heartbeat(Storage(str(tmp_path / "file" / "suite")), "a", clock.time)()


def test_a_job_tells_a_machine_everything(tmp_path, clock, monkeypatch):
    monkeypatch.chdir(tmp_path.parent)
    monkeypatch.setattr("sys.argv", ["stormrl", "suite"])
    _, pool, _ = run(tmp_path.name, clock, {"a": [DONE]})
    (job,) = pool.submitted
    assert job.out == str(tmp_path)  # wherever the worker's own folder is
    assert (job.threads, job.command) == (2, ("stormrl", "suite"))
    assert job.config == to_dict(small_config())


@pytest.fixture
def worker(monkeypatch):
    """`work` sets up its process; here it is this one, and must be left as it was."""
    for name in THREADS:
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr("sys.argv", ["pytest"])


def job_for(task: Task, out: str, **fields) -> Job:
    job = Job(task.name, to_dict(task.config), out, "", threads=1, command=("stormrl", "suite"))
    return dataclasses.replace(job, **fields)


@pytest.mark.usefixtures("worker")
def test_work_begins_goes_on_and_notices_the_end(tmp_path, monkeypatch):
    (task,) = tasks(["stormrl/Catch-v0"], [1], {"paper": small_config()})
    job = job_for(task, f"file://{tmp_path}/store", scratch=str(tmp_path / "scratch"))
    storage = Storage(job.out)

    def fail() -> None:
        raise RuntimeError("no such luck")

    with monkeypatch.context() as patch:
        train = Trainer.train
        patch.setattr(
            Trainer, "train", lambda trainer: before_step(trainer, 41, fail) or train(trainer)
        )
        ended = work(job)
    assert ended.error is not None
    assert ended.error.startswith("RuntimeError: no such luck (")
    assert read_standing(storage, task.name).saved == 40
    assert work(job) == Ended(60, True)
    assert work(job) == Ended(60, True)
    standing = read_standing(storage, task.name)
    assert (standing.saved, standing.attempts) == (60, 2)


@pytest.mark.usefixtures("worker")
def test_a_mistake_in_a_run_is_told_in_one_line(tmp_path):
    task = Task("run", small_config(env="stormrl/Nowhere-v0"))
    ended = work(job_for(task, str(tmp_path)))
    assert not ended.finished
    assert ended.error is not None
    assert "stormrl/Nowhere-v0" in ended.error
    assert "\n" not in ended.error


@pytest.mark.usefixtures("worker")
def test_scratch_lies_where_nobody_else_can_write(tmp_path, monkeypatch):
    """The folder of temporary files is everybody's, and the name of ours can be guessed."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "shared"))
    (tmp_path / "shared").mkdir()
    (task,) = tasks(["stormrl/Catch-v0"], [1], {"paper": small_config(steps=20)})
    job = job_for(task, f"file://{tmp_path}/store")
    assert work(job) == Ended(20, True)
    (mine,) = (tmp_path / "shared").iterdir()
    assert stat.S_IMODE(mine.stat().st_mode) == 0o700
    assert list(mine.glob(f"*/{task.name}/config.json"))
    mine.rename(tmp_path / "elsewhere")
    mine.symlink_to(tmp_path / "elsewhere")
    before = sorted((tmp_path / "elsewhere").rglob("*"))
    ended = work(job)
    assert ended.error is not None
    assert "belongs to somebody else; give a folder of your own" in ended.error
    assert sorted((tmp_path / "elsewhere").rglob("*")) == before


@pytest.mark.parametrize("mine", [True, False])
def test_a_folder_of_another_person_is_not_ours(tmp_path, monkeypatch, mine):
    theirs = (tmp_path / "taken").mkdir() or (tmp_path / "taken").stat().st_uid
    monkeypatch.setattr(private, "user_id", lambda: theirs if mine else theirs + 1)
    with nullcontext() if mine else pytest.raises(PermissionError, match="somebody else"):
        assert private.private_folder(tmp_path / "taken") == tmp_path / "taken"


def entry(name: str, **fields) -> sessions.Entry:
    standing = Standing(fields.pop("step", 0), fields.pop("step", 0), steps_per_s=2.0)
    return sessions.Entry(named(name), standing, **fields)


def test_the_table_shows_what_runs_first_and_sums_up():
    entries = [
        entry("waits"),
        entry("ends", state="finished"),
        entry("runs", state="running"),
    ]
    table = suite_table(entries, rows=2)
    assert list(table.columns[0].cells) == ["runs", "waits"]
    assert "1 more not shown" in str(table.caption)
    assert summary(entries) == "1 running · 1 waiting · 1 finished · 2 steps/s · ETA 0:01:00"
    assert [eta_s(entry) for entry in entries] == [None, None, 30.0]
