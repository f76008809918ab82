"""Actor-critic with generalised advantages (GAE): the agent of TWM (Robine et al. 2023)."""

from __future__ import annotations

from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stormrl.agents.features import FrameState, VectorState, agent_state
from stormrl.agents.protocol import Behaviour, Opinion
from stormrl.config.parts import AgentConfig
from stormrl.config.twm import AdvantageConfig
from stormrl.nn.choices import Choices
from stormrl.nn.functional import generalised_advantages, products_so_far
from stormrl.nn.silu import silu_mlp, start_orthogonally
from stormrl.types import Carry, Trajectory, View
from stormrl.worlds.protocol import Group, World


class AdvantageActorCritic(Behaviour):
    """Actor and critic, each with an optimizer of its own.

    Advantages are neither scaled nor normalised, the critic has no slow copy, and the policy's
    entropy is raised only while it is below its floor.
    """

    config_class = AdvantageConfig
    config: AdvantageConfig

    def __init__(
        self, config: AdvantageConfig, state: VectorState | FrameState, actions: Choices
    ) -> None:
        super().__init__()
        self.config, self.state, head = config, state, config.head
        self.actions = actions
        self.actor = silu_mlp(state.size, head.width, head.layers, actions.total)
        self.critic = silu_mlp(state.size, head.width, head.layers, 1)
        start_orthogonally(self.actor)
        start_orthogonally(self.critic)

    @classmethod
    def of(cls, agent: AgentConfig, world: World) -> Self:
        """The agent of a configuration, on the part of the view that it names."""
        assert isinstance(agent.actor_critic, AdvantageConfig)
        state = agent_state(agent.actor_critic.state, world)
        return cls(agent.actor_critic, state, Choices(*world.spaces.action.choices))

    def groups(self) -> dict[str, Group]:
        """Actor and critic; what both read frames through, if they do, moves with the actor."""
        acting = [*self.state.parameters(), *self.actor.parameters()]
        return {
            "actor": Group(acting, self.config.optimizer),
            "critic": Group([*self.critic.parameters()], self.config.critic_optimizer),
        }

    def policy(self, state: Float[Tensor, "*n S"]) -> Float[Tensor, "*n A"]:
        """Log-probabilities of the actions."""
        return self.actions.log_softmax(self.actor(state).float())

    def value(self, state: Float[Tensor, "*n S"]) -> Float[Tensor, "*n"]:
        """Expected return from each state, in the unit that the world model rewards in."""
        return self.critic(state).squeeze(-1).float()

    def act(
        self, view: View, carry: Carry, noise: Float[Tensor, "B *parts"]
    ) -> tuple[Int[Tensor, " B"], Carry]:
        """Actions drawn from the policy."""
        return self.actions.draw(self.policy(self.state(view)).exp(), noise), carry

    def chances(self, view: View, carry: Carry) -> tuple[Float[Tensor, "B A"], Carry]:
        """Probabilities of the actions, without a look at the critic."""
        return self.policy(self.state(view)).exp(), carry

    def opinion(self, view: View, carry: Carry) -> tuple[Opinion, Carry]:
        """Probabilities of the actions, and the critic's value."""
        state = self.state(view)
        return Opinion(self.policy(state).exp(), self.value(state)), carry

    def loss(
        self, trajectory: Trajectory, taken: Float[Tensor, ""]
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Sum of the losses of actor and critic on imagined trajectories, and their parts."""
        states = self.state(trajectory.view)
        discount = self.config.gamma * trajectory.continues
        weight = products_so_far(discount, trajectory.restarts) * trajectory.weight[:, None]
        value = self.value(states)
        known = value.detach()
        advantage = generalised_advantages(trajectory.reward, known, discount, self.config.lambda_)
        returns = advantage + known[:, :-1]

        log_probs = self.policy(states[:, :-1])
        chosen = self.actions.chosen(log_probs, trajectory.action)
        policy_loss = -(weight * advantage * chosen).mean()
        entropies = self.actions.entropy(log_probs)
        share = (weight * entropies).mean() / self.actions.most_entropy
        missing = (self.config.entropy_floor - share).relu()
        value_loss = 0.5 * (weight * (value[:, :-1] - returns).square()).mean()
        total = policy_loss + self.config.entropy * missing + value_loss
        metrics = {
            "total": total,
            "policy": policy_loss,
            "value": value_loss,
            "missing_entropy": missing,
            "entropy": entropies.mean(),
            "uniform_entropy": torch.full_like(total, self.actions.most_entropy),
            "imagined_return": returns.mean(),
            "imagined_reward": trajectory.reward.mean(),
            "counted": weight.mean(),
        }
        return total, {name: metric.detach() for name, metric in metrics.items()}

    @property
    def early_updates(self) -> int:
        """As configured."""
        return self.config.pretraining

    def early_loss(self, trajectory: Trajectory) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The critic learns of real steps, all alike; the actor to be as undecided as they were."""
        states = self.state(trajectory.view)
        value = self.value(states)
        discount = self.config.gamma * trajectory.continues
        known = value.detach()
        advantage = generalised_advantages(trajectory.reward, known, discount, self.config.lambda_)
        returns = advantage + known[:, :-1]
        value_loss = 0.5 * (value[:, :-1] - returns).square().mean()
        log_probs = self.policy(states)
        entropy = self.actions.entropy(log_probs).mean()
        total = value_loss - self.config.entropy * entropy / self.actions.most_entropy
        metrics = {"total": total, "value": value_loss, "entropy": entropy}
        return total, {name: metric.detach() for name, metric in metrics.items()}
