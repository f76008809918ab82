"""What STORM's world model remembers of the real steps before the present one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from stormrl.spaces import ObservationSpace


class Memory(NamedTuple):
    """The last steps, oldest first, then unused places; and the newest, which waits for its action.

    A frame that has been encoded is not encoded again as long as the weights are the same.
    """

    obs: Shaped[Tensor, "B L ..."]
    action: Int[Tensor, "B L"]
    is_first: Bool[Tensor, "B L"]
    posterior: Float[Tensor, "B L K C"]
    """What the world model saw in the frames, with the weights `encoded_by`."""
    filled: Int[Tensor, " B"]
    """Steps that are remembered, from the first place on."""
    newest_obs: Shaped[Tensor, "B ..."]
    newest_is_first: Bool[Tensor, " B"]
    newest_posterior: Float[Tensor, "B K C"]
    waiting: Bool[Tensor, " B"]
    """Whether there is a newest step."""
    encoded_by: Int[Tensor, " B"]
    """Number of the weights that encoded the frames: `World.version` of that time."""


def empty_memory(
    rows: int,
    length: int,
    seen: ObservationSpace,
    latent_shape: Sequence[int],
    version: int = 0,
    device: torch.device | str = "cpu",
) -> Memory:
    """Memory before anything was seen."""

    def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(rows, *shape, dtype=dtype, device=device)

    kind = getattr(torch, seen.dtype)
    return Memory(
        obs=zeros(length, *seen.tensor_shape, dtype=kind),
        action=zeros(length, dtype=torch.int64),
        is_first=zeros(length, dtype=torch.bool),
        posterior=zeros(length, *latent_shape),
        filled=zeros(dtype=torch.int64),
        newest_obs=zeros(*seen.tensor_shape, dtype=kind),
        newest_is_first=zeros(dtype=torch.bool),
        newest_posterior=zeros(*latent_shape),
        waiting=zeros(dtype=torch.bool),
        encoded_by=zeros(dtype=torch.int64) + version,
    )


def remember(memory: Memory, action: Int[Tensor, " B"]) -> Memory:
    """The step that waits joins the others, with its action; once full, the oldest is forgotten."""
    length = memory.action.shape[1]
    full = memory.waiting & (memory.filled == length)
    slot = memory.filled.clamp(max=length - 1)
    rows = torch.arange(len(slot), device=slot.device)

    def appended(history: Tensor, newest: Tensor) -> Tensor:
        wide = full.view(-1, *[1] * (history.ndim - 1))
        history = torch.where(wide, history.roll(-1, dims=1), history)
        joins = memory.waiting.view(-1, *[1] * (newest.ndim - 1))
        history[rows, slot] = torch.where(joins, newest, history[rows, slot])
        return history

    return memory._replace(
        obs=appended(memory.obs, memory.newest_obs),
        action=appended(memory.action, action),
        is_first=appended(memory.is_first, memory.newest_is_first),
        posterior=appended(memory.posterior, memory.newest_posterior),
        filled=torch.where(memory.waiting, slot + 1, memory.filled),
        waiting=torch.zeros_like(memory.waiting),
    )


def with_newest(
    memory: Memory,
    obs: Shaped[Tensor, "B ..."],
    is_first: Bool[Tensor, " B"],
    posterior: Float[Tensor, "B K C"],
) -> Memory:
    """Memory with a step that waits for its action."""
    return memory._replace(
        newest_obs=obs.clone(),  # The caller's buffer may be used again.
        newest_is_first=is_first,
        newest_posterior=posterior,
        waiting=torch.ones_like(memory.waiting),
    )
