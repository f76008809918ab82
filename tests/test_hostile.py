"""Run directories made on purpose: no way out, nothing is waited for, text is text."""

import io
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

import hostile
from hostile import ESCAPES
from small_runs import STEPS, go_on, new_run, small_config
from stormrl.cli import main
from stormrl.config.dreamer import DreamerConfig
from stormrl.config.parts import AgentConfig
from stormrl.config.presets import PRESETS, SIZES, agent_config
from stormrl.config.twm import TwmConfig
from stormrl.disk import jsonlines
from stormrl.disk.jsonlines import JsonLines, keep_until, read_jsonlines
from stormrl.disk.run_directory import RunDirectory
from stormrl.errors import UserError
from stormrl.learning.size import check_size
from stormrl.machine.terminal import TextConsole
from stormrl.report.reading import Run, read_run
from stormrl.spaces import DiscreteSpace, ImageSpace, Spaces

SPACES = Spaces(ImageSpace(64, 64, 3), DiscreteSpace(18))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has finished."""
    path = tmp_path_factory.mktemp("trained") / "run"
    new_run(path, evaluation_episodes=1)
    go_on(path)
    return path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """The same, to be damaged."""
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A folder beside the run; whatever a test does, nothing in it changes."""
    folder = tmp_path / "outside"
    (folder / "folder").mkdir(parents=True)
    (folder / "file").write_text(hostile.SECRET)
    before = hostile.tree(folder)
    yield folder
    assert hostile.tree(folder) == before


def refusal(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a command is refused with."""
    assert main(argv) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert not hostile.controls(line)
    return line


# Nothing outside a run is written.

PLANTED = (".lock", ".partial-config.json", "demonstration.safetensors")


@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize("plant", [os.symlink, os.link])
def test_a_new_run_writes_through_no_link_that_lies_there_already(
    tmp_path: Path, outside: Path, name: str, plant: Callable[[Path, Path], None]
) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    plant(outside / "file", folder / name)
    if name == ".lock":
        with pytest.raises(UserError, match="remove it"):
            RunDirectory.create(folder, small_config())
    else:
        RunDirectory.create(folder, small_config())
        assert not (folder / "config.json").is_symlink()


@pytest.mark.parametrize(
    "name",
    [".lock", "metrics.jsonl", "failure.txt", "checkpoints/latest", ".partial-config.json"],
)
def test_a_link_out_of_a_run_is_refused_before_anything_is_written(
    run: Path, outside: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(outside / "file")
    before = hostile.tree(run)
    for argv in (["train", "--resume", str(run), "--steps", "70"], ["eval", str(run)]):
        assert "is a link out of the run" in refusal(argv, capsys)
    assert hostile.tree(run) == before


@pytest.mark.parametrize("name", ["replay", "checkpoints", "videos", "tensorboard"])
def test_a_folder_that_leads_out_is_refused(
    run: Path, outside: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(run / name, ignore_errors=True)
    (run / name).symlink_to(outside / "folder")
    assert "link out of the run" in refusal(["train", "--resume", str(run)], capsys)


def test_a_second_name_of_a_history_keeps_what_it_held(run: Path, outside: Path) -> None:
    """Who plants a hard link gets a copy written; who made a backup of links keeps the backup."""
    backup = run.with_name("backup")
    shutil.copytree(run, backup, copy_function=os.link)
    held = hostile.tree(backup)
    (run / "failure.txt").unlink(missing_ok=True)
    (run / "failure.txt").hardlink_to(outside / "file")
    assert main(["train", "--resume", str(run), "--steps", str(STEPS + 5), "--json"]) == 0
    assert hostile.tree(backup) == held
    assert main(["eval", str(backup), "--json", "--episodes", "1"]) == 0


def test_a_lock_that_is_somebody_elses_file_is_refused(
    run: Path, outside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / ".lock").hardlink_to(outside / "file")
    argv = ["train", "--resume", str(run), "--steps", "70"]
    assert ".lock is a link or no plain file; remove it" in refusal(argv, capsys)


def test_a_film_replaces_what_bears_its_name(run: Path, outside: Path) -> None:
    (run / "videos").mkdir(exist_ok=True)
    for suffix in ("mp4", "gif", "png", "json"):
        (run / "videos" / f"film-{STEPS:08d}.{suffix}").hardlink_to(outside / "file")
    few = ["--episodes", "1", "--error-episodes", "1", "--horizon", "4"]
    assert main(["dream", str(run), *few, "--json"]) == 0


# Nothing is waited for, and what a file says is bounded before it costs.


def pipe(path: Path) -> None:
    os.mkfifo(path)


def socket_file(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        here = Path.cwd()
        os.chdir(path.parent)  # The name of a socket may have 108 bytes.
        try:
            listening.bind(path.name)
        finally:
            os.chdir(here)


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("plant", [pipe, socket_file, loop, device])
@pytest.mark.parametrize("name", ["metrics.jsonl", "config.json", "checkpoints/latest", "notes"])
def test_what_is_no_file_is_refused_at_once(
    run: Path, name: str, plant: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    (run / name).unlink(missing_ok=True)
    plant(run / name)
    for command in (["eval", str(run)], ["doctor", str(run)], ["train", "--resume", str(run)]):
        refusal(command, capsys)


def test_folders_within_folders_are_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run.joinpath(*["d"] * 40).mkdir(parents=True)
    assert "levels deep" in refusal(["eval", str(run)], capsys)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("agent.world_model.sequence.layers", 10**9),
        ("agent.world_model.sequence.feedforward", 10**9),
        ("agent.world_model.sequence.width", 2 * 10**6),
        ("agent.world_model.image.channels", 10**6),
        ("agent.world_model.latent.classes", 10**9),
        ("agent.actor_critic.head.layers", 10**9),
        ("agent.world_model.batch_size", 10**8),
        ("agent.imagination.batch_size", 10**8),
        ("agent.world_model_ratio", 1e9),
    ],
)
def test_a_config_that_asks_for_too_much_is_refused_before_it_costs(
    run: Path, field: str, value: float, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile.edit_config(run, field, value)
    for command in (["eval", str(run)], ["train", "--resume", str(run), "--steps", "70"]):
        line = refusal(command, capsys)
        assert "numbers, and 200,000,000 are allowed" in line
        assert "--max-size" in line


def test_the_flag_allows_more_and_less(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["eval", str(run), "--episodes", "1", "--json"]
    assert "--max-size" in refusal([*command, "--max-size", "100"], capsys)
    assert main([*command, "--max-size", "10000000"]) == 0


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("size", SIZES)
def test_no_size_of_ours_asks_for_too_much(preset: str, size: str) -> None:
    check_size(agent_config(preset, size), SPACES)


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (agent_config("dreamerv3"), "width"),
        (agent_config("dreamerv3"), "hidden"),
        (agent_config("twm"), "sequence.feedforward"),
        (agent_config("twm"), "sequence.layers"),
        (agent_config("twm"), "pretraining.observation"),
        (agent_config("twm"), "image.frames"),
    ],
)
def test_every_system_is_bounded(config: AgentConfig, field: str) -> None:
    def with_value(part: Any, names: list[str]) -> Any:
        name, *rest = names
        value = with_value(getattr(part, name), rest) if rest else 10**8
        return replace(part, **{name: value})

    world = with_value(config.world_model, field.split("."))
    assert isinstance(world, DreamerConfig | TwmConfig)
    replay = replace(config.replay, capacity=10**12, warmup=10**12)  # It holds any window.
    with pytest.raises(UserError, match="--max-size"):
        check_size(replace(config, world_model=world, replay=replay), SPACES)


@pytest.mark.parametrize("group", ["world_model", "actor_critic"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(
    run: Path, group: str, value: float, capsys: pytest.CaptureFixture[str]
) -> None:
    def damage(tensors: dict[str, torch.Tensor]) -> None:
        name = max(name for name, tensor in tensors.items() if tensor.is_floating_point())
        tensors[name].view(-1)[0] = value

    hostile.edit_tensors(run, group, damage)
    out = str(run.with_name("film.json"))
    for command in (
        ["eval", str(run)],
        ["dream", str(run), "--out", out],
        ["train", "--resume", str(run), "--steps", "70"],
    ):
        assert f"{group} holds numbers that are not finite" in refusal(command, capsys)


@pytest.mark.parametrize("value", [-1, 3, 2**62])
@pytest.mark.parametrize("name", ["carry.action", "carry.world.action", "carry.world.filled"])
def test_indices_of_what_acting_takes_along_are_checked(
    run: Path, name: str, value: int, capsys: pytest.CaptureFixture[str]
) -> None:
    above = value + 2 if name.endswith("filled") and value > 0 else value
    hostile.edit_tensors(run, "collector", lambda tensors: tensors[name].fill_(above))
    line = refusal(["train", "--resume", str(run), "--steps", "70"], capsys)
    assert "leads nowhere" in line


@pytest.mark.parametrize("action", [-1, 3, 2**62])
def test_actions_in_replay_are_those_of_the_game(
    run: Path, action: int, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile.edit_replay(run, lambda tensors: tensors["action"][-1:].fill_(action))
    line = refusal(["train", "--resume", str(run), "--steps", "70"], capsys)
    assert "other actions than 0 to 2" in line


@pytest.mark.parametrize(
    ("name", "value"), [("step", 59), ("trained_steps", 2**60), ("episode_length", 2**60)]
)
def test_counters_fit_the_checkpoint(
    run: Path, name: str, value: int, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile.edit_state(run, lambda state: state.update({name: value}))
    line = refusal(["train", "--resume", str(run), "--steps", "70"], capsys)
    assert "steps that were never taken" in line


# Histories of any length.


def test_of_a_long_history_every_nth_line_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f'{{"step": {step:6d}}}\n' for step in range(1_000)))
    monkeypatch.setattr(jsonlines, "KEPT_BYTES", 17 * 100)
    assert [line["step"] for line in read_jsonlines(path)] == list(range(0, 1_000, 11))


def test_scores_are_cut_back_one_line_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    path.write_text("".join(f'{{"at": {step}}}\n' for step in range(1_000)))
    keep_until(path, "at", 499)
    assert [line["at"] for line in read_jsonlines(path)] == list(range(500))


def test_a_hole_is_no_history(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (run / "metrics.jsonl").open("ab") as file:
        file.truncate(2**40)
    assert "is far too long: this is no history" in refusal(["doctor", str(run)], capsys)
    found = read_run(run)
    assert isinstance(found, Run)
    assert any("is far too long" in problem for problem in found.problems)


def test_the_end_of_a_huge_file_is_cut_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n')
    with path.open("ab") as file:
        file.truncate(2**40)
    JsonLines(path).close()
    assert path.stat().st_size >= 2**40 - jsonlines.LONGEST_LINE


# Text from data is text.


def test_escapes_of_a_file_are_shown_not_sent(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "checkpoints" / f"x{ESCAPES}").mkdir()
    with (run / "scores.jsonl").open("a") as file:
        record = {"checkpoint_step": STEPS, "protocol": ESCAPES, "seed": 1, "return": 1.0}
        file.write(json.dumps(record) + "\n")
    named = run.rename(run.with_name(f"run{ESCAPES.replace('/', '')}"))
    out = str(named.with_name("page.html"))
    for command in (
        ["report", str(named), "--out", out],
        ["doctor", str(named)],
        ["eval", str(named), "--episodes", "1"],
        ["eval", f"{named}{ESCAPES}"],
    ):
        main(command)
        said = capsys.readouterr()
        assert not hostile.controls(said.out + said.err), command


@pytest.mark.parametrize("field", ["env", "protocol", "preset", "device"])
def test_escapes_in_a_config_are_shown_not_sent(
    run: Path, field: str, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile.edit_config(run, field, ESCAPES)
    refusal(["eval", str(run)], capsys)


@pytest.mark.parametrize("command", ["eval", "dream"])
def test_a_name_is_no_markup(run: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    hostile.edit_config(run, "env", "stormrl/[/b]-v0")
    assert "[/b]" in refusal([command, str(run)], capsys)


def test_a_terminal_is_told_colours_and_nothing_else() -> None:
    def printed(kind: type[Console], text: str) -> str:
        file = io.StringIO()
        console = kind(file=file, force_terminal=True, width=80, color_system="truecolor")
        table = Table(title=Text(text, "bold"))
        table.add_column(text)
        table.add_row(Text(text, "red"))
        console.print(table)
        console.print(text, markup=False, soft_wrap=True, style="cyan")
        return file.getvalue()

    plain = "harmless\nwords"
    assert printed(TextConsole, plain) == printed(Console, plain)
    shown = printed(TextConsole, f"a{ESCAPES}b")
    assert "\x1b[1m" in shown or "\x1b[1;" in shown  # Its own.
    for sequence in ("\x1b[2J", "\x1b]0", "\x07", "\x9b", "\u202e"):
        assert sequence not in shown
