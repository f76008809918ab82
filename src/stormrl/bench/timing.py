"""Timer: seconds of work, also of work that a device does while the host goes on."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

Work = Callable[[], object]


class Spread(NamedTuple):
    """Seconds of one call, over many."""

    median_s: float
    p10_s: float
    p90_s: float


def seconds(work: Work, repeats: int, device: torch.device) -> list[float]:
    """Seconds of each call, after one that is not counted."""
    work()
    return [first_seconds(work, device) for _ in range(repeats)]


def first_seconds(work: Work, device: torch.device) -> float:
    """Seconds of one call, whatever it has to prepare included."""
    wait(device)
    started = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - started


def spread(times: list[float]) -> Spread:
    """Median and deciles of two times or more."""
    deciles = statistics.quantiles(times, n=10)
    # Beyond the fastest and slowest of a few, deciles would be guesses.
    low, high = max(deciles[0], min(times)), min(deciles[-1], max(times))
    return Spread(statistics.median(times), low, high)


def wait(device: torch.device) -> None:
    """Until the device has done everything it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
