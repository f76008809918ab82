"""Recorded play: what the file says is what happened in the game."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from miniature import learner
from stormrl.acting.evaluate import evaluate
from stormrl.cli import main
from stormrl.config.parts import RunConfig
from stormrl.disk import checkpoint
from stormrl.disk.run_directory import RunDirectory
from stormrl.envs import PROTOCOLS, action_meanings, make_env
from stormrl.errors import UserError
from stormrl.experience.episodes import read_recording
from stormrl.learning.state import module_tensors
from stormrl.machine.stop import EXIT_INTERRUPTED, Stopped
from stormrl.runs.agent import Agent
from stormrl.runs.recording import record

CATCH = "stormrl/Catch-v0"
RULES = PROTOCOLS["atari100k"]


def test_holding_up_in_freeway_scores_above_twenty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "demo.safetensors"
    args = ["record", "ALE/Freeway-v5", "--policy", "constant:UP", "--out", str(out)]
    assert main([*args, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["protocol"] == "atari100k"
    assert told["mean"] == told["returns"][0] > 20
    assert told["lengths"] == [told["steps"]]
    assert 2_030 < told["steps"] <= 2_045
    recording = read_recording(told["file"])
    (episode,) = recording.episodes
    assert (episode.total, episode.length) == (told["returns"][0], told["steps"])
    assert recording.actions[1] == "UP"
    assert set(episode.action.tolist()) == {1}
    assert episode.end == "terminated"
    assert episode.continues.tolist() == [1] * (episode.length - 1) + [0]


def test_a_recording_is_what_the_game_shows() -> None:
    recording = record(CATCH, RULES, "random", episodes=2, seed=4)
    env = make_env(CATCH, RULES)
    assert recording.actions == tuple(action_meanings(env))
    for seed, episode in zip((4, 5), recording.episodes, strict=True):
        assert episode.seed == seed
        obs, _ = env.reset(seed=seed)
        assert np.array_equal(episode.obs[0], obs)
        terminated = False
        for t in range(episode.length):
            obs, reward, terminated, _, _ = env.step(int(episode.action[t]))
            assert np.array_equal(episode.obs[t + 1], obs)
            assert episode.reward[t] == reward
            assert episode.continues[t] == (not terminated)
        assert terminated
    assert len(set(recording.episodes[0].action.tolist())) == 3


def test_recordings_repeat_with_the_seed_and_leave_the_random_streams_alone() -> None:
    before = torch.get_rng_state()
    first = record(CATCH, RULES, "random", 1, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    again = record(CATCH, RULES, "random", 1, seed=3)
    assert np.array_equal(first.episodes[0].action, again.episodes[0].action)


@pytest.mark.parametrize(("protocol", "ends"), [("atari100k", 5), ("machado", 1)])
def test_lost_lives_end_what_the_learner_sees_as_the_protocol_says(
    protocol: str, ends: int
) -> None:
    (episode,) = record("ALE/Breakout-v5", PROTOCOLS[protocol], "random", 1).episodes
    assert (episode.continues == 0).sum() == ends
    assert episode.continues[-1] == 0


def test_an_action_is_held_by_its_word_in_any_case() -> None:
    (episode,) = record("ALE/Breakout-v5", RULES, "constant:fire", 1).episodes
    assert set(episode.action.tolist()) == {1}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of Catch that has one checkpoint."""
    model = learner()
    directory = RunDirectory.create(tmp_path / "run", RunConfig(CATCH, agent=model.config))
    tensors = {
        "world_model": module_tensors(model.world_model),
        "actor_critic": module_tensors(model.actor_critic),
    }
    checkpoint.save(directory.path, 1, tensors, {})
    return directory.path


def test_a_trained_policy_plays_as_it_is_evaluated(run: Path) -> None:
    recording = record(CATCH, RULES, str(run), 1, seed=11, device="cpu")
    (score,) = evaluate(Agent.load(run, device="cpu").actor, CATCH, RULES, 1, seed=11)
    assert recording.episodes[0].total == score.total
    assert recording.episodes[0].length == score.length
    assert recording.policy == str(run)


def test_a_policy_of_another_game_is_refused(run: Path) -> None:
    with pytest.raises(UserError, match=r"has 3 actions, the game 6"):
        record("ALE/Pong-v5", RULES, str(run), 1)


def test_the_command_shows_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "a.safetensors")
    args = ["record", CATCH, "--policy", "constant:LEFT", "--episodes", "2", "--out", out]
    assert main(args) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].strip() == CATCH
    assert [row.split()[:3] for row in printed[2:4]] == [
        ["constant:LEFT", "atari100k", "0"],
        ["constant:LEFT", "atari100k", "1"],
    ]
    assert printed[-1] == out


def test_a_game_without_an_end_is_truncated() -> None:
    recording = record(CATCH, replace(RULES, max_frames=20), "random", 2)
    assert [(each.length, each.end) for each in recording.episodes] == [(5, "truncated")] * 2


def after(calls: int) -> Callable[[], bool]:
    """Asks for a stop from that look on."""
    left = [calls]

    def stopping() -> bool:
        left[0] -= 1
        return left[0] < 0

    return stopping


def test_episodes_that_are_whole_are_kept_when_a_stop_is_asked_for() -> None:
    whole = record(CATCH, RULES, "random", 1)
    length = whole.episodes[0].length
    stopped = record(CATCH, RULES, "random", 3, stopping=after(length + 5))
    assert [each.length for each in stopped.episodes] == [length]
    assert np.array_equal(stopped.episodes[0].obs, whole.episodes[0].obs)
    with pytest.raises(Stopped):
        record(CATCH, RULES, "random", 3, stopping=after(length - 1))


def test_the_command_says_that_it_was_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = str(tmp_path / "a.safetensors")
    args = ["record", CATCH, "--episodes", "3", "--out", out]
    monkeypatch.setattr("stormrl.machine.stop.StopRequest.asked", lambda _: next(asked))
    asked = iter([False] * 50 + [True])
    assert main(args) == EXIT_INTERRUPTED
    assert len(read_recording(out).episodes) == 1
    assert "stopped after 1 of 3 episodes" in capsys.readouterr().err
    os.remove(out)
    asked = iter([True])
    assert main(args) == EXIT_INTERRUPTED
    assert "what was not complete is not kept" in capsys.readouterr().err
    assert not Path(out).exists()


TALKING = """
import os
import gymnasium
from stormrl.envs.toy import Catch

class Talking(Catch):
    def reset(self, **given):
        print("hello from the engine")
        os.write(1, b"and from below it\\n")
        return super().reset(**given)

gymnasium.register("test/Talking-v0", Talking)
"""


def test_standard_output_holds_the_object_and_no_word_of_the_game(tmp_path: Path) -> None:
    (tmp_path / "talking.py").write_text(TALKING)
    args = "record", "talking:test/Talking-v0", "--out", "a.safetensors", "--json"
    command = [sys.executable, "-m", "stormrl", *args]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["episodes"] == 1
    assert {"hello from the engine", "and from below it"} <= set(done.stderr.splitlines())
