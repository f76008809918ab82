"""Every function against plain float64 NumPy, written from the published equations alone."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from torch import Tensor

from stormrl.nn import functional as fn

LOW, HIGH, BINS = -20.0, 20.0, 255
EDGES = np.linspace(LOW, HIGH, BINS)

seeds = st.integers(0, 2**32 - 1)
rewards = st.floats(-1e5, 1e5, width=32)


def close(ours: Tensor, expected: object, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(
        ours.double().numpy(), np.asarray(expected), rtol=tolerance, atol=tolerance
    )


def random_probs(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Probabilities from nearly uniform to nearly one-hot, exact in float32."""
    weights = np.exp(rng.normal(scale=rng.uniform(0, 4), size=shape))
    return (weights / weights.sum(-1, keepdims=True)).astype(np.float32)


def symlog_of(x: float) -> float:
    return math.copysign(math.log(1 + abs(x)), x)


def two_hot_of(value: float) -> np.ndarray:
    """Probability on the two bins around a value in symlog units."""
    target = np.zeros(BINS)
    value = min(max(value, LOW), HIGH)
    above = int(np.searchsorted(EDGES, value))
    if EDGES[above] == value:
        target[above] = 1.0
        return target
    width = EDGES[above] - EDGES[above - 1]
    target[above] = (value - EDGES[above - 1]) / width
    target[above - 1] = (EDGES[above] - value) / width
    return target


def log_softmax_of(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


@given(rewards)
def test_symlog(x: float) -> None:
    close(fn.symlog(torch.tensor(x)), symlog_of(x))


@given(st.floats(-15, 15, width=32))
def test_symexp(x: float) -> None:
    close(fn.symexp(torch.tensor(x)), math.copysign(math.exp(abs(x)) - 1, x))


def test_symlog_by_hand() -> None:
    close(fn.symlog(torch.tensor([0.0, math.e - 1, 1 - math.e, 9.0])), [0, 1, -1, math.log(10)])


@given(rewards, seeds)
def test_two_hot_cross_entropy(x: float, seed: int) -> None:
    logits = np.random.default_rng(seed).normal(size=BINS).astype(np.float32)
    expected = -(two_hot_of(symlog_of(x)) * log_softmax_of(logits)).sum()
    close(fn.two_hot_cross_entropy(torch.from_numpy(logits), torch.tensor(x), LOW, HIGH), expected)


@given(seeds)
def test_two_hot_mean(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=3, size=(4, BINS)).astype(np.float32)
    mean = (np.exp(log_softmax_of(logits)) * EDGES).sum(-1)
    expected = np.sign(mean) * (np.exp(np.abs(mean)) - 1)
    close(fn.two_hot_mean(torch.from_numpy(logits), LOW, HIGH), expected, 1e-4)


@given(seeds)
def test_two_hot_natural_mean(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=3, size=(4, BINS))
    values = np.sign(EDGES) * np.expm1(np.abs(EDGES))
    probs = np.exp(log_softmax_of(logits))
    # In pairs, as large numbers that cancel must not leave their rounding behind.
    expected = ((probs[:, :127:-1] - probs[:, :127]) * values[:127:-1]).sum(-1)
    close(fn.two_hot_natural_mean(torch.from_numpy(logits), HIGH), expected, 1e-3)


@pytest.mark.parametrize("bins", [255, 8])
def test_a_uniform_prediction_is_zero_in_natural_units(bins: int) -> None:
    assert float(fn.two_hot_natural_mean(torch.full((bins,), 0.3), HIGH)) == 0.0


def test_an_unsure_prediction_is_not_crushed_in_natural_units() -> None:
    """100 with a probability of 5 %, else 0."""
    centre = fn.symlog(torch.tensor(100.0))
    logits = torch.tensor([1e-30, 1e-30, 0.95, 1e-30, 0.05]).log()
    close(fn.two_hot_natural_mean(logits, float(centre)), 5.0, 1e-4)
    close(fn.two_hot_mean(logits, -float(centre), float(centre)), 101**0.05 - 1, 1e-4)


@given(st.floats(-1e4, 1e4, width=32))
def test_two_hot_round_trip(x: float) -> None:
    lower, weight = fn.two_hot_position(fn.symlog(torch.tensor(x)), BINS, LOW, HIGH)
    probs = torch.zeros(BINS)
    probs[lower], probs[lower + 1] = 1 - weight, weight
    close(fn.two_hot_mean((probs + 1e-30).log(), LOW, HIGH), x, 1e-4)


@pytest.mark.parametrize("index", [0, 1, 127, 253, 254])
def test_two_hot_at_a_bin_is_one_hot(index: int) -> None:
    lower, weight = fn.two_hot_position(torch.tensor(EDGES[index]).float(), BINS, LOW, HIGH)
    assert float(lower + weight) == pytest.approx(index, abs=1e-5)


@pytest.mark.parametrize(
    ("value", "lower", "weight"),
    [
        (0.0, 127, 0.0),
        (20.0, 253, 1.0),
        (-20.0, 0, 0.0),
        (25.0, 253, 1.0),
        (-1e30, 0, 0.0),
        (math.inf, 253, 1.0),
        (20 / 254, 127, 0.5),  # half a bin above zero
    ],
)
def test_two_hot_by_hand(value: float, lower: int, weight: float) -> None:
    bin_, share = fn.two_hot_position(torch.tensor(value), BINS, LOW, HIGH)
    assert int(bin_) == lower
    assert float(share) == pytest.approx(weight, abs=1e-6)


@given(st.lists(rewards, min_size=1, max_size=8))
def test_two_hot_entropies(values: list[float]) -> None:
    targets = np.stack([two_hot_of(symlog_of(value)) for value in values])

    def entropy(probs: np.ndarray) -> np.ndarray:
        return -(probs * np.log(np.maximum(probs, 1e-20))).sum(-1)

    ignorant, perfect = fn.two_hot_entropies(torch.tensor(values), BINS, LOW, HIGH)
    close(ignorant, entropy(targets.mean(0)), 1e-3)
    close(perfect, entropy(targets).mean(), 1e-3)


def test_two_hot_of_three_bins_by_hand() -> None:
    # Bins -1, 0, 1; symlog(e^0.25 - 1) = 0.25, so a quarter lies on the last bin.
    logits = torch.log(torch.tensor([0.2, 0.3, 0.5]))
    loss = fn.two_hot_cross_entropy(logits, torch.tensor(math.exp(0.25) - 1), -1.0, 1.0)
    close(loss, -(0.75 * math.log(0.3) + 0.25 * math.log(0.5)))
    close(fn.two_hot_mean(logits, -1.0, 1.0), math.exp(0.3) - 1)


def test_several_targets_of_one_prediction() -> None:
    logits, targets = torch.randn(3, 4, BINS), 30 * torch.randn(3, 4, 2)
    losses = fn.two_hot_cross_entropies(logits, targets, LOW, HIGH)
    for target, loss in zip(targets.unbind(-1), losses.unbind(-1), strict=True):
        close(loss, fn.two_hot_cross_entropy(logits, target, LOW, HIGH))


def test_a_value_of_nan_gives_a_loss_of_nan() -> None:
    target = torch.tensor([math.nan, 0.0])
    loss = fn.two_hot_cross_entropy(torch.zeros(2, BINS), target, LOW, HIGH)
    assert loss.isnan().tolist() == [True, False]


@given(seeds, st.floats(0, 1))
def test_mix_uniform(seed: int, share: float) -> None:
    probs = random_probs(np.random.default_rng(seed), 3, 7)
    expected = share / 7 + (1 - share) * probs.astype(np.float64)
    close(fn.mix_uniform(torch.from_numpy(probs), share), expected)


@given(seeds)
def test_categorical_kl(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, q = random_probs(rng, 2, 3, 4, 5), random_probs(rng, 2, 3, 4, 5)
    p64, q64 = p.astype(np.float64), q.astype(np.float64)
    expected = (p64 * np.log(p64 / q64)).sum(-1).sum(-1)
    close(fn.categorical_kl(torch.from_numpy(p), torch.from_numpy(q)), expected)


@given(seeds)
def test_kl_of_equal_distributions_is_zero(seed: int) -> None:
    p = torch.from_numpy(random_probs(np.random.default_rng(seed), 3, 4, 5))
    assert fn.categorical_kl(p, p).tolist() == [0.0] * 3


def test_kl_by_hand() -> None:
    p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.25, 0.75]])
    close(fn.categorical_kl(p, q), 0.5 * math.log(2) + 0.5 * math.log(2 / 3))


def test_kl_of_underflowed_probabilities_is_finite() -> None:
    one_hot = torch.tensor([[1.0, 0.0]], requires_grad=True)
    kl = fn.categorical_kl(one_hot, torch.tensor([[0.0, 1.0]]))
    kl.backward()
    assert kl.isfinite()
    assert one_hot.grad is not None
    assert one_hot.grad.isfinite().all()
    assert float(fn.categorical_kl(one_hot, one_hot).detach()) == 0


@given(seeds)
def test_categorical_entropy(seed: int) -> None:
    probs = random_probs(np.random.default_rng(seed), 3, 6)
    p64 = probs.astype(np.float64)
    close(fn.categorical_entropy(torch.from_numpy(probs).log()), -(p64 * np.log(p64)).sum(-1))


def test_entropy_of_a_uniform_choice_is_its_log_count() -> None:
    close(fn.categorical_entropy(torch.full((6,), -math.log(6))), math.log(6))


@given(seeds, st.integers(0, 2**20 - 1))
def test_sample_index_inverts_the_cumulative_distribution(seed: int, step: int) -> None:
    """Up to the resolution of 2^-20 in which probabilities are counted."""
    probs = random_probs(np.random.default_rng(seed), 8)
    uniform = (step + 0.5) / 2**20
    index = int(fn.sample_index(torch.from_numpy(probs), torch.tensor(uniform)))
    cumulative = np.concatenate([[0.0], probs.astype(np.float64).cumsum()])
    slack = 2 * 8 / 2**20
    assert cumulative[index] - slack <= uniform <= cumulative[index + 1] + slack


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-24])
@pytest.mark.parametrize("classes", [1, 2, 7, 32])
def test_sample_index_of_a_certain_class(uniform: float, classes: int) -> None:
    probs = torch.eye(classes)
    drawn = fn.sample_index(probs, torch.full((classes,), uniform))
    assert drawn.tolist() == list(range(classes))


@given(seeds, st.sampled_from([0.0, 1 - 2**-24]))
def test_sample_index_at_the_edges_stays_among_possible_classes(seed: int, uniform: float) -> None:
    probs = random_probs(np.random.default_rng(seed), 9)
    probs[[0, 8]] = 0
    index = int(fn.sample_index(torch.from_numpy(probs / probs.sum()), torch.tensor(uniform)))
    assert 1 <= index <= 7


def test_sample_index_frequencies() -> None:
    probs = torch.tensor([0.1, 0.0, 0.65, 0.25])
    draws = 200_000
    index = fn.sample_index(probs.expand(draws, 4), torch.rand(draws))
    share = torch.bincount(index, minlength=4) / draws
    deviation = (probs * (1 - probs) / draws).sqrt()
    assert ((share - probs).abs() <= 4 * deviation).all()


def test_sample_index_of_nan_is_a_class() -> None:
    assert 0 <= int(fn.sample_index(torch.full((5,), math.nan), torch.tensor(0.3))) < 5


@given(seeds)
def test_straight_through(seed: int) -> None:
    rng = np.random.default_rng(seed)
    probs = torch.from_numpy(random_probs(rng, 4, 5)).requires_grad_()
    index = torch.from_numpy(rng.integers(5, size=4))
    weight = torch.from_numpy(rng.normal(size=(4, 5)).astype(np.float32))
    drawn = fn.straight_through(index, probs)
    close(drawn.detach(), np.eye(5)[index.numpy()], 1e-6)
    (drawn * weight).sum().backward()
    assert probs.grad is not None
    assert torch.equal(probs.grad, weight)


@given(seeds)
def test_masked_mean(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(3, 5)).astype(np.float32)
    mask = rng.integers(2, size=(3, 5))
    kept = [float(v) for v, m in zip(x.flat, mask.flat, strict=True) if m]
    expected = sum(kept) / len(kept) if kept else 0.0
    close(fn.masked_mean(torch.from_numpy(x), torch.from_numpy(mask).float()), expected)


def test_masked_mean_of_nothing_is_zero() -> None:
    assert float(fn.masked_mean(torch.ones(4), torch.zeros(4))) == 0


def lambda_return_of(
    reward: np.ndarray,
    value: np.ndarray,
    continues: np.ndarray,
    gamma: float,
    lambda_: float,
    offset: int,
) -> np.ndarray:
    horizon = len(reward)
    returns = np.zeros(horizon + 1)
    returns[horizon] = value[horizon]
    for t in range(horizon - 1, -1, -1):
        mixed = (1 - lambda_) * value[t + offset] + lambda_ * returns[t + 1]
        returns[t] = reward[t] + gamma * continues[t] * mixed
    return returns[:horizon]


@given(seeds, st.integers(1, 16), st.floats(0, 1), st.floats(0, 1))
def test_lambda_return(seed: int, horizon: int, gamma: float, lambda_: float) -> None:
    rng = np.random.default_rng(seed)
    reward = rng.normal(size=(2, horizon)).astype(np.float32)
    value = rng.normal(size=(2, horizon + 1)).astype(np.float32)
    continues = rng.uniform(size=(2, horizon)).astype(np.float32)
    tensors = (torch.from_numpy(reward), torch.from_numpy(value), torch.from_numpy(continues))
    rows = list(zip(reward, value, continues, strict=True))
    expected = [lambda_return_of(*row, gamma, lambda_, offset=1) for row in rows]
    close(fn.lambda_return(*tensors, gamma, lambda_), expected)
    expected = [lambda_return_of(*row, gamma, lambda_, offset=0) for row in rows]
    close(fn.lambda_return(*tensors, gamma, lambda_, "current"), expected)


def test_lambda_return_by_hand() -> None:
    reward = torch.tensor([[1.0, 2.0, 3.0]])
    value = torch.tensor([[10.0, 20.0, 30.0, 40.0]])
    goes_on = torch.tensor([[1.0, 1.0, 1.0]])
    # G_2 = 3 + 0.5 (0.5 * 40 + 0.5 * 40) = 23
    # G_1 = 2 + 0.5 (0.5 * 30 + 0.5 * 23) = 15.25
    # G_0 = 1 + 0.5 (0.5 * 20 + 0.5 * 15.25) = 9.8125
    close(fn.lambda_return(reward, value, goes_on, 0.5, 0.5, "next"), [[9.8125, 15.25, 23.0]])
    # G_2 = 3 + 0.5 (0.5 * 30 + 0.5 * 40) = 20.5
    # G_1 = 2 + 0.5 (0.5 * 20 + 0.5 * 20.5) = 12.125
    # G_0 = 1 + 0.5 (0.5 * 10 + 0.5 * 12.125) = 6.53125
    close(fn.lambda_return(reward, value, goes_on, 0.5, 0.5, "current"), [[6.53125, 12.125, 20.5]])


@pytest.mark.parametrize("bootstrap", ["next", "current"])
def test_lambda_return_ends_with_the_episode(bootstrap) -> None:
    reward = torch.tensor([[1.0, 2.0, 3.0]])
    value = torch.full((1, 4), 100.0)
    ended = torch.tensor([[1.0, 0.0, 1.0]])
    returns = fn.lambda_return(reward, value, ended, 0.5, 1.0, bootstrap)
    close(returns[:, :2], [[1 + 0.5 * 2, 2]])


@given(seeds, st.integers(1, 300), st.floats(0.01, 1))
def test_percentile(seed: int, count: int, share: float) -> None:
    x = np.random.default_rng(seed).normal(size=count).astype(np.float32)
    rank = max(1, math.floor(share * count))
    (found,) = fn.percentiles(torch.from_numpy(x), share)
    assert float(found) == sorted(x.tolist())[rank - 1]


def test_percentile_range_ignores_one_outlier() -> None:
    """Of 0, 1, .., 99 the 5th smallest is 4 and the 95th is 94, however large the largest is."""
    returns = torch.arange(100.0)
    returns[99] = 1e9
    shuffled = returns[torch.randperm(100)].view(4, 25)
    assert [float(p) for p in fn.percentiles(shuffled, 0.05, 0.95)] == [4, 94]


@given(
    st.floats(0, 10),
    st.floats(0, 10),
    st.integers(0, 1000),
    st.integers(1, 1000),
    st.integers(0, 3000),
)
def test_straight_line(first: float, last: float, begin: int, steps: int, taken: int) -> None:
    share = min(1.0, max(0, taken - begin) / steps)
    ours = fn.straight_line(first, last, begin, steps, torch.tensor(float(taken)))
    close(ours, (1 - share) * first + share * last)


def test_a_straight_line_of_no_steps_stays_where_it_begins() -> None:
    close(fn.straight_line(0.3, 0.1, 2, 0, torch.tensor(5.0)), 0.3)
