"""Signal handler: Ctrl-C and SIGTERM ask for a stop; the loop decides when it is safe."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Self

EXIT_INTERRUPTED = 3
"""Exit code of a run that was asked to stop, saved itself and can be resumed."""


class StopRequest:
    """While entered, a first signal sets `requested`; a second ends the process at once.

    A second signal never harms a finished checkpoint: those are moved into place as a whole.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Self:
        self._previous = {number: signal.signal(number, self._handle) for number in self.SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            os._exit(128 + number)
        self.requested = True
