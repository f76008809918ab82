"""Demonstrations in training: the paper's proportion, and a run that does not lose them."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from miniature import CPU, SPACES, learner, shrunk
from small_runs import small_config
from stormrl.cli import main
from stormrl.config.parts import AgentConfig, DemonstrationConfig, RunConfig
from stormrl.config.presets import SIZES, agent_config
from stormrl.disk.run_directory import RunDirectory
from stormrl.envs import PROTOCOLS
from stormrl.errors import UserError
from stormrl.experience.demonstration import demonstration_replay
from stormrl.experience.episodes import RecordedEpisode, Recording, read_recording, write_recording
from stormrl.experience.replay import Replay
from stormrl.history.progress import SilentProgress
from stormrl.learning.learner import Learner
from stormrl.learning.state import learner_tensors
from stormrl.runs.recording import record
from stormrl.runs.trainer import Trainer
from stormrl.runs.whole import train
from stormrl.types import Batch
from test_trainer import assert_same_runs, go_on, new_run

CATCH = "stormrl/Catch-v0"
RULES = PROTOCOLS["atari100k"]


@pytest.fixture(scope="module")
def freeway() -> Recording:
    """Holding UP, for one game."""
    return record("ALE/Freeway-v5", RULES, "constant:UP", 1)


@pytest.fixture(scope="module")
def catch() -> Recording:
    return record(CATCH, RULES, "constant:LEFT", 2)


def shown(config: AgentConfig, path: Path) -> AgentConfig:
    """The same algorithm with a demonstration: one window and two imagined trajectories of it."""
    return replace(config, demonstration=DemonstrationConfig(str(path), 1, 2))


def replayed(recording: Recording, folder: Path) -> Replay:
    """The replay of what is recorded, through a file."""
    write_recording(folder / "replayed.safetensors", recording)
    return demonstration_replay(folder / "replayed.safetensors")


def online_replay() -> Replay:
    """Experience whose rewards are 5, which no demonstration here has."""
    replay = Replay(40, (64, 64, 3))
    replay.obs.random_(0, 256)
    replay.reward.fill_(5.0)
    replay.moved_to(40)
    return replay


def test_what_demonstrated_episodes_ended_with_may_be_a_row(
    catch: Recording, tmp_path: Path
) -> None:
    write_recording(tmp_path / "two.safetensors", catch)
    replay = demonstration_replay(tmp_path / "two.safetensors", final=True)
    place = 0
    for episode in catch.episodes:
        rows = slice(place, place + episode.length + 1)
        assert np.array_equal(replay.obs[rows].numpy(), episode.obs)
        assert replay.action[rows].tolist() == [*episode.action.tolist(), 0]
        assert replay.reward[rows].tolist() == [*episode.reward.tolist(), 0]
        assert replay.continues[rows].tolist() == [*episode.continues.tolist(), 1]
        assert replay.is_first[rows].tolist() == [True, *[False] * episode.length]
        place += episode.length + 1
    assert len(replay) == place


def test_a_demonstration_is_a_replay_of_its_steps(freeway: Recording, tmp_path: Path) -> None:
    replay = replayed(freeway, tmp_path)
    (episode,) = freeway.episodes
    assert len(replay) == replay.capacity == episode.length
    batch = replay.windows(torch.tensor([0, episode.length - 4]), 4)
    assert np.array_equal(batch.obs[0, 2].permute(1, 2, 0).numpy(), episode.obs[2])
    assert np.array_equal(batch.obs[1, 3].permute(1, 2, 0).numpy(), episode.obs[-2])
    assert batch.is_first.tolist() == [[True, False, False, False], [False] * 4]
    assert batch.continues.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert batch.action.unique().tolist() == [1]


def captured(model: Learner, monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    """Batches that the updates get, which they are spared to learn from."""
    batches: list[Batch] = []

    def keep(batch: Batch, noise: Any) -> dict[str, torch.Tensor]:
        rows = noise.shape[0] if isinstance(noise, torch.Tensor) else noise.action.shape[0]
        assert rows == len(batch.action)
        batches.append(batch)
        return {}

    monkeypatch.setattr(model, "learn_world", keep)
    monkeypatch.setattr(model, "learn_agent", keep)
    return batches


def test_the_proportion_is_the_papers(
    freeway: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4 of 20 windows and 256 of 1,280 imagined trajectories, counted in what updates get."""
    small, paper = shrunk(), agent_config("paper", "base")
    config = replace(
        small,
        world_model=replace(small.world_model, batch_size=paper.world_model.batch_size),
        imagination=replace(small.imagination, batch_size=paper.imagination.batch_size),
        demonstration=paper.demonstration,
    )
    model = Learner(config, SPACES, CPU)
    batches = captured(model, monkeypatch)
    replay, demonstration = online_replay(), replayed(freeway, tmp_path)
    for _ in range(3):
        model.update_world_model(replay, demonstration)
        model.update_agent(replay, demonstration)
    counts = [((batch.reward != 5).all(1).sum().item(), len(batch.reward)) for batch in batches]
    assert counts == [(4, 20), (256, 1280)] * 3
    online = [(batch.reward == 5).all(1).sum().item() for batch in batches]
    assert online == [16, 1024] * 3
    frames = batches[0].obs[:, 0].permute(0, 2, 3, 1)
    for source, share in ((replay, frames[:16]), (demonstration, frames[16:])):
        assert all((source.obs == frame).flatten(1).all(1).any() for frame in share)


@pytest.mark.parametrize("size", SIZES)
def test_every_size_keeps_the_proportion(size: str) -> None:
    config = agent_config("paper", size)
    shares = config.demonstration
    assert 4 * shares.world_model_windows == config.world_model.batch_size
    assert 4 * shares.imagination_windows == config.imagination.batch_size


def test_windows_of_the_demonstration_are_uniform(freeway: Recording, tmp_path: Path) -> None:
    replay = replayed(freeway, tmp_path)
    replay.reward.copy_(torch.arange(len(replay)))
    starts = replay.sample(4_000, 2).reward[:, 0]
    last = len(replay) - 2
    assert starts.min() < 5
    assert last - 5 < starts.max() <= last
    assert float(starts.mean()) == pytest.approx(last / 2, rel=0.02)


MEMORY = """
import sys
from pathlib import Path
from small_runs import small_config
from stormrl.config.parts import DemonstrationConfig
from dataclasses import replace
from stormrl.runs import whole

def marks():
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(lines[name].split()[0]) * 1024 for name in ("VmHWM", "VmRSS")}

path, run = sys.argv[1:]
config = small_config(steps=20)
shown = replace(config.agent, demonstration=DemonstrationConfig(path, 1, 2))
def started(trainer):
    print(marks()["VmHWM"] - before)
whole.train(config, run + "-warm")
before = marks()["VmRSS"]
Path("/proc/self/clear_refs").write_text("5")  # The peak begins anew.
whole.train(replace(config, agent=shown), run, started=started)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="asks Linux")
def test_a_demonstration_is_in_memory_once(tmp_path: Path) -> None:
    """Beside the file's own pages, which the system takes back whenever it likes."""
    episode = RecordedEpisode(
        seed=0,
        obs=np.random.default_rng(0).integers(0, 256, (12_001, 64, 64, 3), np.uint8),
        action=np.zeros(12_000, np.int64),
        reward=np.zeros(12_000, np.float32),
        continues=np.ones(12_000, np.float32),
        end="truncated",
    )
    path = tmp_path / "demo.safetensors"
    words = ("LEFT", "STAY", "RIGHT")
    write_recording(path, Recording(CATCH, "atari100k", "nobody", words, (episode,)))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", MEMORY, str(path), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    pictures = 12_000 * 64 * 64 * 3
    assert pictures < int(done.stdout) < 2.5 * pictures


def test_without_a_demonstration_the_draws_are_those_of_replay_alone() -> None:
    replay, config = online_replay(), shrunk()
    world, imagination = config.world_model, config.imagination
    states, results = [], []
    for by_hand in (False, True):
        torch.manual_seed(3)
        model = learner()
        if by_hand:
            batch = replay.sample(world.batch_size, world.batch_length)
            model.learn_world(batch, model.loss_noise(batch))
            context = replay.sample(imagination.batch_size, imagination.context)
            model.learn_agent(context, model.imagination_noise(context))
        else:
            model.update_world_model(replay)
            model.update_agent(replay)
        states.append(torch.get_rng_state())
        results.append(learner_tensors(model))
    assert torch.equal(*states)
    for group, tensors in results[0].items():
        assert all(torch.equal(t, results[1][group][name]) for name, t in tensors.items())


def test_a_resumed_run_keeps_its_demonstration(freeway: Recording, tmp_path: Path) -> None:
    """Although the file that it was started with is gone."""
    original = tmp_path / "demo.safetensors"
    write_recording(original, freeway)
    fields = {"env": "ALE/Freeway-v5", "dream_every": 0, "evaluation_episodes": 0}
    fields["agent"] = shown(shrunk(), original)
    for name in ("whole", "cut"):
        new_run(tmp_path / name, **fields)
    content = original.read_bytes()
    original.unlink()
    go_on(tmp_path / "whole")
    go_on(tmp_path / "cut", stop_at=47)
    trainer = go_on(tmp_path / "cut")
    assert trainer.demonstration is not None
    assert len(trainer.demonstration) == freeway.steps
    assert (tmp_path / "cut" / "demonstration.safetensors").read_bytes() == content
    assert_same_runs(tmp_path / "whole", tmp_path / "cut")


def test_a_run_learns_from_recorded_numbers(tmp_path: Path) -> None:
    """Of a game without pictures whose action is a force."""
    path = tmp_path / "swings.safetensors"
    write_recording(path, record("Pendulum-v1", RULES, "constant:2", 1))
    replay = demonstration_replay(path)
    assert (replay.obs.dtype, replay.obs.shape) == (torch.float32, (200, 3))
    assert set(replay.action.tolist()) == {10}  # Of 11 forces, the largest.
    run, config = tmp_path / "run", shown(shrunk(), path)
    train(small_config(env="Pendulum-v1", steps=26, agent=config), run)
    assert RunDirectory.open(run).demonstration is not None


def test_a_demonstration_changes_what_is_learnt(catch: Recording, tmp_path: Path) -> None:
    write_recording(tmp_path / "demo.safetensors", catch)
    fields = {"dream_every": 0, "evaluation_episodes": 0, "steps": 30}
    new_run(tmp_path / "alone", **fields)
    new_run(tmp_path / "shown", **fields, agent=shown(shrunk(), tmp_path / "demo.safetensors"))
    alone, with_demonstration = (go_on(tmp_path / name) for name in ("alone", "shown"))
    assert alone.demonstration is None
    parameters = [
        next(trainer.learner.world_model.parameters()) for trainer in (alone, with_demonstration)
    ]
    assert not torch.equal(*parameters)
    assert not (tmp_path / "alone" / "demonstration.safetensors").exists()


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (flip, r"demonstration\.safetensors: is damaged"),
        (Path.unlink, r"demonstration\.safetensors: is missing"),
    ],
)
def test_a_damaged_copy_is_refused(
    catch: Recording, tmp_path: Path, damage: Any, words: str
) -> None:
    write_recording(tmp_path / "demo.safetensors", catch)
    run = new_run(tmp_path / "run", agent=shown(shrunk(), tmp_path / "demo.safetensors"))
    damage(run.path / "demonstration.safetensors")
    with pytest.raises(UserError, match=words):
        Trainer(RunDirectory.open(run.path), SilentProgress())


def test_a_config_without_the_checksum_is_refused(catch: Recording, tmp_path: Path) -> None:
    write_recording(tmp_path / "demo.safetensors", catch)
    run = new_run(tmp_path / "run", agent=shown(shrunk(), tmp_path / "demo.safetensors"))
    record = json.loads((run.path / "config.json").read_text())
    del record["demonstration"]
    (run.path / "config.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="does not hold size and checksum"):
        RunDirectory.open(run.path)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ({"env": "ALE/Freeway-v5"}, "is of ALE/Freeway-v5, not of stormrl/Catch-v0"),
        ({"actions": ("A", "B", "C")}, "its actions are A, B, C, the game's LEFT, STAY, RIGHT"),
        ({"episodes": ()}, "holds 3 steps, fewer than a window of 8"),
    ],
)
def test_a_demonstration_of_no_use_is_refused_before_anything_is_written(
    catch: Recording, tmp_path: Path, edit: dict[str, Any], words: str
) -> None:
    if "episodes" in edit:
        first = catch.episodes[0]
        short = {name: getattr(first, name)[-3:] for name in ("action", "reward", "continues")}
        edit = {"episodes": (first._replace(obs=first.obs[-4:], **short),)}
    write_recording(tmp_path / "demo.safetensors", replace(catch, **edit))
    agent = shown(shrunk(), tmp_path / "demo.safetensors")
    with pytest.raises(UserError, match=words) as caught:
        train(RunConfig(CATCH, agent=agent, device="cpu"), tmp_path / "run")
    assert caught.value.field == "demonstration.path"
    assert not (tmp_path / "run").exists()


def test_the_command_trains_with_what_the_command_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demo, run = tmp_path / "demo.safetensors", tmp_path / "run"
    assert main(["record", CATCH, "--policy", "constant:STAY", "--out", str(demo)]) == 0
    sized = ["--size", "toy", "--device", "cpu", "--compile", "off", "--replay.warmup", "40"]
    quiet = ["--evaluation-episodes", "0", "--dream-every", "0", "--steps", "43"]
    args = ["train", "--env", CATCH, *sized, *quiet, "--run-dir", str(run)]
    assert main([*args, "--demonstration.path", str(demo)]) == 0
    printed = " ".join(capsys.readouterr().err.split())
    assert "39 steps: 1 of 5 windows, 16 of 80 imagined trajectories" in printed
    record = json.loads((run / "config.json").read_text())
    assert record["config"]["agent"]["demonstration"]["path"] == str(demo)
    assert record["demonstration"]["bytes"] == demo.stat().st_size
    assert read_recording(run / "demonstration.safetensors").policy == "constant:STAY"
    assert main(["train", "--resume", str(run), "--steps", "44", "--json"]) == 0
