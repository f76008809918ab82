"""Latent representation: several categorical variables, sampled with straight-through gradients."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from stormrl.config.common import CategoricalConfig
from stormrl.nn.functional import mix_uniform, sample_index, straight_through


class CategoricalLatent(nn.Module):
    """Posterior from an image embedding, prior from a hidden state, and draws from either."""

    def __init__(self, config: CategoricalConfig, embedding: int, hidden: int) -> None:
        super().__init__()
        self.config = config
        self.posterior_head = nn.Linear(embedding, config.size)
        self.prior_head = nn.Linear(hidden, config.size)

    def posterior(self, embedding: Float[Tensor, "*n E"]) -> Float[Tensor, "*n K C"]:
        """Class probabilities given the current image alone, q(z_t | o_t)."""
        return self._probabilities(self.posterior_head(embedding))

    def prior(self, hidden: Float[Tensor, "*n D"]) -> Float[Tensor, "*n K C"]:
        """Class probabilities of the next latent given the past, p(z_(t+1) | h_t)."""
        return self._probabilities(self.prior_head(hidden))

    def sample(
        self, probs: Float[Tensor, "*n K C"], uniform: Float[Tensor, "*n K"]
    ) -> Float[Tensor, "*n Z"]:
        """One-hot draws, flattened, with the gradient of the probabilities.

        `uniform` holds numbers from [0, 1): all randomness comes in from outside.
        """
        return straight_through(sample_index(probs, uniform), probs).flatten(-2)

    def _probabilities(self, logits: Tensor) -> Tensor:
        shaped = logits.float().unflatten(-1, (self.config.categoricals, self.config.classes))
        return mix_uniform(shaped.softmax(-1), self.config.unimix)
