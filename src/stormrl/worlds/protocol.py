"""The protocol of a world model: what learner, imagination, dreams and pages know of it.

A world model of one's own is a subclass of `World` (docs/extending.md). `B` rows are worlds of
their own. All randomness comes in from outside, as numbers from [0, 1).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from stormrl.config.common import OptimizerConfig
from stormrl.config.parts import AgentConfig
from stormrl.errors import UserError
from stormrl.nn.choices import Choices
from stormrl.spaces import ImageSpace, Spaces
from stormrl.types import (
    Batch,
    Carry,
    Noise,
    Prediction,
    Trajectory,
    Uniform,
    View,
    as_bytes,
    clone,
    named_leaves,
)

if TYPE_CHECKING:
    from stormrl.worlds.mind import Mind


class Group(NamedTuple):
    """Parameters that one optimizer moves."""

    parameters: Sequence[nn.Parameter]
    optimizer: OptimizerConfig


class Phase(NamedTuple):
    """Updates of one optimizer group before the agent acts for the first time."""

    updates: int
    windows: int
    """In a batch."""
    length: int
    """Steps of each window."""


class Lesson(NamedTuple):
    """What a world model makes of a batch."""

    losses: dict[str, Float[Tensor, ""]]
    """A total for each optimizer group."""
    metrics: dict[str, Tensor]
    """Numbers to write down, without gradients."""
    seen: Any = ()
    """Tensors that `branch` goes on from."""


class World(nn.Module, ABC):
    """A world model. Outside its own update it is kept in evaluation mode."""

    config_class: ClassVar[type]
    """Dataclass of its configuration, whose `kind` names a part of one's own (`module:Class`)."""
    config: Any
    """Has at least `batch_size`, `batch_length` and `optimizer`."""
    spaces: Spaces
    view_sizes: tuple[int, int]
    """Lengths Z and D of the parts of its views; 0 for a part that it does not have."""
    keeps_final: ClassVar[bool] = False
    """Whether replay keeps what an episode ended with as a row of its own, which no action followed
    (`experience.replay.final`)."""
    version: int = 0
    """Number of the weights: whoever changes them gives them another one."""

    @classmethod
    def of(cls, agent: AgentConfig, spaces: Spaces, device: torch.device) -> Self:
        """The world model of an agent's configuration, which is then moved to `device`."""
        return cls(agent.world_model, spaces)  # pyright: ignore[reportCallIssue]

    @property
    def frame_channels(self) -> int:
        """Width of an agent's own encoder of its frames, where the agent sees those."""
        return 32

    @property
    def device(self) -> torch.device:
        """Where its parameters are."""
        return next(self.parameters()).device

    def groups(self) -> dict[str, Group]:
        """Its parameters by optimizer; one named `world` for all of them."""
        parameters = [p for p in self.parameters() if p.requires_grad]
        return {"world": Group(parameters, self.config.optimizer)}

    def resets(self, is_first: Bool[Tensor, "*n"]) -> Bool[Tensor, "*n"]:
        """Resets as the model sees them."""
        return is_first

    # Learning.

    @abstractmethod
    def loss_noise(self, batch: Batch, uniform: Uniform) -> Tensor:
        """What `loss` draws with."""

    @abstractmethod
    def loss(self, batch: Batch, noise: Tensor) -> Lesson:
        """Losses of real experience. A function of tensors, to be compiled."""

    def phases(self) -> dict[str, Phase]:
        """What is learned before the agent acts, by optimizer group; by default nothing."""
        return {}

    def early_loss(self, group: str, batch: Batch, noise: Tensor) -> Lesson:
        """The loss of that group alone, in its phase. Raises `UserError` if there is none."""
        raise UserError("world", f"{type(self).__name__} has no early_loss()")

    def remembered(self, batch: Batch, uniform: Uniform) -> Trajectory:
        """Real experience as a trajectory, for an agent that learns of it before it acts.

        Raises `UserError` unless a subclass has it.
        """
        raise UserError("actor_critic.pretraining", f"{type(self).__name__} has no remembered()")

    def remembered_steps(self, horizon: int) -> int:
        """Steps of a window that such a trajectory of `horizon` steps is made of."""
        return horizon + 1

    # Acting.

    @abstractmethod
    def begin(self, rows: int) -> Carry:
        """What acting takes along, before anything was seen."""

    @abstractmethod
    def see_noise(self, rows: int, uniform: Uniform) -> Tensor:
        """What `see` draws with."""

    @abstractmethod
    def see(
        self,
        carry: Carry,
        obs: Shaped[Tensor, "B ..."],
        action: Int[Tensor, " B"],
        is_first: Bool[Tensor, " B"],
        noise: Tensor,
    ) -> tuple[Carry, View]:
        """One real step: what is seen now, and the action that led to it.

        Returns a new carry and leaves the old one as it was: a step of the environment may fail.
        """

    def saved(self, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of a carry of `see` in a checkpoint of format 1, by their names of today."""
        return leaves

    def can_go_on(self, carry: Carry) -> bool:
        """Whether a carry of `see` that was read from a file holds nothing that `see` cannot take.

        Shapes and types are those of `begin` by then. By default all numbers are to be finite; a
        model that indexes with some of them looks at those too.
        """
        return all(bool(leaf.isfinite().all()) for leaf in named_leaves(carry).values())

    # Dreaming.

    @abstractmethod
    def dream_noise(
        self, rows: int, context: int, horizon: int, uniform: Uniform
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """What `start` (or `branch`, after a context of 0) draws with, and `dream` by step."""

    @abstractmethod
    def start(self, windows: Batch, room: int, noise: tuple[Tensor, ...]) -> tuple[Carry, View]:
        """The moment after the last step of real windows, and room for so many steps from there."""

    @abstractmethod
    def dream(self, carry: Carry, action: Int[Tensor, " B"], noise: Tensor) -> tuple[Carry, View]:
        """One imagined step; may write the carry in place, and returns it."""

    def again(self, carry: Carry) -> Carry:
        """The carry of a dream, to go on from it more than once."""
        return clone(carry)

    @abstractmethod
    def judge(self, view: View, action: Int[Tensor, "B H"]) -> Prediction:
        """Rewards and continuations [B, H] of dreamt steps: views are of H + 1 moments."""

    @abstractmethod
    def decode(self, view: View) -> Float[Tensor, "..."]:
        """Pictures in the scale [0, 1], not clamped to it, or numbers in their own units."""

    def depicted(self, view: View) -> Shaped[Tensor, "..."]:
        """What it decodes, as its environment would have shown it: pictures as bytes."""
        decoded = self.decode(view)
        return as_bytes(decoded) if isinstance(self.spaces.observation, ImageSpace) else decoded

    def branches(self, length: int, horizon: int) -> int:
        """From how many steps of a window `branch` goes on.

        Raises `UserError` unless a subclass has `branch`.
        """
        raise self._no_branches()

    def rollouts(self, windows: int, length: int, horizon: int) -> int:
        """How many dreams `branch` goes on with, of so many windows: by default all there are."""
        return windows * self.branches(length, horizon)

    def branch(
        self, windows: Batch, seen: Any, room: int, noise: tuple[Tensor, ...]
    ) -> tuple[Carry, View, Float[Tensor, " N"]]:
        """The moments of real windows from which dreams go on, and how much each counts.

        `seen` is what `loss` gave for them. Raises `UserError` unless a subclass has it.
        """
        raise self._no_branches()

    def mind(self, limit: int | None = None) -> Mind:
        """A stream of any length, for eyes; looks back on `limit` steps at most.

        By default on all steps of a window of training but the last.
        """
        from stormrl.worlds.mind import WindowMind

        return WindowMind(self, limit or self.config.batch_length - 1)

    def _no_branches(self) -> UserError:
        remedy = f"{type(self).__name__} has no branch(); give contexts"
        return UserError("imagination.dreams_from", remedy)


def rollout_noise(world: World, rows: int, context: int, horizon: int, uniform: Uniform) -> Noise:
    """Fresh noise for `rows` imagined trajectories."""
    start, steps = world.dream_noise(rows, context, horizon, uniform)
    choices = Choices(*world.spaces.action.choices)
    return Noise(start, steps, uniform((rows, horizon, *choices.noise)))
