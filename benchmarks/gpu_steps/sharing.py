"""Step 7: several runs on the one device: how many updates a second they make together."""

from __future__ import annotations

import multiprocessing
import time
from typing import Any

import torch

from gpu_steps.capturing import Update, captured_by_hand
from gpu_steps.setting import Findings, Setting, Subject, subject
from stormrl.bench.timing import wait

RUNS = (1, 2, 4, 8)
SECONDS = 8.0
PATIENCE_S = 120.0


def findings(setting: Setting) -> Findings:
    for runs in RUNS if setting.on_cuda else RUNS[:2]:
        yield f"processes_{runs}", in_processes(setting, runs)
    if setting.on_cuda:
        for runs in RUNS[1:3]:
            yield f"streams_{runs}", on_streams(setting, runs)


def in_processes(setting: Setting, runs: int) -> dict[str, Any]:
    """A process for each run, all of them started at once."""
    context = multiprocessing.get_context("spawn")
    barrier, counts = context.Barrier(runs), context.SimpleQueue()
    processes = [
        context.Process(target=one_run, args=(setting, barrier, counts), daemon=True)
        for _ in range(runs)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    failed = sum(process.exitcode != 0 for process in processes)
    results = [counts.get() for _ in range(runs - failed)] if not failed else []
    return {
        "updates_per_s": sum(rate for rate, _ in results) if not failed else None,
        "each": [rate for rate, _ in results],
        "memory_bytes_each": [memory for _, memory in results],
        "failed": failed,
    }


def one_run(setting: Setting, barrier: Any, counts: Any) -> None:
    try:
        model = subject(setting)
        update = fastest(model)
        update()
        wait(setting.device)
        barrier.wait(PATIENCE_S)
        rate = updates_per_s([update], setting)
        memory = torch.cuda.max_memory_reserved(setting.device) if setting.on_cuda else None
        counts.put((rate, memory))
    except Exception:
        barrier.abort()  # Else the others would wait for this one.
        raise


def on_streams(setting: Setting, runs: int) -> dict[str, Any]:
    """One process; each run's graph on a stream of its own."""
    updates = [on_stream(captured_by_hand(subject(setting))) for _ in range(runs)]
    return {"updates_per_s": runs * updates_per_s(updates, setting)}


def on_stream(update: Update) -> Update:
    stream = torch.cuda.Stream()

    def launch() -> None:
        with torch.cuda.stream(stream):
            update()

    return launch


def updates_per_s(updates: list[Update], setting: Setting) -> float:
    """How often all of them can be called in turn, once a second."""
    rounds, started = 0, time.perf_counter()
    while time.perf_counter() - started < SECONDS:
        for _ in range(setting.updates):
            for update in updates:
                update()
        wait(setting.device)
        rounds += setting.updates
    return rounds / (time.perf_counter() - started)


def fastest(model: Subject) -> Update:
    on_cuda = model.learner.backend.device.type == "cuda"
    return captured_by_hand(model) if on_cuda else model.update
