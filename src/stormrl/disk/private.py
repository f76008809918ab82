"""Folders that nobody else can have put anything into, though everybody may write beside them."""

from __future__ import annotations

import stat
import tempfile
from pathlib import Path

from stormrl.machine.system import user_id


def temporary_folder() -> Path:
    """This person's folder among the temporary files, made if it is not there.

    Its name can be guessed. Raises `PermissionError` where somebody else has taken it.
    """
    return private_folder(temporary_path())


def temporary_path() -> Path:
    """Where it lies, or would."""
    return Path(tempfile.gettempdir()) / f"stormrl-{user_id()}"


def private_folder(path: Path) -> Path:
    """The folder, made if it is not there. Raises `PermissionError` unless it is this person's."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()  # Not what a link of somebody else's leads to.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != user_id():
        raise PermissionError(None, "it belongs to somebody else")
    return path
