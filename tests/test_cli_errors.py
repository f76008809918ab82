"""A user's mistake ends with exit code 2 and one line that names the field and the remedy."""

import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import tyro

import stormrl
from stormrl.cli import COMMANDS, main
from stormrl.commands import tyro_mistakes
from stormrl.errors import UserError

Captured = pytest.CaptureFixture[str]

GAME = "train --env stormrl/Catch-v0 --device cpu"

MISTAKES = [
    # command, field, words of the message
    ("trian", "command", "'trian' is unknown; did you mean train?"),
    ("xyz", "command", "give one of train, eval"),
    ("--train", "command", "did you mean train?"),
    ("train", "env", "is missing; give --env ALE/GAME-v5"),
    ("train --evn ALE/Pong-v5", "--evn", "did you mean --env?"),
    (f"{GAME} --stps 5", "--stps", "did you mean --steps?"),
    (f"{GAME} --stps=5", "--stps", "did you mean --steps?"),
    (f"{GAME} --layers 4", "--layers", "--world-model.sequence.layers"),
    (f"{GAME} --batch-size 4", "--batch-size", "--world-model.batch-size or --imagination"),
    (f"{GAME} --agent.replay.capacity 4", "--agent.replay.capacity", "mean --replay.capacity?"),
    (f"{GAME} --qqqqqq 4", "--qqqqqq", "--help lists the known ones"),
    (f"{GAME} 5", "5", "begins with --"),
    (f"{GAME} --steps", "steps", "has no value; give --steps INT"),
    (f"{GAME} --steps --seed 3", "steps", "has no value; give --steps INT"),
    (f"{GAME} --preset", "preset", "has no value; give --preset STR"),
    (f"{GAME} --steps many", "steps", "is 'many'; give a whole number"),
    (f"{GAME} --steps 1.5", "steps", "is '1.5'; give a whole number"),
    (f"{GAME} --steps -5", "steps", "is -5; give a number above 0"),
    (f"{GAME} --seed -1", "seed", "is -1; give 0 or more"),
    (f"{GAME} --seed {2**63}", "seed", "give a whole number below 2**63"),
    (f"{GAME} --actor-critic.gamma high", "actor_critic.gamma", "is 'high'; give a number"),
    (f"{GAME} --actor-critic.gamma 2", "actor_critic.gamma", "is 2.0; give a number from 0 to 1"),
    (f"{GAME} --actor-critic.gamma nan", "actor_critic.gamma", "is nan; give a number from 0"),
    (f"{GAME} --precision bf17", "precision", "'bf17' is unknown; give one of auto, bf16"),
    (f"{GAME} --preset papre", "preset", "'papre' is unknown; give one of paper, official"),
    (f"{GAME} --size huge", "size", "'huge' is unknown; give one of toy, tiny, small, base"),
    (f"{GAME} --protocol atari", "protocol", "'atari' is unknown; give one of official"),
    (
        f"{GAME} --world-model.sequence.width 130",
        "world_model.sequence.width",
        "130 is not divisible by 8 heads; change width or heads",
    ),
    (f"{GAME} --actor-critic.head.width 0", "actor_critic.head.width", "give a number above 0"),
    (
        f"{GAME} --replay.warmup 20",
        "replay.warmup",
        "20 steps hold no window of 64; raise replay.warmup",
    ),
    (f"{GAME} --replay.capacity 500", "replay.warmup", "does not fit the capacity of 500"),
    (
        f"{GAME} --steps {10**12} --replay.capacity {10**12}",
        "replay.capacity",
        "takes 11,444,091.8 GiB and cpu has",
    ),
    (f"{GAME} --device quantum", "device", "give auto, cpu, cuda or cuda:N"),
    (f"{GAME} --device cuda:63", "device", "not available here; give --device auto or cpu"),
    ("train --env ALE/Pnog-v5", "env", "Did you mean ALE/Pong-v5"),
    ("train --env 'ALE/Po\nng-v5'", "env", "give a text of printable characters"),
    ("train --env nowhere:Game-v0", "env", "cannot import 'nowhere'"),
    (f"{GAME} --run-dir occupied", "run_dir", "stormrl train --resume occupied"),
    (f"{GAME} --run-dir file", "run_dir", "is a file"),
    (f"{GAME} --run-dir /proc/run", "run_dir", "cannot be written"),
    ("train --resume", "resume", "has no value; give --resume RUN"),
    ("train --resume nowhere", "run_dir", "nowhere does not exist"),
    ("train --resume occupied", "run_dir", "occupied has no config.json"),
    ("train --resume other --seed 3", "seed", "only --steps and --device may be given"),
    ("train --resume other --world-model.batch_size=3", "world_model.batch_size", "cannot be set"),
    ("train --resume other --stps 3", "--stps", "did you mean --steps?"),
    ("eval", "run", "is missing; give RUN"),
    ("eval nowhere", "run_dir", "nowhere does not exist; give the directory of a stormrl run"),
    ("eval occupied", "run_dir", "occupied has no config.json"),
    ("eval other", "config.json", "is damaged"),
    ("eval other --episodes 0", "episodes", "is 0; give 1 or more"),
    ("eval other --seed -1", "seed", "is -1"),
    ("dream", "run", "is missing; give RUN"),
    ("dream nowhere", "run_dir", "nowhere does not exist"),
    ("dream other --episodes 0", "episodes", "is 0; give 1 or more"),
    ("record", "env", "is missing; give ENV"),
    ("record stormrl/Catch-v0", "out", "is missing; give --out PATH"),
    ("record ALE/Pnog-v5 --out a", "env", "Did you mean ALE/Pong-v5"),
    ("record stormrl/Catch-v0 --out a --episodes 0", "episodes", "is 0; give 1 or more"),
    ("record stormrl/Catch-v0 --out a --seed -1", "seed", "is -1"),
    ("record stormrl/Catch-v0 --out a --protocol b", "protocol", "give one of official"),
    ("record stormrl/Catch-v0 --out a --policy b", "policy", "give random, noop, constant:ACTION"),
    ("record stormrl/Catch-v0 --out a --policy noop", "policy", "give one of LEFT, STAY, RIGHT"),
    ("record stormrl/Catch-v0 --out a --policy constant:UP", "policy", "no action 'UP'"),
    ("record stormrl/Catch-v0 --out a --policy occupied", "run_dir", "has no config.json"),
    ("record stormrl/Catch-v0 --out /proc/a", "out", "cannot be written"),
    (f"{GAME} --demonstration.path nowhere", "nowhere", "is missing"),
    (f"{GAME} --demonstration.path file", "file", "is not a usable safetensors file"),
    (f"{GAME} --demonstration.world-model-windows -1", "world_model_windows", "give 0 or more"),
    ("import-official", "world_model", "is missing; give WORLD_MODEL"),
    ("import-official a.pth b.pth --out run", "env", "is missing; give --env ALE/GAME-v5"),
    ("import-official a.pth b.pth --env stormrl/Catch-v0 --out run", "a.pth", "is missing"),
    ("import-official file b.pth --env stormrl/Catch-v0 --out run", "file", "no plain tensors"),
    ("import-official a.pth b.pth --env ALE/Pnog-v5 --out run", "env", "mean ALE/Pong-v5"),
    ("export-official", "run", "is missing; give RUN"),
    ("export-official nowhere --out weights", "run_dir", "nowhere does not exist"),
    ("export-official other --out weights", "config.json", "is damaged"),
    ("check-env", "env", "is missing; give ENV"),
    ("check-env ALE/Pnog-v5", "env", "Did you mean ALE/Pong-v5"),
    ("bench ''", "''", "is not expected here"),
    ("bench :", "':'", "is not expected here"),
    ("presets --jsn", "--jsn", "did you mean --json?"),
    ("bench --repeats 0", "repeats", "is 0; give 2 or more"),
    ("demo --minutes 0", "minutes", "is 0; give a number above 0"),
    ("demo --minutes soon", "minutes", "is 'soon'; give a number"),
    ("demo --out /proc/demo", "out", "cannot be written"),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a foreign folder, a file, and a damaged run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "occupied").mkdir()
    (tmp_path / "occupied" / "thesis.tex").touch()
    (tmp_path / "file").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"format": 1, "conf')
    return tmp_path


def assert_one_line(printed: str, field: str, words: str) -> None:
    assert printed.count("\n") == 1
    assert printed.endswith("\n")
    program, named, message = printed.split(": ", maxsplit=2)
    assert program == "stormrl"
    assert named.endswith(field)
    assert words in message


@pytest.mark.parametrize(("command", "field", "words"), MISTAKES)
def test_a_mistake_is_one_line(
    command: str, field: str, words: str, folder: Path, capsys: Captured
) -> None:
    before = sorted(folder.rglob("*"))
    assert main(shlex.split(command)) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert_one_line(printed.err, field, words)
    assert sorted(folder.rglob("*")) == before, "a mistake leaves nothing behind"


@pytest.mark.parametrize(
    ("command", "field", "words"),
    [
        (f"{GAME} --stps 5", "--stps", "did you mean --steps?"),
        ("train --env ALE/Pnog-v5", "env", "Did you mean ALE/Pong-v5"),
        ("eval occupied --json", "run_dir", "occupied has no config.json"),
    ],
)
def test_a_mistake_is_one_line_of_the_process(
    command: str, field: str, words: str, folder: Path
) -> None:
    process = [sys.executable, "-m", "stormrl", *shlex.split(command)]
    done = subprocess.run(process, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert_one_line(done.stderr, field, words)


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_takes_an_unknown_flag(name: str, capsys: Captured) -> None:
    assert main([name, "--no-such-flag-at-all"]) == 2
    assert_one_line(capsys.readouterr().err, "--no-such-flag-at-all", "is no flag of this command")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("runs") / "catch"
    args = f"{GAME} --size toy --steps 40 --replay.warmup 39 --evaluation-episodes 0 --compile off"
    assert main([*shlex.split(args), "--run-dir", str(path)]) == 0
    return str(path)


@pytest.mark.parametrize(
    ("command", "field", "words"),
    [
        ("eval RUN --step 3", "step", "there is no checkpoint at step 3; at hand: 40"),
        ("eval RUN --protocol atari", "protocol", "'atari' is unknown; give one of official"),
        ("eval RUN --device cuda:63", "device", "give --device auto or cpu"),
        ("dream RUN --out dream.avi", "out", "give .mp4, .gif, .png, .json or no suffix"),
        ("dream RUN --out /proc/dream.gif", "out", "/proc/dream.gif cannot be written"),
        ("dream RUN --horizon 493", "horizon", "no more than 500 steps of an episode are played"),
        ("dream RUN --temperature -1", "temperature", "is -1.0; give 0 to 10"),
        ("dream RUN --error-episodes 0", "error_episodes", "is 0; give 1 or more"),
        ("play RUN --port 70000", "port", "is 70000; give 0 to 65535"),
        ("play RUN --context 0", "context", "is 0; give 1 to 64"),
        ("play RUN --host no.such.host.invalid", "host", "is no address here"),
        ("play RUN --step 3", "step", "there is no checkpoint at step 3; at hand: 40"),
        ("dream RUN --horizon 0", "horizon", "is 0; give 1 or more"),
        ("dream RUN --context 0", "context", "is 0; give 1 or more"),
        ("dream RUN --context 39 --horizon 2", "context", "the shortest episode has 39 steps"),
        ("train --resume RUN --steps 3", "steps", "is at step 40; give more"),
        ("train --env stormrl/Catch-v0 --run-dir RUN", "run_dir", "exists and is not empty"),
    ],
)
def test_a_mistake_about_a_run_is_one_line(
    command: str, field: str, words: str, run: str, folder: Path, capsys: Captured
) -> None:
    capsys.readouterr()
    before = sorted(Path(run).rglob("*")), (Path(run) / "config.json").read_bytes()
    assert main(shlex.split(command.replace("RUN", run))) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert_one_line(printed.err, field, words)
    assert (sorted(Path(run).rglob("*")), (Path(run) / "config.json").read_bytes()) == before


def test_a_run_that_is_training_cannot_be_trained_twice(run: str, capsys: Captured) -> None:
    from stormrl.disk.run_directory import RunDirectory

    with RunDirectory.open(run).lock():
        assert main(["train", "--resume", run, "--steps", "49"]) == 2
    assert_one_line(capsys.readouterr().err, "run_dir", f"is in use by process {os.getpid()}")
    assert json.loads((Path(run) / "config.json").read_text())["config"]["steps"] == 40


def test_a_bug_is_not_dressed_up_as_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(args: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr("stormrl.commands.presets.main", fail)
    with pytest.raises(ZeroDivisionError):
        main(["presets"])


def test_a_tyro_that_reports_mistakes_otherwise_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr(tyro, "_errors", SimpleNamespace(on_parse_error=None))
    # Imported anew below; the package has to give way to the old one again, like its modules.
    monkeypatch.setattr(stormrl, "commands", stormrl.commands)
    for name in [name for name in sys.modules if name.startswith("stormrl.commands")]:
        monkeypatch.delitem(sys.modules, name)
    assert main(["eval", "run"]) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"stormrl: tyro: {tyro.__version__} lacks BadValue, Instant")
    assert line.endswith("; pip install 'tyro>=1.0.14,<1.1'\n")


def test_a_field_that_an_event_of_tyro_lacks_is_named() -> None:
    @dataclass
    class InvalidChoice:
        argument: str
        value: str

    hooks = SimpleNamespace(**vars(tyro_mistakes.events) | {"InvalidChoice": InvalidChoice})
    with pytest.raises(UserError, match=r"lacks InvalidChoice\.choices; pip install"):
        tyro_mistakes.check(hooks)
    tyro_mistakes.check(tyro_mistakes.events)
