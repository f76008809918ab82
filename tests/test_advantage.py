"""TWM's agent: advantages and losses in float64 NumPy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from miniature import array
from stormrl.agents.advantage import AdvantageActorCritic
from stormrl.agents.features import VectorState
from stormrl.config.twm import AdvantageConfig, PerceptronConfig
from stormrl.nn.choices import Choices
from stormrl.nn.functional import generalised_advantages, products_so_far
from stormrl.types import Trajectory, View

B, H, Z, A = 3, 6, 8, 4
CONFIG = AdvantageConfig(head=PerceptronConfig(layers=2, width=7))


def agent(**fields: float) -> AdvantageActorCritic:
    torch.manual_seed(0)
    made = AdvantageActorCritic(replace(CONFIG, **fields), VectorState("z", Z, 0), Choices(A))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return made


def trajectory(restarts: bool = True) -> Trajectory:
    torch.manual_seed(1)
    continues = torch.rand(B, H)
    anew = torch.rand(B, H) < 0.3 if restarts else torch.zeros(B, H, dtype=torch.bool)
    return Trajectory(
        view=View(torch.randn(B, H + 1, Z), None),
        action=torch.randint(A, (B, H)),
        reward=torch.randn(B, H),
        continues=torch.where(anew, 0.0, continues),
        weight=torch.ones(B),
        restarts=anew if restarts else None,
    )


def advantages_by_hand(r: np.ndarray, v: np.ndarray, d: np.ndarray, lambda_: float) -> np.ndarray:
    """Sum over k of the products of (d lambda) times each later surprise."""
    surprise = r + d * v[:, 1:] - v[:, :-1]
    found = np.zeros_like(r)
    for b in range(r.shape[0]):
        for t in range(r.shape[1]):
            factor = 1.0
            for k in range(t, r.shape[1]):
                found[b, t] += factor * surprise[b, k]
                factor *= d[b, k] * lambda_
    return found


def weights_by_hand(d: np.ndarray, restarts: np.ndarray) -> np.ndarray:
    found = np.ones_like(d)
    for b in range(d.shape[0]):
        for t in range(1, d.shape[1]):
            found[b, t] = 1 if restarts[b, t - 1] else found[b, t - 1] * d[b, t - 1]
    return found


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def perceptron(net: nn.Sequential, x: np.ndarray) -> np.ndarray:
    for layer in list(net)[::2]:
        x = (silu(x) if layer is not net[0] else x) @ array(layer.weight).T + array(layer.bias)
    return x


def test_advantages() -> None:
    reward, value, discount = torch.randn(B, H), torch.randn(B, H + 1), torch.rand(B, H)
    found = generalised_advantages(reward, value, discount, 0.95)
    expected = advantages_by_hand(array(reward), array(value), array(discount), 0.95)
    np.testing.assert_allclose(array(found), expected, atol=1e-5)


@pytest.mark.parametrize("restarts", [True, False])
def test_weights(restarts: bool) -> None:
    dreamt = trajectory(restarts)
    anew = np.zeros((B, H)) if dreamt.restarts is None else dreamt.restarts.numpy()
    found = products_so_far(dreamt.continues, dreamt.restarts)
    np.testing.assert_allclose(array(found), weights_by_hand(array(dreamt.continues), anew))


@pytest.mark.parametrize("floor", [0.1, 1.0])
def test_losses(floor: float) -> None:
    net, dreamt = agent(entropy_floor=floor), trajectory()
    assert dreamt.view.z is not None
    assert dreamt.restarts is not None
    z = array(dreamt.view.z)
    value, logits = perceptron(net.critic, z)[..., 0], perceptron(net.actor, z)[:, :-1]
    d = 0.99 * array(dreamt.continues)
    advantage = advantages_by_hand(array(dreamt.reward), value, d, 0.95)
    weight = weights_by_hand(d, dreamt.restarts.numpy())
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    chosen = np.take_along_axis(log_probs, array(dreamt.action)[..., None].astype(int), -1)[..., 0]
    entropy = -(np.exp(log_probs) * log_probs).sum(-1)
    expected = {
        "policy": -(weight * advantage * chosen).mean(),
        "value": 0.5 * (weight * advantage**2).mean(),
        "missing_entropy": max(floor - (weight * entropy).mean() / np.log(A), 0),
    }
    total, metrics = net.loss(dreamt, torch.zeros(()))
    for name, number in expected.items():
        assert float(metrics[name]) == pytest.approx(number, rel=1e-5, abs=1e-6), name
    sum_ = expected["policy"] + expected["value"] + 0.01 * expected["missing_entropy"]
    assert float(total.detach()) == pytest.approx(sum_, rel=1e-5)


def gradient(net: AdvantageActorCritic, loss: Tensor, part: nn.Module) -> Tensor:
    net.zero_grad()
    loss.backward(retain_graph=True)
    return torch.cat([p.grad.flatten() for p in part.parameters() if p.grad is not None])


def test_the_critic_is_drawn_to_fixed_returns() -> None:
    """And by nothing that the actor learns from: each group moves by its own part of the sum."""
    net, dreamt = agent(), trajectory()
    total, _ = net.loss(dreamt, torch.zeros(()))
    found = gradient(net, total, net.critic)
    assert dreamt.view.z is not None
    value = net.value(dreamt.view.z)
    discount = 0.99 * dreamt.continues
    returns = generalised_advantages(dreamt.reward, value, discount, 0.95) + value[:, :-1]
    weight = products_so_far(discount, dreamt.restarts)
    loss = 0.5 * (weight * (value[:, :-1] - returns.detach()).square()).mean()
    torch.testing.assert_close(found, gradient(net, loss, net.critic))


def test_groups() -> None:
    net = agent()
    groups = net.groups()
    assert {id(p) for p in groups["actor"].parameters} == {id(p) for p in net.actor.parameters()}
    assert {id(p) for p in groups["critic"].parameters} == {id(p) for p in net.critic.parameters()}
    rates = [group.optimizer.learning_rate for group in groups.values()]
    assert rates == [1e-4, 1e-5]


def test_first_weights_are_orthogonal() -> None:
    net = AdvantageActorCritic(CONFIG, VectorState("z", Z, 0), Choices(A))
    for layer, gain in zip(list(net.actor)[::2], (2.0, 2.0, 1.0), strict=True):
        weight = array(layer.weight)
        small = min(weight.shape)
        product = weight @ weight.T if weight.shape[0] == small else weight.T @ weight
        np.testing.assert_allclose(product, gain * np.eye(small), atol=1e-5)
        assert not array(layer.bias).any()
