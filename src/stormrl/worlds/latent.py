"""The latent world model: image autoencoder, categorical latent, sequence model, predictors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn import functional as F

from stormrl.config.parts import ActingConfig, AgentConfig, WorldModelConfig, storm
from stormrl.nn.choices import Choices
from stormrl.nn.conv import Decoder, Encoder, embedding_size
from stormrl.nn.functional import categorical_kl, log_probability, masked_mean
from stormrl.nn.heads import MLP, TwoHotHead, vector_encoder
from stormrl.nn.layers import PLAIN, Layers, layers_for
from stormrl.nn.scales import scale_for
from stormrl.spaces import ImageSpace, Spaces
from stormrl.types import Batch, Carry, Prediction, Uniform, View
from stormrl.worlds.categorical import CategoricalLatent
from stormrl.worlds.loss_balance import balance
from stormrl.worlds.memory import Memory, empty_memory, remember, with_newest
from stormrl.worlds.protocol import Lesson, World
from stormrl.worlds.transformer import Cache, Transformer

if TYPE_CHECKING:
    from stormrl.worlds.mind import Mind


class Dream(NamedTuple):
    """Where an imagined trajectory stands."""

    z: Float[Tensor, "B Z"]
    cache: Cache


class WorldModel(World):
    """STORM's world model (arXiv 2310.09615, section 3.1).

    Outside its own update it is kept in evaluation mode: running statistics, no dropout. layers: on
    a CPU, `layers_for` gives faster ones than PyTorch's own.
    """

    config: WorldModelConfig

    def __init__(
        self,
        config: WorldModelConfig,
        spaces: Spaces,
        acting: ActingConfig | None = None,
        layers: Layers = PLAIN,
    ) -> None:
        super().__init__()
        self.config = config
        self.acting = acting or ActingConfig()
        self.view_sizes = config.latent.size, config.sequence.width
        self.spaces = spaces
        width, head, latent = config.sequence.width, config.head, config.latent.size
        seen, channels = spaces.observation, config.image.channels
        self.scale = scale_for(seen)
        if isinstance(seen, ImageSpace):
            embedding = embedding_size(channels)
            self.encoder = Encoder(seen.channels, channels, layers)
            self.decoder = Decoder(latent, seen.channels, channels, layers)
        else:
            embedding = head.width
            self.encoder = vector_encoder(seen.size, head)
            self.decoder = MLP(latent, head, seen.size)
        self.latent = CategoricalLatent(config.latent, embedding, width)
        self.sequence = Transformer(config.sequence, latent, Choices(*spaces.action.choices))
        predictor_inputs = {"hidden": width, "latent": latent}[config.predictor_input]
        self.reward_head = TwoHotHead(predictor_inputs, head, config.two_hot)
        self.continues_head = MLP(predictor_inputs, head, 1)
        self.balance = balance(config)

    @classmethod
    def of(cls, agent: AgentConfig, spaces: Spaces, device: torch.device) -> Self:
        """The world model of an agent's configuration, made of the layers that suit the device."""
        return cls(storm(agent), spaces, agent.acting, layers_for(device))

    @property
    def frame_channels(self) -> int:
        """As wide as its own encoder."""
        return self.config.image.channels

    def encode(self, obs: Shaped[Tensor, "..."]) -> Float[Tensor, "*n K C"]:
        """Posterior probabilities of each observation, q(z_t | o_t) (equation 1)."""
        sides = len(self.spaces.observation.shape)
        lead = obs.shape[:-sides]
        x = self.encoder(self.scale(obs).flatten(0, -sides - 1))
        return self.latent.posterior(x.unflatten(0, lead))

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

    def reconstructed(self, z: Float[Tensor, "*n Z"]) -> Float[Tensor, "..."]:
        """Observations of latents, in the scale of `encode`: images in [0, 1], not clamped."""
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
        return self.reward_head.distribution(logits)

    # Learning.

    def loss_noise(self, batch: Batch, uniform: Uniform) -> Float[Tensor, "B T K"]:
        """Numbers for the draws from the posterior."""
        return uniform((*batch.action.shape, self.config.latent.categoricals))

    def loss(self, batch: Batch, noise: Float[Tensor, "B T K"]) -> Lesson:
        """Total loss of a batch, its parts, and the latents that were drawn (equations 3 to 5)."""
        posterior = self.encode(batch.obs)
        z = self.latent.sample(posterior, noise)
        h = self.observe(z, batch.action, batch.is_first)
        prior = self.latent.prior(h)
        # A pair is the prior out of step t and the posterior of step t + 1 of the same episode.
        pairs = 1.0 - self.resets(batch.is_first)[:, 1:].float()
        dynamics = categorical_kl(posterior[:, 1:].detach(), prior[:, :-1])
        representation = categorical_kl(posterior[:, 1:], prior[:, :-1].detach())
        losses = {
            "reconstruction": self._reconstruction_loss(batch.obs, z, prior, noise, pairs),
            **self._prediction_losses(batch, z, h),
            "dynamics": self._free_mean(dynamics, pairs, self._dynamics_free_nats()),
            "representation": self._free_mean(representation, pairs, self.config.free_nats),
        }
        total = self.balance(losses)
        metrics = {name: value.detach() for name, value in losses.items()}
        metrics["kl"] = masked_mean(dynamics.detach(), pairs)
        metrics["posterior_entropy"] = _entropy(posterior)
        metrics["prior_entropy"] = _entropy(prior)
        rewards = self.reward_head.entropies(batch.reward)
        metrics |= {f"reward_{name}": value for name, value in rewards.items()}
        return Lesson({"world": total}, metrics | {"total": total.detach()}, z.detach())

    # Acting.

    def begin(self, rows: int) -> Memory:
        """Memory before the first step."""
        latent, length = self.config.latent, self.acting.context
        shapes = self.spaces.observation, (latent.categoricals, latent.classes)
        return empty_memory(rows, length, *shapes, self.version, self.device)

    def see_noise(self, rows: int, uniform: Uniform) -> Float[Tensor, "B L1 K"]:
        """Numbers for every frame that is looked back on, the present one last."""
        return uniform((rows, self.acting.context + 1, self.config.latent.categoricals))

    def see(
        self,
        carry: Carry,
        obs: Shaped[Tensor, "B ..."],
        action: Int[Tensor, " B"],
        is_first: Bool[Tensor, " B"],
        noise: Float[Tensor, "B L1 K"],
    ) -> tuple[Memory, View]:
        """The state on which the policy decides, and the memory that it is made of.

        The hidden state is that of the last remembered step. The latent is drawn from the present
        frame's posterior, or from the prior predicted before that frame was seen.
        """
        assert isinstance(carry, Memory)
        memory = self._encoded(self._forgotten(remember(carry, action), is_first))
        posterior = self.encode(obs)
        z, h = self.state(posterior, memory, noise)
        known = memory.filled > 0
        return with_newest(memory, obs, is_first, posterior), View(z, h, known, posterior)

    def can_go_on(self, carry: Carry) -> bool:
        """Actions are the game's, and no more steps are remembered than there are places."""
        assert isinstance(carry, Memory)
        known = super().can_go_on(carry) and _below(carry.action, self.spaces.action.n)
        return known and _below(carry.filled, self.acting.context + 1)

    def state(
        self,
        posterior: Float[Tensor, "B K C"],
        memory: Memory,
        noise: Float[Tensor, "B L1 K"],
    ) -> tuple[Float[Tensor, "B Z"], Float[Tensor, "B D"]]:
        """Latent and hidden state where the present frame has been encoded."""
        seen = torch.cat([memory.posterior, posterior.unsqueeze(1)], dim=1)
        z = self.latent.sample(seen, noise)
        hidden = self.observe(z[:, :-1], memory.action, memory.is_first)
        rows = torch.arange(len(z), device=z.device)
        # Unused places lie behind the last remembered step: causality keeps them out of it.
        h = hidden[rows, memory.filled.clamp(min=1) - 1]
        if self.acting.latent == "prior":
            return self.latent.sample(self.latent.prior(h), noise[:, -1]), h
        return z[:, -1], h

    def saved(self, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of a memory in a checkpoint of format 1, with what a memory has today.

        There the newest step had joined the others already, and the oldest checkpoints kept no
        encodings.
        """
        fresh = self.begin(rows=1)._asdict()
        newer = ("posterior", "newest_obs", "newest_is_first", "newest_posterior", "waiting")
        encoded_by = leaves.get("encoded_by", torch.tensor(-1)).reshape(-1)
        return {name: fresh[name] for name in newer} | leaves | {"encoded_by": encoded_by}

    def _forgotten(self, memory: Memory, is_first: Bool[Tensor, " B"]) -> Memory:
        """Memory at the start of a step: emptied where an episode begins, if it is per episode."""
        if self.acting.memory == "endless":
            return memory
        return memory._replace(filled=torch.where(is_first, 0, memory.filled))

    def _encoded(self, memory: Memory) -> Memory:
        """Memory whose frames were encoded by the present weights; anew only if they were not."""
        if bool((memory.encoded_by == self.version).all()):
            return memory
        return memory._replace(
            posterior=self.encode(memory.obs),
            encoded_by=torch.full_like(memory.encoded_by, self.version),
        )

    # Dreaming.

    def dream_noise(
        self, rows: int, context: int, horizon: int, uniform: Uniform
    ) -> tuple[tuple[Tensor, ...], Float[Tensor, "B H K"]]:
        """Numbers for the posteriors of the context and the first prior, then for each prior."""
        k = self.config.latent.categoricals
        posterior, prior = uniform((rows, context, k)), uniform((rows, horizon + 1, k))
        return (posterior, prior[:, 0]), prior[:, 1:]

    def start(self, windows: Batch, room: int, noise: tuple[Tensor, ...]) -> tuple[Dream, View]:
        """The latent that the prior expects after the last step of real windows."""
        posterior, prior = noise
        z = self.latent.sample(self.encode(windows.obs), posterior)
        length = windows.action.shape[1] + room
        resets = self.resets(windows.is_first)
        h, cache = self.sequence.prefill(z, windows.action, resets, length)
        z = self.latent.sample(self.latent.prior(h), prior)
        return Dream(z, cache), View(z, h)

    def branches(self, length: int, horizon: int) -> int:
        """Steps 1 to this one of a window: those that leave room for the horizon.

        The first has nothing before it. The last of a dream may be the last but one of the window:
        what the prior says after a window's last step is not trained.
        """
        return length - 1 - horizon

    def branch(
        self, windows: Batch, seen: Any, room: int, noise: tuple[Tensor, ...]
    ) -> tuple[Dream, View, Float[Tensor, " N"]]:
        """The latents that `loss` drew, each with the hidden state before it; draws nothing."""
        z, starts = seen, self.branches(seen.shape[1], room)
        resets = self.resets(windows.is_first)
        h, cache = self.sequence.branch(
            z[:, :starts], windows.action[:, :starts], resets[:, :starts], starts + room
        )
        # Where an episode begins, the hidden state is of another one: there no policy is asked.
        weight = 1.0 - resets[:, 1 : starts + 1].float()
        first = z[:, 1 : starts + 1].flatten(0, 1)
        return Dream(first, cache), View(first, h), weight.flatten()

    def dream(
        self, carry: Carry, action: Int[Tensor, " B"], noise: Float[Tensor, "B K"]
    ) -> tuple[Dream, View]:
        """One step of the sequence model, and a draw from the prior that it leads to."""
        z, cache = carry
        h = self.step(z, action, cache)
        z = self.latent.sample(self.latent.prior(h), noise)
        return Dream(z, cache), View(z, h)

    def again(self, carry: Carry) -> Dream:
        """A copy of what moves on in place; keys and values are overwritten where they matter."""
        z, cache = carry
        fresh = cache._replace(
            visible=cache.visible.clone(),
            position=cache.position.clone(),
            slot=cache.slot.clone(),
        )
        return Dream(z, fresh)

    def judge(self, view: View, action: Int[Tensor, "B H"]) -> Prediction:
        """Reward and continuation that follow each action: z at its step, h after it."""
        assert view.z is not None
        assert view.h is not None
        return self.predict(view.z[:, :-1], view.h[:, 1:])

    def decode(self, view: View) -> Float[Tensor, "..."]:
        """Images of latents in the scale [0, 1], not clamped to it, or numbers in their units."""
        assert view.z is not None
        return self.scale.natural(self.reconstructed(view.z))

    def mind(self, limit: int | None = None) -> Mind:
        """A stream that dreams on from latents, without reading frames again."""
        from stormrl.worlds.stream import LatentMind

        return LatentMind(self, limit or self.config.batch_length - 1)

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

    def _reconstruction_loss(
        self, obs: Tensor, z: Tensor, prior: Tensor, uniform: Tensor, pairs: Tensor
    ) -> Float[Tensor, ""]:
        """Squared error, summed over what is seen, averaged over steps (equation 4a)."""
        counted = torch.ones_like(z[..., 0])
        if self.config.decoder_input == "prior":
            z = self.latent.sample(prior[:, :-1], uniform[:, 1:])
            obs, counted = obs[:, 1:], pairs
        return masked_mean(self.scale.error(self.reconstructed(z), obs), counted)

    def _dynamics_free_nats(self) -> float:
        config = self.config
        return {"both": config.free_nats, "representation": 0.0}[config.free_nats_for]

    def _free_mean(self, kl: Tensor, pairs: Tensor, free: float) -> Float[Tensor, ""]:
        if self.config.free_nats_over == "batch":
            return masked_mean(kl, pairs).clamp(min=free)
        return masked_mean(kl.clamp(min=free), pairs)


def _below(numbers: Tensor, end: int) -> bool:
    """Whether whole numbers lie from 0 to before `end`."""
    return bool(((numbers >= 0) & (numbers < end)).all())


def _entropy(probs: Tensor) -> Tensor:
    """Mean entropy of one categorical variable, in nats."""
    return -(probs * log_probability(probs)).sum(-1).mean().detach()
