"""A run that goes on elsewhere: on another device or machine, or with a game that has changed."""

import json
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.torch_version import TorchVersion

from small_runs import go_on, new_run, small_config
from stormrl.acting.run_state import RunState
from stormrl.cli import main
from stormrl.disk import checkpoint
from stormrl.envs import PROTOCOLS
from stormrl.errors import UserError
from stormrl.history.progress import SilentProgress
from stormrl.machine import provenance
from stormrl.runs import film, whole
from stormrl.runs.agent import Agent

GAME = "stormrl-test/Changing-v0"
NOT_HERE = "cuda:63"


class Changing(gymnasium.Env):
    """A dark room in which nothing happens; its actions change from one version to the next."""

    words: tuple[str, ...] = ("LEFT", "STAY", "RIGHT")
    observation_space = spaces.Box(0, 255, (64, 64, 3), np.uint8)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.action_space = spaces.Discrete(len(self.words))

    def get_action_meanings(self) -> list[str]:
        return list(self.words)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return np.zeros((64, 64, 3), np.uint8), {}

    def step(self, action):
        self.time += 1
        return np.zeros((64, 64, 3), np.uint8), 0.0, self.time >= 9, False, {}


@pytest.fixture(autouse=True)
def game(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    gymnasium.register(GAME, lambda **kwargs: Changing(**kwargs))
    yield
    del gymnasium.registry[GAME]


class Told(SilentProgress):
    """Keeps what training says."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)

    @property
    def other_bits(self) -> list[str]:
        return [text for text in self.messages if "the bits differ" in text]


def begun_elsewhere(path: Path, **fields: object) -> Path:
    """A run that was saved at step 30 on a machine with a GPU."""
    new_run(path, **fields)
    go_on(path, stop_at=30)
    record = json.loads((path / "config.json").read_text())
    record["config"] |= {"device": NOT_HERE, "cuda_graph": "on"}
    (path / "config.json").write_text(json.dumps(record))
    return path


def test_a_run_of_a_gpu_says_which_flag_lets_it_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = begun_elsewhere(tmp_path / "run")
    before = json.loads((run / "config.json").read_text())["config"]
    assert main(["train", "--resume", str(run)]) == 2
    told = capsys.readouterr().err
    assert f"device: {NOT_HERE!r} is not available here; give --device auto or cpu" in told
    assert main(["train", "--resume", str(run), "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["step"] == 60
    after = json.loads((run / "config.json").read_text())["config"]
    assert after == before, "where it goes on is no part of the run"


def test_a_program_gives_the_device_as_well(tmp_path: Path) -> None:
    run = begun_elsewhere(tmp_path / "run")
    with pytest.raises(UserError, match="is not available here"):
        whole.resume(run)
    assert whole.resume(run, steps=70, device="auto").finished
    config = json.loads((run / "config.json").read_text())["config"]
    assert (config["steps"], config["device"], config["cuda_graph"]) == (70, NOT_HERE, "on")


def test_a_new_run_with_graphs_on_a_cpu_is_refused_as_before(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cuda_graph: needs a CUDA device"):
        whole.train(small_config(cuda_graph="on"), tmp_path / "run")


def test_a_run_on_the_same_machine_says_nothing_of_bits(tmp_path: Path) -> None:
    new_run(tmp_path / "run")
    go_on(tmp_path / "run", stop_at=30)
    told = Told()
    assert whole.resume(tmp_path / "run", progress=told).finished
    assert told.other_bits == []


def other_threads(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch, "get_num_threads", lambda: 7)


def other_torch(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch, "__version__", TorchVersion("2.99.0"))


def other_processor(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(provenance, "processor", lambda: "an abacus")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_threads, ["threads was", "and is 7"]),
        (other_torch, ["PyTorch was", "and is 2.99.0"]),
        (other_processor, ["processor was", "and is an abacus"]),
    ],
)
def test_other_circumstances_mean_other_bits_from_here_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change, words: list[str]
) -> None:
    """Said once: what is saved from here on was computed here."""
    new_run(tmp_path / "run")
    go_on(tmp_path / "run", stop_at=30)
    change(monkeypatch)
    first, second = Told(), Told()
    whole.resume(tmp_path / "run", progress=first)
    (message,) = first.other_bits
    assert all(word in message for word in words)
    assert message.count(" was ") == 2  # One of them is of the sentence.
    whole.resume(tmp_path / "run", steps=65, progress=second)
    assert second.other_bits == []


def test_a_checkpoint_of_an_older_version_tells_nothing(tmp_path: Path) -> None:
    new_run(tmp_path / "run")
    go_on(tmp_path / "run", stop_at=30)
    record = checkpoint.load(tmp_path / "run").state
    assert RunState.from_record(record).circumstances["threads"] == str(torch.get_num_threads())
    del record["circumstances"]
    assert RunState.from_record(record).circumstances == {}


@pytest.mark.parametrize("odd", [3, ["threads"], {"threads": 3}, {"threads": "\x1b[2J"}])
def test_odd_circumstances_are_refused(tmp_path: Path, odd: object) -> None:
    new_run(tmp_path / "run")
    go_on(tmp_path / "run", stop_at=3)
    record = checkpoint.load(tmp_path / "run").state | {"circumstances": odd}
    with pytest.raises(UserError, match="no usable 'circumstances'"):
        RunState.from_record(record)


@pytest.fixture
def played(tmp_path: Path) -> Path:
    whole.train(small_config(env=GAME, steps=20), tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("words", "how"),
    [
        (("LEFT", "RIGHT"), "has 2 actions, the run was made with 3 actions"),
        (("LEFT", "STAY", "RIGHT", "UP"), "has 4 actions, the run was made with 3 actions"),
        (
            ("RIGHT", "STAY", "LEFT"),
            "in the order right, stay, left, the run was made with left, stay, right",
        ),
    ],
)
def test_a_game_that_has_changed_is_told_as_such(
    played: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], how: str
) -> None:
    monkeypatch.setattr(Changing, "words", words)
    agent = Agent.load(played, device="cpu")
    refusals = [
        lambda: whole.resume(played, steps=25),
        lambda: whole.agent_scores(agent, 1, PROTOCOLS["official"]),
        lambda: film.dream_film(agent, 1, 3, 4, seed=0),
    ]
    for attempt in refusals:
        with pytest.raises(UserError, match=f"^env: {GAME} .*{how}; play the version"):
            attempt()
    assert main(["play", str(played), "--port", "0"]) == 2


@pytest.mark.parametrize("words", [("left", "Stay", "RIGHT"), ("0", "1", "2")])
def test_other_words_for_the_same_actions_are_no_change(
    played: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setattr(Changing, "words", words)
    assert whole.resume(played, steps=25).finished
