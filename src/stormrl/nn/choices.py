"""Actions of one choice or of several at once: probabilities, draws, entropies, one-hots.

Of an action of several parts, probabilities of all parts stand side by side: `A` is the sum of
their sizes. The action itself is one number, whose digits are the choices (`DiscreteSpace.parts`);
given the state, the parts are drawn independently.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from stormrl.nn.functional import categorical_entropy, mix_uniform, sample_index

Parts: TypeAlias = Any
"""A tensor for each part, in a tuple. Not said to tests' checker, which draws a member to look at
from the random numbers that a run keeps."""


class Choices:
    """The parts of an action, `sizes[p]` possibilities each."""

    def __init__(self, *sizes: int) -> None:
        self.sizes = sizes
        self.total = sum(sizes)
        """Length A of what describes them all."""
        self.most_entropy = sum(map(math.log, sizes))
        """Of choices that are all as likely, in nats."""

    @property
    def noise(self) -> torch.Size:
        """Numbers that one draw takes: a scalar for one choice, else one for each part."""
        return torch.Size([] if len(self.sizes) == 1 else [len(self.sizes)])

    def softmax(self, logits: Float[Tensor, "*n A"]) -> Float[Tensor, "*n A"]:
        """Probabilities of logits."""
        return self._each(lambda part: part.softmax(-1), logits)

    def log_softmax(self, logits: Float[Tensor, "*n A"]) -> Float[Tensor, "*n A"]:
        """Log-probabilities of logits."""
        return self._each(lambda part: part.log_softmax(-1), logits)

    def mixed(self, probs: Float[Tensor, "*n A"], share: float) -> Float[Tensor, "*n A"]:
        """Probabilities with a share of the uniform distribution mixed in."""
        return self._each(lambda part: mix_uniform(part, share), probs)

    def equal(self, like: Float[Tensor, "*n A"]) -> Float[Tensor, "*n A"]:
        """All choices as likely."""
        return self._each(lambda part: torch.full_like(part, 1 / part.shape[-1]), like)

    def draw(self, probs: Float[Tensor, "*n A"], noise: Float[Tensor, "..."]) -> Int[Tensor, "*n"]:
        """An action of these probabilities; noise [*n, *self.noise] from [0, 1)."""
        if len(self.sizes) == 1:
            return sample_index(probs, noise)
        drawn = zip(probs.split(self.sizes, -1), noise.unbind(-1), strict=True)
        return self.number([sample_index(part, uniform) for part, uniform in drawn])

    def pick(self, probs: np.ndarray, rng: np.random.Generator) -> int:
        """An action of these probabilities, float [A]."""
        action, before = 0, 0
        for size in self.sizes:
            part = probs[before : before + size]
            action = action * size + int(rng.choice(size, p=part / part.sum()))
            before += size
        return action

    def joint(self, probs: np.ndarray) -> np.ndarray:
        """Probability of every action, float [prod(sizes)]: of few actions, for eyes."""
        parts = np.split(probs, np.cumsum(self.sizes)[:-1])
        return reduce(lambda before, part: np.multiply.outer(before, part).ravel(), parts)

    def best(self, scores: Float[Tensor, "*n A"]) -> Int[Tensor, "*n"]:
        """The action of the highest score in every part."""
        if len(self.sizes) == 1:
            return scores.argmax(-1)
        return self.number([part.argmax(-1) for part in scores.split(self.sizes, -1)])

    def chosen(
        self, log_probs: Float[Tensor, "*n A"], action: Int[Tensor, "*n"]
    ) -> Float[Tensor, "*n"]:
        """Log-probability of an action: the sum over its parts."""
        parts = zip(self._split(log_probs), self.digits(action), strict=True)
        taken = [part.gather(-1, digit.unsqueeze(-1)).squeeze(-1) for part, digit in parts]
        return reduce(torch.add, taken)

    def entropy(self, log_probs: Float[Tensor, "*n A"]) -> Float[Tensor, "*n"]:
        """Of independent parts it is the sum of theirs, in nats."""
        return reduce(torch.add, map(categorical_entropy, self._split(log_probs)))

    def one_hot(self, action: Int[Tensor, "*n"], dtype: torch.dtype) -> Float[Tensor, "*n A"]:
        """One-hots of the parts, side by side."""
        # Compared, not scattered: the compiler of PyTorch 2.11 makes float32 of what is scattered.
        hot = [
            digit.unsqueeze(-1) == torch.arange(size, device=action.device)
            for digit, size in zip(self.digits(action), self.sizes, strict=True)
        ]
        return (hot[0] if len(hot) == 1 else torch.cat(hot, -1)).to(dtype)

    def embedded(
        self, action: Int[Tensor, "*n"], table: Float[Tensor, "A D"]
    ) -> Float[Tensor, "*n D"]:
        """Product of `one_hot` and a table: the sum of a row for each part."""
        rows, before = [], 0
        for digit, size in zip(self.digits(action), self.sizes, strict=True):
            rows.append(F.embedding(digit + before if before else digit, table))
            before += size
        return reduce(torch.add, rows)

    def digits(self, action: Int[Tensor, "*n"]) -> Parts:
        """The choices that an action is made of."""
        if len(self.sizes) == 1:
            return (action,)
        digits = []
        for size in reversed(self.sizes):
            digits.append(action % size)
            action = action.div(size, rounding_mode="floor")
        return tuple(reversed(digits))

    def number(self, digits: Iterable[Int[Tensor, "*n"]]) -> Int[Tensor, "*n"]:
        """The action that is made of these choices."""
        first, *rest = digits
        for digit, size in zip(rest, self.sizes[1:], strict=True):
            first = first * size + digit
        return first

    def _split(self, x: Tensor) -> Parts:
        return (x,) if len(self.sizes) == 1 else x.split(self.sizes, -1)

    def _each(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        if len(self.sizes) == 1:
            return function(x)
        return torch.cat([function(part) for part in self._split(x)], -1)
