"""Metrics of many updates, summed on the device."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from stormrl.errors import UserError


class MetricSum:
    """Sums of metrics on the device, read once for many updates."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = device
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
        """Go on from saved sums. Raises `UserError` if sums and counts do not fit together."""
        usable = sums.keys() == counts.keys() and min(counts.values(), default=1) > 0
        if not usable or any(t.shape or not t.is_floating_point() for t in sums.values()):
            raise UserError("checkpoint", "holds no usable sums of metrics")
        self.sums = {name: total.to(self.device) for name, total in sums.items()}
        self.counts = dict(counts)
