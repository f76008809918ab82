"""The simulated suite against cases worked out by hand, and the dry run's time against both."""

import itertools
import math
import random

import pytest

from simulation import Cluster, Work, simulate, uptimes
from stormrl.suite.estimate import START_S, seconds_of_all


def failing_after(*seconds: float):
    """Up times of the machines in the order in which they are asked for; then none fails."""
    times = itertools.chain(seconds, itertools.repeat(math.inf))
    return lambda: next(times)


@pytest.mark.parametrize(
    ("works", "cluster", "seconds"),
    [
        ([10], Cluster(1, 1), 10),
        ([10, 10, 10], Cluster(1, 2), 20),
        ([10, 4, 4, 4], Cluster(2, 1), 12),  # 10 | 4 + 4 + 4
        ([10, 10], Cluster(1, 2, (1, 1.5)), 15),
        ([10, 10, 10], Cluster(1, 2, (1, 1.5)), 25),  # two at 1.5, the third alone
        ([10, 4], Cluster(1, 2, (1, 1.5)), 12),  # 6 s for the short one, 4 of 10 done; 6 alone
        ([10, 10], Cluster(2, 2, (1, 1.5)), 10),  # to the emptiest machine: each is alone
        ([8] * 4, Cluster(1, 4, (1, 1.5)), 12),  # beyond its end the slowdown goes on
    ],
)
def test_packing(works, cluster, seconds):
    result = simulate([Work(work) for work in works], cluster)
    assert result == (pytest.approx(seconds), 0, 0)


def test_every_beginning_costs_its_time():
    assert simulate([Work(10, start_s=3)] * 2, Cluster(1, 1)).seconds == pytest.approx(26)


def test_a_failure_sends_a_run_back_to_its_last_checkpoint():
    """Second 1: begun. 8: fails with 7 done, 4 saved. 10: repaired. 11: begun. 17: 6 more done."""
    work, cluster = Work(10, checkpoint_s=4, start_s=1), Cluster(1, 1, repair_s=2)
    assert simulate([work], cluster, failing_after(8)) == (pytest.approx(17), pytest.approx(3), 1)


def test_without_checkpoints_everything_is_lost():
    result = simulate([Work(10)], Cluster(1, 1), failing_after(9))
    assert result == (pytest.approx(19), pytest.approx(9), 1)


def test_a_failed_machine_hands_its_runs_to_the_others_first():
    """Machine 1 fails at 6 with 6 of 10 done, 5 saved; machine 2 takes that run at 10, for 5 s,
    before the one that waits, which machine 2 takes at 15: machine 1 is gone for good."""
    works = [Work(10, checkpoint_s=5)] * 3
    result = simulate(works, Cluster(2, 1, repair_s=1000), failing_after(6, math.inf))
    assert result == (pytest.approx(25), pytest.approx(1), 1)


def test_a_machine_that_fails_idle_costs_nothing():
    result = simulate([Work(10)], Cluster(2, 1), failing_after(math.inf, 5))
    assert result == (pytest.approx(10), 0, 0)


def test_losses_are_half_a_checkpoint_per_failure_on_average():
    """Failures are rare and strike at any moment: the law that planning by hand would use."""
    works = [Work(1000.0, checkpoint_s=20)] * 400
    result = simulate(works, Cluster(4, 1), uptimes(1000.0, seed=3))
    assert result.failures > 200
    assert result.lost_s / result.failures == pytest.approx(10, rel=0.15)


def test_up_times_have_their_mean_and_follow_their_seed():
    draw, same, other = uptimes(50.0, 1), uptimes(50.0, 1), uptimes(50.0, 2)
    drawn = [draw() for _ in range(4000)]
    assert sum(drawn) / len(drawn) == pytest.approx(50, rel=0.06)
    assert drawn[:5] == [same() for _ in range(5)] != [other() for _ in range(5)]


def test_more_machines_are_never_slower():
    generator = random.Random(0)
    works = [Work(generator.uniform(1, 20)) for _ in range(40)]
    times = [simulate(works, Cluster(machines, 1)).seconds for machines in (1, 2, 4, 8, 64)]
    assert times == sorted(times, reverse=True)
    assert times[0] == pytest.approx(sum(work.seconds for work in works))
    assert times[-1] == pytest.approx(max(work.seconds for work in works))


@pytest.mark.parametrize("places", [1, 2, 3, 7, 64])
def test_the_dry_run_packs_as_the_simulation_does(places):
    """Where nothing fails and no run slows another one down, it is the simulation's time."""
    generator = random.Random(places)
    runs = [generator.uniform(1, 2000) for _ in range(40)]
    simulated = simulate([Work(run, start_s=START_S) for run in runs], Cluster(1, places)).seconds
    assert seconds_of_all(runs, places) == pytest.approx(simulated)
    longest, all_by_places = START_S + max(runs), (sum(runs) + len(runs) * START_S) / places
    assert simulated > max(longest, all_by_places) - 1e-6


@pytest.mark.parametrize(
    ("runs", "places", "seconds"),
    [([], 2, 0), ([10], 2, 10), ([10, 10, 10], 2, 20), ([10, 4, 4, 4], 2, 12), ([8] * 4, 4, 8)],
)
def test_the_time_of_a_dry_run_by_hand(monkeypatch, runs, places, seconds):
    monkeypatch.setattr("stormrl.suite.estimate.START_S", 0.0)
    assert seconds_of_all(runs, places) == seconds
