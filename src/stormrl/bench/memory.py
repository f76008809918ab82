"""Peak memory: the most that this process ever held."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch


def peak_memory(device: torch.device) -> int:
    """Bytes: tensors on a CUDA device, or the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _high_water_mark() or _peak_or_now()


def _high_water_mark() -> int | None:
    # Not `getrusage`: Linux begins it with what the parent process held.
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    marks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return marks[0] * 1024 if marks else None


def _peak_or_now() -> int:
    """Windows tells the peak; elsewhere what is held now is the best that is known."""
    memory = psutil.Process().memory_info()
    return getattr(memory, "peak_wset", memory.rss)
