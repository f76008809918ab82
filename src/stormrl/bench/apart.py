"""Configurations side by side, each measured in a process of its own.

Only so are the peak of memory, the cost of the first call and the allocator's state those of one
configuration alone.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from typing import Any

from stormrl.bench.combination import bench
from stormrl.config.parts import RunConfig

Announce = Callable[[RunConfig, int], None]


def bench_apart(
    configs: Sequence[RunConfig],
    repeats: int = 20,
    threads: int | None = None,
    announce: Announce = lambda config, index: None,
) -> list[dict[str, Any]]:
    """What `bench` finds for each; where one fails, its size, device and mode with an `error`.

    announce: called with each configuration and its index before it is measured.
    """
    records = []
    for index, config in enumerate(configs):
        announce(config, index)
        records.append(_bench_in_fresh_process(config, repeats, threads))
    return records


def _bench_in_fresh_process(config: RunConfig, repeats: int, threads: int | None) -> dict[str, Any]:
    # Spawned, not forked: a fork shares the parent's memory and cannot use CUDA.
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, context, initializer=_end_with_parent) as pool:
            return pool.submit(bench, config, repeats, threads).result()
    except BrokenProcessPool:
        return _failure(config, "the process was killed; there may not be enough memory for it")
    except Exception as error:  # One that cannot be measured must not cost the others' results.
        return _failure(config, f"{type(error).__name__}: {error}")


def _end_with_parent() -> None:
    """A parent that is killed tells nobody; without it the measuring is of no use."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "meant for a process of its own"
    threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(process: BaseProcess) -> None:
    process.join()
    os._exit(1)


def _failure(config: RunConfig, error: str) -> dict[str, Any]:
    names = ("preset", "size", "env", "device", "compile")
    return {**{name: getattr(config, name) for name in names}, "error": error}
