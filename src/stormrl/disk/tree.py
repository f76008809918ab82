"""What a run directory may consist of: files and folders, few levels deep, and no way out of it.

Looked at as a whole before the first byte is read or written: somebody else may have made it.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from stormrl.disk.files import reason
from stormrl.errors import UserError

DEEPEST = 16
"""Levels of folders; what a run writes lies two deep."""
MOST_ENTRIES = 1_000_000
"""Files and folders; a run that is saved at every step comes to some hundred thousand."""


def refuse_foreign(run: Path) -> None:
    """No link in a run may have anything outside of it overwritten, and nothing be waited for.

    Raises `UserError` for a link that leads out of the run, for a pipe, a socket or a device, and
    for a tree that is no run's.
    """
    root = run.resolve()
    for path, kind in _entries(run):
        if stat.S_ISLNK(kind):
            _check_link(path, root)
        elif not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            raise UserError(str(path), "is neither file nor folder; remove it")


def _entries(run: Path) -> Iterator[tuple[Path, int]]:
    """Everything in a folder with its mode, links not followed."""
    folders, count = [(run, 1)], 0
    while folders:
        folder, depth = folders.pop()
        if depth > DEEPEST:
            raise UserError(str(run), f"has folders more than {DEEPEST} levels deep: it is no run")
        for path, kind in _listed(folder):
            count += 1
            if count > MOST_ENTRIES:
                raise UserError(str(run), f"holds more than {MOST_ENTRIES:,} files: it is no run")
            yield path, kind
            if stat.S_ISDIR(kind):
                folders.append((path, depth + 1))


def _listed(folder: Path) -> list[tuple[Path, int]]:
    try:
        with os.scandir(folder) as entries:
            some = itertools.islice(entries, MOST_ENTRIES + 1)
            return [(folder / entry.name, _kind(entry)) for entry in some]
    except (FileNotFoundError, PermissionError):
        return []  # Gone meanwhile, as in a run that is training; or closed to us altogether.
    except OSError as error:
        raise UserError(str(folder), f"cannot be read: {reason(error)}") from None


def _kind(entry: os.DirEntry[str]) -> int:
    # Known from the listing: a call for each file would be asked of the disk.
    if entry.is_symlink():
        return stat.S_IFLNK
    if entry.is_dir(follow_symlinks=False):
        return stat.S_IFDIR
    if entry.is_file(follow_symlinks=False):
        return stat.S_IFREG
    return stat.S_IFIFO


def _check_link(path: Path, root: Path) -> None:
    try:
        target = path.resolve()
    except (OSError, RuntimeError):  # It leads round in a circle.
        target = None
    if target is None or not target.is_relative_to(root):
        raise UserError(str(path), "is a link out of the run; put the file itself there")
