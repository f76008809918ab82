"""Convolution and BatchNorm layers of encoder and decoder: PyTorch's own, or those made for CPUs.

Both kinds have the same parameters under the same names and compute the same numbers but for
rounding, so what was saved with one loads into the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stormrl.nn.cpu import strided
from stormrl.nn.cpu.batch_norm import BatchNorm


class Layers(NamedTuple):
    """One kind of layers, and two of their functions on weights that are made on the way."""

    halving: Callable[[int, int], nn.Conv2d]
    """Convolution to half the height and width, without bias."""
    doubling: Callable[[int, int, bool], nn.ConvTranspose2d]
    """Transposed convolution to twice the height and width, with or without bias."""
    norm: Callable[[int], nn.BatchNorm2d]
    halved: Callable[[Tensor, Tensor], Tensor]
    """The first convolution with other weights."""
    halve_relu: Callable[[Tensor, Tensor, Tensor], Tensor]
    """The same with weights and bias, and ReLU."""


def layers_for(device: torch.device) -> Layers:
    """The layers to build networks with that are to run on `device`."""
    return FOR_CPU if device.type == "cpu" else PLAIN


def _halving(before: int, after: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, kernel_size=4, stride=2, padding=1, bias=False)


def _doubling(before: int, after: int, bias: bool) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(before, after, kernel_size=4, stride=2, padding=1, bias=bias)


def _halved(x: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(x, weight.to(x.dtype), stride=2, padding=1)


def _halve_relu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    y = F.conv2d(x, weight.to(x.dtype), bias.to(x.dtype), stride=2, padding=1)
    return F.relu(y, inplace=True)


PLAIN = Layers(_halving, _doubling, nn.BatchNorm2d, _halved, _halve_relu)
"""PyTorch's own, which run on every device."""
FOR_CPU = Layers(strided.Halving, strided.Doubling, BatchNorm, strided.halved, strided.halve_relu)
"""Faster on a CPU, the only device that they run on."""
