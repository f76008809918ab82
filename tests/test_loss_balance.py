"""How the losses of the world model become one."""

import math
from dataclasses import replace

import pytest
import torch

from miniature import posterior_noise, random_batch, world_model, world_model_config
from stormrl.worlds.loss_balance import balance

LOSSES = {
    "reconstruction": 40.0,
    "reward": 0.2,
    "continuation": 0.3,
    "dynamics": 3.0,
    "representation": 5.0,
}


def losses() -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value, requires_grad=True) for name, value in LOSSES.items()}


def learned(**fields):
    config = world_model_config()
    return balance(replace(config, balance=replace(config.balance, weights="learned", **fields)))


def test_fixed_weights_are_those_of_the_equations() -> None:
    total = balance(world_model_config())(losses())
    assert float(total.detach()) == pytest.approx(40 + 0.2 + 0.3 + 0.5 * 3 + 0.1 * 5)


def test_learned_scales_divide_and_are_kept_in_bounds() -> None:
    total = learned(reconstruction=3.0, reward=-1.0, kl=0.5)(losses())
    kl = 0.5 * 3 + 0.1 * 5
    pairs = ((40, 3.0), (0.2, -1.0), (kl, 0.5))
    expected = 0.3 + sum(x / math.exp(s) + math.log1p(math.exp(s)) for x, s in pairs)
    assert float(total.detach()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("name", "loss"), [("reconstruction", 40.0), ("reward", 0.2), ("kl", 2.0)])
def test_a_scale_settles_where_it_equals_its_loss(name: str, loss: float) -> None:
    """The derivative -L / exp(s) + sigmoid(s) is zero where exp(s) is about L, for large L."""
    part = learned(**{name: math.log(loss)})
    (gradient,) = torch.autograd.grad(
        part(losses()), dict(part.named_parameters())[f"log_scale.{name}"]
    )
    s = math.log(loss)
    expected = -1 + 1 / (1 + math.exp(-s))
    assert float(gradient) == pytest.approx(expected, abs=1e-5)


def test_learned_scales_are_trained_with_the_world_model() -> None:
    config = world_model_config()
    model = world_model(balance=replace(config.balance, weights="learned"), free_nats=0.0)
    batch = random_batch()
    model.loss(batch, posterior_noise(batch)).losses["world"].backward()
    scales = {n: p for n, p in model.named_parameters() if n.startswith("balance.")}
    assert len(scales) == 3
    assert all(p.grad is not None and p.grad != 0 for p in scales.values())
