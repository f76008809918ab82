"""Attention with relative positions (Transformer-XL, arXiv 1901.02860), and its blocks."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

EPSILON = 1e-5


def position_codes(length: int, width: int) -> Float[Tensor, "length width"]:
    """Row d: sines and cosines, in turn, of a distance d in `width` / 2 frequencies."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angles = torch.arange(length)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def aligned(
    scores: Float[Tensor, "*n Q M"], keys: int, lead: int, stride: int
) -> Float[Tensor, "*n Q keys"]:
    """Scores by distance as scores by key, in a view.

    scores: of each query, by falling distance. Those of query q to the keys stand from column
    `lead` - q * `stride` on; a row further, the same distance lies that much further back.
    """
    q, m = scores.shape[-2:]
    flat, row = scores.flatten(-2)[..., lead:], m - stride
    return flat[..., : q * row].unflatten(-1, (q, row))[..., :keys]


class RelativeAttention(nn.Module):
    """Multi-head attention without biases, whose scores know how far back a key lies.

    score = ((q + u) k + (q + v) p) / root(scale), where p is what the layer makes of a distance.
    """

    def __init__(self, width: int, heads: int, head_width: int, dropout: float, scale: int) -> None:
        super().__init__()
        inner = heads * head_width
        self.heads, self.dropout, self.scale = heads, dropout, scale
        self.qkv = nn.Linear(width, 3 * inner, bias=False)
        self.position = nn.Linear(width, inner, bias=False)
        self.out = nn.Linear(inner, width, bias=False)

    def project(
        self, x: Float[Tensor, "B T D"], asking: Float[Tensor, "B Q D"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of those who ask, keys and values of all, each [B, heads, .., d]."""
        if asking is x:
            q, k, v = self._split(self.qkv(x), 3)
            return q, k, v
        inner = self.out.in_features
        (q,) = self._split(F.linear(asking, self.qkv.weight[:inner]), 1)
        k, v = self._split(F.linear(x, self.qkv.weight[inner:]), 2)
        return q, k, v

    def attend(
        self,
        qkv: tuple[Tensor, Tensor, Tensor],
        codes: Float[Tensor, "M D"],
        columns: tuple[int, int],
        biases: tuple[Tensor, Tensor],
        mask: Float[Tensor, "B 1 Q S"],
    ) -> Float[Tensor, "B Q D"]:
        """What the queries read out of keys and values.

        codes: by falling distance; columns: `lead` and `stride` of `aligned`.
        """
        q, k, v = qkv
        (p,) = self._split(self.position(codes)[None], 1)
        u_bias, v_bias = (bias[:, None].to(q.dtype) for bias in biases)
        with torch.autocast(q.device.type, enabled=False):
            content = (q + u_bias).to(k.dtype) @ k.transpose(-1, -2)
            distance = (q + v_bias) @ p.to(q.dtype).transpose(-1, -2)
            scores = content + aligned(distance, k.shape[-2], *columns)
            weights = torch.add(mask, scores, alpha=self.scale**-0.5).softmax(-1)
            weights = F.dropout(weights, self.dropout, self.training)
            mixed = weights.to(v.dtype) @ v
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        return x.unflatten(-1, (parts, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


class RelativeBlock(nn.Module):
    """Attention, then feed-forward with SiLU, each with residual and LayerNorm after it."""

    def __init__(self, attention: RelativeAttention, width: int, feedforward: int) -> None:
        super().__init__()
        self.attention = attention
        self.expand = nn.Linear(width, feedforward)
        self.contract = nn.Linear(feedforward, width)
        self.norm1 = nn.LayerNorm(width, eps=EPSILON)
        self.norm2 = nn.LayerNorm(width, eps=EPSILON)
        self.dropout = nn.Dropout(attention.dropout)

    def finish(self, x: Float[Tensor, "B Q D"], attended: Float[Tensor, "B Q D"]) -> Tensor:
        """What comes after attention, of those who asked."""
        x = self.norm1(x + self.dropout(attended))
        inner = self.dropout(F.silu(self.expand(x)))
        return self.norm2(x + self.dropout(self.contract(inner)))
