"""Features: what the agent sees of the world model's state."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stormrl.nn.conv import FrameEncoder, embedding_size
from stormrl.nn.precision import compute_dtype
from stormrl.worlds.latent import WorldModel


class VectorState(nn.Module):
    """The agent sees the latent, the hidden state, or both side by side."""

    def __init__(self, parts: str, z: int, h: int) -> None:
        super().__init__()
        self.parts = parts
        sizes = {"z": z, "h": h}
        self.size = sum(sizes[part] for part in parts)

    def forward(self, z: Float[Tensor, "*n Z"], h: Float[Tensor, "*n D"]) -> Float[Tensor, "*n S"]:
        """The parts side by side, in the type that the networks compute in.

        Actor, critic and slow critic read the same states: they are converted once, not by each.
        """
        dtype = compute_dtype(h)
        return torch.cat([{"z": z, "h": h}[part].to(dtype) for part in self.parts], dim=-1)


class FrameState(nn.Module):
    """The agent sees the reconstructed frame, through a convolutional encoder of its own.

    Actor and critic share the embedding, and both of their losses train the encoder. The decoder
    stays the world model's: it is held as a function, so its parameters are none of the agent's.
    """

    decode: Callable[[Tensor], Tensor]

    def __init__(
        self, decode: Callable[[Tensor], Tensor], image_channels: int, channels: int
    ) -> None:
        super().__init__()
        self.decode = decode
        self.encoder = FrameEncoder(image_channels, channels)
        self.size = embedding_size(channels)

    def forward(self, z: Float[Tensor, "*n Z"], h: Float[Tensor, "*n D"]) -> Float[Tensor, "*n S"]:
        """Embedding of the decoded latent; no gradient reaches the latent or the decoder."""
        with torch.no_grad():
            frames = self.decode(z)
        return self.encoder(frames.flatten(0, -4)).unflatten(0, z.shape[:-1])


def agent_state(kind: str, world_model: WorldModel) -> VectorState | FrameState:
    """The state named by `ActorCriticConfig.state`, on top of a world model."""
    config = world_model.config
    if kind == "frame":
        return FrameState(world_model.decode, world_model.image_channels, config.image.channels)
    return VectorState(kind, z=config.latent.size, h=config.sequence.width)
