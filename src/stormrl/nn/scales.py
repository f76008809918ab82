"""Scales: how what is seen lies before networks, and how far a reconstruction is from it."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from stormrl.nn.functional import symexp, symlog
from stormrl.spaces import ObservationSpace, VectorSpace

SLOWEST = 1e-3
"""Share of the newest batch in running statistics, at least."""
SMALLEST = 1e-3
"""Deviation below which a number counts as constant, in its own unit."""
PRECISION = 0.1
"""Error of a number that counts like one of a whole unit in a pixel, in deviations of that number.

A pixel's error is summed with its square; numbers are few, and small differences between them are
what there is to know."""


class PixelScale(nn.Module):
    """Bytes, which encoders scale themselves; reconstructions in the scale [0, 1]."""

    def forward(self, obs: UInt8[Tensor, "..."]) -> UInt8[Tensor, "..."]:
        """The bytes as they are."""
        return obs

    def error(
        self, images: Float[Tensor, "*n C H W"], obs: UInt8[Tensor, "*n C H W"]
    ) -> Float[Tensor, "*n"]:
        """Squared error, summed over a frame's pixels."""
        # One pass over the pixels: both images lie channels-last, and the bytes are scaled in it.
        difference = torch.sub(images.float(), obs, alpha=1 / 255)
        return difference.square().sum((-3, -2, -1))

    def natural(self, images: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The images as they are."""
        return images


class RunningScale(nn.Module):
    """Numbers with mean 0 and deviation 1, by running statistics; outliers are compressed (symlog).

    symlog alone (DreamerV3) would leave an angle of a tenth of a radian a tenth: an error that
    costs nothing. The statistics move in training alone, with every batch that is encoded.
    """

    mean: Tensor
    variance: Tensor
    batches: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("variance", torch.ones(size))
        self.register_buffer("batches", torch.zeros(()))

    def forward(self, obs: Float[Tensor, "*n V"]) -> Float[Tensor, "*n V"]:
        """Numbers as networks read them."""
        if self.training:
            self._learn(obs.detach())
        return self._scaled(obs)

    def error(
        self, numbers: Float[Tensor, "*n V"], obs: Float[Tensor, "*n V"]
    ) -> Float[Tensor, "*n"]:
        """Squared error in units of `PRECISION`, summed over the numbers."""
        return ((numbers.float() - self._scaled(obs)) / PRECISION).square().sum(-1)

    def natural(self, numbers: Float[Tensor, "*n V"]) -> Float[Tensor, "*n V"]:
        """Numbers in the environment's own units."""
        return symexp(numbers.float()) * self._deviation() + self.mean

    def _scaled(self, obs: Tensor) -> Tensor:
        return symlog((obs - self.mean) / self._deviation())

    def _deviation(self) -> Tensor:
        return (self.variance + SMALLEST**2).sqrt()

    @torch.no_grad()
    def _learn(self, obs: Tensor) -> None:
        """The first batch sets the statistics, later ones move them less and less."""
        rows = obs.flatten(0, -2)
        self.batches += 1
        share = (1 / self.batches).clamp(min=SLOWEST)
        self.mean.lerp_(rows.mean(0), share)
        self.variance.lerp_((rows - self.mean).square().mean(0), share)


Scale = PixelScale | RunningScale


def scale_for(space: ObservationSpace) -> Scale:
    """The scale of what is seen."""
    return RunningScale(space.size) if isinstance(space, VectorSpace) else PixelScale()
