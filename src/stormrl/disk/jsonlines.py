"""One strict JSON object a line: append, read, and cut back to where a checkpoint left the file."""

import io
import json
import math
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeGuard

from stormrl.disk.files import read_limited, replace, sync_folder, writable
from stormrl.errors import UserError

HISTORY_LIMIT = 2**30
"""No history comes near this many bytes; a larger file is not read into memory."""
LARGEST_NUMBER = 1e30
"""No measurement comes near it; what lies beyond is damage, and no sum or figure survives it."""


class JsonLines:
    """Append-only writer of one JSON object a line; every line is handed to the system at once.

    A last line that an earlier crash left torn is cut off on opening.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with self._writable():
            _cut_torn_line(self.path)
            new = not self.path.exists()
            self._file = self.path.open("ab")
            if new:
                sync_folder(self.path.parent)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append `record`; NaN and infinities become null, floats keep 6 significant digits."""
        with self._writable():
            self._file.write(f"{_line(record)}\n".encode())
            self._file.flush()

    def position(self) -> int:
        """Bytes written so far, all of them on the disk: a checkpoint may rely on them."""
        with self._writable():
            os.fsync(self._file.fileno())
            return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Close the file."""
        with self._writable():
            self._file.close()

    def _writable(self) -> AbstractContextManager[None]:
        return writable(f"to {self.path}", self.path.parent)


def read_jsonlines(path: str | Path) -> list[dict[str, Any]]:
    """Every object in the file; a missing file is an empty history, a torn last line is dropped.

    Raises UserError, with file and line number, for any other malformed line.
    """
    path = Path(path)
    if not path.exists():
        return []
    lines = read_limited(path, HISTORY_LIMIT).splitlines(keepends=True)
    if lines and not _is_whole(lines[-1]):
        lines.pop()
    return [_parse(line, path, number) for number, line in enumerate(lines, start=1)]


def truncate(path: str | Path, position: int) -> None:
    """Cut a file back to the first `position` bytes, where a checkpoint left it.

    Raises UserError if the file no longer holds what it held at that checkpoint.
    """
    path = Path(path)
    with writable(f"to {path}", path.parent), path.open("a+b") as file:
        if not _ends_line(file, position):
            raise UserError(
                str(path),
                "does not hold what it held when the checkpoint was saved: "
                "restore the file, or resume from another checkpoint",
            )
        file.truncate(position)


def keep_until(path: str | Path, key: str, last: int) -> None:
    """Drop the records whose `key` lies beyond `last`; the file changes in one atomic move.

    Raises UserError, with file and line number, for a record that has no number there.
    """
    path = Path(path)
    records = read_jsonlines(path)
    for number, record in enumerate(records, start=1):
        if type(record.get(key)) is not int:
            remedy = "repair or remove this line"
            raise UserError(f"{path}:{number}", f"has no whole number in {key!r}: {remedy}")
    kept = [record for record in records if record[key] <= last]
    if len(kept) == len(records):
        return
    content = "".join(f"{_line(record)}\n" for record in kept)
    with writable(f"to {path}", path.parent):
        replace(path, content.encode())


def is_number(value: object) -> TypeGuard[float]:
    """Whether a decoded JSON value is a finite number that can be summed and drawn."""
    # Not isinstance, which takes true for a number.
    return type(value) in (int, float) and abs(value) < LARGEST_NUMBER  # type: ignore[operator]


def plain(value: Any) -> Any:
    """`value` in JSON's own types; numpy and torch values give theirs through `tolist`."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(plain(record), allow_nan=False, ensure_ascii=False)


def _parse(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        record = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise UserError(f"{path}:{number}", "is not a JSON object: repair or remove this line")
    return record


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _is_whole(line: bytes) -> bool:
    """A line that ends, or that only lacks its line break."""
    if line.endswith(b"\n"):
        return True
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _cut_torn_line(path: Path) -> None:
    if not path.exists():
        return
    content = read_limited(path, HISTORY_LIMIT)
    last = content[content.rfind(b"\n") + 1 :]
    if not last:
        return
    with path.open("r+b") as file:
        if file.seek(0, os.SEEK_END) != len(content):
            return  # Somebody else is writing it at this moment.
        if _is_whole(last):
            file.write(b"\n")
        else:
            file.truncate(len(content) - len(last))


def _ends_line(file: io.BufferedRandom, position: int) -> bool:
    if position == 0:
        return True
    file.seek(position - 1)
    return file.read(1) == b"\n"
