"""One strict JSON object a line: append, read, and cut back to where a checkpoint left the file."""

import io
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeGuard

from stormrl.disk.files import (
    make_own,
    plain_size,
    readable,
    replace_parts,
    sync_folder,
    writable,
)
from stormrl.errors import UserError

KEPT_BYTES = 16 * 2**20
"""Of the lines of a longer history, each of which may take twenty times as much in memory, only
every second, third, ... is kept: the shape of a long run, whatever its length."""
LONGEST_LINE = 2**20
"""Bytes; a file with a longer line is no history."""
LARGEST_NUMBER = 1e30
"""No measurement comes near it; what lies beyond is damage, and no sum or figure survives it."""


class JsonLines:
    """Append-only writer of one JSON object a line; every line is handed to the system at once.

    A last line that an earlier crash left torn is cut off on opening.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with self._writable():
            make_own(self.path)
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

    Of a file beyond `KEPT_BYTES` every n-th, as `kept_every` says. Raises UserError, with file and
    line number, for any other malformed line.
    """
    return [record for _, record in stream(path, kept_every(path))]


def stream(path: str | Path, every: int = 1) -> Iterator[tuple[int, dict[str, Any]]]:
    """The same one after the other, with their line numbers; takes memory for a line at a time."""
    path = Path(path)
    for number, line in lines(path):
        if (number - 1) % every == 0 and _is_whole(line):
            yield number, _parse(line, path, number)


def kept_every(path: str | Path) -> int:
    """Of how many lines one is kept in memory: of all but the longest histories each."""
    path = Path(path)
    return 1 + plain_size(path) // KEPT_BYTES if path.exists() else 1


def lines(path: str | Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file with their numbers, of one that is missing none.

    Raises UserError for a line that is far too long for a history.
    """
    path = Path(path)
    if not path.exists():
        return
    plain_size(path)
    with readable(path), path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), start=1):
            if len(line) == LONGEST_LINE:
                raise UserError(f"{path}:{number}", "is far too long: this is no history")
            yield number, line


def parsed(line: bytes, constant: Callable[[str], Any] = float) -> dict[str, Any] | None:
    """The object in a line, or None for anything else; constant: makes a value of NaN's name."""
    try:
        record = json.loads(line, parse_constant=constant)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def truncate(path: str | Path, position: int) -> None:
    """Cut a file back to the first `position` bytes, where a checkpoint left it.

    Raises UserError if the file no longer holds what it held at that checkpoint.
    """
    path = Path(path)
    with writable(f"to {path}", path.parent):
        make_own(path)
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
    if all(_number_in(record, key, path, number) <= last for number, record in stream(path)):
        return
    kept = (
        f"{_line(record)}\n".encode()
        for number, record in stream(path)
        if _number_in(record, key, path, number) <= last
    )
    with writable(f"to {path}", path.parent):
        replace_parts(path, kept)


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


def _number_in(record: Mapping[str, Any], key: str, path: Path, number: int) -> int:
    value = record.get(key)
    if type(value) is not int:
        remedy = "repair or remove this line"
        raise UserError(f"{path}:{number}", f"has no whole number in {key!r}: {remedy}")
    return value


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(plain(record), allow_nan=False, ensure_ascii=False)


def _parse(line: bytes, path: Path, number: int) -> dict[str, Any]:
    record = parsed(line, _refuse_constant)
    if record is None:
        raise UserError(f"{path}:{number}", "is not a JSON object: repair or remove this line")
    return record


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _is_whole(line: bytes) -> bool:
    """A line that ends, or that only lacks its line break."""
    return line.endswith(b"\n") or parsed(line) is not None


def _cut_torn_line(path: Path) -> None:
    if not path.exists():
        return
    with path.open("r+b") as file:
        end = file.seek(0, io.SEEK_END)
        last = _last_line(file, end)
        if not last:
            return
        if file.seek(0, io.SEEK_END) != end:
            return  # Somebody else is writing it at this moment.
        if _is_whole(last):
            file.write(b"\n")
        else:
            file.truncate(end - len(last))


def _last_line(file: io.BufferedRandom, end: int) -> bytes:
    """What stands behind the last line break, no more of it than the longest line."""
    file.seek(max(end - LONGEST_LINE, 0))
    tail = file.read(LONGEST_LINE)
    return tail[tail.rfind(b"\n") + 1 :]


def _ends_line(file: io.BufferedRandom, position: int) -> bool:
    if position == 0:
        return True
    file.seek(position - 1)
    return file.read(1) == b"\n"
