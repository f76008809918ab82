"""An update as a CUDA graph: by hand, or as the library does it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from gpu_steps.setting import State, Subject
from stormrl.learning.state import learner_tensors
from stormrl.machine.random_state import random_state, restore_random_state

Update = Callable[[], object]

WARM_UPS = 3


def captured_by_hand(model: Subject) -> Update:
    """World-model and agent update in one graph; warming up leaves nothing behind."""
    device = model.learner.backend.device
    before, streams = model.state(), random_state()
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(WARM_UPS):
            model.update()
    torch.cuda.current_stream(device).wait_stream(side)
    torch.cuda.synchronize(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        model.update()
    put_back(model, before)
    restore_random_state(streams)
    return graph.replay


def captured_by_library(model: Subject) -> Update:
    """The updates that `stormrl train` runs on a backend that captures.

    Raises `ImportError` or `TypeError` where the library has no captured updates.
    """
    from stormrl.learning.graphs import updates  # pyright: ignore[reportMissingImports]

    learner = model.learner
    learner.backend = replace(learner.backend, captured=True)  # pyright: ignore[reportCallIssue]
    world_model, agent = updates(learner, model.replay)

    def update() -> None:
        world_model()
        agent()

    return update


@torch.no_grad()
def put_back(model: Subject, before: State) -> None:
    """Every tensor of the learner as it was, in place."""
    for group, tensors in learner_tensors(model.learner).items():
        for name, tensor in tensors.items():
            tensor.copy_(before[f"{group}.{name}"])
