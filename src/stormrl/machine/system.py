"""What differs between operating systems, asked in one place."""

from __future__ import annotations

import os

import psutil


def usable_cores() -> int:
    """Processor cores that this process may use; all there are where a system cannot tell."""
    process = psutil.Process()
    if hasattr(process, "cpu_affinity"):  # macOS binds no process to cores.
        return len(process.cpu_affinity())  # pyright: ignore[reportArgumentType]
    return os.cpu_count() or 1


def physical_memory() -> int:
    """Bytes of memory of the whole machine."""
    return psutil.virtual_memory().total


def user_id() -> int:
    """The person's number, by which a file tells its owner; 0 on Windows, as for files there."""
    return os.getuid() if hasattr(os, "getuid") else 0
