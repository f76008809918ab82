"""Peak throughput: what the device reaches at its best."""

from __future__ import annotations

from typing import NamedTuple

import torch

from stormrl.bench.timing import seconds
from stormrl.machine.device import Backend

TRIES = 7


class Peak(NamedTuple):
    """The device's limits, measured in the same call as the stages."""

    matmul_flops_per_s: float
    """Square matrix product of random numbers in the precision of the run."""
    copy_bytes_per_s: float
    """Copy of a large tensor, bytes read and written."""


def measure_peak(backend: Backend) -> Peak:
    """Matrix rate and copy bandwidth, best of several tries."""
    side = 8192 if backend.device.type == "cuda" else 2048
    a = torch.randn(side, side, device=backend.device, dtype=backend.dtype)
    # Two streams of a size that no cache holds.
    size = 2**32 if backend.device.type == "cuda" else 2**28
    source = torch.ones(size, dtype=torch.uint8, device=backend.device)
    target = torch.empty_like(source)
    matmul_s = min(seconds(lambda: a @ a, TRIES, backend.device))
    copy_s = min(seconds(lambda: target.copy_(source), TRIES, backend.device))
    return Peak(2 * side**3 / matmul_s, 2 * size / copy_s)
