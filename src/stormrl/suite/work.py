"""Worker: one run of a suite on the machine where this is called: begun, or gone on with."""

from __future__ import annotations

import hashlib
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from stormrl.runs.trainer import Trainer

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Job:
    """All that a machine must be told about a run; plain values, so that it can be sent there."""

    name: str
    config: dict[str, Any]
    out: str
    """Path or URL of the suite."""
    scratch: str
    """Folder on the machine for runs whose suite is kept at a URL; empty for one of this person's
    among the temporary files."""
    threads: int
    """Threads of the arithmetic."""
    command: tuple[str, ...]
    """What was typed; becomes part of the run's provenance."""


class Ended(NamedTuple):
    """How an attempt at a run ended."""

    step: int
    finished: bool
    error: str | None = None
    """Why it did not end well, in one line."""


def work(job: Job) -> Ended:
    """Train the run, from its last checkpoint if there is one; returns however it ends.

    Meant for a process of its own, in whose main thread it is called: threads and signals are set.
    """
    _limit_threads(job.threads)
    sys.argv[:] = job.command
    # Imported late: PyTorch reads the number of threads once.
    from stormrl.errors import UserError
    from stormrl.machine.allocator import keep_freed_memory

    keep_freed_memory()
    try:
        return _train(job)
    except UserError as error:
        return Ended(0, False, str(error))
    except Exception as error:
        sys.stderr.write(traceback.format_exc())
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        return Ended(0, False, f"{type(error).__name__}: {error} ({where})".replace("\n", " "))


def _limit_threads(count: int) -> None:
    os.environ.update(dict.fromkeys(THREADS, str(count)))


def _train(job: Job) -> Ended:
    from stormrl.suite.heartbeat import Heartbeat
    from stormrl.suite.mirror import Mirror
    from stormrl.suite.storage import Storage

    storage = Storage(job.out)
    alive = Heartbeat(storage, job.name)
    alive()
    if storage.in_place:
        return _go_on(job, storage.path(job.name), _nothing, alive)
    scratch = _scratch(job)
    mirror = Mirror(storage, job.name, scratch)
    mirror.fetch()
    try:
        return _go_on(job, scratch, mirror.push, alive)
    finally:
        mirror.push()


def _go_on(job: Job, path: Path, saved: Callable[[], None], alive: Callable[[], None]) -> Ended:
    from stormrl.config.json import CONFIG, config_from_dict
    from stormrl.config.validation import LARGEST
    from stormrl.errors import UserError
    from stormrl.runs import whole
    from stormrl.suite.attempt_log import AttemptLog

    config, log = config_from_dict(job.config), AttemptLog(path)

    def started(trainer: Trainer) -> None:
        trainer.saved, trainer.alive = saved, alive
        log.start(trainer.step)
        saved()

    try:
        if (path / CONFIG).exists():
            # Its game is the one that the suite was asked for.
            asked = [config.env.rpartition(":")[0]]
            outcome = whole.resume(
                path, config.steps, log, started, allow_import=asked, max_size=LARGEST
            )
        else:
            outcome = whole.train(config, path, log, started)
    except UserError as error:
        log.write("failed", error=str(error))
        return Ended(whole.steps_done(path), False, str(error))
    log.write("finished" if outcome.finished else "stopped", step=outcome.step)
    return Ended(outcome.step, outcome.finished)


def _scratch(job: Job) -> Path:
    """Runs of equal names in different suites are kept apart."""
    suite = hashlib.sha256(job.out.encode()).hexdigest()[:12]
    return _scratch_folder(job) / f"stormrl-suite-{suite}" / job.name


def _scratch_folder(job: Job) -> Path:
    from stormrl.disk.files import reason
    from stormrl.disk.private import temporary_folder, temporary_path
    from stormrl.errors import UserError

    try:
        return Path(job.scratch) if job.scratch else temporary_folder()
    except OSError as error:
        problem = f"{temporary_path()} cannot be used: {reason(error)}"
        raise UserError("scratch", f"{problem}; give a folder of your own") from None


def _nothing() -> None:
    pass
