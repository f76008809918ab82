"""`stormrl suite` as it is typed: plans, mistakes, and a machine without Ray."""

import json
import os
import sys

import pytest

from small_runs import go_on, small_config
from stormrl.cli import main
from stormrl.disk.lock import held
from stormrl.disk.run_directory import RunDirectory
from stormrl.suite.plan import tasks
from suite_runs import GAME, as_flags


def mistake(capsys, *args) -> str:
    assert main(["suite", *args]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    return line.removeprefix("stormrl: ")


@pytest.mark.parametrize(
    ("args", "line"),
    [
        ((), "games: is empty; give --games and one or more"),
        (("--games",), "games: is empty; give --games and one or more"),
        (("--games", "Pong", "--seeds"), "seeds: is empty; give --seeds and one or more"),
        (("--games", "Pong", "--seed", "1"), "seed: belongs to stormrl train; here, give --seeds"),
        (("--env", "ALE/Pong-v5"), "env: belongs to stormrl train; here, give --games"),
        (("--run-dir=x",), "run-dir: belongs to stormrl train; here, give --out"),
        (("--resume", "x"), "resume: is not needed: the same command as before goes on"),
        (
            ("--games", "Pong", "--gams"),
            "--gams: is no flag of this command; did you mean --games?",
        ),
        (
            ("--games", "Pong", "--cpus-per-run", "0", "--dry-run"),
            "cpus_per_run: is 0; give a number above 0",
        ),
        (
            ("--games", "Pong", "--device", "cuda", "--gpus-per-run", "0", "--dry-run"),
            "gpus_per_run: is 0, but --device asks for a GPU; give 1 or a share",
        ),
    ],
)
def test_mistakes_are_one_line(args, line, capsys):
    assert mistake(capsys, *args) == line


def test_more_cores_than_there_are(capsys):
    line = mistake(capsys, "--games", "Pong", "--cpus-per-run", "4096", "--dry-run")
    assert line.startswith("cpus_per_run: no run finds room: this machine has")


def test_ray_that_is_not_installed(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    line = mistake(capsys, "--games", GAME, "--out", str(tmp_path / "out"))
    assert line == "ray: is not installed: pip install 'stormrl[suite]'"
    assert not (tmp_path / "out").exists()


def test_the_plan_knows_what_is_done(tmp_path, capsys, monkeypatch):
    """One run finished, one half done, one new; times by hand from the figures given."""
    monkeypatch.chdir(tmp_path)
    planned = tasks([GAME], [1, 2, 3], {"paper": small_config()})
    for task, stop in zip(planned[:2], (None, 25), strict=True):
        RunDirectory.create(tmp_path / "runs" / task.name, task.config)
        go_on(tmp_path / "runs" / task.name, stop_at=stop)
    stages = {"iteration": 2.0, "world_model": 1.0, "act": 0.25, "env": 0.5}
    bench = {"size": "base", "env": GAME, "device": "cpu", "peak_memory_bytes": 1000}
    bench["stages"] = {name: {"median_s": seconds} for name, seconds in stages.items()}
    (tmp_path / "figures.json").write_text(json.dumps(bench))
    flags = ["--games", GAME, "--seeds", "1", "2", "3", *as_flags(planned[0].config)]
    dry = ["suite", *flags, "--dry-run", "--bench", "figures.json"]
    assert main([*dry, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [(run["state"], run["saved"]) for run in plan["runs"]] == [
        ("finished", 60),
        ("resumes", 25),
        ("new", 0),
    ]
    # A step with its updates takes 2 s, one of the 16 random ones 0.5 s.
    assert [run["seconds"] for run in plan["runs"]] == [0, 35 * 2, 44 * 2 + 16 * 0.5]
    assert {run["memory_bytes"] for run in plan["runs"]} == {1000 + 40 * 64 * 64 * 3}
    assert (plan["left"], plan["figures"]) == (2, ["figures.json"])
    whole = {1: 166, 2: 96}.get(plan["at_once"], 96) + 12 * (2 if plan["at_once"] == 1 else 1)
    assert plan["seconds"] == pytest.approx(whole)
    assert main(dry) == 0
    shown = capsys.readouterr().out
    assert "catch-paper-base-seed2  resumes" in shown
    assert "figures.json" in shown


def test_presets_keep_what_they_are_beside_other_flags(tmp_path, capsys):
    """Each preset's own fields, and the flag that holds for both."""
    out = ["--out", str(tmp_path), "--dry-run", "--json"]
    args = ["--games", GAME, "--seeds", "1", "--presets", "paper", "official", "--size", "toy"]
    assert main(["suite", *args, "--imagination.horizon", "5", "--acting.context", "9", *out]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [run["name"] for run in plan["runs"]] == [
        "catch-paper-toy-seed1",
        "catch-official-toy-seed1",
    ]
    from stormrl.commands.flags import parse, parse_some
    from stormrl.commands.suite import SuiteChoice, SuiteOptions, _defaults

    given = [*args, "--imagination.horizon", "5", "--acting.context", "9"]
    choice = parse_some(SuiteChoice, given)
    configs = [
        parse(SuiteOptions, given, "stormrl suite", _defaults(name, choice.size)).config(name)
        for name in choice.presets
    ]
    assert [config.agent.imagination.horizon for config in configs] == [5, 5]
    continuations = [config.agent.imagination.continuation for config in configs]
    assert continuations == ["probability", "threshold"]
    assert [config.preset for config in configs] == ["paper", "official"]


def test_a_directory_with_another_run_is_refused(tmp_path, capsys):
    (task,) = tasks([GAME], [1], {"paper": small_config()})
    RunDirectory.create(tmp_path / task.name, task.config)
    flags = ["--games", GAME, "--seeds", "1", "--out", str(tmp_path), *as_flags(task.config)]
    line = mistake(capsys, *flags, "--actor-critic.gamma", "0.9", "--dry-run")
    assert line.startswith("agent.actor_critic.gamma: catch-paper-base-seed1 began with 0.985")


def test_a_second_suite_in_a_folder_is_told_so_and_starts_nothing(tmp_path, capsys, monkeypatch):
    planned = tasks([GAME], [1], {"paper": small_config()})
    flags = ["--games", GAME, "--seeds", "1", "--out", str(tmp_path), *as_flags(planned[0].config)]
    (tmp_path / ".suite").mkdir()
    monkeypatch.setattr("stormrl.suite.ray_pool.RayPool", None)  # It must not be asked for.
    with held(tmp_path / ".suite" / "lock"):
        line = mistake(capsys, *flags)
    problem = f"out: {tmp_path} is in use by a suite, process {os.getpid()}"
    assert line == f"{problem}; wait for its end, stop it, or give another folder"
    assert [path.name for path in tmp_path.iterdir()] == [".suite"]


def test_silence_is_longer_than_nothing(capsys):
    line = mistake(capsys, "--games", GAME, "--silence-minutes", "0")
    assert line == "silence_minutes: is 0.0; give more than 0"
