"""Initial weights of layers."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn

TRUNCATED_SPREAD = 0.87962566103423978
"""Standard deviation of a standard normal variable that is truncated at -2 and 2."""


def initialise(module: nn.Module, weights: Literal["uniform", "truncated_normal"]) -> None:
    """Give the linear and convolutional layers inside these weights; `uniform` is PyTorch's own."""
    if weights == "uniform":
        return
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            _truncated_normal(layer)


@torch.no_grad()
def _truncated_normal(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Variance 1 / mean(inputs, outputs), each of a convolution times the size of its kernel."""
    after, before, *kernel = layer.weight.shape
    spread = 1 / math.sqrt((before + after) / 2 * math.prod(kernel))
    nn.init.trunc_normal_(layer.weight, a=-2.0, b=2.0).mul_(spread / TRUNCATED_SPREAD)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
