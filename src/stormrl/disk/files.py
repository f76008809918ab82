"""Atomic writes and checksums: files that survive a crash, and damage that is noticed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from stormrl.errors import UserError

COPIED_BYTES = 2**20
"""Read and written at a time where a file is copied."""
JSON_LIMIT = 32 * 2**20
"""No JSON file of a run comes near this many bytes; a larger one is not read into memory, where it
could take twenty times as many."""


class Seal(NamedTuple):
    """Size and checksum of a file's content, by which it is recognised."""

    bytes: int
    sha256: str

    @classmethod
    def of(cls, content: bytes) -> Seal:
        """The seal of a content that is about to be written."""
        return cls(len(content), hashlib.sha256(content).hexdigest())

    @classmethod
    def of_file(cls, path: Path) -> Seal:
        """The seal of what a file holds; takes no memory."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return cls(file.tell(), digest)

    @classmethod
    def parse(cls, record: object) -> Seal:
        """The seal in a JSON object {"bytes", "sha256"}. Raises ValueError if it holds none."""
        match record:
            case {"bytes": int(size), "sha256": str(digest)} if size >= 0:
                return cls(size, digest)
        raise ValueError(f"not a size and a checksum: {str(record)[:40]}")

    def read(self, path: Path) -> bytes:
        """The sealed content. Raises `UserError` if the file holds anything else."""
        self.verify_size(path)
        content = read_plain(path)
        self._check(path, Seal.of(content))
        return content

    def verify(self, path: Path) -> None:
        """Raises `UserError` unless the file holds the sealed content; takes no memory."""
        self.verify_size(path)
        with readable(path):
            found = Seal.of_file(path)
        self._check(path, found)

    def verify_size(self, path: Path) -> None:
        """Raises `UserError` unless the file is as long as the sealed content."""
        self.check_size(plain_size(path), path)

    def check_size(self, size: int, path: Path) -> None:
        """The same for a file whose size is known already."""
        if size != self.bytes:
            raise UserError(str(path), f"is damaged: it has {size} bytes instead of {self.bytes}")

    def _check(self, path: Path, found: Seal) -> None:
        if found != self:
            raise UserError(str(path), "is damaged: its content does not match its checksum")


def write(path: Path, content: bytes) -> None:
    """Write a new file and return when it is on the disk.

    Raises `FileExistsError` if something bears its name: a link there would lead anywhere.
    """
    write_parts(path, [content])


def write_parts(path: Path, parts: Iterable[bytes]) -> None:
    """The same for a content that need not be in memory all at once."""
    with open(path, "xb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())


def partial(path: Path) -> Path:
    """Where `replace` writes before it moves; a crash may leave this file behind."""
    return path.with_name(f".partial-{path.name}")


def replace(path: Path, content: bytes) -> None:
    """Write a file so that, whatever happens, the old or the new content is there as a whole."""
    replace_parts(path, [content])


def replace_parts(path: Path, parts: Iterable[bytes]) -> None:
    """The same for a content that need not be in memory all at once."""
    try:
        partial(path).unlink(missing_ok=True)
        write_parts(partial(path), parts)
        os.replace(partial(path), path)
    except BaseException:
        with suppress(OSError):
            partial(path).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def replace_by_copy(path: Path, source: Path) -> Seal:
    """The same with the content of another file, which takes no memory; the seal of the copy.

    Raises `UserError` if `source` cannot be read.
    """
    try:
        with readable(source):
            file = source.open("rb")
        partial(path).unlink(missing_ok=True)
        with file, partial(path).open("xb") as copy:
            shutil.copyfileobj(file, copy, COPIED_BYTES)
            copy.flush()
            os.fsync(copy.fileno())
        seal = Seal.of_file(partial(path))
        os.replace(partial(path), path)
    except BaseException:
        with suppress(OSError):
            partial(path).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    return seal


def make_folder(path: Path) -> list[Path]:
    """Make a folder, its parents too where they lack; return when their names are on the disk.

    Those that were made, the innermost first.
    """
    if path.is_dir():
        return []
    above = make_folder(path.parent) if path.parent != path else []
    path.mkdir(exist_ok=True)
    sync_folder(path.parent)
    return [path, *above]


def sync_folder(path: Path) -> None:
    """Return when the names in a folder are on the disk; Windows writes them by itself."""
    if sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises `UserError` for anything else."""
    return parse_json(read_limited(path, JSON_LIMIT), path)


def read_limited(path: Path, limit: int) -> bytes:
    """The content of a file. Raises `UserError`, and takes no memory, beyond `limit` bytes."""
    if plain_size(path) > limit:
        raise UserError(str(path), "is far too large: it is not a file of stormrl")
    return read_plain(path)


def read_plain(path: Path) -> bytes:
    """The content of a file whose size is known to be bearable. Raises `UserError`."""
    with readable(path):
        return path.read_bytes()


def plain_size(path: Path) -> int:
    """Bytes of a file that is to be read.

    Raises `UserError` for what is no plain file: a pipe would be waited for, a device has no end.
    """
    with readable(path):
        found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise UserError(str(path), "is no plain file; put the file itself there")
    return found.st_size


def make_own(path: Path) -> None:
    """What is to be written into where it lies is missing, or a file that has no other name.

    One that has, as in a backup made of hard links, becomes a copy: what is written goes there
    alone. Raises `UserError` for a link and for what is no plain file, which lead anywhere.
    """
    with suppress(FileNotFoundError):
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise UserError(str(path), "is no plain file; put the file itself there")
        if found.st_nlink > 1:
            replace_by_copy(path, path)


def make_way(path: Path) -> None:
    """Whatever bears the name of a file that is made anew goes: a link would lead anywhere."""
    path.unlink(missing_ok=True)


def parse_json(content: bytes, path: Path) -> dict[str, Any]:
    """The JSON object in the content of `path`. Raises `UserError` for anything else."""
    try:
        record = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(str(path), f"is damaged: it is not JSON ({str(error)[:80]})") from None
    if not isinstance(record, dict):
        raise UserError(str(path), "is damaged: it holds no JSON object")
    return record


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns the system's refusal to read `path` into a `UserError`."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(str(path), "is missing") from None
    except OSError as error:
        raise UserError(str(path), f"cannot be read: {reason(error)}") from None


@contextmanager
def writable(what: str, run: Path) -> Iterator[None]:
    """Turns the system's refusal to write part of a run into a `UserError`."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "free space" if full else "put that right"
        message = f"cannot write {what}: {reason(error)}; {remedy}, then go on with"
        raise UserError("run_dir", f"{message} stormrl train --resume {run}") from error


def reason(error: OSError) -> str:
    """What the system said, without number and path."""
    return error.strerror or str(error)
