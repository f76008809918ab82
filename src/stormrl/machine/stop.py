"""Signal handler: Ctrl-C and others ask for a stop; whoever works decides when it is safe."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

EXIT_INTERRUPTED = 3
"""Exit code of a run that was asked to stop, saved itself and can be resumed."""

EXIT_UNREAD = 128 + getattr(signal, "SIGPIPE", 13)
"""Exit code where nobody reads the output any more; Windows has no signal for it."""

Stopping = Callable[[], bool]
"""Whether a stop has been asked for."""


class Stopped(Exception):
    """Work that cannot be kept by halves was given up because a stop had been asked for."""


def never() -> bool:
    """Nobody asks for a stop."""
    return False


class StopRequest:
    """While entered, a first signal sets `requested`; a second that insists ends the process.

    Ctrl-C and SIGTERM insist. A terminal that is closed, and a scheduler whose time is up, may send
    theirs more than once within moments, and mean no more by it. A SIGHUP that is ignored, as under
    nohup, stays so. A second signal never harms a finished checkpoint: those are moved into place
    as a whole. In another thread than the main one, where no signal arrives, nothing is handled.
    """

    INSISTING = (signal.SIGINT, signal.SIGTERM)
    ASKING = tuple(getattr(signal, name) for name in ("SIGHUP", "SIGUSR1") if hasattr(signal, name))

    def __init__(self) -> None:
        self.requested = False
        self._insisted = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            heard = [*self.INSISTING, *filter(_is_not_ignored, self.ASKING)]
            self._previous = {number: signal.signal(number, self._handle) for number in heard}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            # None stands for a handler that is not Python's, which cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def asked(self) -> bool:
        """Whether a stop has been asked for."""
        return self.requested

    def _handle(self, number: int, frame: FrameType | None) -> None:
        insists = number in self.INSISTING
        if insists and self._insisted:
            os._exit(128 + number)
        self.requested = True
        self._insisted = self._insisted or insists


def _is_not_ignored(number: int) -> bool:
    return signal.getsignal(number) is not signal.SIG_IGN
