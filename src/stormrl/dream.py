"""Open-loop dreams: the world model continues real contexts under the actions that were taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from stormrl.media import Frames, Row, side_by_side, upscale
from stormrl.types import Batch
from stormrl.world_model import WorldModel

SCALE = 3


class Dream(NamedTuple):
    """What the model makes of real windows; up to `context` it saw the frames."""

    context: int
    reconstruction: Float[Tensor, "B T channels height width"]
    """Decoded posterior of every real frame."""
    frames: Float[Tensor, "B T channels height width"]
    """The reconstruction of the context, then decoded draws from the prior."""
    reward: Float[Tensor, "B T"]
    """Predicted rewards, closed-loop inside the context and open-loop after it."""
    continues: Float[Tensor, "B T"]
    """Predicted probabilities that the episode goes on."""


@torch.no_grad()
def dream(world_model: WorldModel, batch: Batch, context: int) -> Dream:
    """Show the model `context` frames of each window, then only the actions.

    Draws from the device's default generator.
    """
    model = world_model
    steps = batch.action.shape[1]
    posterior = model.encode(batch.obs)
    z = model.latent.sample(posterior, torch.rand(posterior.shape[:-1], device=posterior.device))
    is_first = model.resets(batch.is_first[:, :context])
    hidden, cache = model.sequence.prefill(
        z[:, :context], batch.action[:, :context], is_first, steps
    )
    latents, hiddens = list(z[:, :context].unbind(1)), list(hidden.unbind(1))
    for t in range(context, steps):
        prior = model.latent.prior(hiddens[-1])
        noise = torch.rand(prior.shape[:-1], device=prior.device)
        latents.append(model.latent.sample(prior, noise))
        hiddens.append(model.step(latents[-1], batch.action[:, t], cache))
    dreamt = torch.stack(latents, dim=1)
    prediction = model.predict(dreamt, torch.stack(hiddens, dim=1))
    return Dream(
        context=context,
        reconstruction=model.decode(z),
        frames=model.decode(dreamt),
        reward=prediction.reward,
        continues=prediction.continues,
    )


def dream_rows(world_model: WorldModel, batch: Batch, context: int) -> Sequence[Row]:
    """Three rows to look at: real, reconstruction and dream; windows stand side by side."""
    dreamt = dream(world_model, batch, context)
    return (
        Row("real", _pictures(batch.obs.float() / 255)),
        Row("reconstruction", _pictures(dreamt.reconstruction)),
        Row("dream", _pictures(dreamt.frames), dream_from=context),
    )


def _pictures(images: Float[Tensor, "B T channels height width"]) -> Frames:
    scaled = (images.float().clamp(0, 1) * 255).round().to(torch.uint8)
    windows = scaled.permute(0, 1, 3, 4, 2).cpu().numpy()
    return side_by_side([upscale(np.ascontiguousarray(window), SCALE) for window in windows])
