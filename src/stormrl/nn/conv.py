"""Convolutional encoder and decoder of 64 x 64 images (STORM, appendix A, tables 3 and 4)."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from stormrl.nn.layers import PLAIN, Layers
from stormrl.nn.precision import compute_dtype

IMAGE_SIZE = 64
STAGES = 4
SMALLEST = IMAGE_SIZE // 2**STAGES


def embedding_size(channels: int) -> int:
    """Length of the flattened encoder output for `channels` channels in the first stage."""
    return channels * 2 ** (STAGES - 1) * SMALLEST**2


class Encoder(nn.Module):
    """Four convolutions of stride 2, each with BatchNorm and ReLU: 64 -> 4 pixels."""

    def __init__(self, image_channels: int, channels: int, layers: Layers = PLAIN) -> None:
        super().__init__()
        self._halved, self._halve_relu = layers.halved, layers.halve_relu
        self.first = layers.halving(image_channels, channels)
        stages: list[nn.Module] = [layers.norm(channels), nn.ReLU(inplace=True)]
        for i in range(1, STAGES):
            after = channels * 2**i
            stages += [
                layers.halving(after // 2, after),
                layers.norm(after),
                nn.ReLU(inplace=True),
            ]
        self.stages = nn.Sequential(*stages)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, images: UInt8[Tensor, "N channels 64 64"]) -> Float[Tensor, "N E"]:
        """Embeddings of uint8 images, which are scaled to [0, 1] here and nowhere else.

        The scale goes into the first convolution's weights: whole numbers up to 255 are exact in
        bfloat16, and no pass over the pixels is spent on it.
        """
        pixels = images.contiguous(memory_format=torch.channels_last).to(compute_dtype(images))
        if not self.training:
            return self._infer(pixels).flatten(1)
        return self.stages(self._halved(pixels, self.first.weight / 255)).flatten(1)

    def _infer(self, x: Tensor) -> Tensor:
        """Running statistics become part of the weights: one pass over what a stage gives."""
        pixel_scale = 1 / 255
        modules = [self.first, *self.stages]
        for conv, norm in zip(modules[::3], modules[1::3], strict=True):
            assert isinstance(norm, nn.BatchNorm2d)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            gain = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
            bias = norm.bias - norm.running_mean * gain
            weight = conv.weight * (pixel_scale * gain)[:, None, None, None]
            x = self._halve_relu(x, weight, bias)
            pixel_scale = 1.0
        return x


class FrameEncoder(nn.Sequential):
    """Four convolutions of stride 2, each with a normalisation and ReLU: 64 -> 4 pixels.

    Each image is normalised alone: acting on one is then the same as learning from many.
    """

    def __init__(self, image_channels: int, channels: int) -> None:
        widths = [image_channels, *(channels * 2**i for i in range(STAGES))]
        stages: list[nn.Module] = []
        for before, after in pairwise(widths):
            stages += [
                nn.Conv2d(before, after, 4, stride=2, padding=1, bias=False),
                nn.GroupNorm(1, after),
                nn.ReLU(),
            ]
        super().__init__(*stages, nn.Flatten())
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


class Decoder(nn.Module):
    """Linear layer and four transposed convolutions: 4 -> 64 pixels, no output squashing."""

    def __init__(
        self, latent_size: int, image_channels: int, channels: int, layers: Layers = PLAIN
    ) -> None:
        super().__init__()
        self.widest = channels * 2 ** (STAGES - 1)
        self.stem = nn.Linear(latent_size, embedding_size(channels), bias=False)
        stages: list[nn.Module] = [layers.norm(self.widest), nn.ReLU(inplace=True)]
        for i in reversed(range(1, STAGES)):
            after = channels * 2 ** (i - 1)
            stages += [
                layers.doubling(2 * after, after, False),
                layers.norm(after),
                nn.ReLU(inplace=True),
            ]
        stages.append(layers.doubling(channels, image_channels, True))
        self.stages = nn.Sequential(*stages)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, z: Float[Tensor, "N Z"]) -> Float[Tensor, "N channels 64 64"]:
        """Images in the scale [0, 1], not clamped to it."""
        x = self.stem(z).unflatten(-1, (self.widest, SMALLEST, SMALLEST))
        return self.stages(x.contiguous(memory_format=torch.channels_last))
