"""Metrics of many updates, summed on the device."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class MetricSum:
    """Sums of metrics on the device, read once for many updates."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, metrics: Mapping[str, Tensor], prefix: str) -> None:
        """Add the metrics of one update, named `prefix/name`."""
        for name, value in metrics.items():
            key = f"{prefix}/{name}"
            total = self.sums.get(key)
            self.sums[key] = value.clone() if total is None else total.add_(value)
            self.counts[key] = self.counts.get(key, 0) + 1

    def read(self) -> dict[str, float]:
        """Means since the last call; the one place where the host waits for the device."""
        if not self.sums:
            return {}
        sums = torch.stack([value.float() for value in self.sums.values()]).tolist()
        means = {key: s / self.counts[key] for key, s in zip(self.sums, sums, strict=True)}
        self.sums, self.counts = {}, {}
        return means

    def restore(self, sums: Mapping[str, Tensor], counts: Mapping[str, int]) -> None:
        """Go on from saved sums."""
        self.sums, self.counts = dict(sums), dict(counts)
