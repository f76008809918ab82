"""What training sets for the whole process, and how it is put back for the program around it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from stormrl.machine.device import WORKSPACE
from stormrl.machine.random_state import kept_random_state


@contextmanager
def kept_process() -> Iterator[None]:
    """Whatever training sets while this is entered, it is afterwards as it was.

    Random generators, denormal numbers, and which algorithms of CUDA are allowed.
    """
    with ExitStack() as before:
        before.enter_context(kept_random_state())
        before.callback(torch.set_flush_denormal, flushes_denormals())
        before.callback(_allow, _allowed())
        before.callback(_set_workspace, os.environ.get(WORKSPACE))
        yield


def flushes_denormals() -> bool:
    """Whether numbers too small for a full mantissa become 0; PyTorch does not tell."""
    return bool(torch.tensor(torch.finfo(torch.float32).tiny) / 2 == 0)


def _allowed() -> dict[str, bool]:
    cuda = torch.backends.cuda
    return {
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "benchmark": torch.backends.cudnn.benchmark,
        "flash": cuda.flash_sdp_enabled(),
        "efficient": cuda.mem_efficient_sdp_enabled(),
        "cudnn": cuda.cudnn_sdp_enabled(),
    }


def _allow(allowed: dict[str, bool]) -> None:
    torch.use_deterministic_algorithms(allowed["deterministic"], warn_only=allowed["warn_only"])
    torch.backends.cudnn.benchmark = allowed["benchmark"]
    torch.backends.cuda.enable_flash_sdp(allowed["flash"])
    torch.backends.cuda.enable_mem_efficient_sdp(allowed["efficient"])
    torch.backends.cuda.enable_cudnn_sdp(allowed["cudnn"])


def _set_workspace(value: str | None) -> None:
    if value is None:
        os.environ.pop(WORKSPACE, None)
    else:
        os.environ[WORKSPACE] = value
