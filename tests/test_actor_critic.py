"""Actor and critic against their equations, in float64 NumPy."""

import math
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from torch import Tensor

from miniature import (
    ACTIONS,
    WIDTH,
    C,
    K,
    array,
    random_latents,
    shrunk,
    softmax,
    two_hidden_layers,
    world_model,
)
from stormrl.agents.features import FrameState, agent_state
from stormrl.agents.reinforce import ActorCritic
from stormrl.config.parts import reinforce
from stormrl.nn.choices import Choices
from stormrl.types import Trajectory, View

BINS = np.linspace(-20, 20, 255)
BATCH, HORIZON = 5, 4
START = torch.zeros(())
"""No update has been taken."""


def agent_of(**fields) -> ActorCritic:
    config = replace(reinforce(shrunk()), **fields)
    return ActorCritic(config, agent_state(config.state, world_model()), Choices(ACTIONS))


def trajectory_of(reward_scale: float = 1.0) -> Trajectory:
    return Trajectory(
        view=View(
            z=random_latents(BATCH, HORIZON + 1, shrunk().world_model.latent),
            h=torch.randn(BATCH, HORIZON + 1, WIDTH),
        ),
        action=torch.randint(ACTIONS, (BATCH, HORIZON)),
        reward=torch.randn(BATCH, HORIZON) * reward_scale,
        continues=torch.rand(BATCH, HORIZON),
        weight=torch.ones(BATCH),
    )


def two_hot_loss_of(logits: np.ndarray, target: np.ndarray) -> float:
    """Mean cross-entropy to the two bins around symlog of each target."""
    total = 0.0
    for row, value in zip(logits.reshape(-1, 255), target.flat, strict=True):
        symlog = np.sign(value) * np.log1p(abs(value))
        below = int(np.floor((symlog + 20) / 40 * 254))
        above = (symlog - BINS[below]) / (BINS[below + 1] - BINS[below])
        log_probs = np.log(softmax(row))
        total -= (1 - above) * log_probs[below] + above * log_probs[below + 1]
    return total / target.size


def value_of(logits: np.ndarray) -> np.ndarray:
    mean = (softmax(logits) * BINS).sum(-1)
    return np.sign(mean) * np.expm1(np.abs(mean))


def returns_of(trajectory: Trajectory, value: np.ndarray, offset: int) -> np.ndarray:
    reward, continues = array(trajectory.reward), array(trajectory.continues)
    returns = np.zeros((BATCH, HORIZON + 1))
    returns[:, HORIZON] = value[:, HORIZON]
    for t in reversed(range(HORIZON)):
        mixed = 0.05 * value[:, t + offset] + 0.95 * returns[:, t + 1]
        returns[:, t] = reward[:, t] + 0.985 * continues[:, t] * mixed
    return returns[:, :HORIZON]


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["next", "current"]),
    st.sampled_from(["value", "lambda_return"]),
    st.sampled_from([0.1, 1e4]),
)
def test_losses(seed: int, bootstrap, slow_target, reward_scale: float) -> None:
    """With a range of returns below one, which does not scale, and above."""
    torch.manual_seed(seed)
    agent = agent_of(bootstrap=bootstrap, slow_target=slow_target, entropy=0.1)
    for p in agent.slow_critic.parameters():
        p.add_(0.05 * torch.randn_like(p))
    trajectory = trajectory_of(reward_scale)
    total, metrics = agent.loss(trajectory, START)

    states = np.concatenate([array(trajectory.z), array(trajectory.h)], axis=-1)
    logits = two_hidden_layers(agent.critic, states)
    value = value_of(logits)
    slow_value = value_of(two_hidden_layers(agent.slow_critic, states))
    offset = {"next": 1, "current": 0}[bootstrap]
    returns = returns_of(trajectory, value, offset)
    slow_returns = returns_of(trajectory, slow_value, offset)
    slow = {"value": slow_value[:, :-1], "lambda_return": slow_returns}[slow_target]
    # Of 20 returns, the 1st and the 19th smallest; averages that start from zero.
    ranked = np.sort(returns.flat)
    scale = 0.01 * ranked[18] - 0.01 * ranked[0]
    assert (scale > 1) == (reward_scale > 1)
    policy = softmax(two_hidden_layers(agent.actor, states[:, :-1]))
    chosen = np.take_along_axis(policy, array(trajectory.action).astype(int)[..., None], -1)
    advantage = (returns - value[:, :-1]) / max(1, scale)
    expected = {
        "policy": -(np.log(chosen[..., 0]) * advantage).mean(),
        "value": two_hot_loss_of(logits[:, :-1], returns),
        "slow_value": two_hot_loss_of(logits[:, :-1], slow),
        "entropy": -(policy * np.log(policy)).sum(-1).mean(),
        "return_scale": scale,
        "imagined_return": returns.mean(),
        "imagined_reward": array(trajectory.reward).mean(),
    }
    expected["total"] = (
        expected["policy"] + expected["value"] + expected["slow_value"] - 0.1 * expected["entropy"]
    )
    for name, number in expected.items():
        assert float(metrics[name]) == pytest.approx(number, rel=1e-5, abs=2e-5), name
    assert float(total.detach()) == float(metrics["total"])


def test_the_entropy_counts_with_its_weight_after_so_many_updates() -> None:
    torch.manual_seed(0)
    agent = agent_of(entropy=0.4, entropy_end=0.1, entropy_hold=2, entropy_updates=6)
    trajectory = trajectory_of()
    for taken, weight in ((0.0, 0.4), (2.0, 0.4), (4.0, 0.3), (9.0, 0.1)):
        total, metrics = agent.loss(trajectory, torch.tensor(taken))
        rest = metrics["policy"] + metrics["value"] + metrics["slow_value"]
        assert float(metrics["entropy_weight"]) == pytest.approx(weight)
        torch.testing.assert_close(total.detach(), rest - weight * metrics["entropy"])


def reached(loss: Tensor, agent: ActorCritic) -> set[str]:
    """Networks with a gradient."""
    agent.zero_grad()
    loss.backward()
    return {
        name
        for name, module in agent.named_children()
        if any(p.grad is not None and p.grad.abs().max() > 0 for p in module.parameters())
    }


def test_the_loss_trains_actor_and_critic_and_nothing_else() -> None:
    agent = agent_of()
    assert reached(agent.loss(trajectory_of(), START)[0], agent) == {"actor", "critic"}


def gradient(module: torch.nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


def test_actor_gradient_is_that_of_reinforce() -> None:
    """Written out with advantages held fixed: none comes through the value."""
    agent, trajectory = agent_of(entropy=0.1), trajectory_of()
    agent.loss(trajectory, START)[0].backward()
    ours = gradient(agent.actor)
    agent.zero_grad()
    states = torch.cat([trajectory.z, trajectory.h], dim=-1)
    value = value_of(array(agent.critic(states)))
    advantage = torch.from_numpy(returns_of(trajectory, value, 1) - value[:, :-1]).float()
    log_probs = agent.actor(states[:, :-1]).log_softmax(-1)
    chosen = log_probs.gather(-1, trajectory.action[..., None])[..., 0]
    entropy = -(log_probs.exp() * log_probs).sum(-1)
    (-(chosen * advantage) - 0.1 * entropy).mean().backward()
    torch.testing.assert_close(ours, gradient(agent.actor), rtol=1e-4, atol=1e-6)


def test_critic_gradient_is_that_of_its_two_losses() -> None:
    """Written out with targets held fixed: nothing else of the loss reaches the critic."""
    agent, trajectory = agent_of(), trajectory_of()
    agent.loss(trajectory, START)[0].backward()
    ours = gradient(agent.critic)
    agent.zero_grad()
    states = torch.cat([trajectory.z, trajectory.h], dim=-1)
    logits = agent.critic(states)
    value = value_of(array(logits))
    loss = torch.zeros(())
    for target in (returns_of(trajectory, value, 1), value_of(array(agent.slow_critic(states)))):
        symlog = np.sign(target) * np.log1p(np.abs(target))
        weight = np.maximum(0, 1 - np.abs(symlog[:, :HORIZON, None] - BINS) / (40 / 254))
        two_hot = torch.from_numpy(weight).float()
        loss = loss - (two_hot * logits[:, :-1].log_softmax(-1)).sum(-1).mean()
    loss.backward()
    torch.testing.assert_close(ours, gradient(agent.critic), rtol=1e-4, atol=1e-6)


def test_slow_critic_starts_equal_and_follows() -> None:
    agent = agent_of(slow_decay=0.9)
    for slow, fast in zip(agent.slow_critic.parameters(), agent.critic.parameters(), strict=True):
        assert torch.equal(slow, fast)
        fast.data.add_(1.0)
    before = [p.clone() for p in agent.slow_critic.parameters()]
    agent.updated(torch.tensor(0.0))
    for old, slow in zip(before, agent.slow_critic.parameters(), strict=True):
        assert torch.equal(slow, old)
    agent.updated(torch.tensor(1.0))
    for old, slow in zip(before, agent.slow_critic.parameters(), strict=True):
        torch.testing.assert_close(slow, 0.9 * old + 0.1 * (old + 1))


def test_return_scale_is_an_average_from_zero() -> None:
    agent = agent_of(gamma=0.0, scale_decay=0.75)
    low, high = 0.0, 0.0
    for _ in range(3):
        trajectory = trajectory_of(10)
        _, metrics = agent.loss(trajectory, START)
        ranked = np.sort(array(trajectory.reward).flat)
        low, high = 0.75 * low + 0.25 * ranked[0], 0.75 * high + 0.25 * ranked[18]
        assert float(metrics["return_scale"]) == pytest.approx(high - low, rel=1e-5)


def test_one_outlier_leaves_the_return_scale_alone() -> None:
    scales = []
    for largest in (10.0, 1e9):
        agent = agent_of(gamma=0.0)
        reward = torch.arange(20.0).view(BATCH, HORIZON)
        reward[-1, -1] = largest + 19
        _, metrics = agent.loss(trajectory_of()._replace(reward=reward), START)
        scales.append(float(metrics["return_scale"]))
    assert scales == pytest.approx([0.01 * 18] * 2)


def test_policy_mixes_in_the_uniform_distribution() -> None:
    agent, states = agent_of(unimix=0.1), torch.randn(3, K * C + WIDTH)
    expected = 0.9 * softmax(two_hidden_layers(agent.actor, array(states))) + 0.1 / ACTIONS
    np.testing.assert_allclose(array(agent.policy(states).exp()), expected, atol=1e-6)


def test_actions_are_drawn_from_the_policy() -> None:
    agent, draws = agent_of(), 50_000
    z, h = torch.randn(K * C), torch.randn(WIDTH)
    expected = agent.policy(agent.state(View(z, h))).exp().detach()
    rows = View(z.expand(draws, -1), h.expand(draws, -1))
    action, _ = agent.act(rows, (), torch.rand(draws))
    share = torch.bincount(action, minlength=ACTIONS) / draws
    assert ((share - expected).abs() < 4 * (expected * (1 - expected) / draws).sqrt()).all()


def test_a_certain_policy_has_finite_losses() -> None:
    agent = agent_of()
    with torch.no_grad():
        list(agent.actor.parameters())[-2].mul_(1e5)
    total, metrics = agent.loss(trajectory_of(), START)
    total.backward()
    assert total.isfinite()
    assert gradient(agent.actor).isfinite().all()
    assert float(metrics["entropy"]) < math.log(ACTIONS) / 2


# What the agent sees.


@pytest.mark.parametrize(("kind", "size"), [("z", K * C), ("h", WIDTH), ("zh", K * C + WIDTH)])
def test_vector_states(kind: str, size: int) -> None:
    agent, trajectory = agent_of(state=kind), trajectory_of()
    state = agent.state(trajectory.view)
    assert agent.state.size == size == state.shape[-1]
    parts = {"z": trajectory.z, "h": trajectory.h}
    assert torch.equal(state, torch.cat([parts[name] for name in kind], dim=-1))


def frame_agent():
    model = world_model()
    config = replace(reinforce(shrunk()), state="frame")
    return model, ActorCritic(config, agent_state("frame", model), Choices(ACTIONS))


def test_frame_state_reads_the_decoded_frame_alone() -> None:
    model, agent = frame_agent()
    trajectory = trajectory_of()
    state = agent.state(trajectory.view)
    assert state.shape == (BATCH, HORIZON + 1, agent.state.size)
    assert torch.equal(state, agent.state(View(trajectory.z, torch.randn_like(trajectory.h))))
    frame = model.reconstructed(trajectory.z)[2, 3]
    assert isinstance(agent.state, FrameState)
    torch.testing.assert_close(state[2, 3], agent.state.encoder(frame[None])[0])
    assert not torch.allclose(state[0, 0], state[1, 0])


def test_frame_state_trains_its_own_encoder_and_not_the_decoder() -> None:
    model, agent = frame_agent()
    trajectory = trajectory_of()
    trajectory.z.requires_grad_()
    assert reached(agent.loss(trajectory, START)[0], agent) == {"state", "actor", "critic"}
    assert all(p.grad is None for p in model.parameters())
    assert trajectory.z.grad is None
    assert isinstance(agent.state, FrameState)
    own, foreign = set(agent.parameters()), set(model.parameters())
    assert not own & foreign
    assert set(agent.state.parameters()) == set(agent.state.encoder.parameters())


def test_actor_and_critic_both_train_the_frame_encoder() -> None:
    _, agent = frame_agent()
    states = agent.state(trajectory_of().view)
    assert reached(agent.policy(states).exp()[..., 0].sum(), agent) == {"state", "actor"}
    states = agent.state(trajectory_of().view)
    assert reached(agent.critic(states).square().sum(), agent) == {"state", "critic"}
