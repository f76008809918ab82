"""Ways in which a disk or a process lets a program down, for tests."""

import builtins
import errno
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from stormrl.disk import files
from stormrl.errors import UserError


class Crash(BaseException):
    """The process is gone: nothing after this call happens, no cleaning up either."""


def no_space() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def full_disk(at: int) -> Iterator[Callable[[], bool]]:
    """Writing call number `at` (from 0) fails for want of space; tells whether it came to that."""
    calls = [0]

    def fail() -> None:
        calls[0] += 1
        if calls[0] == at + 1:
            raise no_space()

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in _writing_calls():
            patch.setattr(owner, name, _guarded(fail, getattr(owner, name)))
        patch.setattr(files, "open", _guarded(fail, builtins.open), raising=False)
        yield lambda: calls[0] > at


@contextmanager
def crash(at: int) -> Iterator[Callable[[], bool]]:
    """The process dies at writing call number `at` (from 0); tells whether it came to that."""
    calls = [0]

    def count() -> None:
        calls[0] += 1
        stay_dead()

    def stay_dead() -> None:
        if calls[0] > at:
            raise Crash

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in _writing_calls():
            patch.setattr(owner, name, _guarded(count, getattr(owner, name)))
        patch.setattr(files, "open", _guarded(count, builtins.open), raising=False)
        for owner, name in ((os, "unlink"), (shutil, "rmtree")):
            patch.setattr(owner, name, _guarded(stay_dead, getattr(owner, name)))
        yield lambda: calls[0] > at


def failures(
    fault: Callable[[int], AbstractContextManager[Callable[[], bool]]], attempt: Callable[[], Any]
) -> Iterator[BaseException | None]:
    """Attempts with a fault at the first writing call, the second, and so on to a last one without.

    What each attempt raised; None if it got through.
    """
    for at in itertools.count():
        raised = None
        with fault(at) as reached:
            try:
                attempt()
            except (UserError, Crash) as error:
                raised = error
        yield raised
        if not reached():
            assert raised is None
            assert at > 4, "hardly any call was counted"
            return


def assert_tells_of_full_disk(raised: BaseException | None) -> None:
    """A `UserError` with the way out, unless nothing failed."""
    if raised is not None:
        assert isinstance(raised, UserError)
        assert raised.field == "run_dir"
        assert "No space left on device; " in raised.message


def damages(path: Path) -> Iterator[str]:
    """Damages a file in one way after the other, names the way, and repairs it in the end."""
    content = path.read_bytes()
    middle = len(content) // 2
    for name, damaged in {
        "truncated": content[:middle],
        "one byte short": content[:-1],
        "one byte long": content + b"x",
        "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "emptied": b"",
    }.items():
        path.write_bytes(damaged)
        yield name
    path.unlink()
    yield "removed"
    path.mkdir()
    yield "a folder"
    path.rmdir()
    path.write_bytes(content)


def _writing_calls() -> list[tuple[Any, str]]:
    return [(os, name) for name in ("fsync", "rename", "replace", "mkdir")]


def _guarded(guard: Callable[[], None], call: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(*args: Any, **kwargs: Any) -> Any:
        guard()
        return call(*args, **kwargs)

    return guarded
