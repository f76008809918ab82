"""One strict JSON object a line: append, read, and cut back to where a checkpoint left the file."""

import io
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stormrl.errors import UserError
from stormrl.files import writable


class JsonLines:
    """Append-only writer of one JSON object a line; every line is handed to the system at once.

    A last line that an earlier crash left torn is cut off on opening.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        _cut_torn_line(self.path)
        self._file = self.path.open("ab")

    def write(self, record: Mapping[str, Any]) -> None:
        """Append `record`; NaN and infinities become null, floats keep 6 significant digits."""
        line = json.dumps(plain(record), allow_nan=False, ensure_ascii=False)
        with writable(f"to {self.path}", self.path.parent):
            self._file.write(line.encode() + b"\n")
            self._file.flush()

    def position(self) -> int:
        """Bytes written so far, all of them on the disk: a checkpoint may rely on them."""
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_jsonlines(path: str | Path) -> list[dict[str, Any]]:
    """Every object in the file; a missing file is an empty history, a torn last line is dropped.

    Raises UserError, with file and line number, for any other malformed line.
    """
    path = Path(path)
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    if lines and not _is_whole(lines[-1]):
        lines.pop()
    return [_parse(line, path, number) for number, line in enumerate(lines, start=1)]


def truncate(path: str | Path, position: int) -> None:
    """Cut a file back to the first `position` bytes, where a checkpoint left it.

    Raises UserError if the file no longer holds what it held at that checkpoint.
    """
    path = Path(path)
    path.touch()
    with path.open("r+b") as file:
        if not _ends_line(file, position):
            raise UserError(
                str(path),
                "does not hold what it held when the checkpoint was saved: "
                "restore the file, or resume from another checkpoint",
            )
        file.truncate(position)


def keep_until(path: str | Path, key: str, last: int) -> None:
    """Drop the records whose `key` lies beyond `last`; the file changes in one atomic move."""
    path = Path(path)
    records = read_jsonlines(path)
    kept = [record for record in records if record[key] <= last]
    if len(kept) == len(records):
        return
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    lines = JsonLines(partial)
    for record in kept:
        lines.write(record)
    lines.position()  # on the disk before it takes the old file's place
    lines.close()
    partial.replace(path)


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


def _parse(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        record = json.loads(line, parse_constant=_refuse_constant)
    except ValueError:
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
    except ValueError:
        return False


def _cut_torn_line(path: Path) -> None:
    if not path.exists():
        return
    content = path.read_bytes()
    last = content[content.rfind(b"\n") + 1 :]
    if not last:
        return
    with path.open("r+b") as file:
        file.seek(len(content))
        if _is_whole(last):
            file.write(b"\n")
        else:
            file.truncate(len(content) - len(last))


def _ends_line(file: io.BufferedRandom, position: int) -> bool:
    if position == 0:
        return True
    file.seek(position - 1)
    return file.read(1) == b"\n"
