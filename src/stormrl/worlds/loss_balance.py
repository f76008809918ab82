"""Loss weighting: the world model's losses as one, by fixed weights or learned scales."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from stormrl.config.parts import WorldModelConfig


class FixedBalance(nn.Module):
    """The weights of the published equations (STORM, equation 3)."""

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__()
        self.dynamics = config.dynamics_weight
        self.representation = config.representation_weight

    def forward(self, losses: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """The weighted sum of the losses, which come by name."""
        return (
            losses["reconstruction"]
            + losses["reward"]
            + losses["continuation"]
            + self.dynamics * losses["dynamics"]
            + self.representation * losses["representation"]
        )


class LearnedBalance(FixedBalance):
    """A learned scale for each kind of loss (HarmonyDream, arXiv 2310.00344, section 4).

    A loss L becomes L / exp(s) + log(1 + exp(s)): the first term shrinks what is large, the second
    keeps s from growing for ever. Scales start near typical losses: Adam moves s by about its
    rate an update, so from 0 they would get nowhere while minutes count.
    """

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__(config)
        start = config.balance
        self.log_scale = nn.ParameterDict(
            {
                name: nn.Parameter(torch.tensor(value))
                for name, value in (
                    ("reconstruction", start.reconstruction),
                    ("reward", start.reward),
                    ("kl", start.kl),
                )
            }
        )

    def forward(self, losses: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """The sum of the scaled losses and of what keeps the scales."""
        kl = self.dynamics * losses["dynamics"] + self.representation * losses["representation"]
        scaled = {"reconstruction": losses["reconstruction"], "reward": losses["reward"], "kl": kl}
        total = losses["continuation"]
        for name, loss in scaled.items():
            log_scale = self.log_scale[name]
            total = total + loss * torch.exp(-log_scale) + F.softplus(log_scale)
        return total


def balance(config: WorldModelConfig) -> FixedBalance:
    """The part that `LossBalanceConfig.weights` names."""
    parts = {"fixed": FixedBalance, "learned": LearnedBalance}
    return parts[config.balance.weights](config)
