"""How much memory there is: the machine's, or the part of it that a container may use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from stormrl.machine.system import physical_memory

GROUPS = Path("/proc/self/cgroup")
ROOT = Path("/sys/fs/cgroup")


def available_memory() -> int:
    """Bytes that this process may take, whatever others have taken of them."""
    return min([physical_memory(), *_limits()])


def _limits() -> Iterator[int]:
    """The limits of the groups that the process is in, and of those around them."""
    for path in _limit_files():
        # A group without a limit says "max", or in version 1 a number beyond any machine.
        with suppress(OSError, ValueError):
            yield int(path.read_text())


def _limit_files() -> Iterator[Path]:
    try:
        lines = GROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        match line.split(":", 2):
            case ["0", "", group]:
                yield from _upwards(ROOT, group, "memory.max")
            case [_, controllers, group] if "memory" in controllers.split(","):
                yield from _upwards(ROOT / "memory", group, "memory.limit_in_bytes")


def _upwards(root: Path, group: str, name: str) -> Iterator[Path]:
    """The file of a group and of all around it; in a container the innermost is often the root."""
    folder = root / group.lstrip("/")
    while folder.is_relative_to(root):
        yield folder / name
        folder = folder.parent
