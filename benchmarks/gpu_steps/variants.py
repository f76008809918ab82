"""Step 5: several ways to compute attention with one query, and the decoder's layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from gpu_steps.setting import NEEDS_CUDA, Findings, Setting, median_ms
from stormrl.nn.conv import Decoder, Encoder
from stormrl.nn.cpu.strided import doubled

Attention = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
Layer = Callable[[Tensor, Tensor, Tensor], Tensor]

FRAMES = 1024
KERNELS = {
    "math": SDPBackend.MATH,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}
"""Flash attention takes no mask."""


def findings(setting: Setting) -> Findings:
    for name, attend in attentions(setting).items():
        yield f"attention_{name}", attempt(lambda attend=attend: attention_cost(attend, setting))
    for stage, side in enumerate((4, 8, 16, 32)):
        costs = {
            name: attempt(lambda layer=layer, i=stage, s=side: layer_cost(layer, i, s, setting))
            for name, layer in LAYERS.items()
        }
        yield f"decoder_{side}_to_{2 * side}", costs
    for name, flag in {"off": False, "on": True}.items():
        cost = attempt(lambda flag=flag: layout_cost(flag, setting))
        yield f"layout_optimisation_{name}", cost if setting.on_cuda else NEEDS_CUDA


def attempt(measure: Callable[[], Any]) -> Any:
    """What was measured, or why it could not be: one variant must not cost the others."""
    try:
        return measure()
    except (RuntimeError, AssertionError) as error:
        return f"failed: {str(error).splitlines()[0] if str(error) else type(error).__name__}"


def attentions(setting: Setting) -> Mapping[str, Attention]:
    plain = {"default": default, "products": by_products, "sums": by_sums}
    if not setting.on_cuda:
        return plain
    kernels = {name: with_kernel(kernel) for name, kernel in KERNELS.items()}
    compiled = {
        f"{name}_compiled": torch.compile(attend, fullgraph=True, dynamic=False)
        for name, attend in {"products": by_products, "sums": by_sums}.items()
    }
    return {**plain, **kernels, **compiled}


def default(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def with_kernel(kernel: SDPBackend) -> Attention:
    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        with sdpa_kernel(kernel):
            return default(q, k, v, mask)

    return attend


def by_products(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    return scores.float().masked_fill(~mask, -math.inf).softmax(-1).to(v.dtype) @ v


def by_sums(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    scores = (q.float() * k.float()).sum(-1) * q.shape[-1] ** -0.5
    weights = scores.masked_fill(~mask.squeeze(-2), -math.inf).softmax(-1)
    return (weights.unsqueeze(-1) * v.float()).sum(-2, keepdim=True).to(v.dtype)


def attention_cost(attend: Attention, setting: Setting) -> dict[str, float]:
    """One query over the keys of a whole rollout, as many rows and heads as the size has."""
    config = setting.config
    rows, length = (
        config.imagination.batch_size,
        config.imagination.context + config.imagination.horizon,
    )
    sequence = config.world_model.sequence
    shape = rows, sequence.heads, length, sequence.width // sequence.heads
    k, v = torch.randn(2, *shape, device=setting.device, dtype=setting.backend.dtype).unbind()
    q = torch.randn_like(k[:, :, :1])
    mask = torch.rand(rows, 1, 1, length, device=setting.device) < 0.7
    mask[..., 0] = True
    exact = by_products(*(x.double() for x in (q, k, v)), mask)
    error = relative(attend(q, k, v, mask), exact)
    return {"ms": median_ms(lambda: attend(q, k, v, mask), setting), "relative_error": error}


def transposed(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv_transpose2d(x, weight, bias, stride=2, padding=1)


def by_shuffle(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A plain convolution of kernel 3 to four times the channels, then a pixel shuffle."""
    kernel = plain_kernel(weight).unflatten(0, (4, -1)).transpose(0, 1).flatten(0, 1)
    return F.pixel_shuffle(F.conv2d(x, kernel, bias.repeat_interleave(4), padding=1), 2)


def plain_kernel(weight: Tensor) -> Tensor:
    """[4 after, before, 3, 3], by kind of row and column of an output pixel: even or odd."""
    padded = F.pad(weight, (0, 1, 0, 1))
    taps = [3, 1, 4], [4, 2, 0]
    kernels = [padded[:, :, rows][..., columns] for rows in taps for columns in taps]
    return torch.stack(kernels).transpose(1, 2).flatten(0, 1)


def by_crops(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A convolution of kernel 2 to four times the channels; each kind is cropped where it lies."""
    taps = [3, 1], [2, 0]
    kernels = [weight[:, :, rows][..., columns] for rows in taps for columns in taps]
    kinds = F.conv2d(x, torch.cat(kernels, 1).transpose(0, 1), bias.repeat(4), padding=1)
    n, _, height, width = x.shape
    y = kinds.unflatten(1, (2, 2, -1))
    rows = [
        torch.stack([y[:, a, b, :, a : a + height, b : b + width] for b in (0, 1)], -1)
        for a in (0, 1)
    ]
    return torch.stack(rows, -3).reshape(n, -1, 2 * height, 2 * width)


def as_library(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The library's own form, which it uses for the last stage."""
    return doubled(x, weight, bias)


LAYERS: dict[str, Layer] = {
    "transposed": transposed,
    "shuffle": by_shuffle,
    "crops": by_crops,
    "library": as_library,
}


def layer_cost(layer: Layer, stage: int, side: int, setting: Setting) -> dict[str, float]:
    """Forward and backward of the decoder's stage that begins with `side` x `side`."""
    channels = setting.config.world_model.image.channels
    before = channels * 2 ** (3 - stage)
    after = before // 2 if stage < 3 else 3
    like = {"device": setting.device, "dtype": setting.backend.dtype}
    x = torch.randn(FRAMES, before, side, side, **like)
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = (torch.randn(before, after, 4, 4, **like) / before**0.5).requires_grad_()
    bias = torch.randn(after, **like).requires_grad_()
    few = x[:4].detach()
    exact = transposed(few.double(), weight.double(), bias.double())
    error = relative(layer(few, weight, bias), exact)
    ms = median_ms(lambda: layer(x, weight, bias).float().square().sum().backward(), setting)
    return {"ms": ms, "relative_error": error}


def layout_cost(forced: bool, setting: Setting) -> dict[str, float]:
    """Encoder and decoder compiled, forward and backward, with and without forced layouts."""
    from torch._inductor import config as inductor

    torch.compiler.reset()
    model = setting.config.world_model
    channels, latent = model.image.channels, model.latent.size
    encoder, decoder = Encoder(3, channels), Decoder(latent, 3, channels)
    between = nn.Linear(8 * channels * 16, latent)
    networks = nn.ModuleList([encoder, decoder, between]).to(setting.device)
    images = torch.randint(256, (FRAMES, 3, 64, 64), dtype=torch.uint8, device=setting.device)

    def loss() -> Tensor:
        return (decoder(between(encoder(images))).float() - images / 255).square().mean()

    compiled = torch.compile(loss, fullgraph=True, dynamic=False)

    def update() -> None:
        with setting.backend.autocast():
            value = compiled()
        value.backward()
        networks.zero_grad(set_to_none=True)

    with inductor.patch(force_layout_optimization=forced):
        return {"ms": median_ms(update, setting)}


def relative(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())
