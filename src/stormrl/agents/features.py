"""Features: what the agent's networks read of a world model's view."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stormrl.errors import UserError
from stormrl.nn.conv import FrameEncoder, embedding_size
from stormrl.nn.precision import compute_dtype
from stormrl.spaces import ImageSpace
from stormrl.types import View
from stormrl.worlds.protocol import World


class VectorState(nn.Module):
    """The agent sees the latent, the hidden state, or both side by side."""

    def __init__(self, parts: str, z: int, h: int) -> None:
        super().__init__()
        self.parts = parts
        sizes = {"z": z, "h": h}
        self.size = sum(sizes[part] for part in parts)

    def forward(self, view: View) -> Float[Tensor, "*n S"]:
        """The parts side by side, in the type that the networks compute in.

        Actor, critic and slow critic read the same states: they are converted once, not by each.
        """
        parts = [getattr(view, part) for part in self.parts]
        dtype = compute_dtype(parts[-1])
        return torch.cat([part.to(dtype) for part in parts], dim=-1)


class FrameState(nn.Module):
    """The agent sees the reconstructed frame, through a convolutional encoder of its own.

    Actor and critic share the embedding, and both of their losses train the encoder. The decoder
    stays the world model's: it is held as a function, so its parameters are none of the agent's.
    """

    decode: Callable[[View], Tensor]

    def __init__(
        self, decode: Callable[[View], Tensor], image_channels: int, channels: int
    ) -> None:
        super().__init__()
        self.decode = decode
        self.encoder = FrameEncoder(image_channels, channels)
        self.size = embedding_size(channels)

    def forward(self, view: View) -> Float[Tensor, "*n S"]:
        """Embedding of the decoded view; no gradient reaches the view or the decoder."""
        with torch.no_grad():
            frames = self.decode(view)
        return self.encoder(frames.flatten(0, -4)).unflatten(0, frames.shape[:-3])


def agent_state(kind: str, world: World) -> VectorState | FrameState:
    """The state named by `ActorCriticConfig.state`, on top of a world model.

    Raises `UserError` if its views do not have such a part.
    """
    if kind == "frame":
        seen = world.spaces.observation
        if not isinstance(seen, ImageSpace):
            raise UserError("actor_critic.state", "is 'frame', but the game shows none; give zh")
        return FrameState(world.decode, seen.channels, world.frame_channels)
    sizes = dict(zip("zh", world.view_sizes, strict=True))
    missing = [part for part in kind if not sizes[part]]
    if missing:
        there = "".join(part for part in sizes if sizes[part]) or "frame"
        problem = f"is {kind!r}, but views of {type(world).__name__} have no {missing[0]}"
        raise UserError("actor_critic.state", f"{problem}; give {there}")
    return VectorState(kind, **sizes)
