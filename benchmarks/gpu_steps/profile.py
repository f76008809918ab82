"""Step 2: an eager update: launches, time in kernels, time on the clock, waits for the device."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from gpu_steps.setting import NEEDS_CUDA, Findings, Setting, Subject, median_ms, subject
from stormrl.bench.counting import count_flops, count_launches, count_operators

SHOWN = 15


def findings(setting: Setting) -> Findings:
    model = subject(setting)
    yield "wall_ms", median_ms(model.update, setting)
    yield "flops", count_flops(model.update)
    yield "operators", count_operators(model.update)
    if not setting.on_cuda:
        yield "kernels", NEEDS_CUDA
        return
    yield "peak_memory_bytes", torch.cuda.max_memory_allocated(setting.device)
    yield "launches", count_launches(model.update)
    yield "waits", waits(model)
    yield from kernels(model)


def waits(model: Subject) -> list[str]:
    """Where the host waits for the device in an update, as far as PyTorch notices."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.update()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    places = {f"{w.filename.rpartition('/')[2]}:{w.lineno} {w.message}" for w in caught}
    return sorted(places)


def kernels(model: Subject) -> Findings:
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        model.update()
        torch.cuda.synchronize()
    averages: list[Any] = [
        event for event in profiler.key_averages() if event.device_type.name == "CUDA"
    ]
    averages.sort(key=lambda event: event.self_device_time_total, reverse=True)
    yield "kernel_ms", sum(event.self_device_time_total for event in averages) / 1000
    yield (
        "longest",
        [
            {"name": e.key[:100], "calls": e.count, "ms": e.self_device_time_total / 1000}
            for e in averages[:SHOWN]
        ],
    )
