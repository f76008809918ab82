"""One process at a time: a lock on a file, free again when its holder ends, however it ends."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, SoftFileLock, Timeout


class HeldElsewhere(Exception):
    """Somebody else has the lock."""

    def __init__(self, owner: str) -> None:
        super().__init__(owner)
        self.owner = owner
        """Number of the process that has it, or "unknown"."""


@contextmanager
def held(path: Path) -> Iterator[None]:
    """While entered, no other process, and nobody else in this one, enters it with this file.

    Raises `HeldElsewhere` at once if somebody has it, and `OSError` if the file cannot be made or
    locked.
    """
    _refuse_link(path)
    lock = FileLock(path, blocking=False)
    try:
        taken = lock.acquire()
    except Timeout:
        raise HeldElsewhere(_owner(path)) from None
    with taken:
        if isinstance(lock, SoftFileLock):  # It signs and removes the file itself.
            yield
            return
        _sign(path)
        try:
            yield
        finally:
            with suppress(OSError):  # Windows removes no file that is locked.
                path.unlink()


def _refuse_link(path: Path) -> None:
    """It is emptied and signed: what lies there must be nobody else's file."""
    with suppress(FileNotFoundError):
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            raise OSError(None, f"{path.name} is a link or no plain file; remove it")


def _sign(path: Path) -> None:
    """Whoever finds it locked shall read by whom; Windows lets nobody write where it is locked."""
    with suppress(OSError):
        path.write_text(str(os.getpid()))


def _owner(path: Path) -> str:
    with suppress(OSError):
        words = path.read_text(errors="replace").split()
        return words[0][:20] if words else "unknown"
    return "unknown"
