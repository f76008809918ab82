"""Encoder and decoder of stacked 64 x 64 frames, without padding or normalisation (TWM)."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stormrl.config.twm import PerceptronConfig
from stormrl.nn.silu import silu_mlp, start_last_uniformly, start_uniformly

STAGES = 4
SMALLEST = 2  # pixels a side after four convolutions of 64
KERNELS = 5, 5, 6, 6
"""Of the transposed convolutions, which lead from 1 to 5, 13, 30 and 64 pixels."""


class StackEncoder(nn.Module):
    """Four convolutions of kernel 4 and stride 2 with SiLU, 64 -> 2 pixels, then a perceptron."""

    def __init__(self, frames: int, channels: int, head: PerceptronConfig, outputs: int) -> None:
        super().__init__()
        widths = [frames, *(channels * 2**i for i in range(STAGES))]
        stages: list[nn.Module] = []
        for before, after in pairwise(widths):
            stages += [nn.Conv2d(before, after, kernel_size=4, stride=2), nn.SiLU()]
        self.stages = nn.Sequential(*stages)
        self.mlp = silu_mlp(widths[-1] * SMALLEST**2, head.width, head.layers, outputs)
        start_uniformly(self)
        start_last_uniformly(self.mlp[-1])  # pyright: ignore[reportArgumentType]
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, stacks: Float[Tensor, "N frames 64 64"]) -> Float[Tensor, "N outputs"]:
        """Logits of frames in the scale [0, 1]."""
        return self.mlp(self.stages(stacks).flatten(1))


class StackDecoder(nn.Module):
    """Linear layer and four transposed convolutions of stride 2: 1 -> 64 pixels, no squashing."""

    def __init__(self, latent: int, frames: int, channels: int) -> None:
        super().__init__()
        widths = [16 * channels, 4 * channels, 2 * channels, channels, frames]
        self.stem = nn.Sequential(nn.Linear(latent, widths[0]), nn.SiLU())
        stages: list[nn.Module] = []
        for (before, after), kernel in zip(pairwise(widths), KERNELS, strict=True):
            stages += [nn.ConvTranspose2d(before, after, kernel, stride=2), nn.SiLU()]
        self.stages = nn.Sequential(*stages[:-1])
        start_uniformly(self.stem)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, z: Float[Tensor, "N Z"]) -> Float[Tensor, "N frames 64 64"]:
        """Frames in the scale [0, 1], not clamped to it."""
        first, rest = self.stages[0], self.stages[1:]
        assert isinstance(first, nn.ConvTranspose2d)
        assert first.bias is not None
        # Of a single pixel it is a matrix product, which takes a tenth of the time on a CPU.
        x = (self.stem(z) @ first.weight.flatten(1)).unflatten(1, first.weight.shape[1:])
        x = (x + first.bias[:, None, None]).contiguous(memory_format=torch.channels_last)
        return rest(x)
