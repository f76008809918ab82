"""Convolutional encoder and decoder of 64 x 64 images (STORM, appendix A, tables 3 and 4)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from stormrl.nn.precision import compute_dtype

IMAGE_SIZE = 64
STAGES = 4
SMALLEST = IMAGE_SIZE // 2**STAGES


def embedding_size(channels: int) -> int:
    """Length of the flattened encoder output for `channels` channels in the first stage."""
    return channels * 2 ** (STAGES - 1) * SMALLEST**2


class Encoder(nn.Module):
    """Four convolutions of stride 2, each with BatchNorm and ReLU: 64 -> 4 pixels."""

    def __init__(self, image_channels: int, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(image_channels, channels, 4, stride=2, padding=1, bias=False)
        stages: list[nn.Module] = [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
        for i in range(1, STAGES):
            after = channels * 2**i
            stages += [
                nn.Conv2d(after // 2, after, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(after),
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
        x = F.conv2d(pixels, self.first.weight / 255, stride=2, padding=1)
        return self.stages(x).flatten(1)

    def _infer(self, x: Tensor) -> Tensor:
        """Running statistics become part of the weights: two passes less over every stage."""
        pixel_scale = 1 / 255
        modules = [self.first, *self.stages]
        for conv, norm in zip(modules[::3], modules[1::3], strict=True):
            assert isinstance(norm, nn.BatchNorm2d)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            gain = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
            bias = norm.bias - norm.running_mean * gain
            weight = conv.weight * (pixel_scale * gain)[:, None, None, None]
            x = F.relu(F.conv2d(x, weight, bias, stride=2, padding=1), inplace=True)
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


# Weights that meet the input before, at and after an output pixel of even or odd row or column;
# the fifth stands for none.
_TAPS = ((3, 1, 4), (4, 2, 0))


def _plain_kernel(
    weight: Float[Tensor, "before after 4 4"],
) -> Float[Tensor, "kinds_after before 3 3"]:
    """Weights of the plain convolution, one set of output channels for each kind of pixel."""
    padded = F.pad(weight, (0, 1, 0, 1))
    kernels = [padded[:, :, rows][..., columns] for rows in _TAPS for columns in _TAPS]
    return torch.stack(kernels).transpose(1, 2).flatten(0, 1)


class _ToPixels(torch.autograd.Function):
    """Transposed convolution (kernel 4, stride 2, padding 1) for few output channels.

    Forward, an output pixel of even or odd row and column meets only 2 x 2 of the 4 x 4 weights.
    They are laid out as one plain convolution of kernel 3 to four times the channels, a set for
    each kind of pixel. Backward, the gradients are those of the strided convolution that this one
    is the transpose of. Both take half the time of the kernels that libraries have for it, which
    are made for many channels.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(x, weight)
        kernel = _plain_kernel(weight).contiguous(memory_format=torch.channels_last)
        kinds = F.conv2d(x, kernel, bias.repeat(4), padding=1).permute(0, 2, 3, 1)
        # [N, row, column, (row kind, column kind, channel)] to [N, row, row kind, column, ..]
        pixels = kinds.unflatten(-1, (2, -1)).transpose(2, 3)
        n, height, _, width, _ = pixels.shape
        return pixels.reshape(n, 2 * height, 2 * width, -1).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight = ctx.saved_tensors
        by_x = F.conv2d(grad, weight, stride=2, padding=1)
        by_weight = conv2d_weight(grad, list(weight.shape), x, stride=2, padding=1)
        return by_x, by_weight, grad.sum((0, 2, 3))


class ToPixels(nn.ConvTranspose2d):
    """The decoder's last transposed convolution: kernel 4, stride 2, padding 1."""

    def __init__(self, channels: int, image_channels: int) -> None:
        super().__init__(channels, image_channels, kernel_size=4, stride=2, padding=1)

    def forward(self, x: Float[Tensor, "N before height width"]) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Images of twice the height and width, channels-last in memory."""
        assert self.bias is not None
        return _ToPixels.apply(x, self.weight.to(x.dtype), self.bias.to(x.dtype))  # pyright: ignore[reportReturnType]


class Decoder(nn.Module):
    """Linear layer and four transposed convolutions: 4 -> 64 pixels, no output squashing."""

    def __init__(self, latent_size: int, image_channels: int, channels: int) -> None:
        super().__init__()
        self.widest = channels * 2 ** (STAGES - 1)
        self.stem = nn.Linear(latent_size, embedding_size(channels), bias=False)
        stages: list[nn.Module] = [nn.BatchNorm2d(self.widest), nn.ReLU(inplace=True)]
        for i in reversed(range(1, STAGES)):
            after = channels * 2 ** (i - 1)
            stages += [
                nn.ConvTranspose2d(
                    2 * after, after, kernel_size=4, stride=2, padding=1, bias=False
                ),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            ]
        stages.append(ToPixels(channels, image_channels))
        self.stages = nn.Sequential(*stages)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, z: Float[Tensor, "N Z"]) -> Float[Tensor, "N channels 64 64"]:
        """Images in the scale [0, 1], not clamped to it."""
        x = self.stem(z).unflatten(-1, (self.widest, SMALLEST, SMALLEST))
        return self.stages(x.contiguous(memory_format=torch.channels_last))
