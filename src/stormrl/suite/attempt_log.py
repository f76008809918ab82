"""What a suite did with a run: a line whenever it is begun, gone on with, or ends."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

from stormrl.disk.jsonlines import JsonLines
from stormrl.history.progress import SilentProgress

ATTEMPTS = "attempts.jsonl"
START = "start"


class AttemptLog(SilentProgress):
    """Appends to attempts.jsonl in the run; as a run's progress it keeps messages there too."""

    def __init__(self, run: Path) -> None:
        self._path = run / ATTEMPTS

    def start(self, step: int) -> None:
        """The run begins, or goes on from the checkpoint at `step`."""
        self.write(START, step=step, host=socket.gethostname(), pid=os.getpid())

    def message(self, text: str) -> None:
        """Keep what training has to say."""
        self.write("message", text=text)

    def write(self, event: str, **details: Any) -> None:
        """One line; none in a directory that is not there."""
        if not self._path.parent.is_dir():
            return
        lines = JsonLines(self._path)
        # Whole seconds: JSON lines keep six digits of a float.
        lines.write({"event": event, "time": round(time.time()), **details})
        lines.close()
