"""Pretrained agents: packed from a real run, found by name, taken by every command."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import stormrl
from small_runs import go_on, new_run, small_config
from stormrl import cli
from stormrl.commands.flags import parse
from stormrl.commands.train import PROG, NewRun
from stormrl.config.parts import RunConfig
from stormrl.config.presets import agent_config
from stormrl.disk import checkpoint, pretrained
from stormrl.disk.files import Seal
from stormrl.disk.run_directory import RunDirectory
from stormrl.errors import UserError
from stormrl.experience.episodes import read_recording
from stormrl.learning.state import module_tensors
from stormrl.report.reading import Run, read_run
from stormrl.runs import packing
from stormrl.runs.agent import Agent

STEPS, EARLY, EPISODES = 60, 50, 3
NAME = "pretrained:Small"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of Catch with some updates and two checkpoints."""
    run = new_run(tmp_path_factory.mktemp("runs") / "catch", size="tiny")
    go_on(run.path)
    return run.path


@pytest.fixture(scope="module")
def packed(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package's folder with the run as the agent Small."""
    folder = tmp_path_factory.mktemp("package")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrained, "folder", lambda: folder)
        packing.pack(trained, "Small", episodes=EPISODES, device="cpu")
    return folder


@pytest.fixture
def package(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it that a test may damage, and an empty cache."""
    folder = shutil.copytree(packed, tmp_path / "package")
    monkeypatch.setattr(pretrained, "folder", lambda: folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def told(capsys: pytest.CaptureFixture[str], *args: object) -> Any:
    assert cli.main([*map(str, args), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refusal(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """The one line with which a command refuses."""
    assert cli.main([*map(str, args)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    return printed.err


def state(agent: Agent) -> dict[str, torch.Tensor]:
    modules = {"world_model": agent.world_model, "actor_critic": agent.actor_critic}
    return {
        f"{group}.{name}": tensor
        for group, module in modules.items()
        for name, tensor in module_tensors(module).items()
    }


# Packing


def test_matrices_are_rounded_and_vectors_and_buffers_are_not(package: Path, trained: Path) -> None:
    before, after = state(Agent.load(trained)), state(Agent.load(NAME))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        expected = tensor.bfloat16().float() if tensor.ndim > 1 else tensor
        assert torch.equal(after[name], expected), name
        assert after[name].dtype == tensor.dtype
    assert any("running_var" in name for name in before)


def test_the_scores_are_those_of_the_rounded_agent(package: Path) -> None:
    agent = pretrained.find("Small")
    again = stormrl.agent_scores(stormrl.Agent.load(NAME, device="cpu"), EPISODES)
    assert [score.total for score in again] == agent.scores["return"]
    assert [score.seed for score in again] == agent.scores["seed"] == agent.random["seed"]
    assert len(agent.random["return"]) == EPISODES


def test_another_checkpoint_takes_the_history_up_to_it(package: Path, trained: Path) -> None:
    agent = packing.pack(trained, "Early", step=EARLY, episodes=1, device="cpu")
    assert (agent.step, Agent.load("pretrained:early").step) == (EARLY, EARLY)
    steps = [step for step in agent.episodes["step"] if step is not None]
    assert 0 < max(steps) <= EARLY
    assert agent.metrics["step"][-1] == 49


def test_a_long_history_is_thinned_evenly_from_its_first_to_its_last_line() -> None:
    kept = packing._thinned(range(100_000))
    assert (kept[0], kept[-1], len(kept)) == (0, 99_999, packing.LINES)
    assert {b - a for a, b in itertools.pairwise(kept)} <= {392, 393}
    assert packing._thinned(range(7)) == list(range(7))


@pytest.mark.parametrize(
    "config",
    [
        RunConfig("stormrl/Catch-v0", agent=agent_config()),
        small_config(preset="paper", size="base", seed=3, deterministic=True),
        RunConfig("ALE/Pong-v5", "official", 9, preset="official", agent=agent_config("official")),
    ],
)
def test_the_command_trains_with_the_same_config(config: RunConfig) -> None:
    words = packing.command(config)
    assert words[:2] == ["stormrl", "train"]
    agent = agent_config(config.preset, config.size)
    default = NewRun(env="", preset=config.preset, size=config.size, agent=agent)
    assert parse(NewRun, words[2:], PROG, default).config() == config


def test_a_packed_agent_is_replaced_whatever_its_capitals(package: Path, trained: Path) -> None:
    packing.pack(trained, "SMALL", step=EARLY, episodes=1, device="cpu")
    assert pretrained.names() == ["Small"]
    assert pretrained.find("small").step == EARLY


@pytest.mark.parametrize("name", ["", "../x", "a b", "a.b", "é"])
def test_what_cannot_be_a_name_is_refused(name: str, trained: Path) -> None:
    with pytest.raises(UserError, match="give letters, digits"):
        packing.pack(trained, name)


def test_networks_that_are_too_large_are_not_packed(
    package: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "LARGEST", 10_000)
    with pytest.raises(UserError, match=r"bytes, more than 10,000; train at a smaller size"):
        packing.pack(trained, "Large")
    assert pretrained.names() == ["Small"]


def test_the_script_packs_and_tells_what_the_list_will_say(
    package: Path,
    trained: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script = importlib.import_module("pack_pretrained")
    args = ["pack", str(trained), "--name", "Other", "--episodes", "1", "--device", "cpu"]
    monkeypatch.setattr("sys.argv", args)
    script.main()
    record = json.loads(capsys.readouterr().out)
    assert record.pop("file") == str(package / "Other.json")
    assert record in told(capsys, "pretrained")


# The list


def test_the_list_for_programs(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (record,) = told(capsys, "pretrained")
    agent = pretrained.find("Small")
    assert record["name"] == "Small"
    assert (record["env"], record["system"], record["size"]) == (
        "stormrl/Catch-v0", "paper", "tiny"
    )  # fmt: skip
    assert (record["steps"], record["episodes"], record["seed"]) == (STEPS, EPISODES, 0)
    assert record["mean"] == pytest.approx(sum(record["returns"]) / EPISODES)
    assert record["random"] == pytest.approx(sum(agent.random["return"]) / EPISODES)
    assert record["bytes"] == (package / "Small.safetensors").stat().st_size
    assert record["command"].startswith("stormrl train --env stormrl/Catch-v0 --preset paper")


def test_the_list_for_people(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pretrained"]) == 0
    printed = capsys.readouterr().out
    row = next(line.split() for line in printed.splitlines() if line.startswith("Small"))
    assert row[:5] == ["Small", "stormrl/Catch-v0", "paper,", "tiny", str(STEPS)]
    assert "stormrl train --env stormrl/Catch-v0" in printed
    assert "stormrl play pretrained:Small" in printed


def test_a_package_without_agents_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pretrained, "folder", lambda: tmp_path / "none")
    assert told(capsys, "pretrained") == []
    assert cli.main(["pretrained"]) == 0
    assert "No pretrained agent" in capsys.readouterr().out
    assert "none comes with this version" in refusal(capsys, "eval", NAME)


# Every command that takes a run


def test_eval_plays_it_and_adds_to_its_scores(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = told(capsys, "eval", "pretrained:sMALL", "--episodes", EPISODES, "--device", "cpu")
    assert record["step"] == STEPS
    assert record["returns"] == pretrained.find("Small").scores["return"]
    lines = (pretrained.unpacked("Small") / "scores.jsonl").read_text().splitlines()
    assert len(lines) == 2 * EPISODES


def test_dream_films_it_into_its_directory(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ("--episodes", 1, "--error-episodes", 1, "--context", 3, "--horizon", 2)
    record = told(capsys, "dream", NAME, *sizes, "--device", "cpu")
    assert record["step"] == STEPS
    videos = pretrained.unpacked("small") / "videos"
    assert {Path(file).parent for file in record["files"]} == {videos}
    run = read_run(Path(NAME))
    assert isinstance(run, Run)
    assert run.open_loop == record["open_loop"]


def test_report_draws_its_scores_and_its_learning(
    package: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "report.html"
    record = told(capsys, "report", NAME, trained, "--out", page)
    (game,) = record["games"]
    assert game["runs"] == 2
    assert game["scores"] == [pytest.approx(told(capsys, "pretrained")[0]["mean"])]
    assert record["problems"].keys() <= {"catch"}
    assert NAME in page.read_text()
    run, source = read_run(Path(NAME)), read_run(trained)
    assert isinstance(run, Run)
    assert isinstance(source, Run)
    assert run.finished
    assert run.returns() == source.returns()
    loss = source.series("world_model/reconstruction")
    assert loss.values
    assert run.series("world_model/reconstruction").values == pytest.approx(loss.values, rel=1e-3)


def test_doctor_examines_what_it_learned_from(
    package: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record, source = told(capsys, "doctor", NAME), told(capsys, "doctor", trained)
    assert record["updates"] == source["updates"] > 0
    causes = [[finding["cause"] for finding in found["findings"]] for found in (record, source)]
    assert causes[0] == causes[1]


def test_record_has_it_play(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo.safetensors"
    args = ("stormrl/Catch-v0", "--policy", NAME, "--out", out, "--device", "cpu")
    record = told(capsys, "record", *args)
    recording = read_recording(out)
    assert (record["policy"], recording.policy) == (NAME, NAME)
    assert [episode.total for episode in recording.episodes] == record["returns"]


def test_play_serves_it(
    package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Up to the server's loop, which only Ctrl-C ends."""
    httpx = pytest.importorskip("starlette.testclient", reason="pip install 'stormrl[play]'")
    uvicorn = pytest.importorskip("uvicorn")
    pages = []

    def ask(server: Any, sockets: list) -> None:
        with httpx.TestClient(server.config.app, base_url="http://127.0.0.1") as client:
            pages.append(client.get("/").text)
        sockets[0].close()

    monkeypatch.setattr(uvicorn.Server, "run", ask)
    record = told(capsys, "play", NAME, "--port", 0)
    assert (record["env"], record["step"]) == ("stormrl/Catch-v0", STEPS)
    assert "<html" in pages[0]


def test_export_official_takes_it_up_to_its_size(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refusal(capsys, "export-official", NAME, "--out", tmp_path)
    assert "only networks of the released sizes" in error


def test_it_is_not_trained_on(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more in ([], ["--steps", 10 * STEPS], ["--json"]):
        error = refusal(capsys, "train", "--resume", NAME, *more)
        assert f"{NAME} holds no usable training state" in error
    assert RunDirectory.open(NAME).config.steps == STEPS
    with pytest.raises(UserError, match="networks alone"):
        stormrl.resume(pretrained.unpacked("Small"), steps=10 * STEPS)


def test_no_new_run_takes_its_name(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ("train", "--env", "stormrl/Catch-v0", "--size", "tiny", "--run-dir", NAME)
    assert "stands for an agent of the package" in refusal(capsys, *args)


def test_an_unknown_name_lists_those_that_exist(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("eval", "dream", "doctor", "play"):
        error = refusal(capsys, command, "pretrained:Big")
        assert "no agent is called 'Big'; give one of Small" in error
    assert "give one of Small" in refusal(capsys, "report", "pretrained:Big")
    args = ("stormrl/Catch-v0", "--out", "x", "--policy", "pretrained:")
    assert "no agent is called ''; give one of Small" in refusal(capsys, "record", *args)


# Unpacking


def test_an_unpacked_agent_is_left_as_it_is(package: Path) -> None:
    run = pretrained.unpacked("small")
    assert run.parent == package.parent / "cache" / "stormrl" / "pretrained"
    (run / "note").write_text("mine")
    assert pretrained.unpacked("SMALL") == run
    assert (run / "note").read_text() == "mine"
    assert [path.name for path in run.parent.iterdir()] == [run.name], "nothing else is left there"
    assert checkpoint.load(run).tensors.keys() == {"world_model", "actor_critic"}


def test_a_damaged_unpacked_agent_is_made_anew(package: Path) -> None:
    run = pretrained.unpacked("Small")
    file = next(run.glob("checkpoints/*/world_model.safetensors"))
    file.write_bytes(file.read_bytes()[:-1])
    assert pretrained.unpacked("Small") == run
    assert Agent.load(NAME).step == STEPS
    (run / "config.json").unlink()
    assert RunDirectory.open(NAME).path == run


def test_another_agent_of_the_same_name_gets_a_directory_of_its_own(
    package: Path, trained: Path
) -> None:
    old = pretrained.unpacked("Small")
    packing.pack(trained, "Small", step=EARLY, episodes=1, device="cpu")
    assert pretrained.unpacked("Small") != old
    assert Agent.load(NAME).step == EARLY


@pytest.mark.parametrize("blocked", ["no home", "a file in its place", "somebody else's"])
def test_without_a_cache_it_goes_to_the_folder_of_temporary_files(
    blocked: str, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    fallback = tmp_path / "tmp" / f"stormrl-{os.getuid()}"
    match blocked:
        case "no home":
            monkeypatch.setenv("XDG_CACHE_HOME", "relative")
            monkeypatch.setattr(Path, "home", _no_home)
        case "a file in its place":
            (tmp_path / "cache").write_text("")
        case _:
            elsewhere = tmp_path / "elsewhere"
            elsewhere.mkdir()
            (tmp_path / "cache" / "stormrl").mkdir(parents=True)
            (tmp_path / "cache" / "stormrl" / "pretrained").symlink_to(elsewhere)
    run = pretrained.unpacked("Small")
    assert run.parent == fallback
    assert fallback.stat().st_mode & 0o777 == 0o700
    assert Agent.load(NAME).path == run


def _no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_where_nothing_can_be_written_one_line_says_so(
    package: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("cache", "tmp"):
        (tmp_path / name).write_text("")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    error = refusal(capsys, "eval", NAME)
    assert "nowhere to unpack to" in error
    assert "set XDG_CACHE_HOME" in error


def _unpack(folder: Path, barrier: Any, made: Any) -> None:
    pretrained.folder = lambda: folder
    barrier.wait()
    made.put(str(pretrained.unpacked("Small")))


def test_processes_that_unpack_at_once_agree(package: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["stormrl.runs.whole", "torch._dynamo", "torch.utils.tensorboard"]
    )
    barrier, made = context.Barrier(4), context.Queue()
    workers = [
        context.Process(target=_unpack, args=(package, barrier, made), daemon=True)
        for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    found = {made.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join()
    (run,) = map(Path, found)
    assert Agent.load(run).step == STEPS
    assert [path.name for path in run.parent.iterdir()] == [run.name]


def test_of_two_that_unpack_at_once_the_second_takes_what_is_there(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run = pretrained._write_run

    def overtaken(*args: Any) -> None:
        write_run(*args)
        monkeypatch.setattr(pretrained, "_write_run", write_run)
        (pretrained.unpacked("Small") / "note").write_text("first")

    monkeypatch.setattr(pretrained, "_write_run", overtaken)
    assert (pretrained.unpacked("Small") / "note").read_text() == "first"


# Damage


def test_a_changed_byte_or_a_lost_end_is_refused_with_both_checksums(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = package / "Small.safetensors"
    content, seal = path.read_bytes(), pretrained.find("Small").networks
    changed = bytearray(content)
    changed[len(content) // 2] ^= 1
    for damaged in (bytes(changed), content[:-1], content[:8], b"", content + b"\0"):
        path.write_bytes(damaged)
        found = Seal.of(damaged).sha256
        error = refusal(capsys, "eval", NAME)
        assert f"{path}: is damaged: its SHA-256 is {found}, expected is {seal.sha256}" in error
    path.unlink()
    assert "Small.safetensors: is missing" in refusal(capsys, "eval", NAME)
    assert told(capsys, "pretrained")[0]["bytes"] == len(content), "a list reads no networks"


def test_no_byte_of_the_json_file_changes_what_it_means_unnoticed(package: Path) -> None:
    path = package / "Small.json"
    content, whole = path.read_bytes(), pretrained.read(package / "Small.json")
    for index in range(0, len(content), 97):
        for mask in (1, 0x10):
            changed = bytearray(content)
            changed[index] ^= mask
            path.write_bytes(bytes(changed))
            with contextlib.suppress(UserError):
                assert pretrained.read(path) == whole, "white space at most"
    for length in range(0, len(content) - 1, 997):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match=r"Small\.json"):
            pretrained.read(path)


def _without(*keys: str) -> Callable[[dict], None]:
    def edit(record: dict) -> None:
        for key in keys[:-1]:
            record = record[key]
        del record[keys[-1]]

    return edit


def _set(value: object, *keys: str) -> Callable[[dict], None]:
    def edit(record: dict) -> None:
        for key in keys[:-1]:
            record = record[key]
        record[keys[-1]] = value

    return edit


STRANGE = {
    "no step": (_without("step"), "holds no usable 'step'"),
    "step true": (_set(True, "step"), "holds no usable 'step'"),
    "no protocol": (_without("protocol"), "holds no usable 'protocol'"),
    "no scores": (_without("scores"), "holds no usable 'scores'"),
    "no returns": (_without("scores", "return"), "holds no usable 'scores'"),
    "a column too short": (_set([1], "scores", "return"), "holds no usable 'scores'"),
    "no episodes": (
        _set({"seed": [], "return": [], "length": []}, "scores"),
        "holds no usable 'scores'",
    ),
    "an episode without return": (
        _set([None] * EPISODES, "random", "return"),
        "holds no usable 'random'",
    ),
    "no table": (_set([1, 2], "random"), "holds no usable 'random'"),
    "words in a column": (_set(["a"] * EPISODES, "random", "return"), "holds no usable 'random'"),
    "no networks": (_without("networks"), "holds no usable 'networks'"),
    "a checksum that is none": (_set({"bytes": -1}, "networks"), "holds no usable 'networks'"),
    "no run": (_without("run"), "holds no usable 'run'"),
    "no command": (_without("run", "command"), "holds no usable 'command'"),
    "no env": (_without("run", "config", "env"), "env: is missing"),
    "format 2": (_set(2, "format"), "this stormrl reads up to 1; upgrade stormrl"),
    "format 0": (_set(0, "format"), "format: is missing or unknown"),
    "format of words": (_set("1", "format"), "format: is missing or unknown"),
    "no format": (_without("format"), "format: is missing or unknown"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_json_file_is_refused_although_its_checksum_fits(
    name: str, package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit, words = STRANGE[name]
    path = package / "Small.json"
    record = json.loads(path.read_bytes())
    del record[pretrained.CHECKSUM]
    edit(record)
    path.write_text(json.dumps(record | {pretrained.CHECKSUM: pretrained.checksum(record)}))
    assert words in refusal(capsys, "eval", NAME)
    assert words in refusal(capsys, "pretrained")
