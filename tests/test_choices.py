"""Actions of several parts against enumeration of all of them."""

import itertools
import math

import numpy as np
import pytest
import torch

from stormrl.nn.choices import Choices

SIZES = (3, 2, 4)
CHOICES = Choices(*SIZES)
EVERY = list(itertools.product(*map(range, SIZES)))


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(CHOICES.total, generator=torch.manual_seed(0))


def by_hand(logits: torch.Tensor) -> np.ndarray:
    """Probability of every action, in float64."""
    parts = np.split(logits.double().numpy(), np.cumsum(SIZES)[:-1])
    soft = [np.exp(part) / np.exp(part).sum() for part in parts]
    return np.array([math.prod(p[i] for p, i in zip(soft, parts, strict=True)) for parts in EVERY])


def test_an_action_is_the_number_whose_digits_are_its_parts() -> None:
    actions = torch.arange(len(EVERY))
    digits = torch.stack([*CHOICES.digits(actions)], -1)
    assert digits.tolist() == [list(parts) for parts in EVERY]
    assert torch.equal(CHOICES.number(digits.unbind(-1)), actions)


def test_probability_entropy_and_joint(logits: torch.Tensor) -> None:
    expected = by_hand(logits)
    log_probs = CHOICES.log_softmax(logits).expand(len(EVERY), -1)
    chosen = CHOICES.chosen(log_probs, torch.arange(len(EVERY)))
    np.testing.assert_allclose(chosen.exp().numpy(), expected, rtol=1e-5)
    entropy = float(CHOICES.entropy(CHOICES.log_softmax(logits)))
    assert entropy == pytest.approx(-(expected * np.log(expected)).sum(), rel=1e-5)
    joint = CHOICES.joint(CHOICES.softmax(logits).numpy())
    np.testing.assert_allclose(joint, expected, rtol=1e-5)
    assert CHOICES.most_entropy == pytest.approx(math.log(len(EVERY)))


def test_draws_come_as_often_as_they_should(logits: torch.Tensor) -> None:
    rows = 100_000
    noise = torch.rand(rows, *CHOICES.noise, generator=torch.manual_seed(1))
    drawn = CHOICES.draw(CHOICES.softmax(logits).expand(rows, -1), noise)
    share = np.bincount(drawn.numpy(), minlength=len(EVERY)) / rows
    np.testing.assert_allclose(share, by_hand(logits), atol=0.006)
    rng = np.random.default_rng(0)
    picked = [CHOICES.pick(CHOICES.softmax(logits).numpy(), rng) for _ in range(20_000)]
    share = np.bincount(picked, minlength=len(EVERY)) / len(picked)
    np.testing.assert_allclose(share, by_hand(logits), atol=0.012)
    assert int(CHOICES.best(logits)) == int(by_hand(logits).argmax())


def test_one_hots_and_rows_of_a_table() -> None:
    table = torch.randn(CHOICES.total, 5, generator=torch.manual_seed(2))
    actions = torch.arange(len(EVERY))
    hot = CHOICES.one_hot(actions, torch.float32)
    rows = [[np.eye(s)[i] for s, i in zip(SIZES, parts, strict=True)] for parts in EVERY]
    assert hot.tolist() == [np.concatenate(row).tolist() for row in rows]
    torch.testing.assert_close(CHOICES.embedded(actions, table), hot @ table)


def test_uniform_is_mixed_in_part_by_part(logits: torch.Tensor) -> None:
    mixed = CHOICES.mixed(CHOICES.softmax(logits), 1.0)
    equal = CHOICES.equal(logits)
    assert mixed.tolist() == equal.tolist()
    assert equal.tolist() == pytest.approx([1 / 3] * 3 + [1 / 2] * 2 + [1 / 4] * 4)
