"""Evaluation against an environment that counts: whose episodes, whose rewards, whose memory."""

from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from small_runs import go_on, history, new_run
from stormrl.acting.evaluate import PARALLEL, RandomPlayer, Score, evaluate, longest_episode
from stormrl.envs import PROTOCOLS
from stormrl.machine.stop import Stopped
from stormrl.seeds import EVALUATION_SEED

COUNTING = "Counting-v0"
LAST = 1000.0
"""Reward of an episode's last step, on top of what any step gives."""
RULES = PROTOCOLS["official"]


def length_of(seed: int) -> int:
    """Short and long episodes in turn, none as long as another one that plays beside it."""
    return 2 + seed % 5 if seed % 2 else 40 + seed % 7


def return_of(seed: int) -> float:
    return sum(range(1, length_of(seed) + 1)) + LAST


class Counting(gymnasium.Env):
    """Step t gives reward t; the picture shows t. Every other episode is truncated."""

    observation_space = spaces.Box(0, 255, (64, 64, 3), np.uint8)
    action_space = spaces.Discrete(3)
    begun: list[int] = []  # noqa: RUF012 - of all instances together

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        assert seed is not None, "every episode of an evaluation has a seed"
        self.seed, self.steps = seed, 0
        self.begun.append(seed)
        return self.picture(), {}

    def step(self, action: int):
        self.steps += 1
        over = self.steps == length_of(self.seed)
        truncated = over and self.seed % 3 == 0
        reward = self.steps + LAST * over
        return self.picture(), reward, over and not truncated, truncated, {}

    def picture(self) -> np.ndarray:
        return np.full((64, 64, 3), self.steps, np.uint8)


class Witness:
    """Acts at random and notes what it is told."""

    def __init__(self) -> None:
        self.greedy: set[bool] = set()
        self.calls = 0

    def begin(self, rows):
        self.rows = rows
        return (torch.zeros(rows, dtype=torch.int64),)

    def act(self, obs, carry, is_first, greedy=False):
        steps = obs[:, 0, 0, 0]
        assert torch.equal(is_first, steps == 0)
        assert torch.equal(carry[0], steps.long()), "what is taken along is of the present episode"
        self.greedy.add(greedy)
        self.calls += 1
        return torch.randint(3, (len(obs),)), (carry[0] + 1,)


@pytest.fixture(autouse=True)
def counting():
    gymnasium.register(COUNTING, entry_point=lambda **kwargs: Counting(**kwargs))
    Counting.begun.clear()
    yield
    del gymnasium.registry[COUNTING]


def test_every_episode_counts_whatever_its_length():
    """Twenty games, eight at a time: those that end first are not all there is."""
    episodes, first = 20, 100
    scores = evaluate(Witness(), COUNTING, RULES, episodes, seed=first)
    seeds = range(first, first + episodes)
    assert [score.seed for score in scores] == list(seeds)
    assert [score.length for score in scores] == [length_of(seed) for seed in seeds]
    counted = [seed for seed in Counting.begun if seed < first + episodes]
    assert sorted(counted) == list(seeds), "none is played twice, none is left unfinished"


def test_the_last_reward_belongs_to_the_episode_that_it_ends():
    scores = evaluate(Witness(), COUNTING, RULES, 20, seed=100)
    assert [score.total for score in scores] == [return_of(seed) for seed in range(100, 120)]


@pytest.mark.parametrize("episodes", [1, PARALLEL - 1, PARALLEL, PARALLEL + 1])
def test_any_number_of_episodes_is_played_in_batches_of_one_size(episodes):
    witness = Witness()
    assert len(evaluate(witness, COUNTING, RULES, episodes)) == episodes
    assert witness.rows == min(episodes, PARALLEL)


def test_scores_do_not_depend_on_what_plays_beside():
    alone = [evaluate(Witness(), COUNTING, RULES, 1, seed=seed)[0] for seed in range(5)]
    assert evaluate(Witness(), COUNTING, RULES, 5, seed=0) == alone


@pytest.mark.parametrize("greedy", [False, True])
def test_the_protocol_decides_between_sampled_and_greedy_play(greedy):
    witness = Witness()
    evaluate(witness, COUNTING, replace(RULES, greedy_evaluation=greedy), 3)
    assert witness.greedy == {greedy}


def test_the_callers_random_stream_is_left_alone():
    before = torch.get_rng_state()
    evaluate(Witness(), COUNTING, RULES, 3)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run_is_evaluated_every_so_many_steps_and_at_its_end(tmp_path):
    new_run(tmp_path / "often", steps=30, evaluate_every=12, evaluation_episodes=2)
    new_run(tmp_path / "once", steps=30, evaluation_episodes=2)
    for run in ("often", "once"):
        go_on(tmp_path / run)
    often, once = (history(tmp_path / run, "scores.jsonl") for run in ("often", "once"))
    assert [line["checkpoint_step"] for line in often] == [12] * 2 + [24] * 2 + [30] * 2
    assert [line["seed"] for line in often] == [EVALUATION_SEED, EVALUATION_SEED + 1] * 3
    assert often[-2:] == once, "evaluating does not change the training"
    for name in ("metrics.jsonl", "episodes.jsonl"):
        assert history(tmp_path / "often", name) == history(tmp_path / "once", name)


def test_a_game_without_an_end_is_stopped_and_says_so():
    """A limit that no game of the emulator comes to: there it ends the episode itself."""
    rules = replace(RULES, max_frames=119, frame_skip=4)
    assert longest_episode(rules) == 30
    scores = evaluate(RandomPlayer(3), COUNTING, rules, 4, seed=2)
    assert scores == [
        Score(sum(range(1, 31)), 30, 2, cut_short=True),
        Score(return_of(3), length_of(3), 3),
        Score(sum(range(1, 31)), 30, 4, cut_short=True),
        Score(return_of(5), length_of(5), 5),
    ]


def test_an_evaluation_hears_a_request_to_stop_within_a_step():
    asked = iter([False, False, True])
    with pytest.raises(Stopped):
        evaluate(RandomPlayer(3), COUNTING, RULES, 4, stopping=lambda: next(asked))
    assert next(asked, None) is None
