"""Convolutions of kernel 4, stride 2 and padding 1, and their transposes.

Two cases that libraries are slow at are arranged anew: few channels out of a transposed
convolution, and the gradient of the weights of small pictures.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from stormrl.nn.private import private

FEW_CHANNELS = 8
"""Up to so many output channels a transposed convolution is laid out as a plain one."""

_HAS_ONEDNN = torch.backends.mkldnn.is_available()
# What PyTorch's compiler makes of convolution, bias and ReLU; there is no public name for it.
_POINTWISE = private("ops.mkldnn._convolution_pointwise") if _HAS_ONEDNN else None
_SMALL_SIDE = 8  # pixels; up to so many, the pictures' patches are cheap to lay out


def halve(
    x: Float[Tensor, "N before height width"], weight: Float[Tensor, "after before 4 4"]
) -> Float[Tensor, "N after height2 width2"]:
    """Convolution: half the height and width."""
    return F.conv2d(x, weight, stride=2, padding=1)


def halve_relu(
    x: Float[Tensor, "N before height width"],
    weight: Float[Tensor, "after before 4 4"],
    bias: Float[Tensor, " after"],
) -> Float[Tensor, "N after height2 width2"]:
    """`halve`, bias and ReLU: if nobody asks for gradients, in one pass over the result."""
    weight, bias = weight.to(x.dtype), bias.to(x.dtype)
    if torch.is_grad_enabled() or _POINTWISE is None:
        return F.relu(F.conv2d(x, weight, bias, stride=2, padding=1), inplace=True)
    return _POINTWISE(x, weight, bias, [1, 1], [2, 2], [1, 1], 1, "relu", [], "")


def double(
    x: Float[Tensor, "N before height width"],
    weight: Float[Tensor, "before after 4 4"],
    bias: Float[Tensor, " after"] | None = None,
) -> Float[Tensor, "N after height2 width2"]:
    """Transposed convolution: twice the height and width.

    For few output channels, which library kernels are not made for, it becomes a plain one: an
    output pixel of even or odd row and column meets only 2 x 2 of the 4 x 4 weights. They are laid
    out as one kernel of 3 x 3 to four times the channels, a set for each kind of pixel. That is
    2.25 times the arithmetic in about half the time; the result is channels-last in memory.
    """
    if weight.shape[1] > FEW_CHANNELS:
        return F.conv_transpose2d(x, weight, bias, stride=2, padding=1)
    repeated = None if bias is None else bias.repeat(4)
    kinds = F.conv2d(x, _plain_kernel(weight), repeated, padding=1).permute(0, 2, 3, 1)
    # [N, row, column, (row kind, column kind, channel)] to [N, row, row kind, column, ..]
    pixels = kinds.unflatten(-1, (2, -1)).transpose(2, 3)
    n, height, _, width, _ = pixels.shape
    return pixels.reshape(n, 2 * height, 2 * width, -1).permute(0, 3, 1, 2)


def weight_gradient(
    small: Float[Tensor, "N after height width"], large: Float[Tensor, "N before height2 width2"]
) -> Float[Tensor, "after before 4 4"]:
    """Gradient of the weights that lead from `large` to `small`, or from `small` to `large`.

    One of the two is the gradient, the other what the weights were applied to. Small pictures are
    laid out in patches for one matrix product, which is faster than library kernels.
    """
    channels = small.shape[1], large.shape[1]
    if small.shape[-1] > _SMALL_SIDE:
        return conv2d_weight(large, [*channels, 4, 4], small, stride=2, padding=1)
    product = _patches(large).t() @ small.permute(0, 2, 3, 1).flatten(0, 2)
    return product.unflatten(0, (4, 4, -1)).permute(3, 2, 0, 1)


class Halving(nn.Conv2d):
    """Convolution to half the height and width, without bias."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after, kernel_size=4, stride=2, padding=1, bias=False)

    def forward(self, x: Float[Tensor, "N before height width"]) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Pictures of half the height and width."""
        return halved(x, self.weight)


class Doubling(nn.ConvTranspose2d):
    """Transposed convolution to twice the height and width."""

    def __init__(self, before: int, after: int, bias: bool = False) -> None:
        super().__init__(before, after, kernel_size=4, stride=2, padding=1, bias=bias)

    def forward(self, x: Float[Tensor, "N before height width"]) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Pictures of twice the height and width."""
        return doubled(x, self.weight, self.bias)


def halved(x: Tensor, weight: Tensor) -> Tensor:
    """`halve` with the gradients of this module, in the type of `x`."""
    return _Halve.apply(x, weight.to(x.dtype))  # pyright: ignore[reportReturnType]


def doubled(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`double` with the gradients of this module, in the type of `x`."""
    bias = None if bias is None else bias.to(x.dtype)
    return _Double.apply(x, weight.to(x.dtype), bias)  # pyright: ignore[reportReturnType]


class _Halve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(x, weight)
        return halve(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight = ctx.saved_tensors
        by_x = double(grad, weight) if ctx.needs_input_grad[0] else None
        return by_x, weight_gradient(grad, x)


class _Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(x, weight)
        return double(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight = ctx.saved_tensors
        by_bias = grad.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None
        return halve(grad, weight), weight_gradient(x, grad), by_bias


def _plain_kernel(
    weight: Float[Tensor, "before after 4 4"],
) -> Float[Tensor, "kinds_after before 3 3"]:
    """Weights of the plain convolution, one set of output channels for each kind of pixel.

    Row by row: an even pixel meets weight 3 in the row before and 1 in its own, an odd one 2 in
    its own and 0 in the row after. That is (-, 0, 1, 2, 3, -) cut into pairs, last pair first. So
    for columns.
    """
    pairs = F.pad(weight, (1, 1, 1, 1)).unflatten(3, (3, 2)).unflatten(2, (3, 2)).flip(2, 4)
    # [before, after, row, row kind, column, column kind], to be channels-last as the pictures are
    return pairs.permute(3, 5, 1, 2, 4, 0).flatten(0, 2).permute(0, 3, 1, 2)


def _patches(large: Tensor) -> Float[Tensor, "positions taps_channels"]:
    """What each output pixel of `halve` sees, a row each: [row, column, channel]."""
    padded = F.pad(large.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    windows = padded.unfold(1, 4, 2).unfold(2, 4, 2)
    return windows.permute(0, 1, 2, 4, 5, 3).flatten(0, 2).flatten(1)
