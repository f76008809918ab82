"""What a run names is not executed for being looked at; what a person names is."""

import copy
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from small_runs import go_on, new_run, small_config
from stormrl.cli import main
from stormrl.disk.run_directory import RunDirectory
from stormrl.envs import PROTOCOLS, make_env
from stormrl.errors import UserError
from stormrl.runs import whole

MODULE = "games_of_nobody"
ENV = f"{MODULE}:stormrl/Catch-v0"
MARKER = "executed"
SOURCE = f"""
from pathlib import Path
Path(__file__).with_name("{MARKER}").write_text("")
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few steps, made where its module could be imported."""
    run = tmp_path_factory.mktemp("runs") / "run"
    new_run(run)
    go_on(run, stop_at=3)
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same, named after a module that lies in it; it is the working directory as well."""
    path = tmp_path / "run"
    subprocess.run(["cp", "-r", str(trained), str(path)], check=True)
    record = json.loads((path / "config.json").read_text())
    record["config"]["env"] = ENV
    (path / "config.json").write_text(json.dumps(record))
    (path / f"{MODULE}.py").write_text(SOURCE)
    monkeypatch.chdir(path)
    monkeypatch.setattr(sys, "path", ["", str(path), *sys.path])
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    yield path
    sys.modules.pop(MODULE, None)


def command(*args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`python -m stormrl` in the working directory."""
    environment = os.environ | variables
    return subprocess.run(
        [sys.executable, "-m", "stormrl", *args], capture_output=True, text=True, env=environment
    )


READING = [
    ("eval", ".", "--episodes", "1", "--device", "cpu"),
    ("dream", ".", "--device", "cpu"),
    ("play", ".", "--port", "0"),
    ("train", "--resume", "."),
]
"""What plays the run's own game."""


@pytest.mark.parametrize("args", READING, ids=[args[0] for args in READING])
def test_no_command_executes_what_a_run_brings_along(
    run: Path, args: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    path = list(sys.path)
    assert main(args) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert f"env: {MODULE!r}, named by" in told
    assert f"--allow-import {MODULE}" in told
    assert not (run / MARKER).exists()
    assert sys.path == path


def test_nor_do_those_that_play_another_game_or_none(run: Path) -> None:
    main(["record", "stormrl/Catch-v0", "--policy", ".", "--out", "new.safetensors"])
    main(["export-official", ".", "--out", "weights"])
    assert main(["doctor", ".", "--json"]) == 0
    assert main(["report", ".", "--out", "page.html", "--json"]) == 0
    assert not (run / MARKER).exists()


@pytest.mark.parametrize("variables", [{}, {"PYTHONPATH": f"{os.pathsep}."}], ids=["", "path"])
def test_nor_does_a_process_of_its_own(run: Path, variables: dict[str, str]) -> None:
    if variables:
        variables = {
            "PYTHONPATH": variables["PYTHONPATH"] + os.pathsep + os.environ.get("PYTHONPATH", "")
        }
    done = command(*READING[0], **variables)
    assert (done.returncode, done.stdout) == (2, "")
    assert not (run / MARKER).exists()


def test_what_is_allowed_is_imported(run: Path) -> None:
    done = command(*READING[0], "--json", "--allow-import", MODULE)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["episodes"] == 1
    assert (run / MARKER).exists()


def test_what_a_person_types_is_imported_from_the_working_directory(run: Path) -> None:
    done = command("record", ENV, "--out", "new.safetensors", "--json")
    assert done.returncode == 0, done.stderr
    assert (run / MARKER).exists()


def test_a_program_trains_on_what_it_names(run: Path, tmp_path: Path) -> None:
    whole.playable(small_config(env=ENV)).close()
    assert (run / MARKER).exists()


def test_what_is_installed_is_imported(run: Path, tmp_path: Path) -> None:
    """Wherever else Python looks, that is; a copy in the run does not come first."""
    installed = tmp_path / "installed"
    installed.mkdir()
    (installed / f"{MODULE}.py").write_text(SOURCE)
    sys.path.append(str(installed))
    make_env(RunDirectory.open(run).config.env, PROTOCOLS["atari100k"]).close()
    assert (installed / MARKER).exists()
    assert not (run / MARKER).exists()


def test_an_allowed_package_is_allowed_with_all_that_lies_in_it(run: Path) -> None:
    package = run / "package_of_nobody"
    package.mkdir()
    (package / "games.py").write_text(SOURCE)
    record = json.loads((run / "config.json").read_text())
    record["config"]["env"] = "package_of_nobody.games:stormrl/Catch-v0"
    (run / "config.json").write_text(json.dumps(record))
    for allowed in ((), ("package",), ("package_of_nobody.other",)):
        with pytest.raises(UserError, match="is not imported"):
            make_env(RunDirectory.open(run, allowed).config.env, PROTOCOLS["atari100k"])
    assert not (package / MARKER).exists()
    make_env(RunDirectory.open(run, ["package_of_nobody"]).config.env, PROTOCOLS["atari100k"])
    assert (package / MARKER).exists()
    for name in [name for name in sys.modules if name.startswith("package_of_nobody")]:
        del sys.modules[name]


def pickled(value):
    return pickle.loads(pickle.dumps(value))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled])
def test_no_copy_of_a_config_makes_its_game_trusted(run: Path, copied) -> None:
    env_id = copied(RunDirectory.open(run).config).env
    assert env_id == ENV
    with pytest.raises(UserError, match="is not imported"):
        make_env(env_id, PROTOCOLS["atari100k"])
    assert not (run / MARKER).exists()
