import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import pytest
from gymnasium.envs.registration import EnvSpec

import stormrl
from stormrl.cli import COMMANDS, main
from stormrl.commands.flags import flags, parse
from stormrl.commands.presets import changes, default_like
from stormrl.commands.train import PROG, NewRun
from stormrl.config import presets
from stormrl.config.json import config_from_dict
from stormrl.config.parts import AgentConfig
from stormrl.config.validation import unchecked
from videos import read_video

Captured = pytest.CaptureFixture[str]

SMALL = shlex.split(
    "--env stormrl/Catch-v0 --size toy --device cpu --precision fp32 --compile off"
    " --replay.warmup 40 --imagination.batch-size 4 --imagination.horizon 4"
    " --world-model.batch-size 2 --world-model.batch-length 13 --acting.context 8"
    " --evaluation-episodes 0 --dream-every 0"
)
STEPS = 44


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few updates; tests may add to it but not train it on."""
    path = tmp_path_factory.mktemp("runs") / "catch"
    assert main(["train", *SMALL, "--steps", str(STEPS), "--run-dir", str(path)]) == 0
    return path


def json_of(capsys: Captured, *args: str, code: int = 0) -> dict[str, Any]:
    """What a command prints with `--json`: one object, and nothing else anywhere."""
    capsys.readouterr()
    assert main([*args, "--json"]) == code
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.count("\n") == 1
    return json.loads(printed.out)


def config_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "config.json").read_text())["config"]


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"], ["help"]])
def test_the_help_lists_every_command(args: list[str], capsys: Captured) -> None:
    assert main(args) == 0
    printed = capsys.readouterr().out
    assert all(f"\n  {name} " in printed for name in COMMANDS)


def test_the_version_is_the_packages(capsys: Captured) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"stormrl {stormrl.__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_tells_its_flags(name: str, capsys: Captured) -> None:
    assert main([name, "--help"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: stormrl {name} ")
    assert "--json" in printed


def test_help_does_not_wait_for_pytorch() -> None:
    code = (
        "import sys; from stormrl.cli import main; code = main(['train', '--help']);"
        "sys.exit(code or 'torch' in sys.modules or 'gymnasium' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "--world-model.sequence.layers INT" in done.stdout
    assert "Number of Transformer blocks." in done.stdout


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = f"{sys.executable} -m stormrl train --help | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("usage: stormrl train")
    assert done.stderr == ""


def test_training_says_what_it_does_and_leaves_a_whole_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    scored = [*SMALL, "--steps", "46", "--seed", "5", "--evaluation-episodes", "2"]
    assert main(["train", *scored, "--dream-every", "45"]) == 0
    printed = capsys.readouterr()
    run = Path("runs/catch-paper-toy-seed5")
    assert printed.out == ""
    for words in (
        f"trains in {run}",
        "stormrl/Catch-v0, protocol atari100k",
        "46 environment steps, seed 5",
        "preset paper, size toy",
        "cpu, fp32, eager",
        f"tensorboard --logdir {run}/tensorboard",
        "mean ± standard error of 2 episodes under protocol atari100k",
        f"stormrl eval {run}",
        f"stormrl dream {run}",
    ):
        assert words in printed.err
    scores = [json.loads(line) for line in (run / "scores.jsonl").read_text().splitlines()]
    mean = sum(score["return"] for score in scores) / 2
    assert f"score {mean:.2f} ± " in printed.err
    assert {path.name for path in run.iterdir()} >= {
        "config.json", "metrics.jsonl", "episodes.jsonl", "checkpoints", "replay", "tensorboard"
    }  # fmt: skip
    assert [path.name for path in (run / "videos").iterdir()] == ["dream-00000045.mp4"]


def test_a_run_without_a_name_gets_a_fresh_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    args = [*SMALL, "--preset", "official", "--steps", "41"]
    named = [json_of(capsys, "train", *args)["run_dir"] for _ in range(3)]
    first = "runs/catch-official-toy-seed0"
    assert named == [first, f"{first}-2", f"{first}-3"]


def test_emulator_frames_are_told_beside_steps(tmp_path: Path, capsys: Captured) -> None:
    args = [*SMALL, "--env", "ALE/Pong-v5", "--steps", "41", "--run-dir", str(tmp_path / "a")]
    assert main(["train", *args]) == 0
    assert "41 environment steps = 164 emulator frames" in capsys.readouterr().err


def test_flags_change_single_fields_of_what_preset_and_size_give(run: Path) -> None:
    agent = config_of(run)["agent"]
    expected = presets.agent_config("paper", "toy")
    assert agent["replay"]["warmup"] == 40
    assert agent["world_model"]["batch_size"] == 2
    assert agent["world_model"]["latent"]["classes"] == expected.world_model.latent.classes
    assert agent["actor_critic"]["head"]["width"] == expected.actor_critic.head.width


@pytest.mark.parametrize("size", presets.SIZES)
@pytest.mark.parametrize("preset", presets.PRESETS)
def test_preset_and_size_decide_the_defaults(preset: str, size: str) -> None:
    agent = presets.agent_config(preset, size)
    default = NewRun(env="", preset=preset, size=size, agent=agent)
    config = parse(NewRun, ["--env", "a", "--steps", "7"], PROG, default).config()
    assert config.agent == agent
    assert (config.env, config.steps, config.preset, config.size) == ("a", 7, preset, size)


@pytest.mark.parametrize("name", [*presets.PRESETS, *presets.ABLATIONS])
def test_the_flags_that_presets_lists_have_the_effect_of_the_preset(name: str) -> None:
    edit = {**presets.PRESETS, **presets.ABLATIONS}[name]
    args = [word for flag, value in changes(edit).items() for word in (flag, str(value))]
    with unchecked():
        default = NewRun(env="", agent=default_like(edit(AgentConfig())))
    given = parse(NewRun, ["--env", "a", *args], PROG, default)
    assert given.agent == edit(AgentConfig())


def test_every_field_of_a_run_has_a_flag() -> None:
    config = config_from_dict({"env": "a"})
    leaves = set()

    def collect(value: object, prefix: str) -> None:
        for name, inner in vars(value).items():
            dotted = f"{prefix}{name}".removeprefix("agent.")
            if hasattr(inner, "__dataclass_fields__"):
                collect(inner, f"{prefix}{name}.")
            else:
                leaves.add(dotted.replace("_", "-"))

    collect(config, "")
    of_the_command = {"run-dir", "resume", "json", "wandb", "world", "agent"}
    of_the_command |= {"allow-import", "max-size"}
    assert set(flags(NewRun)) - leaves == of_the_command
    assert leaves <= set(flags(NewRun))


def test_training_in_two_parts_is_training_in_one(tmp_path: Path, capsys: Captured) -> None:
    whole, parts = str(tmp_path / "whole"), str(tmp_path / "parts")
    json_of(capsys, "train", *SMALL, "--steps", "50", "--run-dir", whole)
    json_of(capsys, "train", *SMALL, "--steps", "45", "--run-dir", parts)
    outcome = json_of(capsys, "train", "--resume", parts, "--steps", "50")
    assert outcome["finished"]
    assert outcome["step"] == 50
    assert config_of(tmp_path / "parts") == config_of(tmp_path / "whole")
    for group in ("world_model", "actor_critic", "world_optimizer", "agent_optimizer", "random"):
        file = f"checkpoints/000000050/{group}.safetensors"
        assert (tmp_path / "parts" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_a_finished_run_that_is_resumed_says_so(run: Path, capsys: Captured) -> None:
    before = sorted(run.rglob("*"))
    assert main(["train", "--resume", str(run)]) == 0
    printed = capsys.readouterr().err
    assert f"has finished its {STEPS} steps" in printed
    assert f"stormrl train --resume {run} --steps {2 * STEPS}" in printed.replace("\n", " ")
    outcome = json_of(capsys, "train", "--resume", str(run))
    assert outcome == {"run_dir": str(run), "step": STEPS, "finished": True}
    assert sorted(run.rglob("*")) == before


def test_ctrl_c_saves_and_tells_how_to_go_on(tmp_path: Path, capsys: Captured) -> None:
    run = tmp_path / "run"
    args = [*SMALL, "--steps", "100000", "--replay.warmup", "90000", "--run-dir", str(run)]
    command = [sys.executable, "-m", "stormrl", "train", *args]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    episodes = run / "episodes.jsonl"
    while not (episodes.exists() and episodes.stat().st_size):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate(timeout=60)
    assert process.returncode == 3
    *_, said, remedy = printed.splitlines()
    step = int((run / "checkpoints" / "latest").read_text())
    assert said == f"Stopped and saved at step {step:,}. To go on exactly there:"
    program, *rest = remedy.split()
    assert program == "stormrl"
    assert json_of(capsys, *rest, "--steps", str(step + 2))["step"] == step + 2


def test_evaluation_counts_and_writes_down_every_episode(run: Path, capsys: Captured) -> None:
    args = ["eval", str(run), "--protocol", "official", "--episodes", "3", "--seed", "7"]
    scores = run / "scores.jsonl"
    before = scores.read_text().splitlines() if scores.exists() else []
    record = json_of(capsys, *args)
    assert record["protocol"] == "official"
    assert record["step"] == STEPS
    assert record["episodes"] == len(record["returns"]) == 3
    assert record["lengths"] == [39, 39, 39]
    assert set(record["returns"]) <= {-5, -3, -1, 1, 3, 5}
    mean = sum(record["returns"]) / 3
    variance = sum((value - mean) ** 2 for value in record["returns"]) / 2
    assert record["mean"] == pytest.approx(mean, rel=1e-5)
    assert record["stderr"] == pytest.approx((variance / 3) ** 0.5, rel=1e-5)
    assert record["human_normalised"] is None
    added = [json.loads(line) for line in scores.read_text().splitlines()[len(before) :]]
    assert [line["return"] for line in added] == record["returns"]
    assert [line["seed"] for line in added] == [7, 8, 9]
    assert {(line["protocol"], line["checkpoint_step"]) for line in added} == {("official", STEPS)}
    assert json_of(capsys, *args) == record


def test_greedy_play_is_another_protocol(run: Path, capsys: Captured) -> None:
    record = json_of(capsys, "eval", str(run), "--episodes", "1", "--greedy")
    assert record["protocol"] == "atari100k-greedy"
    assert record["stderr"] is None, "one episode says nothing about its spread"


def test_evaluation_shows_a_table(run: Path, capsys: Captured) -> None:
    assert main(["eval", str(run), "--episodes", "2"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].strip() == "stormrl/Catch-v0"
    assert printed[2].split()[:3] == ["atari100k", str(STEPS), "2"]


def test_a_dream_is_filmed_in_the_formats_asked_for(
    run: Path, tmp_path: Path, capsys: Captured
) -> None:
    args = ["dream", str(run), "--context", "5", "--horizon", "9", "--episodes", "2"]
    args += ["--error-episodes", "2"]
    both = json_of(capsys, *args, "--out", str(tmp_path / "new" / "dream"))
    names = ("dream.mp4", "dream.gif", "dream.png", "dream.json", "dream-error.png")
    assert both["files"] == [str(tmp_path / "new" / name) for name in names]
    assert all(Path(file).stat().st_size > 100 for file in both["files"])
    written = json.loads(Path(both["files"][3]).read_text())
    assert written == {name: value for name, value in both.items() if name != "files"}
    assert (written["context"], written["horizon"], written["temperature"]) == (5, 9, 1.0)
    assert written["open_loop"]["ahead"] == list(range(1, 10))
    assert len(written["filmed"][1]["own"]["value"]) == 14
    assert main([*args, "--out", str(tmp_path / "a.gif")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "a.gif")
    assert len(read_video(both["files"][0])) == 14
    assert (tmp_path / "a.gif").read_bytes() == Path(both["files"][1]).read_bytes()
    other = json_of(capsys, *args, "--seed", "3", "--out", str(tmp_path / "b.gif"))
    assert Path(other["files"][0]).read_bytes() != (tmp_path / "a.gif").read_bytes()


def test_presets_shows_each_flag_in_the_row_of_its_name(capsys: Captured) -> None:
    assert main(["presets"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split() for row in rows if row.startswith("decoder-at-rear")] == [
        ["decoder-at-rear", "--world-model.decoder-input", "prior"]
    ]


def test_presets_tells_sizes_in_parameters(capsys: Captured) -> None:
    record = json_of(capsys, "presets")
    assert list(record["presets"]) == ["paper", "official", "lean", "dreamerv3", "twm"]
    base = record["sizes"]["base"]["parameters"]["world_model"]
    assert base["encoder"] == 690_624
    assert base["decoder"] == 4_884_931
    assert base["total"] == sum(count for part, count in base.items() if part != "total")
    assert round(base["total"] / 1e6, 2) == 16.51
    storm, dreamer = (record["systems"][i] for i in (0, 3))
    assert (storm["historical_information"], dreamer["historical_information"]) == (False, True)
    assert dreamer["sequence_model"] == "GRU of width 512"
    assert storm["parameters"]["world_model"] == base["total"]
    assert record["protocols"]["official"]["sticky_actions"] == 0.25
    assert main(["presets"]) == 0
    printed = capsys.readouterr().out
    assert "16,507,011" in printed
    assert "--actor-critic.slow-target lambda_return" in printed


class Talking(gymnasium.Env):
    observation_space = gymnasium.spaces.Dict(words=gymnasium.spaces.Text(9))
    action_space = gymnasium.spaces.Discrete(2)


def test_check_env_tells_whether_to_train(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = EnvSpec("test/Talking-v0", lambda **_: Talking())
    monkeypatch.setitem(gymnasium.registry, spec.id, spec)
    assert main(["check-env", "stormrl/Catch-v0"]) == 0
    assert "stormrl train --env stormrl/Catch-v0" in capsys.readouterr().out
    record = json_of(capsys, "check-env", spec.id, code=1)
    assert not record["ok"]
    assert not record["checks"][0]["ok"]
    assert main(["check-env", spec.id]) == 1
    # In brackets, which a terminal library may take for its own.
    assert "obs['words'] is Text" in " ".join(capsys.readouterr().out.split())


def test_the_module_is_the_command() -> None:
    command = [sys.executable, "-m", "stormrl", "--version"]
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"stormrl {stormrl.__version__}\n"
