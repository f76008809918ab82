"""The world model in five verbs: encode, observe, step, decode, loss."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from stormrl.config.parts import WorldModelConfig
from stormrl.nn.conv import Decoder, Encoder, embedding_size
from stormrl.nn.functional import (
    categorical_kl,
    log_probability,
    masked_mean,
    symexp,
    two_hot_entropies,
)
from stormrl.nn.heads import MLP, TwoHotHead
from stormrl.nn.layers import PLAIN, Layers
from stormrl.types import Batch, Cache
from stormrl.worlds.categorical import CategoricalLatent
from stormrl.worlds.loss_balance import balance
from stormrl.worlds.transformer import Transformer


class Prediction(NamedTuple):
    """What the model expects of a step that has been taken."""

    reward: Float[Tensor, "*n"]
    continues: Float[Tensor, "*n"]
    """Probability that the episode goes on."""


class WorldModel(nn.Module):
    """STORM's world model (arXiv 2310.09615, section 3.1).

    Outside its own update it is kept in evaluation mode: running statistics, no dropout. layers: on
    a CPU, `layers_for` gives faster ones than PyTorch's own.
    """

    def __init__(
        self,
        config: WorldModelConfig,
        actions: int,
        image_channels: int = 3,
        layers: Layers = PLAIN,
    ) -> None:
        super().__init__()
        self.config = config
        self.image_channels = image_channels
        width, head, latent = config.sequence.width, config.head, config.latent.size
        embedding = embedding_size(config.image.channels)
        self.encoder = Encoder(image_channels, config.image.channels, layers)
        self.decoder = Decoder(latent, image_channels, config.image.channels, layers)
        self.latent = CategoricalLatent(config.latent, embedding, width)
        self.sequence = Transformer(config.sequence, latent, actions)
        predictor_inputs = {"hidden": width, "latent": latent}[config.predictor_input]
        self.reward_head = TwoHotHead(predictor_inputs, head, config.two_hot)
        self.continues_head = MLP(predictor_inputs, head.width, head.layers, 1)
        self.balance = balance(config)

    def encode(self, obs: UInt8[Tensor, "*n channels height width"]) -> Float[Tensor, "*n K C"]:
        """Posterior probabilities of each image, q(z_t | o_t) (equation 1)."""
        lead = obs.shape[:-3]
        return self.latent.posterior(self.encoder(obs.flatten(0, -4)).unflatten(0, lead))

    def observe(
        self,
        z: Float[Tensor, "B T Z"],
        action: Int[Tensor, "B T"],
        is_first: Bool[Tensor, "B T"],
    ) -> Float[Tensor, "B T D"]:
        """Hidden states h_t of a real sequence, all at once (equation 2)."""
        return self.sequence(z, action, self.resets(is_first))

    def step(
        self, z: Float[Tensor, "B Z"], action: Int[Tensor, " B"], cache: Cache
    ) -> Float[Tensor, "B D"]:
        """Hidden state after one more latent and action; equals `observe` on the whole sequence."""
        return self.sequence.step(z, action, cache)

    def decode(self, z: Float[Tensor, "*n Z"]) -> Float[Tensor, "*n channels height width"]:
        """Images of latents in the scale [0, 1], not clamped to it."""
        return self.decoder(z.flatten(0, -2)).unflatten(0, z.shape[:-1])

    def predict(self, z: Float[Tensor, "*n Z"], h: Float[Tensor, "*n D"]) -> Prediction:
        """Reward and continuation that follow the action in h (equation 2)."""
        reward, continues = self._predictor_logits(z, h)
        return Prediction(self.reward_head.mean(reward), continues.sigmoid())

    def reward_distribution(
        self, z: Float[Tensor, "*n Z"], h: Float[Tensor, "*n D"]
    ) -> tuple[Float[Tensor, " bins"], Float[Tensor, "*n bins"]]:
        """Rewards that the bins stand for, in natural units, and the probability of each."""
        logits, _ = self._predictor_logits(z, h)
        bins = self.config.two_hot
        centres = torch.linspace(bins.low, bins.high, bins.bins, device=logits.device)
        return symexp(centres), logits.float().softmax(-1)

    def loss(
        self, batch: Batch, uniform: Float[Tensor, "B T K"]
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor], Float[Tensor, "B T Z"]]:
        """Total loss of a batch, its parts, and the latents that were drawn (equations 3 to 5).

        `uniform` holds numbers from [0, 1) for the draws from the posterior.
        """
        posterior = self.encode(batch.obs)
        z = self.latent.sample(posterior, uniform)
        h = self.observe(z, batch.action, batch.is_first)
        prior = self.latent.prior(h)
        # A pair is the prior out of step t and the posterior of step t + 1 of the same episode.
        pairs = 1.0 - self.resets(batch.is_first)[:, 1:].float()
        dynamics = categorical_kl(posterior[:, 1:].detach(), prior[:, :-1])
        representation = categorical_kl(posterior[:, 1:], prior[:, :-1].detach())
        losses = {
            "reconstruction": self._reconstruction_loss(batch.obs, z, prior, uniform, pairs),
            **self._prediction_losses(batch, z, h),
            "dynamics": self._free_mean(dynamics, pairs, self._dynamics_free_nats()),
            "representation": self._free_mean(representation, pairs, self.config.free_nats),
        }
        total = self.balance(losses)
        metrics = {name: value.detach() for name, value in losses.items()}
        metrics["kl"] = masked_mean(dynamics.detach(), pairs)
        metrics["posterior_entropy"] = _entropy(posterior)
        metrics["prior_entropy"] = _entropy(prior)
        metrics |= self._reward_entropies(batch.reward)
        return total, metrics | {"total": total.detach()}, z.detach()

    def resets(self, is_first: Bool[Tensor, "*n"]) -> Bool[Tensor, "*n"]:
        """Resets as the model sees them: none at all where episode boundaries are ignored."""
        if self.config.episode_boundaries == "ignore":
            return torch.zeros_like(is_first)
        return is_first

    def _predictor_logits(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        x = {"hidden": h, "latent": z}[self.config.predictor_input]
        return self.reward_head(x), self.continues_head(x).squeeze(-1).float()

    def _prediction_losses(self, batch: Batch, z: Tensor, h: Tensor) -> dict[str, Tensor]:
        reward, continues = self._predictor_logits(z, h)
        reward_loss = self.reward_head.cross_entropies(reward, batch.reward.unsqueeze(-1))
        return {
            "reward": reward_loss.mean(),
            "continuation": F.binary_cross_entropy_with_logits(continues, batch.continues),
        }

    def _reward_entropies(self, reward: Tensor) -> dict[str, Tensor]:
        """Between which two numbers the reward loss of a useful predictor lies."""
        bins = self.config.two_hot
        ignorant, perfect = two_hot_entropies(reward, bins.bins, bins.low, bins.high)
        return {"reward_ignorant": ignorant, "reward_perfect": perfect}

    def _reconstruction_loss(
        self, obs: Tensor, z: Tensor, prior: Tensor, uniform: Tensor, pairs: Tensor
    ) -> Float[Tensor, ""]:
        """Squared error, summed over a frame's pixels, averaged over frames (equation 4a)."""
        counted = torch.ones_like(z[..., 0])
        if self.config.decoder_input == "prior":
            z = self.latent.sample(prior[:, :-1], uniform[:, 1:])
            obs, counted = obs[:, 1:], pairs
        # One pass over the pixels: both images lie channels-last, and the bytes are scaled in it.
        error = torch.sub(self.decode(z).float(), obs, alpha=1 / 255)
        return masked_mean(error.square().sum((-3, -2, -1)), counted)

    def _dynamics_free_nats(self) -> float:
        config = self.config
        return {"both": config.free_nats, "representation": 0.0}[config.free_nats_for]

    def _free_mean(self, kl: Tensor, pairs: Tensor, free: float) -> Float[Tensor, ""]:
        if self.config.free_nats_over == "batch":
            return masked_mean(kl, pairs).clamp(min=free)
        return masked_mean(kl.clamp(min=free), pairs)


def _entropy(probs: Tensor) -> Tensor:
    """Mean entropy of one categorical variable, in nats."""
    return -(probs * log_probability(probs)).sum(-1).mean().detach()
