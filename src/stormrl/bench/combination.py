"""Benchmark of one size on one device in one mode, measured in this process."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from stormrl.bench.counting import count_flops, count_launches, count_operators
from stormrl.bench.memory import peak_memory
from stormrl.bench.peak import Peak, measure_peak
from stormrl.bench.timing import Spread, first_seconds, seconds, spread
from stormrl.bench.workbench import Workbench
from stormrl.config.parts import RunConfig
from stormrl.machine.allocator import keep_freed_memory
from stormrl.machine.device import DTYPES, Backend, choose_backend
from stormrl.machine.provenance import commit, hardware, versions


class Stage(NamedTuple):
    """One stage of an iteration."""

    time: Spread
    flops: int
    """Floating-point operations of matrix products and convolutions."""

    def as_dict(self, peak: Peak) -> dict[str, Any]:
        """JSON-able; `floor_fraction` is the share of the time that the arithmetic alone takes."""
        floor_s = self.flops / peak.matmul_flops_per_s
        fraction = floor_s / self.time.median_s if self.flops else None
        return {**self.time._asdict(), "flops": self.flops, "floor_fraction": fraction}


def bench(config: RunConfig, repeats: int = 20, threads: int | None = None) -> dict[str, Any]:
    """Time every stage of one iteration on random experience; JSON-able.

    threads: of the CPU; by default PyTorch's choice. The peak of memory is that of this process,
    whatever it did before included: measure in a fresh one (`stormrl.bench.apart`).
    """
    backend = choose_backend(config)
    _prepare(threads)
    workbench = Workbench(config, backend)
    first_call_s = first_seconds(workbench.iteration, backend.device)
    written = workbench.written()
    stages = {
        name: Stage(
            spread(seconds(work, repeats, backend.device)), count_flops(written.get(name, work))
        )
        for name, work in workbench.stages().items()
    }
    memory = peak_memory(
        backend.device
    )  # before the limits are measured, with tensors of their own
    peak = measure_peak(backend)
    return {
        **_circumstances(config, backend),
        "stages": {name: stage.as_dict(peak) for name, stage in stages.items()},
        "updates_per_s": 1 / stages["iteration"].time.median_s,
        "first_call_s": first_call_s,
        "peak": peak._asdict(),
        "parameters": workbench.parameters(),
        **_counts(workbench),
        "peak_memory_bytes": memory,
    }


def _prepare(threads: int | None) -> None:
    """The process as training sets it up."""
    if threads is not None:
        torch.set_num_threads(threads)
    keep_freed_memory()
    torch.set_flush_denormal(True)


def _circumstances(config: RunConfig, backend: Backend) -> dict[str, Any]:
    return {
        "preset": config.preset,
        "size": config.size,
        "env": config.env,
        "device": str(backend.device),
        "device_name": _device_name(backend.device),
        "dtype": next(name for name, dtype in DTYPES.items() if dtype == backend.dtype),
        "compile": backend.compiled,
        "cuda_graph": backend.captured,
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "commit": commit(),
    }


def _counts(workbench: Workbench) -> dict[str, Any]:
    parts = {name: count_operators(work) for name, work in workbench.counted().items()}
    on_cuda = workbench.backend.device.type == "cuda"
    return {
        "operators": count_operators(workbench.written()["update"]),
        "operators_by_part": parts,
        "launches": count_launches(workbench.update) if on_cuda else None,
    }


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return hardware()["cpu"]
