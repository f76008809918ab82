"""Scheduler: runs are handed out, tried again, watched, and stopped on request."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, Protocol

from stormrl.config.parts import to_dict
from stormrl.suite.heartbeat import Sign, last_sign
from stormrl.suite.plan import SuitePlan, Task
from stormrl.suite.share import Share
from stormrl.suite.standing import Standing, read_standing
from stormrl.suite.storage import Storage
from stormrl.suite.work import Ended, Job

POLL_S = 0.5
FIRST_PAUSE_S = 2.0
"""Before a second attempt; doubles with each one more. A machine that is lost takes some seconds
to let go of a run."""

State = Literal["waiting", "running", "finished", "stopped", "failed"]


class Pool(Protocol):
    """Machines that train jobs."""

    def submit(self, job: Job, share: Share) -> None:
        """Have a job trained as soon as there is room."""
        ...

    def wait(self, timeout_s: float) -> list[tuple[str, Ended]]:
        """Jobs that have ended by now; waits for the first for at most `timeout_s`."""
        ...

    @property
    def pending(self) -> bool:
        """Whether any job has not ended."""
        ...

    def stop(self) -> None:
        """Ask every job to save itself and end."""
        ...

    def kill(self, name: str, sign: Sign) -> None:
        """End the process that gave the sign, and hear no more of its job."""
        ...


@dataclass
class Entry:
    """What this sitting knows of a run."""

    task: Task
    standing: Standing
    state: State = "waiting"
    failures: int = 0
    """Attempts in a row without a new checkpoint."""
    saved: int = 0
    """Step of the newest checkpoint when the last attempt was handed out."""
    begun: int = 0
    """Attempts that its directory told of at that moment."""
    due_s: float = 0.0
    """When it may be handed out again."""
    sign: Sign | None = None
    """The last one of its process, or of an earlier one."""
    heard_s: float | None = None
    """When the present attempt gave its last sign; None before its first."""
    error: str | None = None
    """Why the last attempt did not end well."""


@dataclass
class SuiteSession:
    """Hands out what is left of a plan until all of it has ended.

    A run is given up after `attempts` in a row that end without a new checkpoint; an attempt that
    got further starts the count again. An attempt that has given signs of life and then none for
    `silence_s` is ended.
    """

    plan: SuitePlan
    storage: Storage
    attempts: int = 3
    scratch: str = ""
    period_s: float = 1.0
    """Between two looks at the run directories."""
    silence_s: float = 1800.0
    clock: Callable[[], float] = time.monotonic
    entries: dict[str, Entry] = field(init=False)

    def __post_init__(self) -> None:
        left = {task.name for task in self.plan.left}
        self.entries = {
            task.name: Entry(task, standing, "waiting" if task.name in left else "finished")
            for task, standing in self.plan.standings.items()
        }
        self._queue = [task.name for task in self.plan.left]
        self._looked_s = -math.inf

    def run(
        self,
        pool: Pool,
        share: Share,
        stopping: Callable[[], bool],
        show: Callable[[Mapping[str, Entry]], None],
        say: Callable[[str], None],
    ) -> None:
        """Until every run has finished or been given up, or, once `stopping`, has saved itself."""
        asked = False
        while pool.pending or (self._queue and not asked):
            if stopping() and not asked:
                asked = True
                say("stopping: every run saves itself first; Ctrl-C again ends at once")
                pool.stop()
            if not asked:
                self._hand_out(pool, share)
            for name, ended in pool.wait(POLL_S) if pool.pending else self._pause():
                self._note(self.entries[name], ended, say)
            self._look(show, partial(self._end_silent, pool, say))
        self._looked_s = -math.inf
        self._look(show, lambda entry: None)

    def _hand_out(self, pool: Pool, share: Share) -> None:
        due = [name for name in self._queue if self.entries[name].due_s <= self.clock()]
        self._queue = [name for name in self._queue if name not in due]
        for name in due:
            entry = self.entries[name]
            entry.saved, entry.begun = entry.standing.saved, entry.standing.attempts
            entry.state = "waiting"
            entry.sign, entry.heard_s = last_sign(self.storage, name), None
            pool.submit(self._job(entry.task, share.threads), share)

    def _job(self, task: Task, threads: int) -> Job:
        return Job(
            name=task.name,
            config=to_dict(task.config),
            out=self._reachable_out(),
            scratch=self.scratch,
            threads=threads,
            command=tuple(sys.argv),
        )

    def _reachable_out(self) -> str:
        # A worker may run in another folder than this process.
        return os.path.abspath(self.storage.out) if self.storage.in_place else self.storage.out

    def _pause(self) -> list[tuple[str, Ended]]:
        time.sleep(POLL_S)
        return []

    def _note(self, entry: Entry, ended: Ended, say: Callable[[str], None]) -> None:
        self._read(entry)
        entry.error = ended.error
        if ended.finished:
            entry.state = "finished"
        elif ended.error is None:
            entry.state = "stopped"
        else:
            self._try_again(entry, say)

    def _try_again(self, entry: Entry, say: Callable[[str], None]) -> None:
        further = entry.standing.saved > entry.saved
        entry.failures = 1 if further else entry.failures + 1
        name, at = entry.task.name, f"{entry.standing.saved:,}"
        if entry.failures >= self.attempts:
            entry.state = "failed"
            say(f"{name} is given up at step {at}: {entry.error}")
            return
        say(f"{name} goes on from step {at}: {entry.error}")
        entry.state = "waiting"
        entry.due_s = self.clock() + FIRST_PAUSE_S * 2 ** (entry.failures - 1)
        self._queue.append(name)

    def _look(
        self, show: Callable[[Mapping[str, Entry]], None], listen: Callable[[Entry], None]
    ) -> None:
        """Read the directories of runs under way, listen to them, and show how all stand."""
        if self.clock() - self._looked_s < self.period_s:
            return
        self._looked_s = self.clock()
        for entry in self.entries.values():
            if entry.state in ("waiting", "running") and entry.task.name not in self._queue:
                self._read(entry)
                if entry.standing.attempts > entry.begun:
                    entry.state = "running"
                listen(entry)
        show(self.entries)

    def _end_silent(self, pool: Pool, say: Callable[[str], None], entry: Entry) -> None:
        """Hear whether an attempt lives; one that has been silent for too long is ended."""
        sign, now = last_sign(self.storage, entry.task.name), self.clock()
        if sign is not None and sign != entry.sign:
            entry.sign, entry.heard_s = sign, now
        elif entry.sign and entry.heard_s is not None and now - entry.heard_s > self.silence_s:
            pool.kill(entry.task.name, entry.sign)
            minutes = f"{self.silence_s / 60:g} minutes"
            hung = f"process {entry.sign.pid} on {entry.sign.host} gave no sign of life"
            self._note(entry, Ended(0, False, f"{hung} for {minutes}; it was ended"), say)

    def _read(self, entry: Entry) -> None:
        # A store that does not answer for a moment is no reason to give up what is being trained.
        with suppress(OSError):
            entry.standing = read_standing(self.storage, entry.task.name)
