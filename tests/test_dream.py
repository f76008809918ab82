import numpy as np
import pytest
import torch

from miniature import K, array, learner, random_batch, world_model
from stormrl.agents.reinforce import ActorCritic
from stormrl.dreams.open_loop import curve, open_loop_error
from stormrl.dreams.scenes import Course, Scene, scenes
from stormrl.dreams.strips import HEIGHT, Span, common_span, panel
from stormrl.pictures.media import DREAM
from stormrl.types import Batch
from stormrl.worlds.latent import WorldModel

CONTEXT, STEPS = 3, 6


@pytest.fixture
def model() -> WorldModel:
    return world_model()


@pytest.fixture
def actor_critic() -> ActorCritic:
    return learner().actor_critic


def course(frames: np.ndarray, **known: np.ndarray) -> Course:
    nothing = np.full(len(frames), np.nan)
    curves = dict.fromkeys(("reward", "continues", "value", "kl"), nothing)
    return Course(frames, **(curves | known))


def grey(*shades: int) -> np.ndarray:
    return np.stack([np.full((4, 4, 3), shade, np.uint8) for shade in shades])


def scene(real: tuple[int, ...], dream: tuple[int, ...], seen: tuple[int, ...]) -> Scene:
    """Two frames of context."""
    return Scene(2, course(grey(*real)), course(grey(*seen)), course(grey(*dream)), None)


def test_a_scene_begins_with_what_the_model_saw(
    model: WorldModel, actor_critic: ActorCritic
) -> None:
    batch = random_batch(2, STEPS)
    for row, seen in enumerate(scenes(model, actor_critic, batch, CONTEXT)):
        real = batch.obs[row].permute(0, 2, 3, 1).numpy()
        np.testing.assert_array_equal(seen.real.frames, real)
        np.testing.assert_array_equal(seen.real.reward[1:], batch.reward[row, :-1].double())
        np.testing.assert_array_equal(seen.real.continues[1:], batch.continues[row, :-1])
        assert seen.own is not None
        for part in (seen.dream, seen.own):
            np.testing.assert_array_equal(
                part.frames[:CONTEXT], seen.reconstruction.frames[:CONTEXT]
            )
            assert np.isfinite(part.reward[1:]).all()
            assert np.isfinite(part.value[1:]).all()
        assert (seen.dream.frames[CONTEXT:] != seen.reconstruction.frames[CONTEXT:]).any()
        assert np.isfinite(seen.dream.kl[1:]).all()
        assert (seen.own.frames[CONTEXT:] != seen.dream.frames[CONTEXT:]).any()
        assert np.isnan(seen.own.kl[CONTEXT:]).all(), "there is no real frame to compare with"


@torch.no_grad()
def test_the_kl_is_between_posterior_and_prior(model: WorldModel) -> None:
    """Against the parallel forward and the sum by hand, where the latents are certain."""
    sharpened(model)
    batch = random_batch(1, STEPS)
    (seen,) = scenes(model, None, batch, CONTEXT)
    posterior = model.encode(batch.obs)
    z = model.latent.sample(posterior, torch.full((1, STEPS, K), 0.5))
    h = model.observe(z, batch.action, batch.is_first)
    p, q = array(posterior[0, 1:]), array(model.latent.prior(h)[0, :-1])
    expected = (p * (np.log(p) - np.log(q))).sum((1, 2))
    np.testing.assert_allclose(seen.reconstruction.kl[1:], expected, rtol=1e-3)
    predicted = array(model.predict(z, h).reward)[0, :-1]
    np.testing.assert_allclose(seen.reconstruction.reward[1:], predicted, atol=1e-4)
    assert np.isnan(seen.reconstruction.kl[0])


def sharpened(model: WorldModel) -> None:
    """Draws that do not depend on the numbers drawn from."""
    model.latent.posterior_head.weight.mul_(1e4)
    object.__setattr__(model.latent.config, "unimix", 1e-9)


def test_an_episode_that_begins_in_the_window_is_not_read_across(model: WorldModel) -> None:
    batch = random_batch(1, STEPS, resets=((0, 2), (0, 4)))
    other = Batch(*(part.clone() for part in batch))
    other.obs[0, :2] = 255 - other.obs[0, :2]
    torch.manual_seed(1)
    (one,) = scenes(model, None, batch, 4)
    torch.manual_seed(1)
    (two,) = scenes(model, None, other, 4)
    np.testing.assert_array_equal(one.dream.frames[4:], two.dream.frames[4:])
    np.testing.assert_array_equal(one.reconstruction.kl[3:], two.reconstruction.kl[3:])
    assert np.isnan(one.reconstruction.kl[[2, 4]]).all()


def test_scenes_can_be_repeated(model: WorldModel, actor_critic: ActorCritic) -> None:
    batch = random_batch(1, STEPS)
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(scenes(model, actor_critic, batch, CONTEXT)[0].dream.frames)
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[0] != found[2]).any()


def test_errors_are_those_of_an_independent_count() -> None:
    first = scene((0, 51, 102, 153), (0, 51, 102, 51), (0, 51, 102, 153))
    second = scene((0, 0, 51, 51), (0, 0, 0, 255), (0, 0, 51, 0))
    error = open_loop_error([[first], [second, second]])
    np.testing.assert_allclose(error.dream, [[0, 0.4**2], [0.2**2, 0.8**2]])
    np.testing.assert_allclose(error.copy, [[0.2**2, 0.4**2], [0.2**2, 0.2**2]])
    np.testing.assert_allclose(error.reconstruction, [[0, 0], [0, 0.2**2]])
    assert error.sees_ahead == 1
    record = error.as_dict()
    np.testing.assert_allclose(record["dream"]["mean"], [0.02, 0.4])
    np.testing.assert_allclose(record["copy_minus_dream"]["mean"], [0.02, -0.3])
    assert (record["ahead"], record["episodes"]) == ([1, 2], 2)
    assert open_loop_error([[first]]).sees_ahead == 1
    assert open_loop_error([[second]]).sees_ahead == 0


def test_windows_of_one_episode_count_as_one() -> None:
    good = scene((0, 51, 102), (0, 51, 102), (0, 51, 102))
    bad = scene((0, 51, 102), (0, 51, 51), (0, 51, 102))
    error = open_loop_error([[good, bad, bad], [good]])
    np.testing.assert_allclose(error.dream, [[0.04 * 2 / 3], [0]])


def test_a_curve_tells_its_spread() -> None:
    values = np.random.default_rng(0).normal(2, 1, (40, 3))
    found = curve(values)
    np.testing.assert_allclose(found["std"], values.std(0, ddof=1))
    for low, mean, high in zip(found["low"], found["mean"], found["high"], strict=True):
        half = 1.96 / np.sqrt(40)
        assert mean - low == pytest.approx(half, rel=0.3)
        assert high - mean == pytest.approx(half, rel=0.3)
    assert np.isnan(curve(values[:1])["std"]).all()


def test_a_strip_draws_each_value_at_its_place() -> None:
    length = 8
    dream = np.full(length, 1.0)
    dream[:4] = -1.0
    flat = course(grey(*range(length)), reward=dream)
    seen = Scene(2, course(grey(*range(length))), flat, flat, None)
    places = (np.arange(length) + 0.5) * 20
    image = panel(seen, "reward", Span(-1, 1), places, 160).astype(int)
    coloured = np.abs(image - np.array(DREAM)).sum(-1) < 60
    assert coloured[HEIGHT - 8 :, 15:65].any(0).all()
    assert coloured[:8, 95:145].any(0).all()
    assert not coloured[: HEIGHT // 2, :60].any()


def test_one_axis_holds_all_scenes() -> None:
    rewards = [np.array([np.nan, 1.0, 5.0]), np.array([np.nan, -2.0, 0.5])]
    parts = [course(grey(0, 0, 0), reward=reward, value=reward) for reward in rewards]
    both = [Scene(1, part, part, part, None) for part in parts]
    assert common_span(both, "reward") == (-2, 5)
    assert common_span(both[:1], "reward") == (0, 5)
    assert common_span(both[:1], "value") == (1, 5)
    assert common_span(both, "kl") == (0, 1)
    assert common_span(both, "continues") == (0, 1)
