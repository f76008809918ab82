"""A world model as a Gymnasium environment: what is seen, earned and lost there is dreamt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from stormrl.agents.protocol import Behaviour, Opinion, where_known
from stormrl.nn.choices import Choices
from stormrl.nn.functional import sample_index
from stormrl.pictures.vectors import shown
from stormrl.spaces import ImageSpace, ObservationSpace
from stormrl.types import View, channels_last, obs_tensor
from stormrl.worlds.mind import Expectation
from stormrl.worlds.protocol import World


class DreamContext(NamedTuple):
    """`L` real frames of one episode and the actions between them: where a dream begins."""

    obs: np.ndarray
    """uint8 [L, height, width, channels] or float32 [L, V], L from 1 on; the last one is what is
    seen at the start"""
    action: np.ndarray
    """int64 [L - 1]: `action[t]` led from `obs[t]` to `obs[t + 1]`"""


class DreamEnv(gymnasium.Env[np.ndarray, np.int64]):
    """The world model dreams on from real frames, under whatever actions it is given.

    A reset takes one of `contexts`, or `options={"context": DreamContext(...)}`, and shows its
    last frame as it really was; every later frame is decoded from a draw of the prior. A dream
    longer than the windows of training is dreamt on in windows of half that length or more
    (`stormrl.worlds.stream`). All draws come from the environment's own generator: seed, context,
    actions and temperature decide the whole dream.

    Every `info` holds

    - `latent`: the drawn classes, int64 [K], where the world model's latent has classes;
    - `probabilities`: the prior that the dream expected them from, before temperature; after a
      reset the posterior of the real frame; float32 [K, C]; where there is such a belief;
    - `continues`: the predicted probability that the episode goes on (1 after a reset);
    - `value`, `policy`: the critic's value, and the probabilities of the actions, float32 [A], on
      this state; NaN, and uniform, without an actor-critic or with nothing to look back on;
    - `dreamt`: steps since the last real frame.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012

    def __init__(
        self,
        world_model: World,
        actor_critic: Behaviour | None = None,
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
        self.temperature = float(temperature)
        self.horizon = horizon
        self.outcome = outcome
        self.mind = world_model.mind(limit)
        self.render_mode = render_mode
        self.actions = Choices(*world_model.spaces.action.choices)
        self.action_space = spaces.Discrete(world_model.spaces.action.n)
        self.observation_space = _box(world_model.spaces.observation)
        self.device = world_model.device

    @torch.no_grad()
    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begins at a real observation, uint8 [height, width, channels] or float32 [V].

        It is the last one of `options["context"]`, or of any context.
        """
        super().reset(seed=seed)
        context = (options or {}).get("context") or self._any_context()
        frames = obs_tensor(context.obs, self.device)
        action = torch.from_numpy(context.action).to(self.device)
        self.mind.begin(frames.unsqueeze(0), action.unsqueeze(0), self._uniform)
        self.habit = () if self.actor_critic is None else self.actor_critic.begin(1)
        self.obs, self.dreamt = context.obs[-1].copy(), 0
        return self.obs, self._info(1.0)

    @torch.no_grad()
    def step(self, action: np.int64 | int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Dreams one step on."""
        expected = self.mind.take(int(action), self._uniform)
        self.mind.dream(self._uniform, self.temperature)
        self.obs, self.dreamt = observed(self.world_model, self.mind.view)[0], self.dreamt + 1
        reward, continues, terminated = self._outcome(expected)
        truncated = self.horizon is not None and self.dreamt >= self.horizon
        return self.obs, reward, terminated, truncated, self._info(continues)

    def render(self) -> np.ndarray | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The current picture."""
        return shown(self.obs) if self.render_mode == "rgb_array" else None

    def _outcome(self, expected: Expectation) -> tuple[float, float, bool]:
        """Reward, continuation and end that follow the action."""
        reward, continues = (float(part) for part in expected.outcome)
        if self.outcome == "expected":
            return reward, continues, continues < 0.5
        if expected.rewards is not None:
            rewards, probabilities = expected.rewards()
            drawn = sample_index(probabilities, self._uniform(probabilities.shape[:-1]))
            reward = float(rewards[drawn])
        return reward, continues, bool(self.np_random.random() >= continues)

    def _info(self, continues: float) -> dict[str, Any]:
        view = self.mind.view
        opinion = Opinion(self.actions.equal(torch.empty(1, self.actions.total)))
        if self.actor_critic is not None:
            opinion, self.habit = self.actor_critic.opinion(view, self.habit)
            opinion = where_known(view.known, opinion, self.actions)
        return seen(view, opinion) | {"continues": continues, "dreamt": self.dreamt}

    def _any_context(self) -> DreamContext:
        if not self.contexts:
            raise ValueError('contexts: there is none; give reset options={"context": ...}')
        return self.contexts[int(self.np_random.integers(len(self.contexts)))]

    def _uniform(self, shape: Sequence[int]) -> Tensor:
        return torch.from_numpy(self.np_random.random(tuple(shape), np.float32)).to(self.device)


def seen(view: View, opinion: Opinion) -> dict[str, Any]:
    """One row's moment for eyes: `latent`, `probabilities` where there are, `value` and `policy`.

    Where there is nothing to look back on, the value is NaN.
    """
    known = view.known is None or bool(view.known)
    value = float(opinion.value) if known and opinion.value is not None else np.nan
    info: dict[str, Any] = {"value": value, "policy": opinion.probabilities[0].cpu().numpy()}
    if view.belief is None or view.z is None:
        return info
    classes = view.z.unflatten(-1, view.belief.shape[1:])[0].argmax(-1)
    return info | {
        "latent": classes.cpu().numpy(),
        "probabilities": view.belief[0].cpu().numpy(),
    }


def observed(world: World, view: View) -> np.ndarray:
    """What a world model sees in a view, as its environment shows it: [*n, ...]."""
    return np.ascontiguousarray(channels_last(world.depicted(view)).cpu().numpy())


def _box(seen: ObservationSpace) -> spaces.Box:
    low, high = (0, 255) if isinstance(seen, ImageSpace) else (-np.inf, np.inf)
    return spaces.Box(low, high, seen.shape, np.dtype(seen.dtype).type)
