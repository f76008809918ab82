"""Private names of PyTorch: each is asked for once, when what uses it is imported.

A release may change them without a word, and a person should then read more than an AttributeError
from the middle of a training.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import reduce
from typing import Any

import torch

from stormrl.errors import UserError


def private(path: str) -> Any:
    """What PyTorch keeps under a name of its own, as in `cpu._is_amx_tile_supported`.

    Raises `UserError` if this version has nothing there.
    """
    try:
        return reduce(getattr, path.split("."), torch)
    except AttributeError:
        raise _lacking(f"torch.{path}") from None


def check_takes(function: Callable[..., Any], *names: str) -> None:
    """Raises `UserError` unless a function of PyTorch has parameters of these names."""
    known = inspect.signature(function).parameters
    for name in names:
        if name not in known:
            raise _lacking(f"{name} of {function.__module__}.{function.__name__}")


def _lacking(what: str) -> UserError:
    remedy = "install a version that stormrl was tried with: pip install 'torch>=2.8,<=2.13'"
    return UserError("torch", f"{torch.__version__} lacks {what}; {remedy}")
