"""Which windows of replay are drawn."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor


def balanced_starts(
    visits: Int[Tensor, " capacity"],
    oldest: Int[Tensor, ""],
    newest: Int[Tensor, ""],
    windows: int,
    temperature: float,
) -> Int[Tensor, " windows"]:
    """Different starts, in steps after the oldest, drawn by softmax(-visits / temperature).

    visits: by slot of the ring, of which `oldest` holds the oldest step; newest: the last start
    that there is. The largest of logits plus Gumbel noise are draws without replacement.
    """
    age = (torch.arange(len(visits), device=visits.device) - oldest) % len(visits)
    uniform = torch.rand(len(visits), device=visits.device, dtype=torch.float64)
    noisy = -visits / temperature - (-uniform.clamp(min=1e-300).log()).log()
    return age[noisy.masked_fill(age > newest, -torch.inf).topk(windows).indices]
