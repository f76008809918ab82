"""docs/extending.md as a reader would follow it: the file it prints, the commands it gives."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.S)
    return found


def stormrl(*args: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The installed command, which does not look for modules in the working directory."""
    code = "import sys; from stormrl.cli import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-P", "-c", code, *args], cwd=folder, capture_output=True, text=True
    )


def test_the_page_imports_nothing_private() -> None:
    for module, names in re.findall(r"^from (stormrl[\w.]*) import (.*)$", block("python"), re.M):
        assert not any(part.startswith("_") for part in [*module.split("."), *names.split(", ")])


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which every command of the page has been run."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "plain_world.py").write_text(block("python"))
    for line in block("console").splitlines():
        name, *args = shlex.split(line)
        assert name == "stormrl"
        done = stormrl(*args, folder=folder)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    return folder


@pytest.mark.slow
def test_it_trains_goes_on_dreams_and_is_reported(followed: Path) -> None:
    config = json.loads((followed / "runs/plain/config.json").read_text())["config"]
    assert config["agent"]["world_model"]["kind"] == "plain_world:PlainWorld"
    assert config["agent"]["world_model"]["width"] == 48
    assert config["steps"] == 360
    lines = (followed / "runs/plain/metrics.jsonl").read_text().splitlines()
    metrics = [json.loads(line) for line in lines]
    losses = [m["world_model/reconstruction"] for m in metrics]
    assert losses[-1] < losses[0] / 2
    assert (followed / "plain.gif").stat().st_size > 1000
    assert "plain_world:PlainWorld" in (followed / "plain.html").read_text()


@pytest.mark.slow
def test_what_the_run_names_is_not_imported_by_itself(followed: Path) -> None:
    done = stormrl("eval", "runs/plain", folder=followed)
    assert done.returncode == 2
    assert "world_model.kind: 'plain_world', named by runs/plain, is not imported" in done.stderr
    assert "--allow-import plain_world" in done.stderr


@pytest.mark.slow
def test_resuming_leaves_what_an_undisturbed_run_leaves(followed: Path) -> None:
    train = shlex.split(block("console").splitlines()[0])[1:]
    whole = [{"300": "360", "runs/plain": "runs/whole"}.get(arg, arg) for arg in train]
    assert stormrl(*whole, folder=followed).returncode == 0
    kept = "checkpoints/000000360/world_model.safetensors"
    resumed, undisturbed = (followed / "runs" / run / kept for run in ("plain", "whole"))
    assert resumed.read_bytes() == undisturbed.read_bytes()


AGENT = """
from dataclasses import dataclass
from typing import ClassVar
from stormrl.agents.reinforce import ActorCritic
from stormrl.config.parts import ActorCriticConfig

@dataclass(frozen=True)
class Config(ActorCriticConfig):
    kind: ClassVar[str] = "own_agent:Agent"
    boldness: float = 1.0

class Agent(ActorCritic):
    config_class = Config

    def loss(self, trajectory, taken):
        total, metrics = super().loss(trajectory, taken)
        return total * self.config.boldness, metrics
"""


@pytest.mark.slow
def test_an_agent_of_ones_own_trains_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "own_agent.py").write_text(AGENT)
    size = ("--size", "toy", "--steps", "130", "--replay.warmup", "100", "--device", "cpu")
    flags = ("--agent", "own_agent:Agent", "--actor_critic.boldness=2", "--run-dir", "run")
    done = stormrl("train", "--env", "stormrl/Catch-v0", *size, *flags, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "run/config.json").read_text())["config"]["agent"]
    part = config["actor_critic"]
    assert (part["kind"], part["boldness"]) == ("own_agent:Agent", 2.0)
    for args in (("train", "--resume", "run", "--steps", "140"), ("doctor", "run")):
        done = stormrl(*args, "--allow-import", "own_agent", folder=tmp_path)
        assert done.returncode == 0, done.stderr


BROKEN = [
    ("class Lazy(World): config_class = WorldConfig", "lacks begin(), decode(), dream()"),
    ("class Lazy: config_class = WorldConfig", "kind is not 'lazy:Lazy'"),
    ("class Lazy: ...", "lazy:Lazy has no config_class"),
    ("Lazy = 3", "lazy has no class 'Lazy'"),
    ("raise ImportError('of itself')", "cannot import 'lazy' (of itself)"),
]


@pytest.mark.parametrize(("code", "message"), BROKEN)
def test_a_part_that_cannot_be_is_refused_in_one_line(
    tmp_path: Path, code: str, message: str
) -> None:
    imports = (
        "from stormrl.config.common import WorldConfig\nfrom stormrl.worlds.protocol import World\n"
    )
    (tmp_path / "lazy.py").write_text(imports + code + "\n")
    done = stormrl("train", "--env", "stormrl/Catch-v0", "--world", "lazy:Lazy", folder=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert message in done.stderr
    assert not (tmp_path / "runs").exists()
