"""Perceptrons with SiLU and without normalisation, and how their weights begin (TWM)."""

from __future__ import annotations

import math

from torch import nn


def silu_mlp(
    inputs: int, width: int, layers: int, outputs: int, dropout: float | None = None
) -> nn.Sequential:
    """Hidden layers of Linear and SiLU, then a Linear output; dropout after each hidden layer."""
    modules: list[nn.Module] = []
    for i in range(layers):
        modules += [nn.Linear(inputs if i == 0 else width, width), nn.SiLU()]
        if dropout is not None:
            modules.append(nn.Dropout(dropout))
    return nn.Sequential(*modules, nn.Linear(width, outputs))


def start_uniformly(module: nn.Module) -> None:
    """Weights of linear and convolution layers as after He et al. 2015 for ReLU, biases of 0.

    Transposed convolutions keep the start of PyTorch, as they do in the released code.
    """
    for layer in _layers(module):
        nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
        _zero_bias(layer)


def start_last_uniformly(layer: nn.Linear, bias: float = 0.0) -> None:
    """The same for a layer whose output nothing bends."""
    nn.init.kaiming_uniform_(layer.weight, nonlinearity="linear")
    nn.init.constant_(layer.bias, bias)


def start_orthogonally(mlp: nn.Sequential) -> None:
    """Orthogonal weights that keep the size of what goes through a `silu_mlp`; biases of 0."""
    layers = _layers(mlp)
    for layer in layers:
        nn.init.orthogonal_(layer.weight, gain=1.0 if layer is layers[-1] else math.sqrt(2))
        _zero_bias(layer)


def _layers(module: nn.Module) -> list[nn.Linear | nn.Conv2d]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]


def _zero_bias(layer: nn.Linear | nn.Conv2d) -> None:
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
