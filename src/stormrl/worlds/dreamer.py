"""DreamerV3's world model: a recurrent state-space model, images, rewards and ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple, Self

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn import functional as F

from stormrl.config.dreamer import DreamerConfig
from stormrl.config.parts import AgentConfig
from stormrl.nn.choices import Choices
from stormrl.nn.conv import embedding_size
from stormrl.nn.conv_layer_norm import LayerNormDecoder, LayerNormEncoder
from stormrl.nn.functional import categorical_entropy, categorical_kl, log_probability
from stormrl.nn.heads import MLP, TwoHotHead, vector_encoder
from stormrl.nn.initialise import initialise
from stormrl.nn.layers import PLAIN, Layers, layers_for
from stormrl.nn.scales import scale_for
from stormrl.spaces import ImageSpace, Spaces
from stormrl.types import Batch, Carry, Prediction, Uniform, View
from stormrl.worlds.protocol import Lesson, World
from stormrl.worlds.rssm import RSSM, State

if TYPE_CHECKING:
    from stormrl.worlds.mind import Mind


class Arrivals(NamedTuple):
    """Windows as the model reads them: what was received stands beside what was then seen."""

    obs: Shaped[Tensor, "B T ..."]
    action: Int[Tensor, "B T"]
    """The action that led there."""
    reward: Float[Tensor, "B T"]
    continues: Float[Tensor, "B T"]
    fresh: Bool[Tensor, "B T"]
    """Where there is nothing before: an episode or the window begins."""


def arrivals(batch: Batch) -> Arrivals:
    """The steps of windows but the first, with what led to each.

    An episode's first observation came with no reward, and its end is not there.
    """
    begins = batch.is_first[:, 1:]
    fresh = begins.clone()
    fresh[:, 0] = True
    return Arrivals(
        obs=batch.obs[:, 1:],
        action=batch.action[:, :-1],
        reward=torch.where(begins, 0.0, batch.reward[:, :-1]),
        continues=torch.where(begins, 1.0, batch.continues[:, :-1]),
        fresh=fresh,
    )


class DreamerWorld(World):
    """The world model of DreamerV3 (arXiv 2301.04104, first version, section "World model").

    Reward and continuation are predicted of the state that an action leads to, so that an episode's
    last observation is learned from too.
    """

    config_class = DreamerConfig
    config: DreamerConfig
    keeps_final: ClassVar[bool] = True

    def __init__(self, config: DreamerConfig, spaces: Spaces, layers: Layers = PLAIN) -> None:
        super().__init__()
        self.config, self.spaces = config, spaces
        self.view_sizes = config.latent.size, config.width
        seen, width, head = spaces.observation, config.image.channels, config.head
        state = sum(self.view_sizes)
        self.scale = scale_for(seen)
        pictures = isinstance(seen, ImageSpace)
        embedding = embedding_size(width) if pictures else head.width
        self.encoder = (
            LayerNormEncoder(seen.channels, width, layers)
            if pictures
            else vector_encoder(seen.size, head)
        )
        self.rssm = RSSM(config, embedding, Choices(*spaces.action.choices))
        self.decoder = (
            LayerNormDecoder(state, seen.channels, width, layers)
            if pictures
            else MLP(state, head, seen.size)
        )
        for seeing in (self.encoder, self.decoder):
            initialise(seeing, head.weights)
        self.reward_head = TwoHotHead(state, head, config.two_hot)
        self.continues_head = MLP(state, head, 1)

    @classmethod
    def of(cls, agent: AgentConfig, spaces: Spaces, device: torch.device) -> Self:
        """The world model of an agent's configuration, made of the layers that suit the device."""
        assert isinstance(agent.world_model, DreamerConfig)
        return cls(agent.world_model, spaces, layers_for(device))

    @property
    def frame_channels(self) -> int:
        """As wide as its own encoder."""
        return self.config.image.channels

    def encode(self, obs: Shaped[Tensor, "..."]) -> Float[Tensor, "*n E"]:
        """Embeddings of observations."""
        sides = len(self.spaces.observation.shape)
        x = self.encoder(self.scale(obs).flatten(0, -sides - 1))
        return x.unflatten(0, obs.shape[:-sides])

    # Learning.

    def loss_noise(self, batch: Batch, uniform: Uniform) -> Float[Tensor, "B T K"]:
        """Numbers for the draws from the posterior."""
        windows, length = batch.action.shape
        return uniform((windows, length - 1, self.config.latent.categoricals))

    def loss(self, batch: Batch, noise: Float[Tensor, "B T K"]) -> Lesson:
        """Prediction, dynamics and representation loss (equations 4 and 5), and the states."""
        config, steps = self.config, arrivals(batch)
        embedding = self.encode(steps.obs)
        states, posterior = self.rssm.observe(embedding, steps.action, steps.fresh, noise)
        prior = self.rssm.prior(states.h)
        state = _side_by_side(states)
        error = self.scale.error(self._reconstructed(state), steps.obs)
        rewards = self.reward_head(state)
        continues = self.continues_head(state).squeeze(-1).float()
        dynamics = categorical_kl(posterior.detach(), prior)
        representation = categorical_kl(posterior, prior.detach())
        losses = {
            "reconstruction": error.mean(),
            "reward": self.reward_head.cross_entropies(rewards, steps.reward[..., None]).mean(),
            "continuation": F.binary_cross_entropy_with_logits(continues, steps.continues),
            "dynamics": dynamics.clamp(min=config.free_nats).mean(),
            "representation": representation.clamp(min=config.free_nats).mean(),
        }
        total = (
            losses["reconstruction"]
            + losses["reward"]
            + losses["continuation"]
            + config.dynamics_weight * losses["dynamics"]
            + config.representation_weight * losses["representation"]
        )
        metrics = {name: value.detach() for name, value in losses.items()}
        metrics["kl"] = dynamics.detach().mean()
        metrics["posterior_entropy"] = _entropy(posterior)
        metrics["prior_entropy"] = _entropy(prior)
        known = self.reward_head.entropies(steps.reward)
        metrics |= {f"reward_{name}": value for name, value in known.items()}
        seen = State(*(part.detach() for part in states))
        return Lesson({"world": total}, metrics | {"total": total.detach()}, seen)

    # Acting.

    def begin(self, rows: int) -> State:
        """The state at an episode's beginning."""
        with torch.no_grad():
            return State(*(part.clone() for part in self.rssm.initial(rows)))

    def see_noise(self, rows: int, uniform: Uniform) -> Float[Tensor, "B K"]:
        """Numbers for the draw from the posterior."""
        return uniform((rows, self.config.latent.categoricals))

    def see(
        self,
        carry: Carry,
        obs: Shaped[Tensor, "B ..."],
        action: Int[Tensor, " B"],
        is_first: Bool[Tensor, " B"],
        noise: Float[Tensor, "B K"],
    ) -> tuple[State, View]:
        """The posterior state of the frame."""
        assert isinstance(carry, State)
        embedding = self.encode(obs).unsqueeze(1)
        moment = action[:, None], is_first[:, None], noise[:, None]
        states, posterior = self.rssm.observe(embedding, *moment, carry)
        state = State(states.z[:, 0], states.h[:, 0])
        return state, View(state.z, state.h, belief=posterior[:, 0])

    # Dreaming.

    def dream_noise(
        self, rows: int, context: int, horizon: int, uniform: Uniform
    ) -> tuple[tuple[Tensor, ...], Float[Tensor, "B H K"]]:
        """Numbers for the posteriors of the context and the first prior, then for each prior."""
        k = self.config.latent.categoricals
        posterior, prior = uniform((rows, context, k)), uniform((rows, horizon + 1, k))
        return (posterior, prior[:, 0]), prior[:, 1:]

    def start(self, windows: Batch, room: int, noise: tuple[Tensor, ...]) -> tuple[State, View]:
        """The state that the prior expects after the last step of real windows."""
        posterior, prior = noise
        fresh = windows.is_first.clone()
        fresh[:, 0] = True
        before = windows.action.roll(1, dims=1)
        embedding = self.encode(windows.obs)
        states, _ = self.rssm.observe(embedding, before, fresh, posterior)
        last = State(states.z[:, -1], states.h[:, -1])
        return self.dream(last, windows.action[:, -1], prior)

    def branches(self, length: int, horizon: int) -> int:
        """All that have something before them: the state has no limit."""
        return length - 1

    def branch(
        self, windows: Batch, seen: State, room: int, noise: tuple[Tensor, ...]
    ) -> tuple[State, View, Float[Tensor, " N"]]:
        """The posterior states of `loss`; none counts that an episode ended in. Draws nothing."""
        state = State(*(part.flatten(0, 1) for part in seen))
        return state, View(*state), arrivals(windows).continues.flatten()

    def dream(
        self, carry: Carry, action: Int[Tensor, " B"], noise: Float[Tensor, "B K"]
    ) -> tuple[State, View]:
        """One step of the recurrent state, and a draw from its prior."""
        assert isinstance(carry, State)
        h = self.rssm.step(carry, action)
        z = self.rssm.latent.sample(self.rssm.prior(h), noise)
        return State(z, h), View(z, h)

    def judge(self, view: View, action: Int[Tensor, "B H"]) -> Prediction:
        """Reward and continuation predicted of the states that the actions led to."""
        assert view.z is not None
        assert view.h is not None
        return self.predict(State(view.z[:, 1:], view.h[:, 1:]))

    def predict(self, state: State) -> Prediction:
        """Reward and continuation of arriving in these states."""
        x = _side_by_side(state)
        reward = self.reward_head.mean(self.reward_head(x))
        return Prediction(reward, self.continues_head(x).squeeze(-1).float().sigmoid())

    def reward_distribution(
        self, state: State
    ) -> tuple[Float[Tensor, " bins"], Float[Tensor, "*n bins"]]:
        """Rewards that the bins stand for, in natural units, and the probability of each."""
        return self.reward_head.distribution(self.reward_head(_side_by_side(state)))

    def decode(self, view: View) -> Float[Tensor, "..."]:
        """Images of states in the scale [0, 1], not clamped to it, or numbers in their units."""
        assert view.z is not None
        assert view.h is not None
        return self.scale.natural(self._reconstructed(_side_by_side(State(view.z, view.h))))

    def mind(self, limit: int | None = None) -> Mind:
        """A stream that goes on from states, for ever."""
        from stormrl.worlds.recurrent_mind import RecurrentMind

        return RecurrentMind(self)

    def _reconstructed(self, state: Float[Tensor, "*n S"]) -> Float[Tensor, "..."]:
        return self.decoder(state.flatten(0, -2)).unflatten(0, state.shape[:-1])


def _side_by_side(state: State) -> Float[Tensor, "*n S"]:
    return torch.cat([state.z, state.h], dim=-1)


def _entropy(probs: Float[Tensor, "*n K C"]) -> Float[Tensor, ""]:
    """Mean entropy of one categorical variable, in nats."""
    return categorical_entropy(log_probability(probs)).mean().detach()
