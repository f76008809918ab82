"""Resources: what a run takes of a machine, and how many runs find room."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from stormrl.errors import UserError


class Machine(NamedTuple):
    """What a machine has to give."""

    cpus: float
    gpus: float = 0.0


class Share(NamedTuple):
    """What one run takes of a machine."""

    cpus: float = 1.0
    gpus: float = 0.0

    @property
    def threads(self) -> int:
        """Threads of the arithmetic: as many as the run has cores, so that runs do not compete."""
        return max(1, math.floor(self.cpus))

    def check(self) -> None:
        """Raises `UserError` for a share that cannot be had."""
        for name, value in {"cpus_per_run": self.cpus, "gpus_per_run": self.gpus}.items():
            if value < 0 or (name == "cpus_per_run" and value == 0):
                raise UserError(name, f"is {value:g}; give a number above 0")
            if value > 1 and value != int(value):
                raise UserError(name, f"is {value:g}; above 1, give a whole number")


def at_once(share: Share, machines: Sequence[Machine]) -> int:
    """Runs that find room at the same time on these machines."""
    return sum(_room(share, machine) for machine in machines)


def _room(share: Share, machine: Machine) -> int:
    by_cpus = math.floor(machine.cpus / share.cpus + 1e-9)
    if share.gpus == 0:
        return by_cpus
    if share.gpus >= 1:
        return min(by_cpus, math.floor(machine.gpus / share.gpus))
    return min(by_cpus, math.floor(machine.gpus) * math.floor(1 / share.gpus + 1e-9))
