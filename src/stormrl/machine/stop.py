"""Signal handler: Ctrl-C and others ask for a stop; whoever works decides when it is safe."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
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

    heard: told of each signal that insists, and how many there have been, the moment it arrives:
    by a thread that waits for them, since Python itself notices only when a long operation is over.

    Ctrl-C and SIGTERM insist. A terminal that is closed, and a scheduler whose time is up, may send
    theirs more than once within moments, and mean no more by it. A SIGHUP that is ignored, as under
    nohup, stays so. A second signal never harms a finished checkpoint: those are moved into place
    as a whole. In another thread than the main one, where no signal arrives, nothing is handled.
    """

    INSISTING = (signal.SIGINT, signal.SIGTERM)
    ASKING = tuple(getattr(signal, name) for name in ("SIGHUP", "SIGUSR1") if hasattr(signal, name))

    def __init__(self, heard: Callable[[int], None] = lambda times: None) -> None:
        self.requested = False
        self._heard, self._times = heard, 0
        self._previous: dict[int, Any] = {}
        self._ends: tuple[socket.socket, ...] = ()

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            here, there = self._ends = socket.socketpair()
            there.setblocking(False)
            self._fd = signal.set_wakeup_fd(there.fileno(), warn_on_full_buffer=False)
            threading.Thread(target=self._listen, args=(here,), daemon=True).start()
            numbers = [*self.INSISTING, *filter(_is_not_ignored, self.ASKING)]
            self._previous = {number: signal.signal(number, self._handle) for number in numbers}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            # None stands for a handler that is not Python's, which cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if self._ends:
            signal.set_wakeup_fd(self._fd)
            for end in reversed(self._ends):
                end.close()

    def asked(self) -> bool:
        """Whether a stop has been asked for."""
        return self.requested

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True

    def _listen(self, end: socket.socket) -> None:
        """Each signal arrives as a byte, whatever the main thread is busy with."""
        with suppress(OSError):  # Closed when the request is left.
            while numbers := end.recv(1):
                self._insist(numbers[0])

    def _insist(self, number: int) -> None:
        if number not in self.INSISTING:
            return
        self._times += 1
        with suppress(Exception):
            self._heard(self._times)
        if self._times > 1:
            os._exit(128 + number)


def _is_not_ignored(number: int) -> bool:
    return signal.getsignal(number) is not signal.SIG_IGN
