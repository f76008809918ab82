"""BatchNorm of pictures that lie channels-last in memory."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

_LANES = 16
"""Fewer channels than these leave a CPU's vectors partly empty where channels come last."""


class BatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d`, which takes few channels plane by plane.

    The same numbers: only the order of pixels in memory is another while it works.
    """

    def forward(self, x: Float[Tensor, "N channels height width"]) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Pictures of the same shape, channels-last in memory if they came so."""
        if self.num_features >= _LANES:
            return super().forward(x)
        return _Interleaved.apply(super().forward(_Planes.apply(x)))  # pyright: ignore[reportReturnType, reportArgumentType]


class _Planes(torch.autograd.Function):
    """From channels-last to planes; the gradient the other way round."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return x.contiguous()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return grad.contiguous(memory_format=torch.channels_last)


class _Interleaved(torch.autograd.Function):
    """From planes to channels-last; the gradient the other way round."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return x.contiguous(memory_format=torch.channels_last)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return grad.contiguous()
