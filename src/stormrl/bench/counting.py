"""FLOP counter: arithmetic, operators and launches of some work, the same on any machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import (
    FlopCounterMode,
    conv_flop_count,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from stormrl.bench.timing import Work
from stormrl.nn.cpu import strided

LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch")
"""How calls begin that start a kernel, or a graph of them."""


def count_flops(work: Work) -> int:
    """Floating-point operations that one call of `work` cannot do without.

    Matrix products, attention and convolutions, a multiplication and an addition as two; as the
    layers define them, so that compiling or rearranging them changes nothing. A masked part of an
    attention counts like the rest.
    """
    counter = FlopCounterMode(display=False, custom_mapping=_cpu_kernels())
    with _as_defined(), torch.compiler.set_stance("force_eager"), counter:
        work()
    return counter.get_total_flops()


def count_operators(work: Work) -> int:
    """PyTorch operators that one call of `work` consists of, before any are compiled into one."""
    with torch.compiler.set_stance("force_eager"), _OperatorCounter() as counter:
        work()
    return counter.count


def count_launches(work: Work) -> int:
    """Kernels and graphs of kernels that one call of `work` starts on a CUDA device."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        work()
        torch.cuda.synchronize()
    return sum(event.name.startswith(LAUNCHES) for event in profiler.events() or ())


class _OperatorCounter(TorchDispatchMode):
    """Counts the operators that reach the device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def _as_defined() -> Iterator[None]:
    """Layers that save time by more arithmetic, as plain ones."""
    few = strided.FEW_CHANNELS
    strided.FEW_CHANNELS = 0
    try:
        yield
    finally:
        strided.FEW_CHANNELS = few


def _cpu_kernels() -> dict[Any, Any]:
    """Fused attention and convolution of CPUs, which PyTorch's table of formulas leaves out."""
    aten, mkldnn = torch.ops.aten, torch.ops.mkldnn
    return {
        aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
        mkldnn._convolution_pointwise: _convolution,
    }


def _convolution(x: Any, weight: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    return conv_flop_count(x, weight, out_shape)


def _attention(q: Any, k: Any, v: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    return sdpa_flop_count(q, k, v)


def _attention_backward(
    grad: Any, q: Any, k: Any, v: Any, *args: Any, out_shape: Any = None, **kwargs: Any
) -> int:
    return sdpa_backward_flop_count(grad, q, k, v)
