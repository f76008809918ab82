"""Imagined rollouts against the same rollouts told step by step, without a cache."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from miniature import (
    ACTIONS,
    CPU,
    SPACES,
    C,
    K,
    StormLearner,
    array,
    learner,
    posterior_noise,
    random_batch,
    shrunk,
)
from stormrl.learning.imagination import Imagination
from stormrl.types import Batch, Noise, Trajectory

CONFIG = shrunk().imagination
CONTEXT, HORIZON, BATCH = CONFIG.context, CONFIG.horizon, 5
RESETS = ((1, 0), (2, 1), (3, 2), (4, 1), (4, 2))


def imagine(boundaries="respect", **fields) -> tuple[StormLearner, Batch, Noise, Trajectory]:
    config = shrunk()
    model = learner(
        replace(
            config,
            world_model=replace(config.world_model, episode_boundaries=boundaries),
            imagination=replace(config.imagination, **fields),
        )
    )
    context = random_batch(BATCH, CONTEXT, RESETS)
    noise = model.imagination_noise(context)
    center_continuation(model, model.imagination(context, noise))
    return model, context, noise, model.imagination(context, noise)


def center_continuation(model: StormLearner, trajectory: Trajectory) -> None:
    """Let half of the steps be predicted to be an episode's last."""
    head = model.world_model.continues_head
    with torch.no_grad():
        head[-1].bias -= head(trajectory.h[:, 1:]).median()


def drawn(probs: Tensor, uniform: Tensor) -> np.ndarray:
    """The first class whose cumulative probability exceeds the number."""
    return (array(probs).cumsum(-1) > array(uniform)[..., None]).argmax(-1)


def priors(noise: Noise) -> Tensor:
    """Numbers for the first latent and for those of all steps."""
    return torch.cat([noise.start[1][:, None], noise.steps], dim=1)


def rows_of(noise: Noise, rows: list[int]) -> Noise:
    return Noise(tuple(x[rows] for x in noise.start), noise.steps[rows], noise.action[rows])


def parts(trajectory: Trajectory) -> tuple[Tensor, ...]:
    return trajectory.z, trajectory.h, *trajectory[1:5]


def test_shapes() -> None:
    _, _, _, trajectory = imagine()
    assert trajectory.z.shape == (BATCH, HORIZON + 1, K * C)
    assert trajectory.h.shape == (BATCH, HORIZON + 1, 16)
    for scalars in (trajectory.action, trajectory.reward, trajectory.continues):
        assert scalars.shape == (BATCH, HORIZON)
    assert int(trajectory.action.max()) < ACTIONS


@pytest.mark.parametrize("boundaries", ["respect", "ignore"])
def test_hidden_states_are_those_of_one_parallel_pass(boundaries) -> None:
    model, context, noise, trajectory = imagine(boundaries)
    world = model.world_model
    latents = world.latent.sample(world.encode(context.obs), noise.start[0])
    z = torch.cat([latents, trajectory.z[:, :-1]], dim=1)
    action = torch.cat([context.action, trajectory.action], dim=1)
    is_first = torch.zeros(BATCH, CONTEXT + HORIZON, dtype=torch.bool)
    is_first[:, :CONTEXT] = context.is_first
    h = world.observe(z, action, is_first)
    torch.testing.assert_close(trajectory.h, h[:, CONTEXT - 1 :], rtol=0, atol=1e-5)


def test_every_latent_is_drawn_from_the_prior_of_its_hidden_state() -> None:
    model, _, noise, trajectory = imagine()
    index = drawn(model.world_model.latent.prior(trajectory.h), priors(noise))
    expected = np.eye(C)[index].reshape(BATCH, HORIZON + 1, K * C)
    np.testing.assert_allclose(array(trajectory.z), expected, atol=1e-6)


def test_every_action_is_drawn_from_the_policy() -> None:
    model, _, noise, trajectory = imagine()
    agent = model.actor_critic
    policy = agent.policy(torch.cat([trajectory.z, trajectory.h], dim=-1)[:, :-1]).exp()
    assert trajectory.action.tolist() == drawn(policy, noise.action).tolist()


@pytest.mark.parametrize("continuation", ["probability", "threshold"])
def test_rewards_and_ends_follow_the_action(continuation) -> None:
    """Step t is judged in the hidden state that has seen action t."""
    model, _, _, trajectory = imagine(continuation=continuation)
    prediction = model.world_model.predict(trajectory.z[:, :-1], trajectory.h[:, 1:])
    torch.testing.assert_close(trajectory.reward, prediction.reward)
    expected = prediction.continues
    if continuation == "threshold":
        expected = (expected >= 0.5).float()
        assert set(trajectory.continues.flatten().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(trajectory.continues, expected)


def test_predictor_at_front_judges_by_the_latent_of_the_step() -> None:
    config = shrunk()
    model = learner(
        replace(config, world_model=replace(config.world_model, predictor_input="latent"))
    )
    context = random_batch(BATCH, CONTEXT)
    noise = model.imagination_noise(context)
    trajectory = model.imagination(context, noise)
    other = torch.zeros_like(trajectory.h[:, 1:])
    prediction = model.world_model.predict(trajectory.z[:, :-1], other)
    torch.testing.assert_close(trajectory.reward, prediction.reward)


def test_nothing_before_a_reset_in_the_context_matters() -> None:
    model, context, noise, trajectory = imagine()
    other = context._replace(obs=context.obs.clone(), action=context.action.clone())
    other.obs[2, 0] = 255 - other.obs[2, 0]
    other.action[2, 0] = (other.action[2, 0] + 1) % ACTIONS
    again = model.imagination(other, noise)
    for ours, theirs in zip(parts(trajectory), parts(again), strict=True):
        torch.testing.assert_close(ours[2], theirs[2])


def test_rows_do_not_depend_on_each_other() -> None:
    model, context, noise, trajectory = imagine()
    rows = [3, 1]
    again = model.imagination(Batch(*(x[rows] for x in context)), rows_of(noise, rows))
    for whole, part in zip(parts(trajectory), parts(again), strict=True):
        torch.testing.assert_close(part, whole[rows])


def test_a_rollout_carries_no_gradient() -> None:
    _, _, _, trajectory = imagine()
    assert not any(part.requires_grad for part in parts(trajectory))


def test_parts_can_be_replaced_by_compiled_ones() -> None:
    model, context, noise, trajectory = imagine()
    compiled = []

    def compile(function):
        compiled.append(function.__name__)
        return function

    rebuilt = Imagination(model.world_model, model.actor_critic, model.config.imagination, compile)
    again = rebuilt(context, noise)
    assert compiled == ["_start", "_branch", "_advance", "_judge"]
    assert torch.equal(again.z, trajectory.z)


WINDOW_RESETS = ((0, 3), (1, 1), (1, 4))


def branching() -> tuple[StormLearner, Batch, Tensor, Noise, Trajectory]:
    """Dreams of two steps from windows of six: they start at steps 1, 2 and 3."""
    config = shrunk()
    dreams = replace(config.imagination, dreams_from="posteriors", horizon=2)
    model = StormLearner(replace(config, imagination=dreams), SPACES, CPU)
    batch = random_batch(2, 6, WINDOW_RESETS)
    world = model.world_model
    z = world.latent.sample(world.encode(batch.obs), posterior_noise(batch)).detach()
    noise = model.branching_noise(batch)
    return model, batch, z, noise, model.imagination.from_posteriors(batch, z, noise)


def test_dreams_start_in_every_posterior_state_that_leaves_room() -> None:
    model, batch, z, noise, trajectory = branching()
    assert model.world_model.branches(6, 2) == 3
    assert len(trajectory.z) == len(noise.action) == 2 * 3
    assert torch.equal(trajectory.z[:, 0], z[:, 1:4].flatten(0, 1))
    h = model.world_model.observe(z, batch.action, batch.is_first)
    torch.testing.assert_close(trajectory.h[:, 0], h[:, :3].flatten(0, 1), rtol=0, atol=1e-5)
    assert trajectory.weight.tolist() == [1, 1, 0, 0, 1, 1]


def test_a_dream_from_a_posterior_goes_on_as_a_window_with_the_dreamt_steps_would() -> None:
    model, batch, z, _, trajectory = branching()
    for row, (window, t) in enumerate((w, t) for w in range(2) for t in (1, 2, 3)):
        dreamt_z = torch.cat([z[window, :t], trajectory.z[row, :2]])[None]
        dreamt_action = torch.cat([batch.action[window, :t], trajectory.action[row]])[None]
        is_first = torch.cat([batch.is_first[window, :t], torch.zeros(2, dtype=torch.bool)])[None]
        h = model.world_model.observe(dreamt_z, dreamt_action, is_first)
        torch.testing.assert_close(trajectory.h[row, 1:], h[0, t:], rtol=0, atol=1e-5)


def test_a_trajectory_without_weight_moves_nothing() -> None:
    model, _, _, _, trajectory = branching()
    spoilt = trajectory._replace(reward=trajectory.reward.clone())
    spoilt.reward[trajectory.weight == 0] += 7.0
    taken, losses = torch.zeros(()), []
    for each in (trajectory, spoilt):
        model.actor_critic.scale_low.zero_()
        model.actor_critic.scale_high.zero_()
        losses.append(model.actor_critic.loss(each, taken)[1])
    for name in ("policy", "value", "slow_value", "entropy", "return_scale"):
        torch.testing.assert_close(losses[0][name], losses[1][name])
