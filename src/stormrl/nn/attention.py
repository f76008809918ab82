"""A Transformer block with post-layer normalisation, run over a sequence or one step at a time."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

EPSILON = 1e-6


def attention_bias(mask: Bool[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """0 where `mask` is true, minus infinity elsewhere: added to scores, it keeps attention out."""
    return mask.log()


def cacheable(x: Tensor) -> Tensor:
    """Keys or values as they are kept for single queries: on a CPU at least in float32.

    There products of single rows take half the time in float32, though it has twice the bytes.
    """
    if x.device.type != "cpu":
        return x
    return x.to(torch.promote_types(x.dtype, torch.float32))


class SelfAttention(nn.Module):
    """Multi-head attention without biases, residual and LayerNorm included."""

    def __init__(self, width: int, heads: int, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_dropout = attention_dropout
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width, eps=EPSILON)

    def project(self, x: Float[Tensor, "B T D"]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each [B, heads, T, D / heads]."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return q, k, v

    def attend(
        self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Float[Tensor, "B 1 Q S"]
    ) -> Float[Tensor, "B Q D"]:
        """Output for queries `q` over the keys that `bias` leaves to be seen, added to `x`.

        Written out: kernels made for long sequences take several times as long over one query or
        the few steps of a context. Products are taken in the type of the keys.
        """
        with torch.autocast(x.device.type, enabled=False):
            products = q.to(k.dtype) @ k.transpose(-1, -2)
            scores = torch.add(bias, products, alpha=q.shape[-1] ** -0.5)
            weights = F.dropout(scores.softmax(-1), self.attention_dropout, self.training)
            mixed = weights.to(v.dtype) @ v
        return self.norm(x + self.dropout(self.out(mixed.transpose(1, 2).flatten(2))))


class FeedForward(nn.Module):
    """Two linear layers with ReLU between, residual and LayerNorm included."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.expand = nn.Linear(width, hidden)
        self.contract = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width, eps=EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape, [.., D]."""
        return self.norm(x + self.dropout(self.contract(F.relu(self.expand(x)))))


class Block(nn.Module):
    """Self-attention, then feed-forward."""

    def __init__(
        self, width: int, heads: int, feedforward: int, dropout: float, attention_dropout: float
    ) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads, dropout, attention_dropout)
        self.feedforward = FeedForward(width, feedforward, dropout)

    def forward(
        self, x: Float[Tensor, "B T D"], bias: Float[Tensor, "B 1 T T"]
    ) -> tuple[Float[Tensor, "B T D"], Tensor, Tensor]:
        """All steps at once; also the keys and values, to start a cache from."""
        q, k, v = self.attention.project(x)
        return self.feedforward(self.attention.attend(x, q, k, v, bias)), k, v

    def newest(
        self, x: Float[Tensor, "B T D"], bias: Float[Tensor, "B 1 T T"]
    ) -> tuple[Float[Tensor, "B 1 D"], Tensor, Tensor]:
        """The last step alone, with the keys and values of all: what `forward` has there."""
        q, k, v = self.attention.project(x)
        last = slice(-1, None)
        attended = self.attention.attend(x[:, last], q[:, :, last], k, v, bias[:, :, last])
        return self.feedforward(attended), k, v

    def step(
        self,
        x: Float[Tensor, "B 1 D"],
        keys: Tensor,
        values: Tensor,
        slot: Int[Tensor, "1"],
        bias: Float[Tensor, "B 1 1 length"],
    ) -> Float[Tensor, "B 1 D"]:
        """One step; its key and value join the cached ones, [B, heads, length, D / heads]."""
        q, k, v = self.attention.project(x)
        keys.index_copy_(2, slot, k.to(keys.dtype))
        values.index_copy_(2, slot, v.to(values.dtype))
        return self.feedforward(self.attention.attend(x, q, keys, values, bias))
