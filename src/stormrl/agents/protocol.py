"""The protocol of an agent: what imagination, acting and pages know of its networks.

An agent of one's own is a subclass of `Behaviour` (docs/extending.md).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from stormrl.config.parts import AgentConfig
from stormrl.errors import UserError
from stormrl.nn.choices import Choices
from stormrl.types import Carry, Trajectory, View
from stormrl.worlds.protocol import Group, World


class Opinion(NamedTuple):
    """What an agent makes of a moment."""

    probabilities: Float[Tensor, "B A"]
    """How likely it takes each action; of several choices, those of each side by side."""
    value: Float[Tensor, " B"] | None = None
    """What it expects to earn from here on, in the reward's units."""


class Behaviour(nn.Module, ABC):
    """Policy, and whatever else it is trained with."""

    config_class: ClassVar[type]
    """Dataclass of its configuration, whose `kind` names a part of one's own (`module:Class`)."""
    config: Any
    """Has at least `optimizer`."""

    @classmethod
    def of(cls, agent: AgentConfig, world: World) -> Self:
        """The agent of a configuration, on top of a world model."""
        return cls(agent.actor_critic, world)  # pyright: ignore[reportCallIssue]

    def groups(self) -> dict[str, Group]:
        """Its parameters by optimizer; one named `agent` for all of them."""
        parameters = [p for p in self.parameters() if p.requires_grad]
        return {"agent": Group(parameters, self.config.optimizer)}

    def begin(self, rows: int) -> Carry:
        """What it takes along from step to step, before the first."""
        return ()

    @abstractmethod
    def opinion(self, view: View, carry: Carry) -> tuple[Opinion, Carry]:
        """Its view of each row's present moment."""

    def chances(self, view: View, carry: Carry) -> tuple[Float[Tensor, "B A"], Carry]:
        """The probabilities alone, for acting, where nobody asks for more."""
        opinion, carry = self.opinion(view, carry)
        return opinion.probabilities, carry

    @abstractmethod
    def act(
        self, view: View, carry: Carry, noise: Float[Tensor, "B *parts"]
    ) -> tuple[Int[Tensor, " B"], Carry]:
        """Actions drawn from the policy. A function of tensors, to be compiled."""

    @abstractmethod
    def loss(
        self, trajectory: Trajectory, taken: Float[Tensor, ""]
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Loss on imagined trajectories, and numbers to write down. A function of tensors.

        Of several groups it is the sum: each is moved by its own part of the gradient. `taken` is
        the number of updates before this one.
        """

    @property
    def early_updates(self) -> int:
        """Updates of real experience before it acts for the first time; by default none."""
        return 0

    def early_loss(self, trajectory: Trajectory) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Loss of such an update. Raises `UserError` unless a subclass has it."""
        raise UserError("actor_critic", f"{type(self).__name__} has no early_loss()")

    def updated(self, share: Float[Tensor, ""]) -> None:
        """Called after each update; `share` is 0 if it was skipped, else 1."""


def where_known(known: Bool[Tensor, " B"] | None, opinion: Opinion, actions: Choices) -> Opinion:
    """The opinion, with all actions equally likely where there is nothing to look back on."""
    if known is None:
        return opinion
    probabilities = opinion.probabilities
    equal = actions.equal(probabilities)
    return opinion._replace(probabilities=torch.where(known[:, None], probabilities, equal))
