"""Step 6: saved in the middle and resumed: the same bits? And what determinism costs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file, save_file

from gpu_steps.capturing import Update, captured_by_hand
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
from stormrl.learning.state import learner_tensors, restore_learner
from stormrl.machine.device import compute_deterministically
from stormrl.machine.random_state import random_state, restore_random_state, seed_all

HALF = 2

Way = Callable[[Subject], Update]


def findings(setting: Setting) -> Findings:
    # Has to be there when the first matrix product is; alone it costs nothing.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    yield from ways(setting, "")
    compute_deterministically()
    yield from ways(setting, "deterministic_")


def ways(setting: Setting, prefix: str) -> Findings:
    yield f"{prefix}eager", resumed(setting, lambda model: model.update)
    captured = resumed(setting, captured_by_hand) if setting.on_cuda else NEEDS_CUDA
    yield f"{prefix}captured", captured


def resumed(setting: Setting, way: Way) -> dict[str, object] | str:
    """A learner that was saved and loaded halfway, against one that was left alone."""
    try:
        whole = subject(setting)
        update = way(whole)
        repeat(update, 2 * HALF)
        expected = whole.state()
        with tempfile.TemporaryDirectory() as folder:
            found = second_half(setting, way, Path(folder))
        return {**difference(expected, found), "wall_ms": median_ms(update, setting)}
    except RuntimeError as error:  # An operator without a deterministic form, or without capture.
        return f"failed: {error}"


def second_half(setting: Setting, way: Way, folder: Path) -> State:
    first = subject(setting)
    repeat(way(first), HALF)
    save(first, folder)
    second = subject(setting)
    update = way(second)
    seed_all(2)  # Whatever the random streams were, they are put back.
    load(second, folder)
    repeat(update, HALF)
    return second.state()


def save(model: Subject, folder: Path) -> None:
    for group, tensors in {**learner_tensors(model.learner), "random": random_state()}.items():
        save_file({n: t.detach().contiguous() for n, t in tensors.items()}, folder / group)


def load(model: Subject, folder: Path) -> None:
    """In place, on the device or captured as it is."""
    groups = {path.name: load_file(path) for path in folder.iterdir()}
    restore_learner(model.learner, groups)
    restore_random_state(groups["random"])


def repeat(update: Update, times: int) -> None:
    for _ in range(times):
        update()
