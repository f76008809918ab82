"""Where a suite keeps its run directories: a folder that every machine sees, or an fsspec URL."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import fsspec

from stormrl.errors import UserError


class Storage:
    """A place for run directories.

    out: a path, in which runs train in place, or a URL such as s3://bucket/suite or
    file:///mnt/archive, to which each machine copies what it trains in a folder of its own.
    Raises `UserError` for a URL that cannot be used here.
    """

    def __init__(self, out: str) -> None:
        self.out = out
        self.in_place = "://" not in out
        try:
            self.fs, root = fsspec.url_to_fs(out)
        except (ImportError, ValueError) as error:
            raise UserError("out", f"{out} cannot be used: {error}") from None
        self.root = root.rstrip("/")

    def where(self, name: str) -> str:
        """How a person names a run's directory."""
        return f"{self.out.rstrip('/')}/{name}"

    def key(self, *names: str) -> str:
        """The file system's own name of something in the place."""
        return "/".join((self.root, *names))

    def path(self, name: str) -> Path:
        """The folder of a run that trains in place."""
        return Path(self.out) / name

    def names(self, *folder: str) -> list[str]:
        """What lies in a folder; nothing in one that is not there."""
        try:
            listed = self.fs.ls(self.key(*folder), detail=False, refresh=True)
        except FileNotFoundError:
            return []
        except TypeError:  # A file system that remembers no listings takes no `refresh`.
            listed = self.fs.ls(self.key(*folder), detail=False)
        return sorted(name.rstrip("/").rpartition("/")[2] for name in listed)

    def sizes(self, *folder: str) -> dict[str, int]:
        """The files in a folder with their sizes in bytes; none in one that is not there."""
        names = self.names(*folder)
        with suppress(FileNotFoundError):
            return {name: self.fs.size(self.key(*folder, name)) for name in names}
        return {}

    def read(self, *names: str) -> bytes | None:
        """The content of a file, or None if it is not there."""
        try:
            return self.fs.cat_file(self.key(*names))
        except FileNotFoundError:
            return None

    def write(self, content: bytes, folder: str, name: str) -> None:
        """Make a file of the content, in a folder that need not be there."""
        self.fs.makedirs(self.key(folder), exist_ok=True)
        self.fs.pipe_file(self.key(folder, name), content)

    def last_lines(self, limit: int, *names: str) -> list[bytes]:
        """Whole lines among about the last `limit` bytes of a file; none of one that is not there.

        The file may grow or be cut meanwhile: what is read ends where the file ends by then.
        """
        try:
            begin = max(self.fs.size(self.key(*names)) - limit, 0)
            content = self.fs.cat_file(self.key(*names), start=begin)
        except FileNotFoundError:
            return []
        lines = content[: content.rfind(b"\n") + 1].splitlines()
        return lines[1:] if begin else lines  # Reading may have begun in the middle of one.
