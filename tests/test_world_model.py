"""The world model against its equations: parts, five losses, and where gradients stop."""

from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from torch import Tensor, nn

from miniature import (
    ACTIONS,
    C,
    K,
    array,
    linear,
    posterior_noise,
    random_batch,
    random_latents,
    relu,
    softmax,
    two_hidden_layers,
    world_model,
    world_model_config,
)
from stormrl.agents.features import agent_state
from stormrl.agents.reinforce import ActorCritic
from stormrl.config.parts import ActorCriticConfig, WorldModelConfig
from stormrl.nn.choices import Choices
from stormrl.spaces import DiscreteSpace, ImageSpace, Spaces
from stormrl.types import Batch
from stormrl.worlds.latent import WorldModel

RESETS = ((0, 0), (1, 2), (1, 5))
BINS = np.linspace(-20, 20, 255)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameter_counts_at_base_size() -> None:
    with torch.device("meta"):
        model = WorldModel(WorldModelConfig(), Spaces(ImageSpace(64, 64, 3), DiscreteSpace(6)))
        agent = ActorCritic(ActorCriticConfig(), agent_state("zh", model), Choices(6))
    assert count(model.encoder) == 690_624
    assert count(model.decoder) == 4_884_931
    assert count(model.latent.posterior_head) == 4_195_328
    assert count(model.latent.prior_head) == 525_312
    assert count(model.reward_head) == 657_151
    assert count(model.continues_head) == 526_849
    assert count(model.sequence) == 5_026_816
    assert count(model) == 16_507_011
    assert count(agent) == 3_416_580, "with the slow critic"


# Layers, each written as its definition.


def convolution(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Kernel 4, stride 2, padding 1: [channels, n, n] -> [filters, n / 2, n / 2]."""
    half = x.shape[1] // 2
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    y = np.zeros((len(weight), half, half))
    for i in range(4):
        for j in range(4):
            patch = padded[:, i : i + 2 * half : 2, j : j + 2 * half : 2]
            y += np.einsum("oc,chw->ohw", weight[:, :, i, j], patch)
    return y


def transposed_convolution(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Its adjoint: every input pixel stamps a 4 x 4 patch, two pixels apart."""
    size = x.shape[1]
    y = np.zeros((weight.shape[1], 2 * size + 2, 2 * size + 2))
    for i in range(4):
        for j in range(4):
            stamp = np.einsum("co,chw->ohw", weight[:, :, i, j], x)
            y[:, i : i + 2 * size : 2, j : j + 2 * size : 2] += stamp
    return y[:, 1:-1, 1:-1]


def batch_norm(layer: Any, x: np.ndarray) -> np.ndarray:
    """In evaluation: with the running statistics."""
    mean, variance, weight, bias = (
        array(t)[:, None, None]
        for t in (layer.running_mean, layer.running_var, layer.weight, layer.bias)
    )
    return weight * (x - mean) / np.sqrt(variance + 1e-5) + bias


def posterior_of(model: WorldModel, image: np.ndarray) -> np.ndarray:
    """Equation 1 for one uint8 image."""
    encoder: Any = model.encoder
    stages = encoder.stages
    x = convolution(image.astype(np.float64) / 255, array(encoder.first.weight))
    x = relu(batch_norm(stages[0], x))
    for i in (2, 5, 8):
        x = relu(batch_norm(stages[i + 1], convolution(x, array(stages[i].weight))))
    return mixed(linear(model.latent.posterior_head, x.reshape(-1)), model.config.latent.unimix)


def mixed(logits: np.ndarray, unimix: float) -> np.ndarray:
    return (1 - unimix) * softmax(logits.reshape(*logits.shape[:-1], K, C)) + unimix / C


def image_of(model: WorldModel, z: np.ndarray) -> np.ndarray:
    stages: Any = model.decoder.stages
    x = linear(model.decoder.stem, z).reshape(-1, 4, 4)
    for i in (0, 3, 6):
        x = relu(batch_norm(stages[i], x))
        x = transposed_convolution(x, array(stages[i + 2].weight))
    x = relu(batch_norm(stages[9], x))
    return (
        transposed_convolution(x, array(stages[11].weight)) + array(stages[11].bias)[:, None, None]
    )


def test_posterior_and_image_scale() -> None:
    model, batch = world_model(), random_batch(batch=1, steps=2)
    posterior = array(model.encode(batch.obs))
    for t in range(2):
        expected = posterior_of(model, batch.obs[0, t].numpy())
        np.testing.assert_allclose(posterior[0, t], expected, atol=1e-5)


def test_prior() -> None:
    model, h = world_model(), torch.randn(2, 16)
    expected = mixed(linear(model.latent.prior_head, array(h)), 0.01)
    np.testing.assert_allclose(array(model.latent.prior(h)), expected, atol=1e-5)


def test_reconstruction() -> None:
    model = world_model()
    z = random_latents(1, 2, model.config.latent)
    frames = array(model.reconstructed(z))
    for t in range(2):
        np.testing.assert_allclose(frames[0, t], image_of(model, array(z)[0, t]), atol=1e-5)


@pytest.mark.parametrize("predictor_input", ["hidden", "latent"])
def test_prediction(predictor_input) -> None:
    model = world_model(predictor_input=predictor_input)
    z, h = random_latents(1, 5, model.config.latent), torch.randn(1, 5, 16)
    prediction = model.predict(z, h)
    x = array(h if predictor_input == "hidden" else z)
    mean = (softmax(two_hidden_layers(model.reward_head, x)) * BINS).sum(-1)
    expected = np.sign(mean) * np.expm1(np.abs(mean))
    np.testing.assert_allclose(array(prediction.reward), expected, rtol=1e-4, atol=1e-5)
    logit = two_hidden_layers(model.continues_head, x)[..., 0]
    np.testing.assert_allclose(array(prediction.continues), 1 / (1 + np.exp(-logit)), atol=1e-5)


def test_draws_invert_the_posterior() -> None:
    model, batch = world_model(), random_batch()
    noise, posterior = posterior_noise(batch), model.encode(batch.obs)
    z = array(model.latent.sample(posterior, noise)).reshape(2, 6, K, C)
    above = array(posterior).cumsum(-1) > array(noise)[..., None] + 1e-5
    np.testing.assert_allclose(z, np.eye(C)[above.argmax(-1)], atol=1e-6)


# The five losses, from the model's own outputs.


def outputs(model: WorldModel, batch: Batch, noise: Tensor) -> dict[str, np.ndarray]:
    posterior = model.encode(batch.obs)
    z = model.latent.sample(posterior, noise)
    h = model.observe(z, batch.action, batch.is_first)
    return {
        "posterior": array(posterior),
        "prior": array(model.latent.prior(h)),
        "image": array(model.reconstructed(z)),
        "z": array(z),
        "h": array(h),
    }


def reconstruction_of(images: np.ndarray, obs: Tensor) -> np.ndarray:
    """By frame: the squared error, summed over all pixels and channels."""
    return ((images - array(obs) / 255) ** 2).sum((-3, -2, -1))


def reward_loss_of(logits: np.ndarray, reward: Tensor) -> float:
    total = 0.0
    for row, value in zip(logits.reshape(-1, 255), array(reward).flat, strict=True):
        symlog = np.sign(value) * np.log1p(abs(value))
        below = int(np.floor((symlog + 20) / 40 * 254))
        target = np.zeros(255)
        target[below + 1] = (symlog - BINS[below]) / (BINS[below + 1] - BINS[below])
        target[below] = 1 - target[below + 1]
        total -= (target * np.log(softmax(row))).sum()
    return total / reward.numel()


def continuation_loss_of(logits: np.ndarray, continues: Tensor) -> float:
    goes_on, target = 1 / (1 + np.exp(-logits)), array(continues)
    return -(target * np.log(goes_on) + (1 - target) * np.log(1 - goes_on)).mean()


def kl_of_pairs(posterior: np.ndarray, prior: np.ndarray, is_first: Tensor) -> list[float]:
    """KL(posterior of step t + 1 || prior out of step t) wherever t + 1 begins no episode."""
    values = []
    for row in range(len(posterior)):
        for t in range(posterior.shape[1] - 1):
            if not is_first[row, t + 1]:
                q, p = posterior[row, t + 1], prior[row, t]
                values.append((q * np.log(q / p)).sum())
    return values


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["step", "batch"]),
    st.sampled_from(["respect", "ignore"]),
    st.sampled_from([0.0, 0.4, 100.0]),
)
def test_losses(seed: int, over, boundaries, free_nats: float) -> None:
    """With a clamp below, amid and above the steps' KL."""
    torch.manual_seed(seed)
    model = world_model(free_nats=free_nats, free_nats_over=over, episode_boundaries=boundaries)
    batch = random_batch(resets=RESETS)
    noise = posterior_noise(batch)
    losses, metrics, _ = model.loss(batch, noise)
    total = losses["world"]
    out = outputs(model, batch, noise)
    seen = batch.is_first if boundaries == "respect" else torch.zeros_like(batch.is_first)
    kls = np.array(kl_of_pairs(out["posterior"], out["prior"], seen))
    assert len(kls) == (8 if boundaries == "respect" else 10)
    clamped = np.maximum(kls, free_nats).mean()
    if over == "batch":
        clamped = max(kls.mean(), free_nats)
    expected = {
        "reconstruction": reconstruction_of(out["image"], batch.obs).mean(),
        "reward": reward_loss_of(two_hidden_layers(model.reward_head, out["h"]), batch.reward),
        "continuation": continuation_loss_of(
            two_hidden_layers(model.continues_head, out["h"])[..., 0], batch.continues
        ),
        "dynamics": clamped,
        "representation": clamped,
        "kl": kls.mean(),
    }
    expected["total"] = (
        expected["reconstruction"]
        + expected["reward"]
        + expected["continuation"]
        + (0.5 + 0.1) * clamped
    )
    for name, value in expected.items():
        assert float(metrics[name]) == pytest.approx(value, rel=1e-5, abs=1e-5), name
    assert float(total.detach()) == float(metrics["total"])


def test_weights_of_the_losses() -> None:
    model, batch = world_model(dynamics_weight=3.0, representation_weight=0.25), random_batch()
    _, parts, _ = model.loss(batch, posterior_noise(batch))
    expected = parts["reconstruction"] + parts["reward"] + parts["continuation"]
    expected = expected + 3 * parts["dynamics"] + 0.25 * parts["representation"]
    torch.testing.assert_close(parts["total"], expected)


def test_decoder_at_rear_reconstructs_the_next_frame_of_the_episode() -> None:
    model, batch = world_model(decoder_input="prior"), random_batch(resets=RESETS)
    noise = posterior_noise(batch)
    _, metrics, _ = model.loss(batch, noise)
    prior = torch.from_numpy(outputs(model, batch, noise)["prior"]).float()
    images = array(model.reconstructed(model.latent.sample(prior[:, :-1], noise[:, 1:])))
    errors = reconstruction_of(images, batch.obs[:, 1:])
    inside = ~batch.is_first[:, 1:].numpy()
    assert inside.sum() == 8
    assert float(metrics["reconstruction"]) == pytest.approx(errors[inside].mean(), rel=1e-5)


def test_predictor_at_front_reads_the_latent_alone() -> None:
    model, batch = world_model(predictor_input="latent"), random_batch()
    noise = posterior_noise(batch)
    _, metrics, _ = model.loss(batch, noise)
    z = outputs(model, batch, noise)["z"]
    expected = reward_loss_of(two_hidden_layers(model.reward_head, z), batch.reward)
    assert float(metrics["reward"]) == pytest.approx(expected, rel=1e-5)
    expected = continuation_loss_of(
        two_hidden_layers(model.continues_head, z)[..., 0], batch.continues
    )
    assert float(metrics["continuation"]) == pytest.approx(expected, rel=1e-5)


def test_losses_do_not_depend_on_another_episode_in_the_window() -> None:
    model, batch = world_model(), random_batch(batch=1, resets=((0, 3),))
    noise = posterior_noise(batch)
    h = outputs(model, batch, noise)["h"]
    other = batch._replace(obs=batch.obs.clone(), action=batch.action.clone())
    other.obs[:, :3] = 255 - other.obs[:, :3]
    other.action[:, :3] = (other.action[:, :3] + 1) % ACTIONS
    np.testing.assert_allclose(outputs(model, other, noise)["h"][:, 3:], h[:, 3:], atol=1e-6)


# Where gradients stop.

ONLY = {"dynamics": (1.0, 0.0), "representation": (0.0, 1.0)}


def gradients_of(term: str, **fields) -> dict[str, float]:
    """Largest gradient by module of one KL term; others are taken out of the total."""
    model, batch = world_model(free_nats=0.0, **fields), random_batch(batch=1, steps=2)
    noise = posterior_noise(batch)
    others = model.loss(batch, noise).losses["world"]
    dynamics, representation = ONLY[term]
    model.balance.dynamics += dynamics
    model.balance.representation += representation
    (model.loss(batch, noise).losses["world"] - others).backward()
    return {
        name: max(
            float(p.grad.abs().max()) if p.grad is not None else 0.0 for p in module.parameters()
        )
        for name, module in {
            "posterior": model.latent.posterior_head,
            "prior": model.latent.prior_head,
            "sequence": model.sequence,
        }.items()
    }


def test_dynamics_loss_trains_prior_and_sequence_model() -> None:
    gradient = gradients_of("dynamics")
    assert gradient["prior"] > 1e-4
    assert gradient["sequence"] > 1e-4


def test_dynamics_loss_reaches_the_encoder_through_the_tokens_not_through_its_target() -> None:
    """The target is the last frame's posterior, and no token of it is used for a prior."""
    model, batch = world_model(free_nats=0.0), random_batch(batch=1, steps=2)
    pixels = posterior_gradients(model, batch, dynamics=1.0, representation=0.0)
    assert pixels[0] > 1e-6
    assert pixels[1] == 0


def test_representation_loss_trains_the_posterior_towards_a_fixed_prior() -> None:
    gradient = gradients_of("representation")
    assert gradient["posterior"] > 1e-4
    assert gradient["prior"] == pytest.approx(0, abs=1e-7)
    assert gradient["sequence"] == pytest.approx(0, abs=1e-6)
    model, batch = world_model(free_nats=0.0), random_batch(batch=1, steps=2)
    pixels = posterior_gradients(model, batch, dynamics=0.0, representation=1.0)
    assert pixels[0] == 0
    assert pixels[1] > 1e-6


def posterior_gradients(
    model: WorldModel, batch: Batch, dynamics: float, representation: float
) -> list[float]:
    """Gradient of the weighted KL terms with respect to the posterior of each frame."""
    probs = model.encode(batch.obs).detach().requires_grad_()
    model.encode = lambda obs: probs
    model.balance.dynamics = model.balance.representation = 0.0
    noise = posterior_noise(batch)
    (without,) = torch.autograd.grad(model.loss(batch, noise).losses["world"], probs)
    model.balance.dynamics, model.balance.representation = dynamics, representation
    (with_kl,) = torch.autograd.grad(model.loss(batch, noise).losses["world"], probs)
    return (with_kl - without).abs().amax((0, 2, 3)).tolist()


def test_without_free_nats_of_its_own_the_prior_is_pulled_below_the_clamp() -> None:
    fields = {"free_nats": 100.0, "free_nats_for": "representation"}
    model, batch = world_model(**fields), random_batch(resets=((0, 2),))
    losses, metrics, _ = model.loss(batch, posterior_noise(batch))
    total = losses["world"]
    assert float(metrics["representation"]) == pytest.approx(100.0)
    assert float(metrics["dynamics"]) == pytest.approx(float(metrics["kl"])) != 100.0
    total.backward()
    assert float(model.latent.prior_head.weight.grad.abs().max()) > 1e-5  # type: ignore[union-attr]


def test_below_the_clamp_the_kl_pulls_at_nothing() -> None:
    model, batch = world_model(free_nats=100.0), random_batch()
    model.balance.dynamics = model.balance.representation = 1e6
    model.loss(batch, posterior_noise(batch)).losses["world"].backward()
    assert model.latent.prior_head.weight.grad is not None
    assert model.latent.prior_head.weight.grad.abs().max() == 0


@pytest.mark.parametrize(("over", "pulled"), [("step", True), ("batch", False)])
def test_a_step_above_the_clamp_pulls_although_the_mean_is_below(over, pulled: bool) -> None:
    model, batch = world_model(free_nats_over=over), random_batch()
    noise = posterior_noise(batch)
    out = outputs(model, batch, noise)
    kls = np.array(kl_of_pairs(out["posterior"], out["prior"], batch.is_first))
    clamp = float(kls.mean() + kls.max()) / 2
    model.config = replace(model.config, free_nats=clamp)
    model.loss(batch, noise).losses["world"].backward()
    assert model.latent.prior_head.weight.grad is not None
    assert bool(model.latent.prior_head.weight.grad.abs().max() > 0) == pulled


PREDICTORS = {
    "reward": "reward_head",
    "continuation": "continues_head",
    "reconstruction": "decoder",
}


@pytest.mark.parametrize("kept", [None, *PREDICTORS])
def test_each_prediction_by_itself_trains_the_encoder(kept: str | None) -> None:
    """A predictor of zeros predicts the same of everything: no gradient passes through it."""
    model, batch = world_model(dynamics_weight=0.0, representation_weight=0.0), random_batch()
    for part, name in PREDICTORS.items():
        if part != kept:
            for p in getattr(model, name).parameters():
                p.detach().zero_()
    model.loss(batch, posterior_noise(batch)).losses["world"].backward()
    encoder: Any = model.encoder
    gradient = encoder.first.weight.grad
    assert gradient is not None
    assert bool(gradient.abs().max() > 0) == (kept is not None)


def test_training_uses_and_moves_the_statistics_of_the_batch() -> None:
    model, batch = world_model().train(), random_batch()
    noise = posterior_noise(batch)
    encoder: Any = model.encoder
    norm = encoder.stages[0]
    before = norm.running_mean.clone()
    model.loss(batch, noise)
    images = batch.obs.flatten(0, 1).double() / 255
    first = nn.functional.conv2d(images, encoder.first.weight.double(), stride=2, padding=1)
    moved = 0.9 * before.double() + 0.1 * first.mean((0, 2, 3))
    torch.testing.assert_close(norm.running_mean.double(), moved, rtol=0, atol=1e-5)


def test_encoding_any_leading_shape() -> None:
    model, batch = world_model(), random_batch(2, 3)
    one_by_one = [model.encode(image[None]) for image in batch.obs.flatten(0, 1)]
    torch.testing.assert_close(model.encode(batch.obs), torch.cat(one_by_one).unflatten(0, (2, 3)))


def test_a_window_of_resets_alone_has_no_pairs() -> None:
    model = world_model(free_nats=0.0)
    batch = random_batch(1, 2, resets=((0, 0), (0, 1)))
    _, metrics, _ = model.loss(batch, posterior_noise(batch))
    assert metrics["kl"] == metrics["dynamics"] == 0
    assert metrics["total"].isfinite()


def test_latent_without_uniform_share_stays_finite_when_certain() -> None:
    model = world_model(latent=replace(world_model_config().latent, unimix=0.0))
    with torch.no_grad():
        model.latent.posterior_head.weight.mul_(1e4)
    batch = random_batch()
    total = model.loss(batch, posterior_noise(batch)).losses["world"]
    total.backward()
    assert total.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
