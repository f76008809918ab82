"""Non-finite gradients (NaN, infinity): updates that were skipped are counted and explained.

Counting happens on the device and waits for nothing; `read` is called where metrics are read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stormrl.config.parts import AgentConfig
from stormrl.disk.tensor_files import check_tensors
from stormrl.errors import Fault, UserError
from stormrl.experience.replay import Replay

METRIC = "metric."
"""Prefix of a metric's name among the tensors of a part."""


class Diagnosis(NamedTuple):
    """What is known of the updates of one part that were skipped since the last look."""

    part: str
    """world_model or agent"""
    skipped: int
    """How many."""
    longest: int
    """Most of them in a row; the row may have begun before the last look."""
    step: int
    """Environment step of the last one."""
    metrics: dict[str, float]
    """Its losses and its gradient norm."""
    windows: list[int]
    """Where the windows of its batch begin, in steps from the run's first."""
    length: int
    """Steps in each window."""
    damaged: dict[str, list[int]]
    """Steps of these windows whose numbers in replay are not finite, by field."""

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON: nan and inf, which matter here, as text."""
        metrics = {n: v if math.isfinite(v) else str(v) for n, v in self.metrics.items()}
        return self._asdict() | {"metrics": metrics}

    def check(self, most: int) -> None:
        """Raises `Fault` if `most` updates or more were skipped in a row."""
        if self.longest < most:
            return
        what = f"{self.longest} updates of the {self.part} in a row met numbers that are not finite"
        steps = sorted({step for steps in self.damaged.values() for step in steps})
        why = f"so are numbers in replay, at step {steps[0]}" if steps else "those in replay are"
        raise Fault("max_skipped", f"{what} and were not applied; {why}")


class SkippedUpdates:
    """Counts skipped updates in a row, and keeps what the last one was about."""

    def __init__(self, agent: AgentConfig, device: torch.device) -> None:
        world_model, imagination = agent.world_model, agent.imagination
        read = world_model.batch_size, world_model.window
        dreamt = imagination.batch_size, imagination.context
        windows = {"world_model": read, "agent": dreamt}
        if imagination.dreams_from == "posteriors":
            windows["agent"] = read
        self._lengths = {part: length for part, (_, length) in windows.items()}
        self._parts = {part: _blank(count, device) for part, (count, _) in windows.items()}

    def note(self, part: str, step: int, metrics: Mapping[str, Tensor], windows: Tensor) -> None:
        """Take an update into account; windows: int64 [B], where those of its batch begin.

        Those of the run's own experience stand first, and are kept.
        """
        last = self._parts[part]
        skipped = metrics["skipped"] > 0
        last["in_a_row"] = torch.where(skipped, last["in_a_row"] + 1, 0)
        last["longest"] = torch.maximum(last["longest"], last["in_a_row"])
        last["skipped"] = last["skipped"] + skipped
        last["step"] = torch.where(skipped, step, last["step"])
        own = windows[: len(last["windows"])]
        own = torch.cat([own, last["windows"][len(own) :]])
        last["windows"] = torch.where(skipped, own, last["windows"])
        for name, value in metrics.items():
            before = last.get(METRIC + name, value)
            last[METRIC + name] = torch.where(skipped, value.float(), before)

    def read(self, replay: Replay) -> list[Diagnosis]:
        """What was skipped since the last call; waits for the device."""
        found = [self._diagnosis(p, replay) for p, last in self._parts.items() if last["skipped"]]
        for last in self._parts.values():
            for name in ("skipped", "longest"):
                last[name] = torch.zeros_like(last[name])
        return found

    def tensors(self) -> dict[str, Tensor]:
        """All of it by name, for a checkpoint."""
        return {
            f"{part}.{name}": tensor
            for part, last in self._parts.items()
            for name, tensor in last.items()
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from saved tensors. Raises `UserError` if they are not of this kind."""
        for part, last in self._parts.items():
            prefix = f"{part}."
            saved = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
            fixed = {name: t for name, t in saved.items() if not name.startswith(METRIC)}
            check_tensors(last, fixed, f"skipped.{part}")
            if any(t.shape or t.dtype != torch.float32 for n, t in saved.items() if n not in fixed):
                raise UserError("checkpoint", f"skipped.{part} holds a metric that is no number")
            last |= {name: tensor.to(last["step"].device) for name, tensor in saved.items()}

    def _diagnosis(self, part: str, replay: Replay) -> Diagnosis:
        last, length = self._parts[part], self._lengths[part]
        metrics = {n.removeprefix(METRIC): t for n, t in last.items() if n.startswith(METRIC)}
        windows = last["windows"].tolist()
        return Diagnosis(
            part=part,
            skipped=int(last["skipped"]),
            longest=int(last["longest"]),
            step=int(last["step"]),
            metrics={name: float(value) for name, value in sorted(metrics.items())},
            windows=windows,
            length=length,
            damaged=damaged_steps(replay, windows, length),
        )


def damaged_steps(replay: Replay, windows: list[int], length: int) -> dict[str, list[int]]:
    """Steps of these windows, still in replay, whose numbers are not finite, by field."""
    steps = {first + offset for first in windows for offset in range(length)}
    held = torch.tensor(sorted(step for step in steps if replay.added - len(replay) <= step))
    slots = held.long() % replay.capacity
    fields = {"reward": replay.reward, "continues": replay.continues}
    return {
        field: held[~torch.isfinite(values.cpu()[slots])].tolist()
        for field, values in fields.items()
    }


def _blank(windows: int, device: torch.device) -> dict[str, Tensor]:
    counts = ("in_a_row", "longest", "skipped", "step")
    blank = {name: torch.zeros((), dtype=torch.int64, device=device) for name in counts}
    return blank | {"windows": torch.zeros(windows, dtype=torch.int64, device=device)}
