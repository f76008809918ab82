"""Aggregates of many runs against slow loops, SciPy, hand-worked numbers and published figures."""

import math
import statistics as std

import numpy as np
import pytest
import scipy.stats

from stormrl.scores.published import (
    STORM,
    agent_names,
    games,
    normalised,
    published_agent,
)
from stormrl.scores.statistics import aggregate, performance_profile, probability_of_improvement

RAGGED = {"Pong": [0.1, 0.9, 1.4, 2.5], "Boxing": [0.3], "Hero": [-0.2, 0.5, 0.7]}
OTHERS = {"Pong": [0.9, 0.2], "Boxing": [0.3, 0.1, 0.8], "Hero": [0.6]}


def pooled(scores):
    return sorted(score for runs in scores.values() for score in runs)


def random_scores(seed=0):
    generator = np.random.default_rng(seed)
    return {f"game {n}": generator.gamma(2, 0.4, size=3 + n % 3).tolist() for n in range(8)}


def test_aggregates_of_a_handful_of_runs():
    result = aggregate(RAGGED)
    means = [(0.1 + 0.9 + 1.4 + 2.5) / 4, 0.3, (-0.2 + 0.5 + 0.7) / 3]
    assert result.mean.value == pytest.approx(sum(means) / 3)
    assert result.median.value == pytest.approx(1.0 / 3)
    # Eight runs: the two lowest and the two highest are cut off.
    assert result.iqm.value == pytest.approx((0.3 + 0.5 + 0.7 + 0.9) / 4)
    missing = [0.9, 0.1, 0.0, 0.0, 0.7, 1.2, 0.5, 0.3]
    assert result.optimality_gap.value == pytest.approx(sum(missing) / 8)


@pytest.mark.parametrize("seed", range(3))
def test_aggregates_against_slow_loops(seed):
    scores = random_scores(seed)
    result = aggregate(scores, resamples=10)
    means = [std.fmean(runs) for runs in scores.values()]
    runs = pooled(scores)
    cut = len(runs) // 4
    assert result.mean.value == pytest.approx(std.fmean(means))
    assert result.median.value == pytest.approx(std.median(means))
    assert result.iqm.value == pytest.approx(std.fmean(runs[cut : len(runs) - cut]))
    assert result.optimality_gap.value == pytest.approx(std.fmean(max(0, 1 - s) for s in runs))


def test_performance_profile_counts_runs_above_the_threshold():
    thresholds = [-1.0, 0.3, 0.5, 2.4, 2.5]
    profile = performance_profile(RAGGED, thresholds)
    assert [point.value for point in profile] == [1, 5 / 8, 4 / 8, 1 / 8, 0]
    assert all(point.low <= point.value <= point.high for point in profile)
    assert profile[0] == (1, 1, 1)


def test_probability_of_improvement_is_that_of_mann_and_whitney():
    result = probability_of_improvement(RAGGED, OTHERS)
    per_game = [
        scipy.stats.mannwhitneyu(RAGGED[game], OTHERS[game]).statistic
        / (len(RAGGED[game]) * len(OTHERS[game]))
        for game in RAGGED
    ]
    assert result.value == pytest.approx(std.fmean(per_game))
    pong = (0 + 0) + (0.5 + 1) + (1 + 1) + (1 + 1)
    boxing, hero = 0.5 + 1 + 0, 0 + 0 + 1
    assert result.value == pytest.approx((pong / 8 + boxing / 3 + hero / 3) / 3)
    reverse = probability_of_improvement(OTHERS, RAGGED)
    assert result.value + reverse.value == pytest.approx(1)


def test_probability_of_improvement_needs_the_same_games():
    with pytest.raises(ValueError, match="same games"):
        probability_of_improvement(RAGGED, {"Pong": [1.0]})


@pytest.mark.parametrize("scores", [{}, {"Pong": []}])
def test_no_runs_are_no_aggregate(scores):
    with pytest.raises(ValueError, match="needs a score"):
        aggregate(scores)


def test_intervals_are_those_of_a_stratified_bootstrap():
    """SciPy's own bootstrap draws each sample apart, which is what stratified means here."""
    scores = {game: runs for game, runs in random_scores().items() if len(runs) > 1}

    def iqm(*runs, axis):
        return scipy.stats.trim_mean(np.concatenate(runs, axis=axis), 0.25, axis=axis)

    expected = scipy.stats.bootstrap(
        list(scores.values()),
        iqm,
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    result = aggregate(scores, resamples=20_000).iqm
    width = expected.high - expected.low
    assert result.low == pytest.approx(expected.low, abs=0.04 * width)
    assert result.high == pytest.approx(expected.high, abs=0.04 * width)


def test_runs_are_drawn_within_their_game():
    """Games far apart, runs that agree: nothing is left to vary."""
    result = aggregate({"low": [0.1, 0.1], "high": [0.9, 0.9]})
    for estimate in result:
        assert estimate.low == pytest.approx(estimate.value)
        assert estimate.high == pytest.approx(estimate.value)


def test_intervals_follow_from_the_seed():
    assert aggregate(RAGGED, seed=1) == aggregate(RAGGED, seed=1)
    assert aggregate(RAGGED, seed=1) != aggregate(RAGGED, seed=2)
    assert performance_profile(RAGGED, [0.5]) == performance_profile(RAGGED, [0.5])


def test_single_runs_have_no_interval():
    result = aggregate({"Pong": [0.5], "Hero": [1.5]})
    assert result.mean.value == 1
    assert math.isnan(result.mean.low)
    assert math.isnan(result.mean.high)


def aggregates(seeds):
    return aggregate(normalised(seeds), resamples=2)


@pytest.mark.parametrize(
    ("agent", "figures"),
    [
        ("STORM", {"mean": 1.222, "median": 0.425, "iqm": 0.561}),
        ("DreamerV3", {"iqm": 0.487}),
        ("IRIS", {"iqm": 0.501}),
        ("TWM", {"iqm": 0.459}),
        ("DIAMOND", {"iqm": 0.641}),
        ("Simulus", {"iqm": 0.990}),
    ],
)
def test_published_figures_follow_from_the_published_runs(agent, figures):
    result = aggregates(published_agent(agent).seeds)
    assert {name: round(getattr(result, name).value, 3) for name in figures} == figures


def test_the_papers_figures_count_a_game_played_with_a_demonstration():
    storm = published_agent(STORM)
    assert storm.demonstrated == {"Freeway": 34}
    result = aggregates({**storm.seeds, "Freeway": [storm.demonstrated["Freeway"]] * 5})
    assert round(result.mean.value, 3) == 1.266
    assert round(result.median.value, 3) == 0.580


@pytest.mark.parametrize("name", agent_names())
def test_every_agents_figures_follow_from_its_scores(name):
    agent = published_agent(name)
    if agent.means:
        result = aggregates({game: [score] for game, score in agent.means.items()})
        for figure in ("mean", "median"):
            assert getattr(result, figure).value == close_to(agent.recomputed[figure])
    if agent.seeds:
        result = aggregates(agent.seeds)
        for figure in ("iqm", "optimality_gap"):
            assert getattr(result, figure).value == close_to(agent.recomputed[figure])
        for game, runs in agent.seeds.items():
            assert std.fmean(runs) == pytest.approx(agent.means[game], rel=1e-3, abs=0.5)


def close_to(figure):
    return pytest.approx(figure, abs=6e-5)  # They stand there with four decimals.


def test_what_is_known_of_the_published_agents():
    agents = [published_agent(name) for name in agent_names()]
    assert len(agents) == 21
    assert len(games()) == 26
    for agent in agents:
        assert agent.source
        assert agent.status
        assert set(agent.means) in (set(), set(games()))
        assert set(agent.seeds) in (set(), set(games()))
    unverified = [agent.name for agent in agents if not agent.verified]
    assert unverified == ["TWISTER", "EfficientZeroV2", "BBF", "GIT-STORM"]
    assert "sticky actions 0.25" in published_agent(STORM).protocol
