import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from stormrl.config.parts import RunConfig
from stormrl.disk.files import read_json
from stormrl.disk.jsonlines import JsonLines, read_jsonlines
from stormrl.errors import UserError
from stormrl.history.recorder import Recorder, TensorBoard, Wandb, rewind
from stormrl.runs import whole
from videos import read_video

FRAMES = np.stack([np.full((32, 48, 3), shade, np.uint8) for shade in (0, 90, 180)])


def test_recorder_writes_the_run_directorys_formats(tmp_path: Path) -> None:
    now = [100.0]
    recorder = Recorder(tmp_path, elapsed_s=50.0, clock=lambda: now[0])
    now[0] = 102.5
    recorder.metrics(8, 4, {"loss": torch.tensor(0.25), "steps_per_s": 3.0})
    recorder.episode(9, 21.0, 9, 7)
    recorder.score(8, "official", 0, -3.0, 12, 5)
    recorder.close()
    assert read_jsonlines(tmp_path / "metrics.jsonl") == [
        {"step": 8, "update": 4, "wall_s": 52.5, "loss": 0.25, "steps_per_s": 3.0}
    ]
    assert read_jsonlines(tmp_path / "episodes.jsonl") == [
        {"step": 9, "return": 21.0, "length": 9, "seed": 7}
    ]
    assert read_jsonlines(tmp_path / "scores.jsonl") == [
        {
            "checkpoint_step": 8,
            "protocol": "official",
            "episode": 0,
            "return": -3.0,
            "length": 12,
            "seed": 5,
        }
    ]


def record_steps(run_dir: Path, steps: range, checkpoint: int) -> dict[str, int]:
    """Train over `steps`, checkpoint after one of them; the positions the checkpoint holds."""
    positions = {}
    recorder = Recorder(run_dir, clock=lambda: 0.0)
    for step in steps:
        recorder.metrics(step, step, {"loss": 1 / step})
        if step % 3 == 0:
            recorder.episode(step, float(step), 3, None)
            recorder.score(step, "official", 0, float(step), 3, None)
        if step == checkpoint:
            positions = recorder.positions()
    recorder.close()
    return positions


def test_a_resumed_run_has_the_history_of_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    whole.mkdir()
    resumed.mkdir()
    record_steps(whole, range(1, 13), checkpoint=7)
    positions = record_steps(resumed, range(1, 11), checkpoint=7)
    with (resumed / "metrics.jsonl").open("a") as file:
        file.write('{"step": 11, "upd')
    # Someone evaluates the checkpoint before the run goes on: that score is no part of the future.
    evaluation = {"checkpoint_step": 7, "return": 1.0}
    scores = JsonLines(resumed / "scores.jsonl")
    scores.write(evaluation)
    scores.close()

    rewind(resumed, positions, step=7)
    record_steps(resumed, range(8, 13), checkpoint=12)

    for name in ("metrics.jsonl", "episodes.jsonl"):
        assert (resumed / name).read_bytes() == (whole / name).read_bytes()
    history = read_jsonlines(resumed / "scores.jsonl")
    assert history.count(evaluation) == 1
    assert [score["checkpoint_step"] for score in history] == [3, 6, 7, 9, 12]


def read_events(directory: Path) -> EventAccumulator:
    return EventAccumulator(str(directory), size_guidance={"images": 0, "scalars": 0}).Reload()


def test_recorder_reaches_tensorboard(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, [TensorBoard(tmp_path / "tensorboard")])
    recorder.metrics(8, 4, {"world_model/loss": torch.tensor(0.25), "steps_per_s": 3})
    recorder.episode(9, 21.0, 9, 7)
    recorder.mean_score(10, "official", 18.5)
    path = recorder.video("dream", FRAMES, step=10, fps=5)
    recorder.close()

    events = read_events(tmp_path / "tensorboard")
    points = {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }
    assert points == {
        "world_model/loss": [(8, 0.25)],
        "steps_per_s": [(8, 3.0)],
        "episode/return": [(9, 21.0)],
        "episode/length": [(9, 9.0)],
        "score/official": [(10, 18.5)],
    }
    assert path == tmp_path / "videos" / "dream-00000010.mp4"
    assert read_video(path).shape == FRAMES.shape


def test_tensorboard_shows_a_video_as_a_moving_gif(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path)
    board.video("dream", FRAMES, step=3, fps=5)
    board.close()
    (event,) = read_events(tmp_path).Images("dream")
    assert (event.step, event.height, event.width) == (3, 32, 48)
    gif = Image.open(io.BytesIO(event.encoded_image_string))
    assert (gif.format, getattr(gif, "n_frames", 1)) == ("GIF", 3)
    for index, frame in enumerate(FRAMES):
        gif.seek(index)
        np.testing.assert_array_equal(np.asarray(gif.convert("RGB")), frame)


def test_tensorboard_forgets_what_a_resumed_run_repeats(tmp_path: Path) -> None:
    first = TensorBoard(tmp_path)
    for step in range(1, 6):
        first.scalars({"loss": 10.0 * step}, step)
    first.close()
    second = TensorBoard(tmp_path, purge_step=4)
    for step in range(4, 7):
        second.scalars({"loss": float(step)}, step)
    second.close()
    points = [(event.step, event.value) for event in read_events(tmp_path).Scalars("loss")]
    assert points == [(1, 10), (2, 20), (3, 30), (4, 4), (5, 5), (6, 6)]


def test_missing_wandb_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"pip install 'stormrl\[wandb\]'"):
        Wandb(tmp_path, "project")


# W&B keeps its settings for the life of a process, and has written all of its log when it ends.
WANDB_RUN = """
import sys
import numpy as np
import torch
from stormrl.history.recorder import Wandb

sink = Wandb(sys.argv[1], "project")
sink.scalars({"loss": torch.tensor(0.5)}, 4)
sink.scalars({"loss": 0.25}, 2)
sink.video("dream", np.random.default_rng(0).integers(0, 256, (3, 32, 48, 3), np.uint8), 2, fps=5)
sink.close()
"""


def run_wandb(
    directory: Path, *args: str | Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Another process of Python, whose home is `directory`."""
    pytest.importorskip("wandb")
    return subprocess.run(
        [sys.executable, *args],
        cwd=directory,
        env={**os.environ, "HOME": str(directory), "WANDB_SILENT": "true", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_wandb_takes_scalars_and_videos_offline(tmp_path: Path) -> None:
    result = run_wandb(tmp_path, "-c", WANDB_RUN, tmp_path, WANDB_MODE="offline")
    assert result.returncode == 0, result.stderr
    (log,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert b"loss" in log.read_bytes()
    (gif,) = tmp_path.glob("wandb/offline-run-*/files/media/videos/dream*.gif")
    assert read_video(gif).shape == (3, 32, 48, 3)


def test_wandb_without_login_is_a_users_mistake(tmp_path: Path) -> None:
    refused = {"WANDB_MODE": "online", "WANDB_API_KEY": "short"}
    result = run_wandb(tmp_path, "-c", WANDB_RUN, tmp_path, **refused)
    assert result.returncode == 1
    last_line = result.stderr.splitlines()[-1]
    assert last_line.startswith("stormrl.errors.UserError: wandb: ")
    assert "WANDB_MODE=offline" in last_line


def test_training_is_shown_in_a_project_and_goes_on_there_if_asked_again(tmp_path: Path) -> None:
    def train(*flags: str | Path) -> list[bytes]:
        args = ("-m", "stormrl", "train", "--json", *flags)
        done = run_wandb(tmp_path, *args, WANDB_MODE="offline")
        assert done.returncode == 0, done.stderr
        json.loads(done.stdout)
        return [
            path.read_bytes() for path in sorted(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
        ]

    run = tmp_path / "catch"
    few = ("--size", "toy", "--replay.warmup", "32", "--steps", "45", "--evaluation-episodes", "0")
    project = ("--wandb", "shown-in-a-test")
    (first,) = train("--env", "stormrl/Catch-v0", *few, "--run-dir", run, *project)
    assert len(train("--resume", run, "--steps", "85")) == 1, "not asked again, not shown"
    _, second = train("--resume", run, "--steps", "125", *project)
    for log in (first, second):
        assert b"episode/return" in log
        assert b"shown-in-a-test" in log
    assert "wandb" not in read_json(run / "config.json")["config"]


def test_without_wandb_no_run_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    config = RunConfig(env="stormrl/Catch-v0", device="cpu")
    with pytest.raises(UserError, match="pip install"):
        whole.train(config, tmp_path / "run", wandb="project")
    assert not (tmp_path / "run").exists()
