"""What the README tells people to type works as written."""

import re
import shlex
from pathlib import Path

import pytest

from stormrl.cli import COMMANDS, main
from stormrl.commands.presets import describe, systems_table
from stormrl.config.parts import RunConfig
from stormrl.errors import UserError
from stormrl.runs import whole

README = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands(name: str = "") -> list[list[str]]:
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    typed = [shlex.split(line, comments=True) for line in lines]
    return [words for words in typed if words[:1] == ["stormrl"] and words[1].startswith(name)]


def test_every_command_exists():
    assert {words[1] for words in commands()} <= COMMANDS.keys()


@pytest.mark.parametrize(
    "words", [words for words in commands("train") if "--env" in words], ids=" ".join
)
def test_training_starts_with_the_flags_as_typed(words, monkeypatch):
    """All the way to the checked configuration; the training itself is left out."""
    started: list[RunConfig] = []

    def stop(config: RunConfig, *_, **__) -> None:
        started.append(config)
        raise UserError("test", "far enough")

    monkeypatch.setattr(whole, "train", stop)
    assert main(words[1:]) == 2
    assert len(started) == 1


def test_the_table_of_systems_is_what_is_run():
    head, rows = systems_table(describe()["systems"])
    lines = ["| " + " | ".join(row) + " |" for row in (head, *rows)]
    assert all(line in README for line in lines)


def test_example_trains_and_evaluates(tmp_path, monkeypatch, capsys):
    (example,) = blocks("python")
    assert "steps=3_800" in example
    monkeypatch.chdir(tmp_path)
    exec(compile(example.replace("3_800", "1_030"), "README.md", "exec"), {})
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert printed.keys() == {"random", "trained"}
    assert all(-5 <= float(score) <= 5 for score in printed.values())
