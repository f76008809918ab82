"""Convolutional encoder and decoder with LayerNorm over channels (DreamerV3, 2023)."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from stormrl.nn.conv import SMALLEST, STAGES, embedding_size
from stormrl.nn.layers import PLAIN, Layers
from stormrl.nn.precision import compute_dtype

EPSILON = 1e-3
_CHANNELS_LAST = torch.channels_last


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each pixel."""

    def forward(self, input: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        """The normalised image; channels lie last in memory, before and after."""
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class LayerNormEncoder(nn.Sequential):
    """Four convolutions of stride 2, each with LayerNorm and SiLU: 64 -> 4 pixels."""

    def __init__(self, image_channels: int, channels: int, layers: Layers = PLAIN) -> None:
        stages: list[nn.Module] = []
        before = image_channels
        for i in range(STAGES):
            after = channels * 2**i
            stages += [layers.halving(before, after), ChannelNorm(after, EPSILON), nn.SiLU()]
            before = after
        super().__init__(*stages, nn.Flatten())
        self.to(memory_format=_CHANNELS_LAST)  # pyright: ignore[reportCallIssue]

    def forward(self, input: UInt8[Tensor, "N channels 64 64"]) -> Float[Tensor, "N E"]:
        """Embeddings of uint8 images, which are scaled to [-0.5, 0.5] here and nowhere else."""
        pixels = input.contiguous(memory_format=_CHANNELS_LAST).to(compute_dtype(input))
        return super().forward(pixels / 255 - 0.5)


class LayerNormDecoder(nn.Module):
    """Linear layer and four transposed convolutions: 4 -> 64 pixels, no output squashing."""

    def __init__(
        self, inputs: int, image_channels: int, channels: int, layers: Layers = PLAIN
    ) -> None:
        super().__init__()
        self.widest = channels * 2 ** (STAGES - 1)
        self.stem = nn.Linear(inputs, embedding_size(channels))
        stages: list[nn.Module] = []
        for i in reversed(range(1, STAGES)):
            after = channels * 2 ** (i - 1)
            norm = ChannelNorm(after, EPSILON)
            stages += [layers.doubling(2 * after, after, False), norm, nn.SiLU()]
        stages.append(layers.doubling(channels, image_channels, True))
        self.stages = nn.Sequential(*stages)
        self.to(memory_format=_CHANNELS_LAST)  # pyright: ignore[reportCallIssue]

    def forward(self, state: Float[Tensor, "N S"]) -> Float[Tensor, "N channels 64 64"]:
        """Images in the scale [0, 1], not clamped to it."""
        x = self.stem(state).unflatten(-1, (self.widest, SMALLEST, SMALLEST))
        return self.stages(x.contiguous(memory_format=_CHANNELS_LAST)) + 0.5
