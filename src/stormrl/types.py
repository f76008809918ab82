"""Data types: records that travel between the parts, with their shapes.

`B` batch, `T` time, `H` horizon, `K x C` categoricals x classes, `Z = K * C`, `D` hidden width.
`reward[t]` and `continues[t]` follow `action[t]`, taken at `obs[t]`; `is_first[t]` marks a reset.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from torch import Tensor


class Batch(NamedTuple):
    """Windows of real experience."""

    obs: Shaped[Tensor, "B T ..."]
    """Pictures, uint8 [channels, height, width], or numbers, float32 [V]."""
    action: Int[Tensor, "B T"]
    reward: Float[Tensor, "B T"]
    continues: Float[Tensor, "B T"]
    is_first: Bool[Tensor, "B T"]
    row: Int[Tensor, "B T"]
    """Which row of replay each is, counted from the first ever added; -1 for those of no replay
    of this run."""


class View(NamedTuple):
    """What an agent may look at; parts that a world model does not have are None."""

    z: Float[Tensor, "*n Z"] | None
    """The latent of the moment, flattened."""
    h: Float[Tensor, "*n D"] | None
    """What came before it."""
    known: Bool[Tensor, "*n"] | None = None
    """False: there is nothing to look back on yet. None: there is everywhere."""
    belief: Float[Tensor, "*n K C"] | None = None
    """What the latent was drawn from; for eyes, not for the agent."""
    outcome: Prediction | None = None
    """How the dreamt step to here ended, where the world model knows at once; for `judge`."""
    anew: Bool[Tensor, "*n"] | None = None
    """Whether another dream begins here, which the step before did not lead to; None: nowhere."""


class Prediction(NamedTuple):
    """What a world model expects of a step that has been taken."""

    reward: Float[Tensor, "*n"]
    continues: Float[Tensor, "*n"]
    """Probability that the episode goes on."""


class Trajectory(NamedTuple):
    """Imagined experience: `view[:, t]` is where `action[:, t]` was chosen."""

    view: View
    """[B, H + 1, ...]"""
    action: Int[Tensor, "B H"]
    reward: Float[Tensor, "B H"]
    continues: Float[Tensor, "B H"]
    weight: Float[Tensor, " B"]
    """0 for a trajectory that began where no policy ever acts, else 1."""
    restarts: Bool[Tensor, "B H"] | None = None
    """After which steps another trajectory begins in the same row; None: after none."""

    @property
    def z(self) -> Float[Tensor, "B H1 Z"]:
        """Latents, of a world model that has them."""
        assert self.view.z is not None
        return self.view.z

    @property
    def h(self) -> Float[Tensor, "B H1 D"]:
        """Hidden states, of a world model that has them."""
        assert self.view.h is not None
        return self.view.h


class Noise(NamedTuple):
    """Numbers from [0, 1) for every draw of imagined trajectories."""

    start: tuple[Tensor, ...]
    """For the world model's beginning; rows first."""
    steps: Float[Tensor, "B H ..."]
    """For each of its steps."""
    action: Float[Tensor, "B H *parts"]
    """For the agent's choices."""


Carry = tuple[Any, ...]
"""What a world model or an agent takes along from step to step: tensors, rows first, in tuples.
Opaque to everyone but its maker."""

Taken = TypeVar("Taken", bound=Carry)

Uniform = Callable[[Sequence[int]], Tensor]
"""A source of noise: numbers from [0, 1) of a given shape."""


def restart(carry: Taken, fresh: Taken, rows: Bool[Tensor, " B"]) -> Taken:
    """The carry, with these rows as they are in a fresh one."""

    def merged(old: Any, new: Any) -> Any:
        if isinstance(old, Tensor):
            return torch.where(rows.view(-1, *[1] * (old.ndim - 1)), new, old)
        parts = [merged(*pair) for pair in zip(old, new, strict=True)]
        return _made_as(old, parts)

    return merged(carry, fresh)


def clone(carry: Carry) -> Carry:
    """A copy that shares no memory."""
    parts = [part.clone() if isinstance(part, Tensor) else clone(part) for part in carry]
    return _made_as(carry, parts)


def named_leaves(carry: Carry, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of a carry by dotted names: of fields, or of places in plain tuples."""
    names = getattr(carry, "_fields", range(len(carry)))
    leaves: dict[str, Tensor] = {}
    for name, part in zip(names, carry, strict=True):
        if isinstance(part, Tensor):
            leaves[f"{prefix}{name}"] = part
        else:
            leaves |= named_leaves(part, f"{prefix}{name}.")
    return leaves


def with_leaves(carry: Taken, leaves: Mapping[str, Tensor], prefix: str = "") -> Taken:
    """A carry of the same make that holds these tensors, on the devices of the former ones."""
    names = getattr(carry, "_fields", range(len(carry)))
    parts = []
    for name, part in zip(names, carry, strict=True):
        if isinstance(part, Tensor):
            parts.append(leaves[f"{prefix}{name}"].to(part.device))
        else:
            parts.append(with_leaves(part, leaves, f"{prefix}{name}."))
    return cast(Taken, _made_as(carry, parts))


def _made_as(carry: Carry, parts: Sequence[Any]) -> Carry:
    """A tuple of the same make."""
    return type(carry)(*parts) if hasattr(carry, "_fields") else tuple(parts)


def obs_tensor(obs: np.ndarray, device: torch.device | str) -> Shaped[Tensor, "..."]:
    """Observations of an environment as networks take them; bytes are pictures.

    Pictures are uint8 [..., height, width, channels] there and [..., channels, height, width] here.
    """
    return channels_first(torch.from_numpy(obs).to(device))


def channels_first(obs: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
    """Pictures with their channels before their sides; numbers stay as they are."""
    return obs.movedim(-1, -3) if obs.dtype == torch.uint8 else obs


def channels_last(obs: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
    """Pictures with their channels behind their sides; numbers stay as they are."""
    return obs.movedim(-3, -1) if obs.dtype == torch.uint8 else obs


def as_bytes(images: Float[Tensor, "..."]) -> UInt8[Tensor, "..."]:
    """Images in the scale [0, 1], clamped to it."""
    return (images.float().clamp(0, 1) * 255).round().to(torch.uint8)
