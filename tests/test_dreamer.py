"""DreamerV3's world model and its training, against the equations written out in NumPy."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from miniature import ACTIONS, CPU, SPACES, C, K, array, random_batch, softmax
from small_runs import STEPS, assert_same_runs, go_on, new_run
from stormrl.agents.reinforce import ActorCritic
from stormrl.config.dreamer import DreamerConfig
from stormrl.config.presets import agent_config
from stormrl.history.progress import SilentProgress
from stormrl.learning.learner import Learner, apply_gradients
from stormrl.learning.parameters import count_parameters
from stormrl.runs.trainer import Trainer
from stormrl.types import Trajectory, View
from stormrl.worlds.dreamer import DreamerWorld, arrivals
from stormrl.worlds.rssm import State
from systems import WIDTH
from systems import dreamer as shrunk


def world(**fields: Any) -> DreamerWorld:
    """With weights that all differ, those of the zeroed heads and the beginning too."""
    torch.manual_seed(3)
    config = shrunk().world_model
    assert isinstance(config, DreamerConfig)
    model = DreamerWorld(replace(config, **fields), SPACES).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def layer(modules: Any, x: np.ndarray) -> np.ndarray:
    """Linear without bias, LayerNorm with 1e-3, SiLU."""
    linear, norm, _ = modules
    y = normalised(norm, x @ array(linear.weight).T)
    return y / (1 + np.exp(-y))


def normalised(norm: Any, x: np.ndarray) -> np.ndarray:
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return array(norm.weight) * (x - mean) / np.sqrt(variance + 1e-3) + array(norm.bias)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def probabilities(head: Any, x: np.ndarray) -> np.ndarray:
    logits = x @ array(head.weight).T + array(head.bias)
    return 0.99 * softmax(logits.reshape(*x.shape[:-1], K, C)) + 0.01 / C


def gru(model: DreamerWorld, z: np.ndarray, h: np.ndarray, action: np.ndarray) -> np.ndarray:
    """The cell as published, on one-hot actions."""
    rssm: Any = model.rssm
    x = layer(rssm.cell_input, np.concatenate([z, action], -1))
    linear, norm = rssm.cell
    gates = normalised(norm, np.concatenate([h, x], -1) @ array(linear.weight).T)
    reset, candidate, update = np.split(gates, 3, -1)
    candidate, update = np.tanh(sigmoid(reset) * candidate), sigmoid(update - 1)
    return update * candidate + (1 - update) * h


def one_hot(index: Any, classes: int) -> np.ndarray:
    return np.eye(classes)[np.asarray(index)]


def beginning(model: DreamerWorld, rows: int) -> tuple[np.ndarray, np.ndarray]:
    h = np.tanh(np.tile(array(model.rssm.start), (rows, 1)))
    prior = probabilities(model.rssm.latent.prior_head, layer(model.rssm.prior_input, h))
    return one_hot(prior.argmax(-1), C).reshape(rows, K * C), h


def reference(
    model: DreamerWorld, embedding: Tensor, action: Tensor, fresh: Tensor, z: Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Recurrent states and posteriors of a scan that drew the latents `z`."""
    rssm, rows = model.rssm, len(action)
    z0, h0 = beginning(model, rows)
    before, h, hidden, posteriors = z0, h0, [], []
    for t in range(action.shape[1]):
        begins = array(fresh[:, t, None])
        taken = one_hot(action[:, t], ACTIONS) * (1 - begins)
        h = np.where(begins, h0, h)
        h = gru(model, np.where(begins, z0, before), h, taken)
        seen = np.concatenate([h, array(embedding[:, t])], -1)
        posteriors.append(
            probabilities(rssm.latent.posterior_head, layer(rssm.posterior_input, seen))
        )
        hidden.append(h)
        before = array(z[:, t])
    return np.stack(hidden, 1), np.stack(posteriors, 1)


def test_states_are_those_of_the_equations() -> None:
    """Episodes that begin inside a window see nothing of what was before."""
    model, batch = world(), random_batch(steps=7, resets=((0, 3), (1, 6)))
    steps = arrivals(batch)
    embedding = model.encode(steps.obs)
    noise = torch.rand(2, 6, K)
    states, posterior = model.rssm.observe(embedding, steps.action, steps.fresh, noise)
    h, expected = reference(model, embedding, steps.action, steps.fresh, states.z)
    np.testing.assert_allclose(array(states.h), h, atol=1e-5)
    np.testing.assert_allclose(array(posterior), expected, atol=1e-5)
    drawn = array(states.z).reshape(2, 6, K, C)
    below = (expected.cumsum(-1) <= array(noise)[..., None]).sum(-1)
    assert (drawn.argmax(-1) == below).all()
    prior = probabilities(model.rssm.latent.prior_head, layer(model.rssm.prior_input, h))
    np.testing.assert_allclose(array(model.rssm.prior(states.h)), prior, atol=1e-5)


def test_what_was_received_stands_beside_what_was_then_seen() -> None:
    batch = random_batch(steps=4, resets=((0, 2),))
    steps = arrivals(batch)
    assert torch.equal(steps.obs, batch.obs[:, 1:])
    assert steps.fresh.tolist() == [[True, True, False], [True, False, False]]
    rewards, continues = batch.reward.tolist(), batch.continues.tolist()
    assert steps.reward.tolist() == [[rewards[0][0], 0.0, rewards[0][2]], rewards[1][:3]]
    assert steps.continues.tolist() == [[continues[0][0], 1.0, continues[0][2]], continues[1][:3]]
    assert steps.action[1].tolist() == batch.action[1, :3].tolist()


def test_the_loss_is_that_of_the_equations() -> None:
    model, batch = world(free_nats=1.1), random_batch(steps=7, resets=((1, 4),))
    noise = model.loss_noise(batch, lambda shape: torch.rand(*shape))
    losses, metrics, seen = model.loss(batch, noise)
    steps = arrivals(batch)
    h, posterior = reference(model, model.encode(steps.obs), steps.action, steps.fresh, seen.z)
    prior = probabilities(model.rssm.latent.prior_head, layer(model.rssm.prior_input, h))
    kl = (posterior * np.log(posterior / prior)).sum((-2, -1))
    assert (kl < 1.1).any()
    assert (kl > 1.1).any()
    dynamics = np.maximum(kl, 1.1).mean()
    view = View(seen.z, seen.h)
    images = array(model.decode(view))
    error = ((images - array(steps.obs) / 255) ** 2).sum((-3, -2, -1)).mean()
    state = np.concatenate([array(seen.z), h], -1)
    reward = two_hot_loss(perceptron(model.reward_head, state), array(steps.reward))
    logits = perceptron(model.continues_head, state)[..., 0]
    target = array(steps.continues)
    ends = -(target * np.log(sigmoid(logits)) + (1 - target) * np.log(1 - sigmoid(logits))).mean()
    for name, value in (("reconstruction", error), ("reward", reward), ("continuation", ends)):
        assert float(metrics[name]) == pytest.approx(value, rel=1e-4), name
    expected = error + reward + ends + 0.5 * dynamics + 0.1 * dynamics
    assert float(losses["world"].detach()) == pytest.approx(expected, rel=1e-5)


def perceptron(head: Any, x: np.ndarray) -> np.ndarray:
    modules = list(head)
    for i in range(0, len(modules) - 1, 3):
        x = layer(modules[i : i + 3], x)
    return x @ array(modules[-1].weight).T + array(modules[-1].bias)


def two_hot_loss(logits: np.ndarray, target: np.ndarray) -> float:
    symlog = np.sign(target) * np.log1p(np.abs(target))
    place = (symlog + 20) / (40 / 254)
    lower = np.floor(place).astype(int)
    wide = np.zeros_like(logits)
    np.put_along_axis(wide, lower[..., None], (1 - (place - lower))[..., None], -1)
    np.put_along_axis(wide, lower[..., None] + 1, (place - lower)[..., None], -1)
    return float(-(wide * np.log(softmax(logits))).sum(-1).mean())


def test_acting_step_by_step_is_the_scan() -> None:
    """An episode that begins leaves nothing of the carry."""
    model, noise = world(), torch.rand(2, 5, K)
    obs = torch.randint(256, (2, 5, 3, 64, 64), dtype=torch.uint8)
    action = torch.randint(ACTIONS, (2, 5))
    is_first = torch.tensor([[True, False, False, True, False], [True, False, False, False, False]])
    states, _ = model.rssm.observe(model.encode(obs), action, is_first, noise)
    carry = model.begin(2)
    for t in range(5):
        carry, view = model.see(carry, obs[:, t], action[:, t], is_first[:, t], noise[:, t])
        torch.testing.assert_close(view.h, states.h[:, t], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(view.z, states.z[:, t])


def test_dreams_go_on_from_every_state_and_count_none_that_is_an_end() -> None:
    model, batch = world(), random_batch(steps=7)
    seen = model.loss(batch, torch.rand(2, 6, K)).seen
    state, view, weight = model.branch(batch, seen, 4, ())
    assert model.branches(7, 4) == 6
    assert weight.tolist() == batch.continues[:, :-1].flatten().tolist()
    action, noise = torch.randint(ACTIONS, (12,)), torch.rand(12, K)
    after, dreamt = model.dream(state, action, noise)
    h = gru(model, array(view.z), array(view.h), one_hot(action, ACTIONS))
    np.testing.assert_allclose(array(dreamt.h), h, atol=1e-5)
    both = State(*(torch.stack(parts, 1) for parts in zip(state, after, strict=True)))
    outcome = model.judge(View(*both), action[:, None])
    x = np.concatenate([array(after.z), array(after.h)], -1)
    ends = sigmoid(perceptron(model.continues_head, x)[..., 0])
    np.testing.assert_allclose(array(outcome.continues[:, 0]), ends, atol=1e-5)


def test_dreams_from_contexts_begin_after_the_last_action() -> None:
    model, windows = world(), random_batch(steps=3)
    noise, _ = model.dream_noise(2, 3, 4, lambda shape: torch.rand(*shape))
    state, view = model.start(windows, 4, noise)
    fresh = windows.is_first.clone()
    fresh[:, 0] = True
    before = torch.cat([torch.zeros(2, 1).long(), windows.action[:, :-1]], 1)
    seen, _ = model.rssm.observe(model.encode(windows.obs), before, fresh, noise[0])
    last = one_hot(windows.action[:, -1], ACTIONS)
    h = gru(model, array(seen.z[:, -1]), array(seen.h[:, -1]), last)
    np.testing.assert_allclose(array(state.h), h, atol=1e-5)
    assert view.z is state.z


def test_imagined_steps_count_by_how_likely_they_are_reached() -> None:
    """Weights, means and returns of the agent's loss, from the equations."""
    torch.manual_seed(1)
    model = Learner(shrunk(), SPACES, CPU)
    agent = model.actor_critic
    assert isinstance(agent, ActorCritic)
    rows, horizon, gamma = 5, 4, 1 - 1 / 333
    view = View(torch.randn(rows, horizon + 1, K * C), torch.randn(rows, horizon + 1, WIDTH))
    action = torch.randint(ACTIONS, (rows, horizon))
    continues = torch.rand(rows, horizon)
    weight = torch.tensor([1.0, 1, 0, 1, 1])
    trajectory = Trajectory(view, action, torch.randn(rows, horizon), continues, weight)
    with torch.no_grad():
        for parameter in agent.critic.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    loss, metrics = agent.loss(trajectory, torch.zeros(()))
    state = np.concatenate([array(view.z), array(view.h)], -1)
    policy = 0.99 * softmax(perceptron(agent.actor, state[:, :-1])) + 0.01 / ACTIONS
    count = array(weight)[:, None] * np.cumprod(
        np.concatenate([np.ones((rows, 1)), gamma * array(continues)[:, :-1]], 1), 1
    )
    entropy = (-(policy * np.log(policy)).sum(-1) * count).mean()
    assert float(metrics["entropy"]) == pytest.approx(entropy, rel=1e-5)
    bins = np.linspace(-20, 20, 255)
    value = softmax(perceptron(agent.critic, state)) @ bins
    value = np.sign(value) * np.expm1(np.abs(value))
    returns, following = [], value[:, -1]
    for t in reversed(range(horizon)):
        mixed = 0.05 * value[:, t + 1] + 0.95 * following
        following = array(trajectory.reward)[:, t] + gamma * array(continues)[:, t] * mixed
        returns.insert(0, following)
    advantage = np.stack(returns, 1) - value[:, :-1]  # The scale is still below its floor of 1.
    chosen = np.take_along_axis(np.log(policy), array(action)[..., None].astype(int), -1)[..., 0]
    assert float(metrics["policy"]) == pytest.approx(-(chosen * advantage * count).mean(), rel=1e-4)
    assert torch.isfinite(loss)


def test_actor_and_critic_are_clipped_apart() -> None:
    """A critic's huge gradient leaves the actor's step what it was."""
    config = shrunk()
    steps = []
    for factor in (1.0, 1e6):
        torch.manual_seed(1)
        model = Learner(config, SPACES, CPU)
        agent = model.actor_critic
        assert isinstance(agent, ActorCritic)
        before = array(agent.actor[-1].weight).copy()
        actor, critic = (model.agent_optimizers[name] for name in ("actor", "critic"))
        for optimizer, size in ((actor, 1.0), (critic, factor)):
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = torch.full_like(parameter, size)
        metrics = apply_gradients(model.agent_optimizers, model.agent_groups)
        assert float(metrics["skipped"]) == 0
        steps.append(array(agent.actor[-1].weight) - before)
    np.testing.assert_array_equal(*steps)


def test_parameters_at_base_are_those_of_size_s() -> None:
    """17.9 M with six actions: 15.7 M in the model, 1.05 M in the actor, 1.18 M in the critic."""
    spaces = replace(SPACES, action=replace(SPACES.action, n=6))
    model = Learner(agent_config("dreamerv3"), spaces, CPU)
    world, agent = count_parameters(model.world_model), count_parameters(model.actor_critic)
    assert round(world["total"] / 1e6, 1) == 15.7
    assert round(agent["actor"] / 1e6, 2) == 1.05
    assert round(agent["critic"] / 1e6, 2) == 1.18
    assert round((world["total"] + agent["actor"] + agent["critic"]) / 1e6, 1) == 17.9


@pytest.mark.parametrize("stop_at", [19, 42])
def test_a_resumed_run_is_the_same_as_one_left_alone(tmp_path: Path, stop_at: int) -> None:
    """What episodes ended with is in replay too, and stays there."""
    for name in ("whole", "cut"):
        new_run(tmp_path / name, agent=shrunk())
    whole = go_on(tmp_path / "whole")
    go_on(tmp_path / "cut", stop_at)
    cut = go_on(tmp_path / "cut")
    assert whole.collector.finals == cut.collector.finals > 0
    assert whole.replay.added == cut.replay.added == STEPS + cut.collector.finals
    assert_same_runs(tmp_path / "whole", tmp_path / "cut")


def test_an_episodes_last_picture_is_a_row_of_replay(tmp_path: Path) -> None:
    """It is not first, follows how the episode ended, and is what the game showed at its end."""
    trainer = Trainer(new_run(tmp_path / "run", agent=shrunk()), SilentProgress())
    collector, replay = trainer.collector, trainer.replay
    while not collector.finals:
        collector.step(random=True)
    last = replay.added - 1
    assert torch.equal(replay.obs[last], torch.from_numpy(collector.game.obs))
    assert replay.continues[last - 1] == 0
    assert replay.reward[last - 1] != 0
    collector.step(random=True)
    assert replay.is_first[last + 1]
