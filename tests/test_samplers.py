"""Windows that are drawn by how often they were drawn before."""

import math
from collections import Counter
from itertools import permutations

import pytest
import torch

from miniature import filled_replay
from stormrl.errors import UserError
from stormrl.experience.replay import Replay, Transition
from stormrl.experience.samplers import balanced_starts


def test_draws_follow_the_softmax_of_the_visits_without_replacement() -> None:
    """Of ordered pairs: the first by its share, the second by its share of the rest."""
    torch.manual_seed(0)
    visits, oldest, newest = torch.tensor([0, 30, 10, 99]), torch.tensor(1), torch.tensor(3)
    shares = [math.exp(-count / 20) for count in (30, 10, 99, 0)]  # From the oldest on.
    rounds = 10_000
    drawn = Counter(
        tuple(balanced_starts(visits, oldest, newest, 2, 20.0).tolist()) for _ in range(rounds)
    )
    assert all(first != second for first, second in drawn)
    for first, second in permutations(range(4), 2):
        rest = sum(shares) - shares[first]
        probability = shares[first] / sum(shares) * shares[second] / rest
        deviation = math.sqrt(probability * (1 - probability) / rounds)
        found = drawn[first, second] / rounds
        assert found == pytest.approx(probability, abs=5 * deviation)


def test_only_whole_windows_are_drawn() -> None:
    visits = torch.zeros(10, dtype=torch.int64)
    starts = balanced_starts(visits, torch.tensor(7), torch.tensor(4), 5, 20.0)
    assert sorted(starts.tolist()) == [0, 1, 2, 3, 4]


def test_every_window_gets_its_turn() -> None:
    """With a temperature near zero none is drawn twice before all were drawn once."""
    replay = filled_replay()
    seen = Counter[int]()
    for _ in range(9):
        seen.update(replay.sample_balanced(4, 5, 1e-3).row[:, 0].tolist())
    assert seen == Counter(range(36))
    assert replay.visits[:36].tolist() == [1] * 36


def test_a_new_step_was_never_drawn() -> None:
    replay = Replay(8, (64, 64, 3))
    step = Transition(torch.zeros(64, 64, 3, dtype=torch.uint8).numpy(), 0, 0.0, True, False)
    for _ in range(8):
        replay.add(step)
    replay.sample_balanced(6, 3, 20.0)
    replay.add(step)
    assert replay.visits.tolist() == [0, 1, 1, 1, 1, 1, 0, 0]


def test_too_few_windows_are_refused() -> None:
    with pytest.raises(UserError, match="fewer than 37 windows"):
        filled_replay().sample_balanced(37, 5, 20.0)
