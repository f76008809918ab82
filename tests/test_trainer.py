"""Whole small runs: what they write, and that an interrupted one loses nothing."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from miniature import shrunk
from stormrl import checkpoint
from stormrl.config import RunConfig
from stormrl.progress import SilentProgress
from stormrl.run_directory import RunDirectory
from stormrl.trainer import Trainer

STEPS = 90


def new_run(path: Path, **fields) -> RunDirectory:
    settings = {
        "env": "stormrl/Catch-v0",
        "steps": STEPS,
        "agent": shrunk(),
        "log_every": 7,
        "checkpoint_every": 25,
        "dream_every": 40,
        "evaluation_episodes": 2,
        "compile": "off",
        "device": "cpu",
    }
    return RunDirectory.create(path, RunConfig(**(settings | fields)))


def go_on(path: Path, stop_at: int | None = None) -> Trainer:
    """Train until the end, or until a SIGTERM during step `stop_at`."""
    trainer = Trainer(RunDirectory.open(path), SilentProgress())
    trainer.restore()
    step = trainer.collector.step

    def step_then_signal(random: bool):
        episode = step(random)
        if trainer.step + 1 == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return episode

    trainer.collector.step = step_then_signal
    trainer.train()
    return trainer


def history(run: Path, name: str) -> list[dict]:
    lines = [json.loads(line) for line in (run / name).read_text().splitlines()]
    for line in lines:
        line.pop("wall_s", None)  # The one thing that two runs may differ in.
    return lines


def assert_same_runs(first: Path, second: Path) -> None:
    for name in ("metrics.jsonl", "episodes.jsonl", "scores.jsonl"):
        assert history(first, name) == history(second, name)
    last = f"checkpoints/{STEPS:09d}"
    groups = sorted(path.name for path in (first / last).glob("*.safetensors"))
    assert "world_model.safetensors" in groups
    for group in groups:
        one, other = load_file(first / last / group), load_file(second / last / group)
        assert one.keys() == other.keys()
        for name in one:
            assert torch.equal(one[name], other[name]), (group, name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run that nothing interrupted."""
    path = tmp_path_factory.mktemp("runs") / "whole"
    new_run(path)
    go_on(path)
    return path


def test_histories_have_every_step_once(whole):
    metrics = history(whole, "metrics.jsonl")
    assert [line["step"] for line in metrics] == list(range(21, STEPS + 1, 7))
    # Warm-up is 16 steps; the update after step 17 is the first.
    assert [line["update"] for line in metrics] == [line["step"] - 16 for line in metrics]
    assert {"world_model/kl", "agent/entropy", "agent/gradient_norm"} <= metrics[0].keys()
    episodes = history(whole, "episodes.jsonl")
    assert [line["step"] for line in episodes] == [39, 78]
    assert [line["length"] for line in episodes] == [39, 39]


def test_final_agent_is_scored_and_filmed(whole):
    scores = history(whole, "scores.jsonl")
    assert [line["checkpoint_step"] for line in scores] == [STEPS, STEPS]
    assert {line["protocol"] for line in scores} == {"atari100k"}
    assert [path.name for path in sorted((whole / "videos").iterdir())] == [
        "dream-00000040.mp4",
        "dream-00000080.mp4",
    ]


def test_old_checkpoints_and_their_replay_go(whole):
    assert checkpoint.steps(whole) == [75, STEPS]


@pytest.mark.parametrize("stop_at", [10, 47, 50, 89])
def test_interrupted_run_equals_an_uninterrupted_one(whole, tmp_path, stop_at):
    new_run(tmp_path / "run")
    stopped = go_on(tmp_path / "run", stop_at)
    assert stopped.step == stop_at
    go_on(tmp_path / "run")
    assert_same_runs(whole, tmp_path / "run")


def test_atari_run_resumes_in_the_middle_of_a_game(tmp_path):
    fields = {"env": "ALE/Boxing-v5", "protocol": "official", "dream_every": 0}
    for name in ("whole", "cut"):
        new_run(tmp_path / name, **fields, evaluation_episodes=0)
    go_on(tmp_path / "whole")
    go_on(tmp_path / "cut", stop_at=61)
    go_on(tmp_path / "cut")
    assert_same_runs(tmp_path / "whole", tmp_path / "cut")


def test_ratio_below_one_updates_every_few_steps(tmp_path):
    agent = shrunk()
    agent = type(agent)(**{**vars(agent), "world_model_ratio": 0.25, "agent_ratio": 0.5})
    new_run(tmp_path / "run", agent=agent, evaluation_episodes=0)
    trainer = go_on(tmp_path / "run")
    assert trainer.world_ratio.updates == (STEPS - 16) // 4
    assert trainer.agent_ratio.updates == (STEPS - 16) // 2


def test_run_killed_before_its_first_checkpoint_starts_over(whole, tmp_path):
    new_run(tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 7}\n')
    go_on(tmp_path / "run")
    assert_same_runs(whole, tmp_path / "run")


def test_run_killed_again_and_again_equals_an_uninterrupted_one(whole, tmp_path):
    """Five SIGKILLs at moments drawn at random, over the command that a user would type."""
    run = tmp_path / "run"
    new_run(run)
    moments = random.Random(0)
    for _ in range(5):
        kill_after(resume_command(run), moments.uniform(2.0, 6.0))
    subprocess.run(resume_command(run), check=True, capture_output=True, timeout=120)
    assert_same_runs(whole, run)


def resume_command(run: Path) -> list[str]:
    return [sys.executable, "-m", "stormrl", "train", "--resume", str(run), "--json"]


def kill_after(command: list[str], seconds: float) -> None:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(seconds)
    process.kill()
    process.wait()
