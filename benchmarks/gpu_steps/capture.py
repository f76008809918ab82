"""Step 3: the eager update as one CUDA graph: the same numbers, in how much time."""

from __future__ import annotations

import torch

from gpu_steps.capturing import Update, captured_by_hand, captured_by_library
from gpu_steps.setting import (
    NEEDS_CUDA,
    Findings,
    Setting,
    State,
    Subject,
    difference,
    median_ms,
    subject,
)

COMPARED = 3

CAPTURES = {"by_hand": captured_by_hand, "by_library": captured_by_library}


def findings(setting: Setting) -> Findings:
    eager = subject(setting)
    expected = after(eager.update, eager)
    again = subject(setting)
    yield "eager_twice", difference(expected, after(again.update, again))
    for name, capture in CAPTURES.items():
        if not setting.on_cuda:
            yield name, NEEDS_CUDA
            continue
        model = subject(setting)
        try:
            update = capture(model)
            found = difference(expected, after(update, model))
        except (ImportError, TypeError, RuntimeError) as error:
            yield name, f"failed: {type(error).__name__}: {error}"
            continue
        memory = torch.cuda.max_memory_allocated(setting.device)
        ms = median_ms(update, setting)
        yield name, {**found, "wall_ms": ms, "peak_memory_bytes": memory}


def after(update: Update, model: Subject) -> State:
    """The learner's state after three updates."""
    for _ in range(COMPARED):
        update()
    return model.state()
