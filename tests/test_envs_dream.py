import warnings

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from miniature import ACTIONS, C, K, array, learner, softmax, world_model
from stormrl.agents.reinforce import ActorCritic
from stormrl.dreams.env import DreamContext, DreamEnv
from stormrl.nn.functional import symexp, tempered
from stormrl.types import View, as_bytes, channels_last
from stormrl.worlds.latent import WorldModel
from stormrl.worlds.stream import LatentMind, UnboundedSequence

WINDOW = 7
"""Steps of the miniature's training windows; its sequence model has twelve positions."""


@pytest.fixture
def model() -> WorldModel:
    return world_model()


@pytest.fixture
def actor_critic() -> ActorCritic:
    return learner().actor_critic


def context(frames: int = 4, seed: int = 0) -> DreamContext:
    rng = np.random.default_rng(seed)
    obs = rng.integers(0, 256, (frames, 64, 64, 3), np.uint8)
    return DreamContext(obs, rng.integers(0, ACTIONS, frames - 1))


def latents(steps: int) -> torch.Tensor:
    index = torch.randint(C, (1, steps, K))
    return torch.nn.functional.one_hot(index, C).float().flatten(-2)


def walk(env: DreamEnv, steps: int, seed: int = 3, **options) -> list[tuple]:
    """What a dream under the same actions always looks like, step by step."""
    env.reset(seed=seed, options={"context": context(**options)})
    return [env.step(t % ACTIONS) for t in range(steps)]


def test_with_nothing_to_look_back_on_there_is_no_value(
    model: WorldModel, actor_critic: ActorCritic
) -> None:
    env = DreamEnv(model, actor_critic)
    _, info = env.reset(seed=0, options={"context": context(frames=1)})
    assert np.isnan(info["value"])
    assert info["policy"].tolist() == pytest.approx([1 / ACTIONS] * ACTIONS)
    assert np.isfinite(env.step(0)[4]["value"])


def test_gymnasium_finds_nothing_wrong(model: WorldModel, actor_critic: ActorCritic) -> None:
    contexts = [context(seed=seed) for seed in range(3)]
    env = DreamEnv(model, actor_critic, contexts, render_mode="rgb_array")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env, skip_render_check=True)


def test_a_dream_begins_at_the_last_real_frame(model: WorldModel) -> None:
    start = context()
    obs, info = DreamEnv(model).reset(seed=0, options={"context": start})
    np.testing.assert_array_equal(obs, start.obs[-1])
    assert (info["dreamt"], info["continues"]) == (0, 1.0)
    posterior = model.encode(torch.from_numpy(start.obs[-1:]).permute(0, 3, 1, 2))
    np.testing.assert_allclose(info["probabilities"], array(posterior[0]), atol=1e-5)
    assert info["latent"].shape == (K,)


def test_any_context_may_be_taken(model: WorldModel) -> None:
    contexts = [context(seed=seed) for seed in range(3)]
    env = DreamEnv(model, contexts=contexts)
    seen = {env.reset(seed=seed)[0].tobytes() for seed in range(20)}
    assert seen == {start.obs[-1].tobytes() for start in contexts}
    with pytest.raises(ValueError, match="context"):
        DreamEnv(model).reset(seed=0)


def test_seed_and_actions_decide_the_dream(model: WorldModel, actor_critic: ActorCritic) -> None:
    torch.manual_seed(1)
    one = walk(DreamEnv(model, actor_critic), 10)
    torch.manual_seed(2)
    other = walk(DreamEnv(model, actor_critic), 10)
    for first, second in zip(one, other, strict=True):
        np.testing.assert_array_equal(first[0], second[0])
        assert first[1:4] == second[1:4]
    changed = walk(DreamEnv(model, actor_critic), 10, seed=4)
    assert any((a[0] != b[0]).any() for a, b in zip(one, changed, strict=True))


@torch.no_grad()
def test_each_step_is_what_the_world_model_predicts(
    model: WorldModel, actor_critic: ActorCritic
) -> None:
    """Against the parallel forward over all steps so far: no cache, no environment."""
    env, start = DreamEnv(model, actor_critic), context(2)
    obs, info = env.reset(seed=5, options={"context": start})
    frames = torch.from_numpy(start.obs).permute(0, 3, 1, 2)
    first = model.encode(frames)[0]
    # The context's own draws come first out of the environment's generator.
    uniform = np.random.default_rng(5).random((1, 2, K), np.float32)
    z = [model.latent.sample(first, torch.from_numpy(uniform[0, 0]))]
    z.append(one_hot(info["latent"]))
    actions = start.action.tolist()
    for action in (2, 0, 1, 1):
        obs, reward, terminated, truncated, info = env.step(action)
        actions.append(action)
        taken = torch.tensor(actions)
        is_first = torch.zeros_like(taken, dtype=torch.bool)
        h = model.observe(torch.stack(z)[None], taken[None], is_first[None])[0, -1]
        expected = model.predict(z[-1], h)
        assert reward == pytest.approx(float(expected.reward), abs=1e-5)
        assert info["continues"] == pytest.approx(float(expected.continues), abs=1e-5)
        assert terminated == (float(expected.continues) < 0.5)
        assert not truncated
        np.testing.assert_allclose(info["probabilities"], array(model.latent.prior(h)), atol=1e-5)
        z.append(one_hot(info["latent"]))
        decoded = model.reconstructed(z[-1][None])[0]
        shown = np.clip(array(decoded), 0, 1).transpose(1, 2, 0) * 255
        np.testing.assert_allclose(obs, shown, atol=0.6)
        state = actor_critic.state(View(z[-1], h))
        assert info["value"] == pytest.approx(float(actor_critic.value(state)), abs=1e-4)
        log_probs = array(actor_critic.policy(state))
        np.testing.assert_allclose(info["policy"], softmax(log_probs), atol=1e-5)


def one_hot(index: np.ndarray) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.from_numpy(index), C).float().flatten()


def test_cached_steps_are_the_parallel_forward(model: WorldModel) -> None:
    z, action = latents(WINDOW), torch.randint(ACTIONS, (1, WINDOW))
    whole = model.observe(z, action, torch.zeros(1, WINDOW, dtype=torch.bool))
    stepped = UnboundedSequence(model)
    extended = UnboundedSequence(model)
    h = [stepped.push(z[:, t], action[:, t]) for t in range(WINDOW)]
    torch.testing.assert_close(torch.stack(h, 1), whole, atol=1e-5, rtol=1e-5)
    last = extended.extend(z[:, :3], action[:, :3])
    torch.testing.assert_close(last, whole[:, 2], atol=1e-5, rtol=1e-5)
    for t in range(3, WINDOW):
        last = extended.push(z[:, t], action[:, t])
        torch.testing.assert_close(last, whole[:, t], atol=1e-5, rtol=1e-5)


def test_a_stream_without_end_stays_within_the_windows_of_training(model: WorldModel) -> None:
    steps = 5 * WINDOW
    z, action = latents(steps), torch.randint(ACTIONS, (1, steps))
    sequence, begin = UnboundedSequence(model), 0
    assert sequence.limit == WINDOW == model.config.batch_length - 1
    for t in range(steps):
        h = sequence.push(z[:, t], action[:, t])
        if t - begin == WINDOW:
            begin = t - WINDOW // 2 + 1  # The last half, this step included, is read again.
        window = slice(begin, t + 1)
        is_first = torch.zeros(1, t + 1 - begin, dtype=torch.bool)
        expected = model.observe(z[:, window], action[:, window], is_first)[:, -1]
        torch.testing.assert_close(h, expected, atol=1e-5, rtol=1e-5)
        assert len(sequence) == t + 1 - begin <= WINDOW


@pytest.mark.parametrize("limit", [2, 3])
def test_the_smallest_windows_go_on_too(model: WorldModel, limit: int) -> None:
    sequence = UnboundedSequence(model, limit)
    for _ in range(7):
        assert sequence.push(latents(1)[:, 0], torch.zeros(1, dtype=torch.int64)).isfinite().all()
        assert len(sequence) <= limit


def test_a_context_longer_than_a_window_is_taken_from_its_end(model: WorldModel) -> None:
    z, action = latents(9), torch.randint(ACTIONS, (1, 9))
    h = UnboundedSequence(model).extend(z, action)
    last = slice(9 - WINDOW, 9)
    expected = model.observe(z[:, last], action[:, last], torch.zeros(1, WINDOW, dtype=torch.bool))
    torch.testing.assert_close(h, expected[:, -1], atol=1e-5, rtol=1e-5)


def test_the_horizon_truncates(model: WorldModel) -> None:
    ends = [step[3] for step in walk(DreamEnv(model, horizon=4), 5)]
    assert ends == [False, False, False, True, True]
    assert not any(step[3] for step in walk(DreamEnv(model), 20))


def test_temperature_is_a_power_of_the_probabilities() -> None:
    probs = torch.tensor([[[0.5, 0.3, 0.2]]])
    for temperature in (0.5, 2.0):
        powered = array(probs) ** (1 / temperature)
        expected = powered / powered.sum()
        np.testing.assert_allclose(array(tempered(probs, temperature)), expected, atol=1e-6)
    assert tempered(probs, 0.0).tolist() == [[[1, 0, 0]]]
    torch.testing.assert_close(tempered(probs, 1.0), probs)


def test_without_temperature_nothing_is_left_to_chance(model: WorldModel) -> None:
    env = DreamEnv(model, temperature=0)
    for _, _, _, _, info in walk(env, 5):
        np.testing.assert_array_equal(info["latent"], info["probabilities"].argmax(-1))
    with pytest.raises(ValueError, match="temperature"):
        DreamEnv(model, temperature=-1)


@torch.no_grad()
def test_outcomes_are_drawn_from_what_is_predicted(model: WorldModel) -> None:
    env = DreamEnv(model, outcome="sampled")
    rewards, ended = [], []
    env.reset(seed=0, options={"context": context()})
    # The draws of a step that is never adopted leave what is expected of it as it was.
    mind = env.mind
    assert isinstance(mind, LatentMind)
    z, expected = mind.view.z, mind.take(1, torch.rand)
    assert z is not None
    continues = float(expected.outcome.continues)
    for _ in range(300):
        reward, _, terminated = env._outcome(expected)
        rewards.append(reward)
        ended.append(terminated)
    values, probabilities = (part.numpy() for part in distribution(model, z, mind._hidden))
    assert np.mean(rewards < np.median(rewards)) > 0.3
    mass = {
        float(value): float(share) for value, share in zip(values, probabilities[0], strict=True)
    }
    assert set(rewards) <= set(mass)
    above = sum(share for value, share in mass.items() if value > 0)
    assert np.mean(np.array(rewards) > 0) == pytest.approx(above, abs=0.1)
    assert np.mean(ended) == pytest.approx(1 - continues, abs=0.1)


def distribution(model: WorldModel, z: torch.Tensor, h: torch.Tensor):
    """The head's softmax over symexp of evenly spaced bins."""
    bins = model.config.two_hot
    x = {"hidden": h, "latent": z}[model.config.predictor_input]
    logits = model.reward_head(x)
    centres = torch.linspace(bins.low, bins.high, bins.bins)
    return symexp(centres), logits.detach().softmax(-1)


def test_pictures_are_rounded_and_clamped() -> None:
    image = torch.tensor([-0.5, 0.0, 0.5, 1.0, 2.0, 0.1]).view(1, 3, 1, 2)
    seen = channels_last(as_bytes(image))
    assert seen.dtype == torch.uint8
    assert seen[0, 0].tolist() == [[0, 128, 255], [0, 255, 26]]
