"""Actor-critic with REINFORCE: policy, value and their losses on imagined trajectories."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stormrl.agents.features import FrameState, VectorState, agent_state
from stormrl.agents.protocol import Behaviour, Opinion
from stormrl.config.parts import ActorCriticConfig, AgentConfig, actor_critic
from stormrl.nn.choices import Choices
from stormrl.nn.functional import (
    lambda_return,
    log_probability,
    masked_mean,
    percentiles,
    straight_line,
    weighted_mean,
)
from stormrl.nn.heads import MLP, TwoHotHead
from stormrl.types import Carry, Trajectory, View
from stormrl.worlds.protocol import Group, World


class ActorCritic(Behaviour):
    """Actor, critic, slow critic and return scale (STORM, section 3.2).

    The losses are those of DreamerV3: REINFORCE with the critic as baseline, advantages divided by
    the running range of returns, and a categorical critic that is pulled to a slow copy of itself.
    """

    config: ActorCriticConfig
    scale_low: Tensor
    scale_high: Tensor

    def __init__(
        self, config: ActorCriticConfig, state: VectorState | FrameState, actions: Choices
    ) -> None:
        super().__init__()
        self.config = config
        self.state = state
        self.actions = actions
        head = config.head
        self.actor = MLP(self.state.size, head, actions.total)
        self.critic = TwoHotHead(self.state.size, head, config.two_hot)
        self.slow_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.register_buffer("scale_low", torch.zeros(()))
        self.register_buffer("scale_high", torch.zeros(()))

    @classmethod
    def of(cls, agent: AgentConfig, world: World) -> Self:
        """The agent of a configuration, on the part of the view that it names."""
        config = actor_critic(agent)
        state = agent_state(config.state, world)
        return cls(config, state, Choices(*world.spaces.action.choices))

    def groups(self) -> dict[str, Group]:
        """One for all, or the critic and the others apart."""
        if self.config.optimizers == "one":
            return super().groups()
        critic = set(self.critic.parameters())
        trained = [p for p in self.parameters() if p.requires_grad]
        return {
            "actor": Group([p for p in trained if p not in critic], self.config.optimizer),
            "critic": Group([p for p in trained if p in critic], self.config.optimizer),
        }

    def probabilities(self, state: Float[Tensor, "*n S"]) -> Float[Tensor, "*n A"]:
        """How likely the policy takes each action."""
        probabilities = self.actions.softmax(self.actor(state).float())
        return self.actions.mixed(probabilities, self.config.unimix)

    def policy(self, state: Float[Tensor, "*n S"]) -> Float[Tensor, "*n A"]:
        """Log-probabilities of the actions."""
        return log_probability(self.probabilities(state))

    def act(
        self, view: View, carry: Carry, noise: Float[Tensor, "B *parts"]
    ) -> tuple[Int[Tensor, " B"], Carry]:
        """Actions drawn from the policy."""
        return self.actions.draw(self.probabilities(self.state(view)), noise), carry

    def chances(self, view: View, carry: Carry) -> tuple[Float[Tensor, "B A"], Carry]:
        """Probabilities of the actions, without a look at the critic."""
        return self.probabilities(self.state(view)), carry

    def opinion(self, view: View, carry: Carry) -> tuple[Opinion, Carry]:
        """Probabilities of the actions, and the critic's value."""
        state = self.state(view)
        return Opinion(self.probabilities(state), self.value(state)), carry

    def value(self, state: Float[Tensor, "*n S"]) -> Float[Tensor, "*n"]:
        """Expected return from each state, in the reward's units."""
        return self.critic.mean(self.critic(state))

    def loss(
        self, trajectory: Trajectory, taken: Float[Tensor, ""]
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Loss of actor and critic on imagined trajectories, and its parts (equations 7 to 9).

        `taken` is the number of updates before this one. Moves the running range of returns one
        step.
        """
        states = self.state(trajectory.view)
        acted_on = states[:, :-1].contiguous()
        logits = self.critic(states).float()
        value = self.critic.mean(logits.detach())
        returns = self._returns(trajectory, value)
        real = trajectory.weight[:, None].expand_as(returns)
        scale = self._update_scale(torch.where(real > 0, returns, masked_mean(returns, real)))
        counted, mean = self._counted(trajectory)

        log_probs = self.policy(acted_on)
        chosen = self.actions.chosen(log_probs, trajectory.action)
        advantage = (returns - value[:, :-1]) / scale.clamp(min=self.config.scale_floor)
        policy_loss = -mean(chosen * advantage, counted)
        entropy = mean(self.actions.entropy(log_probs), counted)
        targets = torch.stack([returns, self._slow_target(trajectory, states, acted_on)], dim=-1)
        critic_losses = self.critic.cross_entropies(logits[:, :-1], targets)
        value_loss, slow_loss = (mean(loss, counted) for loss in critic_losses.unbind(-1))
        entropy_weight = self._entropy_weight(taken)
        total = policy_loss + value_loss + slow_loss - entropy_weight * entropy
        metrics = {
            "total": total,
            "policy": policy_loss,
            "value": value_loss,
            "slow_value": slow_loss,
            "entropy": entropy,
            "entropy_weight": entropy_weight,
            "uniform_entropy": torch.full_like(entropy, self.actions.most_entropy),
            "return_scale": scale,
            "imagined_return": returns.mean(),
            "imagined_reward": trajectory.reward.mean(),
        }
        return total, {name: metric.detach() for name, metric in metrics.items()}

    @torch.no_grad()
    def updated(self, share: Float[Tensor, ""]) -> None:
        """Move the slow critic towards the critic (exponential average), by a share of a step."""
        rate = (1 - self.config.slow_decay) * share
        pairs = zip(self.slow_critic.parameters(), self.critic.parameters(), strict=True)
        for slow, fast in pairs:
            slow.lerp_(fast, rate)

    def _counted(self, trajectory: Trajectory) -> tuple[Tensor, Callable[..., Tensor]]:
        """How much each step [B, H] counts, and the mean that is taken with these weights."""
        first = trajectory.weight[:, None]
        if self.config.counted == "alike":
            return first.expand_as(trajectory.reward), masked_mean
        reached = (self.config.gamma * trajectory.continues[:, :-1]).cumprod(1)
        return first * torch.cat([torch.ones_like(first), reached], dim=1), weighted_mean

    def _entropy_weight(self, taken: Tensor) -> Float[Tensor, ""]:
        c = self.config
        return straight_line(c.entropy, c.entropy_end, c.entropy_hold, c.entropy_updates, taken)

    def _returns(self, trajectory: Trajectory, value: Tensor) -> Tensor:
        config = self.config
        return lambda_return(
            trajectory.reward,
            value,
            trajectory.continues,
            config.gamma,
            config.lambda_,
            config.bootstrap,
        )

    @torch.no_grad()
    def _slow_target(self, trajectory: Trajectory, states: Tensor, acted_on: Tensor) -> Tensor:
        if self.config.slow_target == "lambda_return":
            return self._returns(trajectory, self.critic.mean(self.slow_critic(states)))
        return self.critic.mean(self.slow_critic(acted_on))

    def _update_scale(self, returns: Tensor) -> Float[Tensor, ""]:
        """Range between two percentiles of the returns, as an exponential average from zero."""
        config, rate = self.config, 1 - self.config.scale_decay
        low, high = percentiles(returns, config.percentile_low, config.percentile_high)
        self.scale_low.lerp_(low, rate)
        self.scale_high.lerp_(high, rate)
        return self.scale_high - self.scale_low
