"""Data types: records that travel between the parts, with their shapes.

`B` batch, `T` time, `H` horizon, `K x C` categoricals x classes, `Z = K * C`, `D` hidden width.
`reward[t]` and `continues[t]` follow `action[t]`, taken at `obs[t]`; `is_first[t]` marks a reset.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor


class Batch(NamedTuple):
    """Windows of real experience."""

    obs: UInt8[Tensor, "B T channels height width"]
    action: Int[Tensor, "B T"]
    reward: Float[Tensor, "B T"]
    continues: Float[Tensor, "B T"]
    is_first: Bool[Tensor, "B T"]


class Trajectory(NamedTuple):
    """Imagined experience: `state[:, t]` is where `action[:, t]` was chosen."""

    z: Float[Tensor, "B H1 Z"]
    h: Float[Tensor, "B H1 D"]
    action: Int[Tensor, "B H"]
    reward: Float[Tensor, "B H"]
    continues: Float[Tensor, "B H"]
    weight: Float[Tensor, " B"]
    """0 for a trajectory that began where no policy ever acts, else 1."""


class Cache(NamedTuple):
    """Keys and values of every token so far, one tensor per block, written in place.

    On a CPU they are float32, whatever the networks compute in: `nn.attention.cacheable`.
    """

    keys: tuple[Tensor, ...]
    """Per block: [B, heads, length, D / heads]."""
    values: tuple[Tensor, ...]
    """Per block: [B, heads, length, D / heads]."""
    visible: Bool[Tensor, "B length"]
    """Slots that hold a token of the current episode."""
    position: Int[Tensor, " B"]
    """Position that the next token gets."""
    slot: Int[Tensor, "1"]
    """Slot that the next token is written to."""


class Memory(NamedTuple):
    """What an acting agent remembers: its last steps, oldest first, then unused places."""

    obs: UInt8[Tensor, "B L channels height width"]
    action: Int[Tensor, "B L"]
    is_first: Bool[Tensor, "B L"]
    posterior: Float[Tensor, "B L K C"]
    """What the world model saw in the frames, at the time of `encoded_by`."""
    encoded_by: Int[Tensor, ""]
    """Which weights encoded the frames: the `Actor.weights` of that time."""
    filled: Int[Tensor, " B"]
    """Steps that are remembered, from the first place on."""


def image_tensor(
    images: np.ndarray, device: torch.device | str
) -> UInt8[Tensor, "... channels height width"]:
    """Images of an environment, uint8 [..., height, width, channels], as networks take them."""
    return torch.from_numpy(images).to(device).movedim(-1, -3)
