"""Synchronisation of a run directory with its copy in a store that outlives the machine."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from stormrl.disk.checkpoint import CHECKPOINTS, CHECKSUMS, LATEST
from stormrl.disk.run_directory import LOCK
from stormrl.errors import UserError
from stormrl.suite.storage import Storage

ARRIVING = ".arriving-"
"""Under such a name a file is on its way; it is moved when it is there as a whole."""


class Mirror:
    """Copies a run from a store before it goes on, and to it after every checkpoint.

    Raises `UserError` for a store whose keys lead out of the run.

    At every moment the store holds a run that can go on: replay and histories come first (a
    history that is too long is cut back on resume), then a checkpoint's tensors, its checksums,
    `latest`, and at last what is no longer needed goes.
    """

    def __init__(self, storage: Storage, name: str, local: Path) -> None:
        self._storage, self._fs, self._name = storage, storage.fs, name
        self._local = local
        self._stored: dict[str, tuple[int, int]] = {}

    def fetch(self) -> None:
        """Make the local directory what the store holds; what else lies there is removed."""
        shutil.rmtree(self._local, ignore_errors=True)
        for name in sorted(self._whole_files()):
            path = self._local / name
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fs.get_file(self._key(name), str(path))
            self._stored[name] = _stamp(path)

    def push(self) -> None:
        """Copy to the store what is new here, and remove there what is gone here."""
        if not self._local.is_dir():
            return  # The run failed before it had a directory.
        here = {
            path.relative_to(self._local).as_posix(): path
            for path in self._local.rglob("*")
            if path.is_file() and not _passing(path.relative_to(self._local))
        }
        for name in sorted(here, key=_turn):
            stamp = _stamp(here[name])
            if self._stored.get(name) != stamp:
                self._put(name)
                self._stored[name] = stamp
        gone = self._remote_files() - here.keys()
        for name in gone:
            self._fs.rm_file(self._key(name))
            self._stored.pop(name, None)
        for folder in {name.rpartition("/")[0] for name in gone}:
            if not (self._local / folder).is_dir():
                with suppress(OSError):  # Object stores have no folders to remove.
                    self._fs.rmdir(self._key(folder))

    def _put(self, name: str) -> None:
        folder, _, last = name.rpartition("/")
        arriving = f"{folder}/{ARRIVING}{last}".lstrip("/")
        self._fs.makedirs(self._key(folder) if folder else self._key(), exist_ok=True)
        self._fs.put_file(str(self._local / name), self._key(arriving))
        self._fs.mv(self._key(arriving), self._key(name))

    def _whole_files(self) -> set[str]:
        """What the store holds, without checkpoints that had not arrived as a whole."""
        names = self._remote_files()
        return {
            name
            for name in names
            if not _passing(Path(name))
            and (not _in_checkpoint(name) or f"{name.rpartition('/')[0]}/{CHECKSUMS}" in names)
        }

    def _remote_files(self) -> set[str]:
        self._fs.invalidate_cache()
        root = self._key()
        if not self._fs.exists(root):
            return set()
        names = {name[len(root) :].removeprefix("/") for name in self._fs.find(root)}
        for name in sorted(names):
            _refuse_way_out(name, self._storage.where(self._name))
        return names

    def _key(self, name: str = "") -> str:
        return self._storage.key(self._name, name) if name else self._storage.key(self._name)


def _refuse_way_out(name: str, where: str) -> None:
    """Keys of a store are any text; as names of files, none may lead out of the run's folder."""
    parts = name.split("/")
    plain = name.isprintable() and not any(letter in name for letter in "\\:")
    if not plain or any(part in ("", ".", "..") for part in parts):
        problem = f"{name[:100]!a} in {where} is no plain name of a file"
        raise UserError("out", f"{problem}; remove it there, or give another --out")


def _turn(name: str) -> tuple[bool, bool, bool, str]:
    in_checkpoint = _in_checkpoint(name)
    return name == f"{CHECKPOINTS}/{LATEST}", name.endswith(f"/{CHECKSUMS}"), in_checkpoint, name


def _in_checkpoint(name: str) -> bool:
    return name.startswith(f"{CHECKPOINTS}/") and name.count("/") == 2


def _passing(path: Path) -> bool:
    """Whether a file is one process's business, or on its way to another name."""
    marks = (".partial-", ".removed-", ".replaced-", ARRIVING)
    return path.name == LOCK or any(part.startswith(marks) for part in path.parts)


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
