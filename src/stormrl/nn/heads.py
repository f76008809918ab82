"""Heads: multi-layer perceptrons (MLP) that read a prediction from a state."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stormrl.config.common import HeadConfig, TwoHotConfig
from stormrl.nn.functional import (
    symexp,
    symlog,
    two_hot_cross_entropies_at,
    two_hot_entropies_at,
    two_hot_mean,
    two_hot_natural_mean,
    two_hot_natural_position,
    two_hot_position,
)
from stormrl.nn.initialise import initialise

ACTIVATIONS = {"relu": nn.ReLU, "silu": nn.SiLU}


def hidden(inputs: int, head: HeadConfig) -> list[nn.Module]:
    """A hidden layer: Linear (no bias), LayerNorm and the activation."""
    return [
        nn.Linear(inputs, head.width, bias=False),
        nn.LayerNorm(head.width, head.epsilon),
        ACTIVATIONS[head.activation](),
    ]


class MLP(nn.Sequential):
    """Hidden layers, then a Linear output with bias.

    zero: the output starts at zero, whatever comes in.
    """

    def __init__(self, inputs: int, head: HeadConfig, outputs: int, zero: bool = False) -> None:
        modules: list[nn.Module] = []
        for i in range(head.layers):
            modules += hidden(inputs if i == 0 else head.width, head)
        output = nn.Linear(head.width, outputs)
        super().__init__(*modules, output)
        initialise(self, head.weights)
        if zero:
            nn.init.zeros_(output.weight)
            nn.init.zeros_(output.bias)


def vector_encoder(size: int, head: HeadConfig) -> nn.Sequential:
    """Two hidden layers that read numbers; embeddings are as wide as they."""
    return nn.Sequential(*hidden(size, head), *hidden(head.width, head))


class TwoHotHead(MLP):
    """A perceptron whose outputs are the bins of a number, and how the number is read from them."""

    def __init__(self, inputs: int, head: HeadConfig, bins: TwoHotConfig) -> None:
        super().__init__(inputs, head, bins.bins, zero=bins.start == "zero")
        self.bins = bins

    def mean(self, logits: Float[Tensor, "*n bins"]) -> Float[Tensor, "*n"]:
        """The number in natural units that bins of these logits stand for."""
        if self.bins.mean == "natural":
            return two_hot_natural_mean(logits, self.bins.high)
        return two_hot_mean(logits, self.bins.low, self.bins.high)

    def cross_entropies(
        self, logits: Float[Tensor, "*n bins"], targets: Float[Tensor, "*n M"]
    ) -> Float[Tensor, "*n M"]:
        """Cross-entropy to each of several numbers in natural units, in nats."""
        return two_hot_cross_entropies_at(logits, *self._position(targets))

    def entropies(self, target: Float[Tensor, "*n"]) -> dict[str, Float[Tensor, ""]]:
        """Between which two means the cross-entropy of a useful predictor lies."""
        ignorant, perfect = two_hot_entropies_at(*self._position(target), self.bins.bins)
        return {"ignorant": ignorant, "perfect": perfect}

    def distribution(
        self, logits: Float[Tensor, "*n bins"]
    ) -> tuple[Float[Tensor, " bins"], Float[Tensor, "*n bins"]]:
        """Numbers that the bins stand for, in natural units, and the probability of each."""
        bins = self.bins
        centres = torch.linspace(bins.low, bins.high, bins.bins, device=logits.device)
        return symexp(centres), logits.float().softmax(-1)

    def _position(self, target: Float[Tensor, "*n"]) -> tuple[Tensor, Tensor]:
        """Lower bin of each number, and the weight of the one above it."""
        bins = self.bins
        if bins.target == "natural":
            return two_hot_natural_position(target, bins.bins, bins.high)
        return two_hot_position(symlog(target), bins.bins, bins.low, bins.high)
