"""A suite played through in simulated time: packing, queueing, failures, going on."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

Uptime = Callable[[], float]
"""Seconds until a machine that has just come up fails."""


@dataclass(frozen=True)
class Work:
    """One run."""

    seconds: float
    """Training, on a machine that trains nothing else."""
    checkpoint_s: float = math.inf
    """Training between two checkpoints."""
    start_s: float = 0.0
    """From being handed out to the first step, each time it is."""


@dataclass(frozen=True)
class Cluster:
    """Equal machines (or GPUs: whatever fails and is shared as one)."""

    machines: int
    slots: int
    """Runs at once on one machine."""
    slowdown: tuple[float, ...] = (1.0,)
    """How many times longer a run takes when 1, 2, .. train on its machine; the last goes on."""
    repair_s: float = 0.0
    """From a failure until the machine takes runs again."""

    def slowed(self, runs: int) -> float:
        """The slowdown with so many runs on a machine."""
        return self.slowdown[min(runs, len(self.slowdown)) - 1]


class Result(NamedTuple):
    """What became of a simulated suite."""

    seconds: float
    """Until the last run had finished."""
    lost_s: float
    """Training that was done twice, all runs together."""
    failures: int
    """Failures of machines that were training."""


@dataclass
class _Run:
    work: Work
    done_s: float = 0.0
    start_left_s: float = 0.0

    @property
    def left_s(self) -> float:
        return self.start_left_s + self.work.seconds - self.done_s

    def advance(self, seconds: float) -> None:
        started = min(seconds, self.start_left_s)
        self.start_left_s -= started
        self.done_s += seconds - started

    def fall_back(self) -> float:
        """To the last checkpoint; the seconds of training that are lost."""
        # The small share undoes rounding where a checkpoint has just been written.
        saved_s = 0.0
        if math.isfinite(self.work.checkpoint_s):
            count = math.floor(self.done_s / self.work.checkpoint_s + 1e-9)
            saved_s = count * self.work.checkpoint_s
        lost_s, self.done_s = self.done_s - saved_s, saved_s
        return max(lost_s, 0.0)


@dataclass
class _Machine:
    fails_at_s: float
    up_at_s: float = 0.0
    runs: list[_Run] = field(default_factory=list)


def simulate(works: Sequence[Work], cluster: Cluster, uptime: Uptime = lambda: math.inf) -> Result:
    """Hand out runs in their order, each to the emptiest machine, until all have finished.

    A machine that fails sends its runs back to the head of the queue, at their last checkpoints.
    """
    queue = deque(_Run(work) for work in works)
    machines = [_Machine(uptime()) for _ in range(cluster.machines)]
    now_s, lost_s, failures = 0.0, 0.0, 0
    while queue or any(machine.runs for machine in machines):
        _hand_out(queue, machines, cluster.slots, now_s)
        next_s = _next_event(machines, cluster, now_s, waiting=bool(queue))
        for machine in machines:
            _train(machine, cluster, next_s - now_s)
        now_s = next_s
        for machine in machines:
            if machine.fails_at_s <= now_s:
                failures += bool(machine.runs)
                lost_s += _fail(machine, queue)
                machine.up_at_s = now_s + cluster.repair_s
                machine.fails_at_s = machine.up_at_s + uptime()
    return Result(now_s, lost_s, failures)


def uptimes(mean_s: float, seed: int) -> Uptime:
    """Exponential times between failures, drawn from a seed."""
    generator = random.Random(seed)
    return lambda: generator.expovariate(1 / mean_s)


def _hand_out(queue: deque[_Run], machines: list[_Machine], slots: int, now_s: float) -> None:
    while queue:
        free = [m for m in machines if m.up_at_s <= now_s and len(m.runs) < slots]
        if not free:
            return
        run = queue.popleft()
        run.start_left_s = run.work.start_s
        min(free, key=lambda machine: len(machine.runs)).runs.append(run)


def _next_event(machines: list[_Machine], cluster: Cluster, now_s: float, waiting: bool) -> float:
    """When the next run ends, the next machine fails, or one comes back that is waited for."""
    times = [machine.fails_at_s for machine in machines]
    for machine in machines:
        slowed = cluster.slowed(len(machine.runs)) if machine.runs else 1.0
        times += [now_s + run.left_s * slowed for run in machine.runs]
        if waiting and machine.up_at_s > now_s:
            times.append(machine.up_at_s)
    return min(times)


def _train(machine: _Machine, cluster: Cluster, seconds: float) -> None:
    if not machine.runs:
        return
    progress = seconds / cluster.slowed(len(machine.runs))
    for run in machine.runs:
        run.advance(progress)
    machine.runs = [run for run in machine.runs if run.left_s > 1e-9 * run.work.seconds]


def _fail(machine: _Machine, queue: deque[_Run]) -> float:
    lost_s = sum(run.fall_back() for run in machine.runs)
    queue.extendleft(reversed(machine.runs))
    machine.runs = []
    return lost_s
