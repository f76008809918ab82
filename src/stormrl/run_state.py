"""What a checkpoint keeps of a run beside tensors."""

from __future__ import annotations

from collections.abc import Mapping
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

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> RunState:
        """Read what `dataclasses.asdict` made. Raises `UserError` naming what is missing or odd."""
        values = {field.name: _read(record, field.name) for field in fields(cls)}
        return cls(**values)


_KINDS: dict[str, tuple[type, ...]] = {
    "step": (int,),
    "trained_steps": (int,),
    "elapsed_s": (int, float),
    "is_first": (bool,),
    "episode_total": (int, float),
    "episode_length": (int,),
    "episode_seed": (int,),
    "metric_counts": (dict,),
    "replay": (dict,),
    "histories": (dict,),
}


def _read(record: Mapping[str, Any], name: str) -> Any:
    value = record.get(name)
    kinds = _KINDS[name]
    odd_boolean = isinstance(value, bool) and bool not in kinds
    if not isinstance(value, kinds) or odd_boolean:
        raise UserError("checkpoint", f"its state.json holds no usable {name!r}")
    return value
