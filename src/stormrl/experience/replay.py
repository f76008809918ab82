"""Replay buffer: a ring of single steps on the training device, sampled there in windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from stormrl.errors import UserError
from stormrl.experience.samplers import balanced_starts
from stormrl.spaces import ObservationSpace
from stormrl.types import Batch, channels_first, channels_last


class Transition(NamedTuple):
    """One environment step: what was seen, done, and what followed."""

    obs: np.ndarray
    """uint8 [height, width, channels], or float32 [V]"""
    action: int
    reward: float
    continues: bool
    """False where the episode ended for the learner: game over or, by protocol, a lost life."""
    is_first: bool
    """True right after a reset."""


def final(obs: np.ndarray) -> Transition:
    """The row of what an episode ended with; how it ended stands in the row before."""
    return Transition(obs, action=0, reward=0.0, continues=True, is_first=False)


class Replay:
    """Uniform windows over a stream of steps; no window joins the newest step to the oldest.

    Images lie channels-last in memory, as convolutions like them, and are seen as
    [.., channels, height, width].
    """

    def __init__(
        self,
        capacity: int,
        shape: Sequence[int],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.uint8,
    ) -> None:
        """shape, dtype: of one observation, as environments show it."""
        self.capacity = capacity
        self.device = torch.device(device)
        self.obs = torch.empty((capacity, *shape), dtype=dtype, device=device)
        self.action = torch.zeros(capacity, dtype=torch.int64, device=device)
        self.reward = torch.zeros(capacity, device=device)
        self.continues = torch.ones(capacity, device=device)
        self.is_first = torch.zeros(capacity, dtype=torch.bool, device=device)
        self.visits = torch.zeros(capacity, dtype=torch.int64, device=device)
        """How often `sample_balanced` has drawn the window that begins with each step."""
        self.added = 0
        # Slot of the oldest step, number of steps, and of those that were overwritten, on the
        # device: sampling never waits for the host.
        self._oldest = torch.zeros((), dtype=torch.int64, device=device)
        self._lost = torch.zeros((), dtype=torch.int64, device=device)
        self._size = torch.zeros((), dtype=torch.int64, device=device)

    @classmethod
    def of(cls, capacity: int, seen: ObservationSpace, device: torch.device | str = "cpu") -> Self:
        """An empty one for what is seen in an environment."""
        return cls(capacity, seen.shape, device, getattr(torch, seen.dtype))

    def __len__(self) -> int:
        return min(self.added, self.capacity)

    def add(self, step: Transition) -> None:
        """Append one step; overwrites the oldest once the ring is full."""
        slot = self.added % self.capacity
        self.obs[slot] = torch.from_numpy(np.ascontiguousarray(step.obs)).to(self.device)
        self.action[slot] = step.action
        self.reward[slot] = step.reward
        self.continues[slot] = float(step.continues)
        self.is_first[slot] = step.is_first
        self.visits[slot] = 0
        self.moved_to(self.added + 1)

    def moved_to(self, added: int) -> None:
        """Set how many steps were ever added, as `add` and a restored checkpoint do."""
        self.added = added
        self._size.fill_(len(self))
        self._lost.fill_(added - len(self))
        self._oldest.fill_(added % self.capacity if added > self.capacity else 0)

    def check_actions(self, count: int) -> None:
        """Raises `UserError` if one of the steps that were read holds an action that is none."""
        action = self.action[: len(self)]
        if bool(((action < 0) | (action >= count)).any()):
            raise UserError("replay", f"holds other actions than 0 to {count - 1}; start a new run")

    def sample(self, windows: int, length: int, rewarded: int = 0) -> Batch:
        """`windows` drawn stretches of `length` successive steps (with replacement).

        The first `rewarded` of them hold a step with a reward, which is drawn uniformly among all
        such steps and stands anywhere in its window; without such steps they are drawn as the
        others are, uniformly. Raises `UserError` if fewer than `length` steps are stored.
        """
        if len(self) < length:
            raise UserError("replay", f"holds {len(self)} steps, fewer than a window of {length}")
        uniform = torch.rand(windows, device=self.device, dtype=torch.float64)
        start = (uniform * (self._size - length + 1)).long()
        if rewarded:
            start[:rewarded] = self._around_rewards(start[:rewarded], length)
        return self.windows(start, length)

    def sample_balanced(self, windows: int, length: int, temperature: float) -> Batch:
        """The same, but no stretch twice, and rather those that were drawn less often.

        Each is drawn with the probability of the softmax of -visits / temperature (TWM). Raises
        `UserError` if fewer than `windows` such stretches are stored.
        """
        if len(self) - length + 1 < windows:
            remedy = f"fewer than {windows} windows of {length}; raise replay.warmup"
            raise UserError("replay", f"holds {len(self)} steps, {remedy}")
        start = balanced_starts(
            self.visits, self._oldest, self._size - length, windows, temperature
        )
        self.visits[(self._oldest + start) % self.capacity] += 1
        return self.windows(start, length)

    def _around_rewards(self, start: Int[Tensor, " B"], length: int) -> Int[Tensor, " B"]:
        """Starts of windows that hold a step with a reward; `start` if there is no such step."""
        count = (self.reward != 0).cumsum(0)
        which, offset = torch.rand(2, len(start), device=self.device, dtype=torch.float64)
        # The n-th step with a reward is where the count first exceeds n.
        slot = torch.searchsorted(count, (which * count[-1]).long(), right=True)
        age = (slot - self._oldest) % self.capacity
        around = (age - (offset * length).long()).clamp(min=0)
        around = torch.minimum(around, self._size - length)
        return torch.where(count[-1] > 0, around, start)

    def latest(self, windows: int, length: int) -> Batch:
        """The newest `windows` stretches of `length` steps that do not overlap, oldest first.

        Raises `UserError` if there are not so many steps.
        """
        if len(self) < windows * length:
            raise UserError("replay", f"holds {len(self)} steps, fewer than {windows} x {length}")
        back = torch.arange(windows, 0, -1, device=self.device)
        return self.windows(len(self) - back * length, length)

    def windows(self, start: Int[Tensor, " B"], length: int) -> Batch:
        """Stretches that begin `start` steps after the oldest stored step."""
        offsets = torch.arange(length, device=self.device)
        age = start[:, None] + offsets
        index = (self._oldest + age) % self.capacity
        # Whole steps at a time: indexing would go pixel by pixel.
        obs = self.obs.index_select(0, index.flatten()).unflatten(0, index.shape)
        return Batch(
            obs=channels_first(obs),
            action=self.action[index],
            reward=self.reward[index],
            continues=self.continues[index],
            is_first=self.is_first[index],
            row=self._lost + age,
        )


def joined(own: Batch, foreign: Batch) -> Batch:
    """The windows of both, one after the other; the second's are of somebody else's experience."""
    foreign = foreign._replace(row=torch.full_like(foreign.row, -1))
    # Joined where they lie channels-last, and seen as before.
    seen = torch.cat([channels_last(batch.obs) for batch in (own, foreign)])
    others = (torch.cat(pair) for pair in zip(own[1:], foreign[1:], strict=True))
    return Batch(channels_first(seen), *others)
