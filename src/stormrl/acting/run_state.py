"""What a checkpoint keeps of a run beside tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from stormrl.errors import UserError


@dataclass(frozen=True)
class RunState:
    """Counters and small values from which a run goes on."""

    step: int
    """Environment steps so far."""
    trained_steps: int
    """Environment steps since training began."""
    pretrained: int
    """Updates before the agent acted for the first time."""
    elapsed_s: float
    """Seconds of training so far, interruptions left out."""
    is_first: bool
    """Whether the next step is the first of an episode."""
    episode_total: float
    """Return so far of the episode in flight."""
    episode_length: int
    """Steps so far of the episode in flight."""
    episode_seed: int
    """Seed of the episode in flight."""
    metric_counts: dict[str, int]
    """Updates in each sum of metrics that is not written yet."""
    replay: dict[str, Any]
    """Manifest of the replay's files."""
    histories: dict[str, int]
    """Length in bytes of the run's histories."""
    circumstances: dict[str, str]
    """What the bits hung on by then; empty of a checkpoint of an older version."""

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> RunState:
        """Read what `dataclasses.asdict` made. Raises `UserError` naming what is missing or odd."""
        values = {field.name: _read(record, field.name) for field in fields(cls)}
        return cls(**values)

    def check(self, step: int) -> None:
        """Raises `UserError` unless it counts as the run at the checkpoint of that step had to."""
        added = self.replay.get("added")
        # A row for each step, and at most one more for each episode's end.
        rows = isinstance(added, int) and step <= added <= 2 * step
        if self.step != step or not rows or max(self.trained_steps, self.episode_length) > step:
            raise UserError("checkpoint", "its state.json counts steps that were never taken")


LARGEST = 2**63 - 1
"""Larger integers fit no tensor and no seed."""


def _count(value: object) -> bool:
    return type(value) is int and 0 <= value <= LARGEST


def _number(value: object) -> bool:
    return _count(value) or (type(value) is float and math.isfinite(value))


def _counts(value: object) -> bool:
    return isinstance(value, dict) and all(map(_count, value.values()))


def _words(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    words = (*value.keys(), *value.values())
    return all(isinstance(word, str) and word.isprintable() and len(word) < 200 for word in words)


_CHECKS: dict[str, Callable[[object], bool]] = {
    "step": _count,
    "trained_steps": _count,
    "pretrained": _count,
    "elapsed_s": _number,
    "is_first": lambda value: type(value) is bool,
    "episode_total": _number,
    "episode_length": _count,
    "episode_seed": _count,
    "metric_counts": _counts,
    "replay": lambda value: isinstance(value, dict),
    "histories": _counts,
    "circumstances": _words,
}
ABSENT: dict[str, Any] = {"circumstances": {}, "pretrained": 0}
"""What older versions did not write."""


def _read(record: Mapping[str, Any], name: str) -> Any:
    value = record.get(name, ABSENT.get(name))
    if not _CHECKS[name](value):
        raise UserError("checkpoint", f"its state.json holds no usable {name!r}")
    return value
