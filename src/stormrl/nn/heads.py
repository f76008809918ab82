"""Heads: multi-layer perceptrons (MLP) that read a prediction from a state."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from stormrl.config.parts import HeadConfig, TwoHotConfig
from stormrl.nn.functional import two_hot_cross_entropies, two_hot_mean, two_hot_natural_mean


class MLP(nn.Sequential):
    """Hidden layers of Linear (no bias), LayerNorm and ReLU, then a Linear output with bias.

    zero: the output starts at zero, whatever comes in.
    """

    def __init__(
        self, inputs: int, width: int, layers: int, outputs: int, zero: bool = False
    ) -> None:
        modules: list[nn.Module] = []
        for i in range(layers):
            modules += [
                nn.Linear(inputs if i == 0 else width, width, bias=False),
                nn.LayerNorm(width),
                nn.ReLU(),
            ]
        output = nn.Linear(width, outputs)
        if zero:
            nn.init.zeros_(output.weight)
            nn.init.zeros_(output.bias)
        super().__init__(*modules, output)


class TwoHotHead(MLP):
    """A perceptron whose outputs are the bins of a number, and how the number is read from them."""

    def __init__(self, inputs: int, head: HeadConfig, bins: TwoHotConfig) -> None:
        super().__init__(inputs, head.width, head.layers, bins.bins, zero=bins.start == "zero")
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
        return two_hot_cross_entropies(logits, targets, self.bins.low, self.bins.high)
