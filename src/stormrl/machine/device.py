"""Device, precision and compilation: each chosen by one function."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch

from stormrl.config.parts import RunConfig
from stormrl.errors import UserError
from stormrl.nn.conv import Encoder
from stormrl.nn.layers import FOR_CPU
from stormrl.nn.private import private

TRIALS = 8
"""Times that a choice is timed; the shortest counts, which other work disturbs least."""
DOUBT = 1.3
"""How many times faster a type must be to win against what the processor lists."""
WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""Variable by which cuBLAS is told to repeat its bits."""
LISTED = "cpu._is_avx512_bf16_supported", "cpu._is_amx_tile_supported"
"""Functions of PyTorch that tell of bfloat16 what a processor lists; there are no public ones."""
for _name in LISTED:
    private(_name)
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def choose_device(name: str) -> torch.device:
    """Resolve auto, cpu, cuda or cuda:N. Raises `UserError` if this machine lacks it."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError("device", f"{name!r} is unknown; give auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError("device", f"{name!r} is not supported; give auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError("device", f"{name!r} is not available here; give --device auto or cpu")
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Resolve auto: on CUDA bfloat16 if the device computes in it, on a CPU what is faster."""
    if name != "auto":
        return DTYPES[name]
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float32
    return fastest_on_cpu()


@cache
def fastest_on_cpu() -> torch.dtype:
    """The type in which this machine encodes images in less time, forward and backward.

    What a processor lists tells little: some only emulate bfloat16, some multiply it twice as fast.
    It decides where both are about as fast. Measured once a process, in some tenths of a second; a
    run keeps what it began with, as its bits must not hang on a clock.
    """
    with torch.random.fork_rng(devices=[]):
        encoder = Encoder(3, 8, FOR_CPU)
    images = torch.zeros(32, 3, 64, 64, dtype=torch.uint8)

    def work(dtype: torch.dtype) -> float:
        started = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            encoder(images).float().sum().backward()
        return time.perf_counter() - started

    # In turn, so that a slow moment of the machine meets both.
    rounds = [[work(dtype) for dtype in (torch.bfloat16, torch.float32)] for _ in range(TRIALS)]
    narrow, wide = map(min, zip(*rounds, strict=True))
    doubt = DOUBT if _lists_bf16() else 1 / DOUBT
    return torch.bfloat16 if narrow < wide * doubt else torch.float32


def _lists_bf16() -> bool:
    return any(private(name)() for name in LISTED)


def choose_compile(name: str, device: torch.device) -> bool:
    """Resolve auto: compile on CUDA, where launches are the cost; run eagerly on CPU.

    On a CPU it saved nothing and cost most of a minute to begin with (docs/performance.md).
    Raises `UserError` if it is asked for and no compiler is there.
    """
    compilers = os.environ.get("CXX", "g++"), "g++", "clang++"
    found = any(map(shutil.which, compilers))
    if name == "on" and not found:
        remedy = "install g++ or name one in CXX; a new run may leave it off"
        raise UserError("compile", f"needs a C++ compiler, and none is found; {remedy}")
    return name == "on" or (name == "auto" and device.type == "cuda" and found)


def choose_capture(name: str, device: torch.device) -> bool:
    """Whether updates are launched as CUDA graphs. Raises `UserError` on a device without them."""
    if name == "on" and device.type != "cuda":
        raise UserError("cuda_graph", f"needs a CUDA device, not {device}; leave it off")
    return name == "on"


def compute_deterministically() -> None:
    """Make CUDA repeat its bits, for the rest of the process; an algorithm that cannot raises."""
    os.environ.setdefault(WORKSPACE, ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    # Of the attention kernels only the plain one adds up in a fixed order.
    torch.backends.cuda.enable_flash_sdp(False)
    torch.backends.cuda.enable_mem_efficient_sdp(False)
    torch.backends.cuda.enable_cudnn_sdp(False)


@dataclass(frozen=True)
class Backend:
    """Where and how the update runs."""

    device: torch.device
    dtype: torch.dtype = torch.float32
    compiled: bool = False
    captured: bool = False
    """Launch each update as one CUDA graph."""

    def autocast(self) -> torch.autocast:
        """Context in which matrix products run in `dtype`. Entered outside compiled functions."""
        lower = self.dtype != torch.float32
        dtype = self.dtype if lower else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype, enabled=lower)

    def fork_rng(self) -> AbstractContextManager[None]:
        """Context that leaves the random streams as it found them."""
        return torch.random.fork_rng([self.device] if self.device.type == "cuda" else [])

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function itself, or compiled with static shapes and without graph breaks."""
        if not self.compiled:
            return function
        return torch.compile(function, fullgraph=True, dynamic=False)

    def __str__(self) -> str:
        precision = next(name for name, dtype in DTYPES.items() if dtype == self.dtype)
        mode = "compiled" if self.compiled else "eager"
        return f"{self.device}, {precision}, {mode}{', CUDA graph' if self.captured else ''}"


def moved(config: RunConfig, device: str | None) -> RunConfig:
    """The config of a run that goes on on another device, or on its own without one.

    It launches CUDA graphs only where there are any. Raises `UserError` as `choose_device` does.
    """
    placed = config if device is None else replace(config, device=device)
    on_cuda = choose_device(placed.device).type == "cuda"
    return placed if on_cuda else replace(placed, cuda_graph="off")


def settled(config: RunConfig) -> RunConfig:
    """The config with what is measured once for a whole run. Raises `UserError` as below."""
    return _with(config, choose_precision(config.precision, choose_device(config.device)))


def settled_before(config: RunConfig) -> RunConfig:
    """The same for a run that began when a CPU's arithmetic was chosen by what it lists."""
    if choose_device(config.device).type == "cuda":
        return settled(config)
    return _with(config, torch.bfloat16 if _lists_bf16() else torch.float32)


def _with(config: RunConfig, dtype: torch.dtype) -> RunConfig:
    (name,) = (name for name, each in DTYPES.items() if each == dtype)
    return replace(config, precision=name)


def choose_backend(config: RunConfig) -> Backend:
    """The backend of a run. Raises `UserError` if the machine lacks the device asked for."""
    device = choose_device(config.device)
    return Backend(
        device=device,
        dtype=choose_precision(config.precision, device),
        compiled=choose_compile(config.compile, device),
        captured=choose_capture(config.cuda_graph, device),
    )
