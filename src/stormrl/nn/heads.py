"""Multi-layer perceptrons that read a prediction from a state."""

from __future__ import annotations

from torch import nn


class MLP(nn.Sequential):
    """Hidden layers of Linear (no bias), LayerNorm and ReLU, then a Linear output with bias."""

    def __init__(self, inputs: int, width: int, layers: int, outputs: int) -> None:
        modules: list[nn.Module] = []
        for i in range(layers):
            modules += [
                nn.Linear(inputs if i == 0 else width, width, bias=False),
                nn.LayerNorm(width),
                nn.ReLU(),
            ]
        super().__init__(*modules, nn.Linear(width, outputs))
