"""Replay, filled with a stream that counts."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import assume, given

from stormrl.errors import UserError
from stormrl.experience.replay import Replay, Transition

SHAPE = (2, 3, 1)


def step_of(number: int) -> Transition:
    return Transition(
        obs=np.full(SHAPE, number % 256, np.uint8),
        action=number % 5,
        reward=float(number),
        continues=number % 3 > 0,
        is_first=number % 7 == 0,
    )


def replay_of(capacity: int, steps: int) -> Replay:
    replay = Replay(capacity, SHAPE)
    for number in range(steps):
        replay.add(step_of(number))
    return replay


def check_batch(replay: Replay, batch, length: int) -> None:
    """Every window is a stretch of the stream, among what is stored, in every field."""
    assert batch.obs.dtype == torch.uint8
    assert batch.obs.shape[1:] == (length, 1, 2, 3)
    oldest = max(0, replay.added - replay.capacity)
    for row in range(len(batch.action)):
        numbers = batch.reward[row].long().tolist()
        assert numbers == list(range(numbers[0], numbers[0] + length))
        assert oldest <= numbers[0]
        assert numbers[-1] < replay.added
        for t, number in enumerate(numbers):
            assert set(batch.obs[row, t].flatten().tolist()) == {number % 256}
            assert int(batch.action[row, t]) == number % 5
            assert float(batch.continues[row, t]) == float(number % 3 > 0)
            assert bool(batch.is_first[row, t]) == (number % 7 == 0)


@given(st.integers(1, 12), st.integers(1, 40), st.integers(1, 6))
def test_windows_never_cross_the_write_head(capacity: int, steps: int, length: int) -> None:
    assume(length <= min(capacity, steps))
    replay = replay_of(capacity, steps)
    assert len(replay) == min(capacity, steps)
    check_batch(replay, replay.sample(8, length), length)


@pytest.mark.parametrize("steps", [9, 10, 11, 23])
def test_every_start_is_reached_equally_often(steps: int) -> None:
    """Before the ring is full, when it just is, and after it went round."""
    replay, length, draws = replay_of(10, steps), 4, 20_000
    starts = replay.sample(draws, length).reward[:, 0].long()
    oldest = max(0, steps - 10)
    counts = torch.bincount(starts - oldest)
    possible = len(replay) - length + 1
    assert len(counts) == possible
    expected = draws / possible
    chi_squared = float(((counts - expected) ** 2 / expected).sum())
    assert chi_squared < possible + 5 * (2 * possible) ** 0.5


@pytest.mark.parametrize("steps", [8, 25])
def test_windows_around_rewards_hold_one_of_them_anywhere(steps: int) -> None:
    """Rewards at the second and the last but one step that are held; the ring wraps around."""
    replay, length, draws = replay_of(10, steps), 4, 20_000
    held = min(steps, 10)
    rewarded = [steps - held + 1, steps - 2]
    replay.reward.zero_()
    replay.obs.zero_()
    for number in range(steps - held, steps):
        replay.obs[number % 10] = number  # Which step it is; rewards do not say it any more.
    for number in rewarded:
        replay.reward[number % 10] = 1.0
    windows = replay.sample(draws, length, rewarded=draws // 2)
    around, uniform = windows.reward.split(draws // 2)
    assert int(around.sum(1).min()) >= 1
    starts = torch.bincount(windows.obs[: draws // 2, 0, 0, 0, 0] - (steps - held))
    possible = held - length + 1
    # Around the first: 0 or 1, as it is the second step; around the last but one: the last three.
    expected = torch.zeros(possible)
    for age in (1, held - 2):
        for offset in range(length):
            expected[min(max(age - offset, 0), possible - 1)] += draws / 2 / 2 / length
    assert torch.equal(starts > 0, expected > 0)
    assert float(((starts - expected) ** 2 / expected.clamp(min=1)).sum()) < 30
    assert int(uniform.sum(1).min()) == 0


def test_without_rewards_windows_around_them_are_uniform() -> None:
    replay = replay_of(10, 8)
    replay.reward.zero_()
    starts = replay.sample(4000, 4, rewarded=4000).obs[:, 0, 0, 0, 0]
    assert torch.bincount(starts).min() > 700


def test_one_window_may_hold_all_there_is() -> None:
    replay = replay_of(5, 12)
    assert replay.sample(1, 5).reward.tolist() == [[7, 8, 9, 10, 11]]


def test_windows_begin_after_the_oldest_step() -> None:
    replay = replay_of(5, 12)
    windows = replay.windows(torch.tensor([0, 3]), 2)
    assert windows.reward.tolist() == [[7, 8], [10, 11]]


def test_latest_windows_do_not_overlap_and_end_with_the_newest_step() -> None:
    replay = replay_of(7, 12)
    assert replay.latest(2, 3).reward.tolist() == [[6, 7, 8], [9, 10, 11]]


@pytest.mark.parametrize("ask", ["sample", "latest"])
def test_too_few_steps_are_refused(ask: str) -> None:
    with pytest.raises(UserError, match="holds 3 steps"):
        getattr(replay_of(9, 3), ask)(1, 4)


def test_a_refilled_ring_goes_on_where_the_other_stood() -> None:
    """As a restored run does: the arrays copied, the count set."""
    replay = replay_of(6, 14)
    other = Replay(6, SHAPE)
    for name in ("obs", "action", "reward", "continues", "is_first"):
        getattr(other, name).copy_(getattr(replay, name))
    other.moved_to(14)
    for number in range(14, 18):
        replay.add(step_of(number))
        other.add(step_of(number))
        assert other.windows(torch.tensor([0]), 6).reward.equal(
            replay.windows(torch.tensor([0]), 6).reward
        )


def test_an_added_image_is_copied() -> None:
    replay, step = Replay(4, SHAPE), step_of(3)
    replay.add(step)
    step.obs[:] = 0
    assert set(replay.sample(1, 1).obs.flatten().tolist()) == {3}


def test_images_with_reversed_rows_are_stored_as_seen() -> None:
    replay = Replay(4, SHAPE)
    image = np.arange(6, dtype=np.uint8).reshape(SHAPE)
    replay.add(step_of(0)._replace(obs=image[::-1]))
    assert replay.sample(1, 1).obs[0, 0, 0].tolist() == [[3, 4, 5], [0, 1, 2]]
