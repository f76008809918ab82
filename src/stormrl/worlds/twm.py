"""TWM's world model (Robine et al. 2023): autoencoder of stacked frames and a Transformer-XL.

The two learn apart, each with an optimizer of its own: the autoencoder from pictures, and a little
from what was predicted of them; the Transformer from the latents as they are.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Self

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from stormrl.config.parts import AgentConfig
from stormrl.config.twm import PerceptronConfig, TwmConfig
from stormrl.errors import UserError
from stormrl.nn.choices import Choices
from stormrl.nn.functional import masked_mean, sample_index, straight_through
from stormrl.nn.precision import compute_dtype
from stormrl.nn.silu import silu_mlp, start_last_uniformly, start_uniformly
from stormrl.nn.stacked import StackDecoder, StackEncoder
from stormrl.spaces import ImageSpace, Spaces
from stormrl.types import Batch, Carry, Prediction, Trajectory, Uniform, View
from stormrl.worlds.protocol import Group, Lesson, Phase, World
from stormrl.worlds.transformer_xl import TransformerXL, XLCache

LUMINANCE = 0.2989, 0.587, 0.114
"""Of red, green and blue, as the Arcade Learning Environment makes grey of colours."""


class Steps(NamedTuple):
    """What the dynamics learn of: a step of context, then those that are learned from."""

    z: Float[Tensor, "B T1 Z"]
    action: Int[Tensor, "B T1"]
    reward: Float[Tensor, "B T1"]
    discount: Float[Tensor, "B T1"]
    ends: Bool[Tensor, "B T1"]
    """Whether an episode ended with the step."""
    target: Float[Tensor, "B T K C"]
    """Logits of the next latent, of all but the context."""


class Moments(NamedTuple):
    """Where dreams may begin: two successive latents, and what lies between them."""

    before: Float[Tensor, "N Z"]
    action: Int[Tensor, " N"]
    reward: Float[Tensor, " N"]
    ended: Bool[Tensor, " N"]
    """Whether an episode ended between them."""
    z: Float[Tensor, "N Z"]
    spare: Float[Tensor, "N Z"]
    """Latents of other real moments, where dreams that are over begin anew."""


class XLDream(NamedTuple):
    """Where an imagined trajectory stands."""

    z: Float[Tensor, "B Z"]
    reward: Float[Tensor, " B"]
    """Of the step to here."""
    ended: Bool[Tensor, " B"]
    """Whether that step was the last of an episode."""
    worth: Float[Tensor, " B"]
    """Product of the discounts since the trajectory began, or began anew."""
    restarts: Bool[Tensor, " B"]
    """Whether it begins anew once that is next to nothing."""
    spare: Float[Tensor, "B Z"]
    """Where it does so: each row in a drawn one of all rows."""
    cache: XLCache


class Expected(NamedTuple):
    """What the predictors say of a hidden state."""

    logits: Float[Tensor, "*n K C"]
    """Of the next latent."""
    reward: Float[Tensor, "*n"]
    discount: Float[Tensor, "*n"]
    """As logits: what the step leaves of all that comes after it."""


class TwmWorld(World):
    """Latents of four stacked grey frames; a Transformer-XL over latents, actions and rewards.

    Colours become luminance in here, not in the environment: replay, films, pages and scores are
    those of every other world model. An agent sees the latent alone.
    """

    config_class = TwmConfig
    config: TwmConfig

    def __init__(self, config: TwmConfig, spaces: Spaces, dreams: int = 400) -> None:
        """dreams: how many trajectories are drawn of all that could begin in a batch.

        Raises `UserError` unless pictures are RGB.
        """
        super().__init__()
        seen = spaces.observation
        if not isinstance(seen, ImageSpace) or seen.channels != len(LUMINANCE):
            remedy = "TWM makes grey of RGB pictures; give an environment that shows them"
            raise UserError("world_model.kind", f"twm: {remedy}")
        self.config, self.spaces, self.dreams = config, spaces, dreams
        latent, image, width = config.latent.size, config.image, config.sequence.width
        self.view_sizes = latent, 0
        self.encoder = StackEncoder(image.frames, image.channels, image.head, latent)
        self.decoder = StackDecoder(latent, image.frames, image.channels)
        self.sequence = TransformerXL(config.sequence, latent, Choices(*spaces.action.choices))
        self.latent_head = _head(config, width, config.latent_head, latent)
        self.reward_head = _head(config, width, config.head, 1)
        self.continues_head = _head(config, width, config.head, 1, config.continuation_bias)

    @classmethod
    def of(cls, agent: AgentConfig, spaces: Spaces, device: torch.device) -> Self:
        """The world model of an agent's configuration."""
        assert isinstance(agent.world_model, TwmConfig)
        return cls(agent.world_model, spaces, agent.imagination.batch_size)

    def groups(self) -> dict[str, Group]:
        """Autoencoder, and what predicts its latents."""
        seeing = [*self.encoder.parameters(), *self.decoder.parameters()]
        heads = self.latent_head, self.reward_head, self.continues_head
        guessing = [p for part in (self.sequence, *heads) for p in part.parameters()]
        return {
            "observation": Group(seeing, self.config.observation_optimizer),
            "dynamics": Group(guessing, self.config.optimizer),
        }

    def stacks(
        self,
        obs: UInt8[Tensor, "B T channels height width"],
        is_first: Bool[Tensor, "B T"],
    ) -> Float[Tensor, "B T frames height width"]:
        """Each frame with those before it, oldest first, in grey of the scale [0, 1].

        Before an episode, or before the window, the first frame stands in for those that lack.
        """
        frames, (rows, steps) = self.config.image.frames, is_first.shape
        places = torch.arange(steps, device=obs.device)
        begin = torch.where(is_first, places, 0).cummax(dim=1).values
        age = torch.arange(frames - 1, -1, -1, device=obs.device)
        source = torch.maximum(places[:, None] - age, begin[..., None])
        row = torch.arange(rows, device=obs.device)[:, None, None] * steps
        grey = luminance(obs).flatten(0, 1).index_select(0, (source + row).flatten())
        return grey.unflatten(0, (rows, steps, frames))

    def encode(self, stacks: Float[Tensor, "*n frames height width"]) -> Float[Tensor, "*n K C"]:
        """Logits of the posterior q(z_t | o_t), normalised."""
        latent, lead = self.config.latent, stacks.shape[:-3]
        logits = self.encoder(stacks.flatten(0, -4).to(compute_dtype(stacks))).float()
        shape = *lead, latent.categoricals, latent.classes
        return logits.reshape(shape).log_softmax(-1)

    def images(self, z: Float[Tensor, "*n Z"]) -> Float[Tensor, "*n frames height width"]:
        """Stacked frames of latents in the scale [0, 1], not clamped to it."""
        return self.decoder(z.flatten(0, -2)).unflatten(0, z.shape[:-1])

    def expect(self, h: Float[Tensor, "*n D"]) -> Expected:
        """What follows a hidden state."""
        latent, bent = self.config.latent, F.silu(h)
        logits = self.latent_head(bent).float()
        return Expected(
            logits.unflatten(-1, (latent.categoricals, latent.classes)).log_softmax(-1),
            self.reward_head(bent).squeeze(-1).float(),
            self.continues_head(bent).squeeze(-1).float(),
        )

    def rewards(self, reward: Tensor) -> Tensor:
        """Rewards as the model learns them."""
        return reward.tanh() if self.config.reward_transform == "tanh" else reward

    # Learning.

    def loss_noise(self, batch: Batch, uniform: Uniform) -> Float[Tensor, "B T1 K1"]:
        """Numbers for the draws from the posterior, and for the choice where dreams begin."""
        rows, window = batch.action.shape
        steps = window - self.config.lead - 1
        return uniform((rows, steps, self.config.latent.categoricals + 1))

    def loss(self, batch: Batch, noise: Float[Tensor, "B T1 K1"]) -> Lesson:
        """Losses of autoencoder and dynamics, and the moments at which dreams may begin.

        Of a window, the first step after the lead is context, the last one gives a target alone.
        """
        stacks = self.stacks(batch.obs, batch.is_first)[:, self.config.lead :]
        logits = self.encode(stacks[:, 1:-1])
        z = _drawn(logits, noise[:, 1:, :-1])
        losses = self._seeing_losses(stacks[:, 1:-1], logits, z)
        steps = self._steps(batch, stacks, logits, z, noise)
        expected = self._expected(steps)
        # Drawn to what the same weights predicted; nothing is drawn the other way by it.
        prediction = expected.logits.detach()[:, :-1].exp()
        losses["consistency"] = -(prediction * logits).sum((-2, -1)).mean()
        losses |= self._guessing_losses(expected, steps)
        metrics = self._entropies(logits, expected, steps)
        seen = self._moments(steps, noise[:, 1:, -1])
        return self._lesson(losses, ("observation", "dynamics"), metrics, seen)

    def phases(self) -> dict[str, Phase]:
        """First what sees, of single frames; then what guesses."""
        c = self.config
        frames = c.batch_size * c.batch_length
        return {
            "observation": Phase(c.pretraining.observation, frames, c.lead + 2),
            "dynamics": Phase(c.pretraining.dynamics, c.batch_size, c.window),
        }

    def early_loss(self, group: str, batch: Batch, noise: Float[Tensor, "B T1 K1"]) -> Lesson:
        """Either part by itself; there is no consistency yet, and latents are taken as they are."""
        stacks = self.stacks(batch.obs, batch.is_first)[:, self.config.lead :]
        if group == "observation":
            logits = self.encode(stacks[:, :-1])
            z = _drawn(logits, noise[..., :-1])
            return self._lesson(self._seeing_losses(stacks[:, :-1], logits, z), (group,), {})
        with torch.no_grad():
            logits = self.encode(stacks[:, 1:-1])
            z = _drawn(logits, noise[:, 1:, :-1])
            steps = self._steps(batch, stacks, logits, z, noise)
        expected = self._expected(steps)
        metrics = self._entropies(logits, expected, steps)
        return self._lesson(self._guessing_losses(expected, steps), (group,), metrics)

    @torch.no_grad()
    def remembered(self, batch: Batch, uniform: Uniform) -> Trajectory:
        """Real steps with latents drawn from the posterior; every end is one."""
        lead = self.config.lead
        logits = self.encode(self.stacks(batch.obs, batch.is_first)[:, lead:])
        z = _drawn(logits, uniform(logits.shape[:-1]))
        return Trajectory(
            view=View(z, None),
            action=batch.action[:, lead:-1],
            reward=self.rewards(batch.reward[:, lead:-1]),
            continues=(~_ends(batch, lead)).float(),
            weight=torch.ones_like(batch.reward[:, 0]),
        )

    def remembered_steps(self, horizon: int) -> int:
        """With frames to stack."""
        return self.config.lead + horizon + 1

    # Acting.

    def begin(self, rows: int) -> Carry:
        """The frames before the first."""
        shape = rows, self.config.lead, *self.spaces.observation.tensor_shape
        return (torch.zeros(shape, dtype=torch.uint8, device=self.device),)

    def see_noise(self, rows: int, uniform: Uniform) -> Tensor:
        """None: acting draws no latents."""
        return torch.empty(rows, 0, device=self.device)

    def see(
        self,
        carry: Carry,
        obs: UInt8[Tensor, "B channels height width"],
        action: Int[Tensor, " B"],
        is_first: Bool[Tensor, " B"],
        noise: Tensor,
    ) -> tuple[Carry, View]:
        """The most probable latent of the last frames; the Transformer has no part in it."""
        (frames,) = carry
        frames = torch.cat([frames, obs[:, None]], dim=1)
        frames = torch.where(is_first[:, None, None, None, None], obs[:, None], frames)
        grey = luminance(frames)
        logits = self.encode(grey)
        z = F.one_hot(logits.argmax(-1), logits.shape[-1]).float().flatten(-2)
        return (frames[:, 1:],), View(z, None, belief=logits.exp())

    # Dreaming.

    def dream_noise(
        self, rows: int, context: int, horizon: int, uniform: Uniform
    ) -> tuple[tuple[Tensor, ...], Float[Tensor, "B H K1"]]:
        """Numbers for the latents of the context and the first dreamt one, then for each step.

        The last of each step decides where a dream that is over begins anew.
        """
        k = self.config.latent.categoricals
        steps = uniform((rows, horizon, k + 1))
        return ((uniform((rows, context + 1, k)),) if context else ()), steps

    def start(self, windows: Batch, room: int, noise: tuple[Tensor, ...]) -> tuple[XLDream, View]:
        """The latent that is expected after the last step of real windows; it has no end."""
        (draw,) = noise
        z = _drawn(self.encode(self.stacks(windows.obs, windows.is_first)), draw[:, :-1])
        reward = self.rewards(windows.reward)
        ended = windows.continues[:, -1] == 0
        ends = (windows.continues == 0) | F.pad(windows.is_first[:, 1:], (0, 1))
        length = windows.action.shape[1] + room
        h, cache = self.sequence.prefill(z, windows.action, reward, ends, length)
        expected = self.expect(h)
        z = _drawn(expected.logits, draw[:, -1])
        worth = torch.ones_like(reward[:, 0])
        dream = XLDream(z, reward[:, -1], ended, worth, worth < 0, z, cache)
        return dream, self._view(expected, dream)

    def branches(self, length: int, horizon: int) -> int:
        """The steps of a window that are learned from: each has one before it, and no end."""
        return length - self.config.lead - 2

    def rollouts(self, windows: int, length: int, horizon: int) -> int:
        """A drawn part of them."""
        return min(self.dreams, windows * self.branches(length, horizon))

    def branch(
        self, windows: Batch, seen: Any, room: int, noise: tuple[Tensor, ...]
    ) -> tuple[XLDream, View, Float[Tensor, " N"]]:
        """The latents that `loss` drew, each after the one before it; draws nothing."""
        assert isinstance(seen, Moments)
        last = [part[:, None] for part in seen[:4]]
        before, action, reward, ended = last
        _, cache = self.sequence.prefill(before, action, reward, ended, room + 1)
        worth = torch.ones_like(seen.reward)
        restarts = torch.full_like(seen.ended, self.config.restart_below > 0)
        dream = XLDream(seen.z, seen.reward, seen.ended, worth, restarts, seen.spare, cache)
        return dream, View(seen.z, None), worth

    def dream(
        self, carry: Carry, action: Int[Tensor, " B"], noise: Float[Tensor, "B K1"]
    ) -> tuple[XLDream, View]:
        """One step of the sequence model, and a draw from what it expects.

        A dream that is worth next to nothing goes on in another real moment, as one that has
        ended: attention does not look back from there.
        """
        assert isinstance(carry, XLDream)
        h = self.sequence.step(carry.z, action, carry.reward, carry.ended, carry.cache)
        expected = self.expect(h)
        z = _drawn(expected.logits, noise[:, :-1])
        worth = carry.worth * expected.discount.sigmoid()
        ended = carry.restarts & (worth < self.config.restart_below)
        other = (noise[:, -1] * len(z)).long().clamp(max=len(z) - 1)
        z = torch.where(ended[:, None], carry.spare[other], z)
        worth = torch.where(ended, 1.0, worth)
        dream = carry._replace(z=z, reward=expected.reward, ended=ended, worth=worth)
        return dream, self._view(expected, dream)

    def again(self, carry: Carry) -> XLDream:
        """A copy of what moves on in place; keys and values are overwritten where they matter."""
        assert isinstance(carry, XLDream)
        visible, slot = carry.cache.visible.clone(), carry.cache.slot.clone()
        return carry._replace(cache=carry.cache._replace(visible=visible, slot=slot))

    def judge(self, view: View, action: Int[Tensor, "B H"]) -> Prediction:
        """What was predicted on the way, for the next step takes it up."""
        assert view.outcome is not None
        return view.outcome

    def decode(self, view: View) -> Float[Tensor, "*n channels height width"]:
        """The newest of the stacked frames, in grey, not clamped to [0, 1]."""
        assert view.z is not None
        newest = self.images(view.z)[..., -1:, :, :]
        return newest.expand(*newest.shape[:-3], len(LUMINANCE), *newest.shape[-2:])

    def _steps(
        self, batch: Batch, stacks: Tensor, logits: Tensor, z: Tensor, noise: Tensor
    ) -> Steps:
        """What the dynamics learn of, without gradients."""
        lead = self.config.lead
        with torch.no_grad():
            around = self.encode(torch.stack([stacks[:, 0], stacks[:, -1]], dim=1))
        before = _drawn(around[:, :1], noise[:, :1, :-1])
        return Steps(
            z=torch.cat([before, z.detach()], dim=1),
            action=batch.action[:, lead:-1],
            reward=self.rewards(batch.reward[:, lead:-1]),
            discount=self.config.discount * batch.continues[:, lead:-1],
            ends=_ends(batch, lead),
            target=torch.cat([logits.detach()[:, 1:], around[:, 1:]], dim=1),
        )

    def _expected(self, steps: Steps) -> Expected:
        return self.expect(self.sequence(steps.z, steps.action, steps.reward, steps.ends))

    def _seeing_losses(self, stacks: Tensor, logits: Tensor, z: Tensor) -> dict[str, Tensor]:
        """Half the squared error, summed over a stack's pixels; what entropy lacks to its floor."""
        error = self.images(z).float() - stacks
        entropy = _entropy(logits).mean() / math.log(self.config.latent.classes)
        return {
            "reconstruction": 0.5 * error.square().sum((-3, -2, -1)).mean(),
            "missing_entropy": (self.config.entropy_floor - entropy).relu(),
        }

    def _guessing_losses(self, expected: Expected, steps: Steps) -> dict[str, Tensor]:
        """Of every step but the context, which is there to be looked back on."""
        logits, mean, lasting = (part[:, 1:] for part in expected)
        # Where an episode ended, the next frame is one of another.
        counted = (~steps.ends[:, 1:]).float()
        surprise = -(steps.target.exp() * logits).sum((-2, -1))
        return {
            "dynamics": masked_mean(surprise, counted),
            "reward": 0.5 * (mean - steps.reward[:, 1:]).square().mean(),
            "continuation": F.binary_cross_entropy_with_logits(lasting, steps.discount[:, 1:]),
        }

    def _lesson(
        self,
        losses: dict[str, Tensor],
        groups: tuple[str, ...],
        metrics: dict[str, Tensor],
        seen: Moments | tuple[()] = (),
    ) -> Lesson:
        """Losses by optimizer group, each with its weight."""
        c = self.config
        weights = {
            "observation": {
                "reconstruction": c.reconstruction_weight,
                "missing_entropy": c.entropy_weight,
                "consistency": c.consistency_weight,
            },
            "dynamics": {
                "dynamics": c.dynamics_weight,
                "reward": c.reward_weight,
                "continuation": c.continuation_weight,
            },
        }
        totals = {
            group: torch.stack(
                [weights[group][name] * losses[name] for name in weights[group] if name in losses]
            ).sum()
            for group in groups
        }
        told = {name: value.detach() for name, value in losses.items()} | metrics
        told["total"] = torch.stack(list(totals.values())).sum().detach()
        return Lesson(totals, told, seen)

    def _entropies(self, posterior: Tensor, expected: Expected, steps: Steps) -> dict[str, Tensor]:
        prior = expected.logits.detach()[:, 1:]
        kl = (steps.target.exp() * (steps.target - prior)).sum((-2, -1))
        return {
            "kl": masked_mean(kl, (~steps.ends[:, 1:]).float()),
            "posterior_entropy": _entropy(posterior.detach()).mean(),
            "prior_entropy": _entropy(prior).mean(),
        }

    def _moments(self, steps: Steps, choice: Float[Tensor, "B T"]) -> Moments:
        """Pairs of successive steps, drawn without replacement, and as many spare latents."""
        order = choice.flatten().argsort()
        chosen, spare = order[: self.dreams], order.flip(0)[: self.dreams]
        now = steps.z[:, 1:].flatten(0, 1)
        before, action, reward, ended = (
            part[:, :-1].flatten(0, 1)[chosen]
            for part in (steps.z, steps.action, steps.reward, steps.ends)
        )
        return Moments(before, action, reward, ended, now[chosen], now[spare])

    def _view(self, expected: Expected, dream: XLDream) -> View:
        share = expected.discount.sigmoid() / self.config.discount
        continues = torch.where(dream.ended, 0.0, share)
        outcome = Prediction(expected.reward, continues)
        belief = expected.logits.exp()
        return View(dream.z, None, belief=belief, outcome=outcome, anew=dream.ended)


def luminance(
    obs: UInt8[Tensor, "*n channels height width"],
) -> Float[Tensor, "*n height width"]:
    """Grey of RGB pictures in the scale [0, 1]."""
    red, green, blue = obs.unbind(-3)
    r, g, b = (share / sum(LUMINANCE) / 255 for share in LUMINANCE)
    return (red.float() * r).add_(green, alpha=g).add_(blue, alpha=b)


def _ends(batch: Batch, lead: int) -> Bool[Tensor, "B T1"]:
    """Of the steps after the lead that have a next one: whether an episode ended with it."""
    return (batch.continues[:, lead:-1] == 0) | batch.is_first[:, lead + 1 :]


def _head(
    config: TwmConfig, width: int, head: PerceptronConfig, outputs: int, bias: float = 0.0
) -> nn.Sequential:
    mlp = silu_mlp(width, head.width, head.layers, outputs, config.sequence.dropout)
    start_uniformly(mlp)
    start_last_uniformly(mlp[-1], bias)  # pyright: ignore[reportArgumentType]
    return mlp


def _drawn(
    logits: Float[Tensor, "*n K C"], uniform: Float[Tensor, "*n K"]
) -> Float[Tensor, "*n Z"]:
    """One-hot draws, flattened, with the gradient of the probabilities."""
    probs = logits.exp()
    return straight_through(sample_index(probs, uniform), probs).flatten(-2)


def _entropy(logits: Float[Tensor, "*n K C"]) -> Float[Tensor, "*n"]:
    """Of one categorical variable in the mean, in nats; of normalised logits."""
    return -(logits.exp() * logits).sum(-1).mean(-1)
