"""Mixed precision: the type that networks compute in."""

from __future__ import annotations

import torch
from torch import Tensor


def compute_dtype(like: Tensor) -> torch.dtype:
    """Autocast's type where it is on for the device of `like`; else its own, float32 for bytes."""
    kind = like.device.type
    if torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return like.dtype if like.is_floating_point() else torch.float32
