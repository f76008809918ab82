"""Signs of life of the processes that train a suite's runs, kept beside the runs."""

from __future__ import annotations

import itertools
import json
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from stormrl.disk.files import parse_json
from stormrl.suite.storage import Storage

SIGNS = ".suite"
"""Folder of the suite for what is of no use once it has ended."""
NEAR_S, FAR_S = 5.0, 60.0
"""Between two signs, in a folder and behind a URL."""


class Sign(NamedTuple):
    """That a process lived; a later one of the same process has a higher number."""

    host: str
    pid: int
    number: int


class Heartbeat:
    """Gives a sign now and then, as it is called between the steps of training and evaluation.

    Where none can be written, a run goes on without.
    """

    def __init__(
        self, storage: Storage, run: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._storage, self._run, self._clock = storage, run, clock
        self._period_s = NEAR_S if storage.in_place else FAR_S
        self._numbers, self._due_s = itertools.count(), clock()

    def __call__(self) -> None:
        """A sign, if the last one is some seconds old."""
        if self._clock() >= self._due_s:
            self._due_s = self._clock() + self._period_s
            sign = Sign(socket.gethostname(), os.getpid(), next(self._numbers))
            with suppress(OSError):
                self._storage.write(json.dumps(sign._asdict()).encode(), SIGNS, self._run)


def last_sign(storage: Storage, run: str) -> Sign | None:
    """The newest sign of a run's process, None where there is none that can be read."""
    path = Path(storage.where(SIGNS)) / run
    with suppress(OSError, KeyError, TypeError, ValueError):
        record = parse_json(storage.read(SIGNS, run) or b"", path)
        return Sign(str(record["host"]), int(record["pid"]), int(record["number"]))
    return None
