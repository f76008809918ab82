"""A world model as a Gymnasium environment: what is seen, earned and lost there is dreamt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Float
from torch import Tensor

from stormrl.agents.reinforce import ActorCritic
from stormrl.nn.functional import log_probability, sample_index
from stormrl.types import image_tensor
from stormrl.worlds.latent import WorldModel
from stormrl.worlds.unbounded import UnboundedSequence

MODE = 1e-3
"""Below this temperature a draw is the most probable class."""


class DreamContext(NamedTuple):
    """`L` real frames of one episode and the actions between them: where a dream begins."""

    obs: np.ndarray
    """uint8 [L, height, width, channels], L from 1 on; the last one is what is seen at the start"""
    action: np.ndarray
    """int64 [L - 1]: `action[t]` led from `obs[t]` to `obs[t + 1]`"""


class DreamEnv(gymnasium.Env[np.ndarray, np.int64]):
    """The world model dreams on from real frames, under whatever actions it is given.

    A reset takes one of `contexts`, or `options={"context": DreamContext(...)}`, and shows its
    last frame as it really was; every later frame is decoded from a draw of the prior. A dream
    longer than the windows of training is dreamt on in windows of half that length or more
    (`UnboundedSequence`). All draws come from the environment's own generator: seed, context,
    actions and temperature decide the whole dream.

    Every `info` holds

    - `latent`: the drawn classes, int64 [K];
    - `probabilities`: the prior that the dream expected them from, before temperature; after a
      reset the posterior of the real frame; float32 [K, C];
    - `continues`: the predicted probability that the episode goes on (1 after a reset);
    - `value`, `policy`: the critic's value, and the probabilities of the actions, float32 [A], on
      this state; NaN, and uniform, without an actor-critic or with nothing to look back on;
    - `dreamt`: steps since the last real frame.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012

    def __init__(
        self,
        world_model: WorldModel,
        actor_critic: ActorCritic | None = None,
        contexts: Sequence[DreamContext] = (),
        temperature: float = 1.0,
        horizon: int | None = None,
        outcome: Literal["expected", "sampled"] = "expected",
        render_mode: str | None = None,
        limit: int | None = None,
    ) -> None:
        """A dream without contexts of its own needs one at every reset.

        temperature: 1 draws from the prior as it is, less sharpens it, 0 takes the most probable
        classes; it may be changed between steps. horizon: truncates after so many steps. outcome:
        `expected` gives the mean reward and ends where the end is more probable than not;
        `sampled` draws both. limit: most steps that a state looks back on; where the policy is
        asked, `AgentConfig.dreamt_steps` are those that it was trained on.
        """
        if temperature < 0:
            raise ValueError(f"temperature: is {temperature}; give 0 or more")
        self.world_model = world_model
        self.actor_critic = actor_critic
        self.contexts = contexts
        self.temperature = temperature
        self.horizon = horizon
        self.outcome = outcome
        self.limit = limit
        self.render_mode = render_mode
        self.actions = world_model.sequence.mixer.actions
        self.action_space = spaces.Discrete(self.actions)
        self.observation_space = spaces.Box(0, 255, (64, 64, world_model.image_channels), np.uint8)
        self.device = next(world_model.parameters()).device

    @torch.no_grad()
    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begins at a real frame, uint8 [64, 64, 3]: of `options["context"]`, or of any context."""
        super().reset(seed=seed)
        context = (options or {}).get("context") or self._any_context()
        model = self.world_model
        frames = image_tensor(context.obs, self.device)
        posterior = model.encode(frames.unsqueeze(0))
        z = model.latent.sample(posterior, self._uniform(posterior.shape[:-1]))
        self.sequence, self.dreamt = UnboundedSequence(model, self.limit), 0
        self.hidden = None
        if len(context.action):
            action = torch.from_numpy(context.action).to(self.device).unsqueeze(0)
            self.hidden = self.sequence.extend(z[:, :-1], action)
        self.z, self.probabilities = z[:, -1], posterior[:, -1]
        self.obs = context.obs[-1].copy()
        return self.obs, self._info(1.0)

    @torch.no_grad()
    def step(self, action: np.int64 | int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Dreams one step on."""
        model, z = self.world_model, self.z
        hidden = self.sequence.push(z, torch.tensor([int(action)], device=self.device))
        self.hidden, self.probabilities = hidden, model.latent.prior(hidden)
        uniform = self._uniform(self.probabilities.shape[:-1])
        self.z = model.latent.sample(tempered(self.probabilities, self.temperature), uniform)
        self.obs, self.dreamt = picture(model.decode(self.z))[0], self.dreamt + 1
        reward, continues, terminated = self._outcome(z, hidden)
        truncated = self.horizon is not None and self.dreamt >= self.horizon
        return self.obs, reward, terminated, truncated, self._info(continues)

    def render(self) -> np.ndarray | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The current picture."""
        return self.obs if self.render_mode == "rgb_array" else None

    def _outcome(self, z: Tensor, hidden: Tensor) -> tuple[float, float, bool]:
        """Reward, continuation and end that follow the action in `hidden`, taken at `z`."""
        prediction = self.world_model.predict(z, hidden)
        continues = float(prediction.continues)
        if self.outcome == "expected":
            return float(prediction.reward), continues, continues < 0.5
        rewards, probabilities = self.world_model.reward_distribution(z, hidden)
        drawn = sample_index(probabilities, self._uniform(probabilities.shape[:-1]))
        ended = bool(self.np_random.random() >= continues)
        return float(rewards[drawn]), continues, ended

    def _info(self, continues: float) -> dict[str, Any]:
        value, policy = np.nan, np.full(self.actions, 1 / self.actions, np.float32)
        if self.actor_critic is not None and self.hidden is not None:
            state = self.actor_critic.state(self.z, self.hidden)
            value = float(self.actor_critic.value(state))
            policy = self.actor_critic.probabilities(state)[0].cpu().numpy()
        return {
            "latent": self._classes(),
            "probabilities": self.probabilities[0].cpu().numpy(),
            "continues": continues,
            "value": value,
            "policy": policy,
            "dreamt": self.dreamt,
        }

    def _classes(self) -> np.ndarray:
        one_hot = self.z.unflatten(-1, self.probabilities.shape[1:])
        return one_hot[0].argmax(-1).cpu().numpy()

    def _any_context(self) -> DreamContext:
        if not self.contexts:
            raise ValueError('contexts: there is none; give reset options={"context": ...}')
        return self.contexts[int(self.np_random.integers(len(self.contexts)))]

    def _uniform(self, shape: Sequence[int]) -> Tensor:
        return torch.from_numpy(self.np_random.random(tuple(shape), np.float32)).to(self.device)


def tempered(probs: Float[Tensor, "*n K C"], temperature: float) -> Float[Tensor, "*n K C"]:
    """Probabilities to the power of 1 / temperature, normalised; one-hot at temperature 0."""
    if temperature < MODE:
        return torch.nn.functional.one_hot(probs.argmax(-1), probs.shape[-1]).to(probs.dtype)
    if temperature == 1:
        return probs
    return (log_probability(probs) / temperature).softmax(-1)


def picture(images: Float[Tensor, "*n channels height width"]) -> np.ndarray:
    """Decoded images as uint8 [*n, height, width, channels]."""
    scaled = (images.float().clamp(0, 1) * 255).round().to(torch.uint8)
    return np.ascontiguousarray(scaled.movedim(-3, -1).cpu().numpy())
