"""An update as one CUDA graph: captured once, then launched as a whole.

At small sizes an update is thousands of kernels, and launching them takes longer than running
them. A graph launches all of them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from stormrl.experience.replay import Replay
from stormrl.learning.learner import Learner, Updated
from stormrl.learning.state import learner_tensors
from stormrl.machine.device import Backend
from stormrl.machine.random_state import random_state, restore_random_state

Update = Callable[[], dict[str, Updated]]

WARM_UPS = 3
"""Runs before a capture, in which libraries choose and load their kernels."""


class Scheduled(NamedTuple):
    """An update, which samples, computes and applies, and how often it is due."""

    ratio: float
    """Updates for each environment step."""
    update: Update


def updates(
    learner: Learner, replay: Replay, demonstration: Replay | None = None
) -> list[Scheduled]:
    """The updates of a learner on these experiences, as its backend wants them run."""
    scheduled = []
    for unit in learner.units():
        update = partial(unit.update, replay, demonstration)
        if learner.backend.captured:
            update = CapturedUpdate(update, learner, [replay.visits])
        scheduled.append(Scheduled(unit.ratio, update))
    return scheduled


class CapturedUpdate:
    """An update that is captured at its first call; what it tells is overwritten by the next.

    Everything that the update touches stays where it was at that time: states are restored in
    place, experience is written into the same ring. counts: what it changes beside the learner.
    """

    def __init__(self, update: Update, learner: Learner, counts: Sequence[Tensor] = ()) -> None:
        self.update, self.learner, self.counts = update, learner, counts
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> dict[str, Updated]:
        """Launch the graph. Raises `RuntimeError` if the update cannot be captured."""
        if self.graph is None:
            self._capture()
        assert self.graph is not None
        self.graph.replay()
        return self.updated

    def _capture(self) -> None:
        stream = torch.cuda.Stream(self.learner.backend.device)
        stream.wait_stream(torch.cuda.current_stream(stream.device))
        with undone(self.learner, self.counts), torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                self.update()
        torch.cuda.current_stream(stream.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            self.updated = self.update()
        self.graph = graph


@contextmanager
def undone(learner: Learner, counts: Sequence[Tensor] = ()) -> Iterator[None]:
    """Whatever updates are made inside leaves learner, counts and random streams as they were."""
    live = [t for group in learner_tensors(learner).values() for t in group.values()] + [*counts]
    before = [tensor.detach().clone() for tensor in live]
    streams = random_state()
    try:
        yield
    finally:
        _wait(learner.backend)
        with torch.no_grad():
            for tensor, saved in zip(live, before, strict=True):
                tensor.copy_(saved)
        restore_random_state(streams)


def _wait(backend: Backend) -> None:
    if backend.device.type == "cuda":
        torch.cuda.synchronize(backend.device)
