"""Pure functions of the published equations. No parameters, no state, no random numbers."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_SAMPLING_RESOLUTION = 2**20
_SMALLEST_PROBABILITY = 1e-20
_MODE = 1e-3
"""Below this temperature a draw is the most probable class."""


def symlog(x: Tensor) -> Tensor:
    """sign(x) ln(1 + |x|), elementwise. DreamerV3 (arXiv 2301.04104), equation 1."""
    return torch.sign(x) * torch.log1p(torch.abs(x))


def symexp(x: Tensor) -> Tensor:
    """Inverse of `symlog`, elementwise."""
    return torch.sign(x) * torch.expm1(torch.abs(x))


def two_hot_position(
    x: Float[Tensor, "*n"], bins: int, low: float, high: float
) -> tuple[Int[Tensor, "*n"], Float[Tensor, "*n"]]:
    """Lower bin of each value and the weight of the bin above it; outside the range, the end bin.

    NaN has a weight of NaN, and a bin that can be read: a loss must tell of it, not an index.
    """
    scale = (bins - 1) / (high - low)
    zero, scaled = -low * scale, x * scale
    lower = (scaled + zero).floor().clamp(0, bins - 2)
    # Measured from zero, not from the lowest bin: there float32 resolves small values best.
    weight = (scaled - (lower - zero)).clamp(0, 1)
    return lower.nan_to_num().long(), weight


def two_hot_natural_position(
    x: Float[Tensor, "*n"], bins: int, high: float
) -> tuple[Int[Tensor, "*n"], Float[Tensor, "*n"]]:
    """The same where the weight is measured in natural units; bins go from -high to high.

    DreamerV3 of 2024.
    """
    lower, _ = two_hot_position(symlog(x), bins, -high, high)
    values = symexp(torch.linspace(-high, high, bins, device=x.device))
    below, above = values[lower], values[lower + 1]
    return lower, ((x - below) / (above - below)).clamp(0, 1)


def two_hot_cross_entropy(
    logits: Float[Tensor, "*n bins"], target: Float[Tensor, "*n"], low: float, high: float
) -> Float[Tensor, "*n"]:
    """Cross-entropy of a binned prediction to a value in natural units, in nats."""
    return two_hot_cross_entropies(logits, target.unsqueeze(-1), low, high).squeeze(-1)


def two_hot_cross_entropies(
    logits: Float[Tensor, "*n bins"], targets: Float[Tensor, "*n M"], low: float, high: float
) -> Float[Tensor, "*n M"]:
    """Cross-entropy of a binned prediction to each of several values in natural units, in nats.

    A target's probability lies on the two bins around its symlog.
    """
    lower, weight = two_hot_position(symlog(targets), logits.shape[-1], low, high)
    return two_hot_cross_entropies_at(logits, lower, weight)


def two_hot_cross_entropies_at(
    logits: Float[Tensor, "*n bins"], lower: Int[Tensor, "*n M"], weight: Float[Tensor, "*n M"]
) -> Float[Tensor, "*n M"]:
    """Cross-entropy of a binned prediction to several pairs of bins, in nats.

    Only their two log-probabilities are read, the 255-wide target is never built.
    """
    logits = logits.float()
    below, above = logits.gather(-1, torch.cat([lower, lower + 1], dim=-1)).chunk(2, dim=-1)
    return logits.logsumexp(-1, keepdim=True) - torch.lerp(below, above, weight)


def two_hot_mean(logits: Float[Tensor, "*n bins"], low: float, high: float) -> Float[Tensor, "*n"]:
    """Value in natural units of a binned prediction: symexp of the expected bin.

    DreamerV3 of 2023 and STORM. An unsure prediction is crushed: 100 at 5 % becomes 0.26.
    """
    centres = torch.linspace(low, high, logits.shape[-1], device=logits.device)
    # A product and a sum, not a matrix product: autocast would round the bins to bfloat16.
    return symexp((logits.float().softmax(-1) * centres).sum(-1))


def two_hot_natural_mean(logits: Float[Tensor, "*n bins"], high: float) -> Float[Tensor, "*n"]:
    """Value in natural units of a binned prediction: the expected symexp of the bin.

    DreamerV3 of 2024. Bins go from -high to high. Each is paired with its negative, so that equal
    probabilities cancel exactly: what the outermost bins stand for is larger than float32 resolves.
    """
    probs, half = logits.float().softmax(-1), logits.shape[-1] // 2
    values = symexp(torch.linspace(-high, high, logits.shape[-1], device=logits.device))
    surplus = probs[..., -half:] - probs[..., :half].flip(-1)
    return (surplus * values[-half:]).sum(-1)


def two_hot_entropies(
    target: Float[Tensor, "*n"], bins: int, low: float, high: float
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Least mean of `two_hot_cross_entropy` over these targets, in nats.

    First for a prediction that is the same everywhere (the entropy of the mean two-hot target),
    then for one that knows each target (the mean of their entropies).
    """
    return two_hot_entropies_at(*two_hot_position(symlog(target), bins, low, high), bins)


def two_hot_entropies_at(
    lower: Int[Tensor, "*n"], weight: Float[Tensor, "*n"], bins: int
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The same of pairs of bins."""
    lower, weight = lower.flatten(), weight.flatten()
    mean_target = torch.zeros(bins, device=weight.device)
    mean_target = mean_target.index_add(0, lower, 1 - weight).index_add(0, lower + 1, weight)
    ignorant = torch.special.entr(mean_target / weight.numel()).sum()
    return ignorant, (torch.special.entr(weight) + torch.special.entr(1 - weight)).mean()


def mix_uniform(probs: Float[Tensor, "*n C"], share: float) -> Float[Tensor, "*n C"]:
    """Probabilities with a share of the uniform distribution mixed in."""
    return (1 - share) * probs + share / probs.shape[-1]


def tempered(probs: Float[Tensor, "*n K C"], temperature: float) -> Float[Tensor, "*n K C"]:
    """Probabilities to the power of 1 / temperature, normalised; one-hot at temperature 0."""
    if temperature < _MODE:
        return torch.nn.functional.one_hot(probs.argmax(-1), probs.shape[-1]).to(probs.dtype)
    if temperature == 1:
        return probs
    return (log_probability(probs) / temperature).softmax(-1)


def log_probability(probs: Tensor) -> Tensor:
    """Logarithm of probabilities; finite, with gradient zero, where one has underflowed."""
    return probs.clamp(min=_SMALLEST_PROBABILITY).log()


def categorical_kl(p: Float[Tensor, "*n K C"], q: Float[Tensor, "*n K C"]) -> Float[Tensor, "*n"]:
    """KL(p || q) of K independent categoricals given as probabilities, summed, in nats."""
    return (p * (log_probability(p) - log_probability(q))).sum((-2, -1))


def categorical_entropy(log_probs: Float[Tensor, "*n C"]) -> Float[Tensor, "*n"]:
    """Entropy in nats."""
    return -(log_probs.exp() * log_probs).sum(-1)


def sample_index(probs: Float[Tensor, "*n C"], uniform: Float[Tensor, "*n"]) -> Int[Tensor, "*n"]:
    """Draw a class by inverting the cumulative distribution at a number from [0, 1).

    The cumulative sum runs over integers, so that it is exact, and the draw the same, in any order
    of summation: eagerly, compiled, captured, and in CUDA's deterministic mode.
    """
    weight = (probs * _SAMPLING_RESOLUTION).round().to(torch.int32)
    cumulative = weight.cumsum(-1, dtype=torch.int32)
    threshold = (uniform * cumulative[..., -1]).to(torch.int32)
    # Counted in 32 bits, which is the faster kernel.
    index = (cumulative <= threshold.unsqueeze(-1)).sum(-1, dtype=torch.int32)
    # Only NaN gets there: it must end in a loss that is NaN, not in an index out of range.
    return index.clamp(max=probs.shape[-1] - 1).long()


def straight_through(
    index: Int[Tensor, "*n"], probs: Float[Tensor, "*n C"]
) -> Float[Tensor, "*n C"]:
    """One-hot of `index` whose gradient is that of `probs`, and which is NaN where they are."""
    one_hot = torch.zeros_like(probs).scatter_(-1, index.unsqueeze(-1), 1.0)
    return one_hot + probs - probs.detach()


def masked_mean(x: Float[Tensor, "*n"], mask: Float[Tensor, "*n"]) -> Float[Tensor, ""]:
    """Mean of the entries whose mask is 1; zero where there are none."""
    return (x * mask).sum() / mask.sum().clamp(min=1)


def weighted_mean(x: Float[Tensor, "*n"], weight: Float[Tensor, "*n"]) -> Float[Tensor, ""]:
    """Mean over all entries of each times its weight."""
    return (x * weight).mean()


def lambda_return(
    reward: Float[Tensor, "B H"],
    value: Float[Tensor, "B H1"],
    continues: Float[Tensor, "B H"],
    gamma: float,
    lambda_: float,
    bootstrap: Literal["next", "current"] = "next",
) -> Float[Tensor, "B H"]:
    """G_t = r_t + gamma c_t ((1 - lambda) V_(t+1) + lambda G_(t+1)), with G_H = V_H.

    `bootstrap="current"` puts V_t in the place of V_(t+1), as the released code does.
    """
    horizon = reward.shape[1]
    offset = {"next": 1, "current": 0}[bootstrap]
    mixed = value[:, offset : offset + horizon]
    discount = gamma * continues
    following = value[:, horizon]
    returns = []
    for t in reversed(range(horizon)):
        following = reward[:, t] + discount[:, t] * torch.lerp(mixed[:, t], following, lambda_)
        returns.append(following)
    return torch.stack(returns[::-1], dim=1)


def generalised_advantages(
    reward: Float[Tensor, "B H"],
    value: Float[Tensor, "B H1"],
    discount: Float[Tensor, "B H"],
    lambda_: float,
) -> Float[Tensor, "B H"]:
    """A_t = r_t + d_t V_(t+1) - V_t + d_t lambda A_(t+1), with A_H = 0. GAE (arXiv 1506.02438)."""
    surprise = reward + discount * value[:, 1:] - value[:, :-1]
    following = torch.zeros_like(reward[:, 0])
    advantages = []
    for t in reversed(range(reward.shape[1])):
        following = surprise[:, t] + lambda_ * discount[:, t] * following
        advantages.append(following)
    return torch.stack(advantages[::-1], dim=1)


def products_so_far(
    discount: Float[Tensor, "B H"], restarts: Bool[Tensor, "B H"] | None = None
) -> Float[Tensor, "B H"]:
    """Product of the discounts of the steps before each; 1 at the first, and after a restart."""
    product = torch.ones_like(discount[:, 0])
    products = []
    for t in range(discount.shape[1]):
        products.append(product)
        product = product * discount[:, t]
        if restarts is not None:
            product = torch.where(restarts[:, t], 1.0, product)
    return torch.stack(products, dim=1)


def straight_line(
    first: float, last: float, begin: int, steps: int, taken: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """`first` for `begin` steps, to `last` in `steps` equal ones, then `last`.

    `first` for ever if `steps` is 0.
    """
    if steps == 0:
        return torch.full_like(taken, first)
    return first + (last - first) * ((taken - begin) / steps).clamp(0, 1)


def percentiles(x: Tensor, *shares: float) -> tuple[Float[Tensor, ""], ...]:
    """For each share the floor(share * n)-th smallest of n entries, at least the first."""
    # Sorted, for `kthvalue` is refused in CUDA's deterministic mode.
    ascending = x.flatten().sort().values
    return tuple(ascending[max(1, int(share * x.numel())) - 1] for share in shares)
