"""Environments of strangers: built, or refused with whose fault it is, whatever their code does."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from stormrl.cli import main
from stormrl.disk.run_directory import RunDirectory
from stormrl.envs import PROTOCOLS, action_meanings, check_env, make_env
from stormrl.errors import UserError
from stormrl.runs.recording import record
from stranger import cases, game

PROTOCOL = PROTOCOLS["atari100k"]
TINY = ["--size", "tiny", "--replay.warmup", "64", "--steps", "66", "--device", "cpu"]


@pytest.fixture(autouse=True, scope="module")
def registered() -> Iterator[None]:
    with cases():
        yield


@pytest.mark.parametrize(
    ("env_id", "said"),
    [
        (
            "kwargs:Bug/Level-v0",
            "arguments are given with --env-kwargs KEY=VALUE",
        ),
        ("kwargs:Bug/NoRom-v0", "FileNotFoundError: [Errno 2] No such file or directory"),
        ("kwargs:Bug/NoDisplay-v0", "RuntimeError: could not open a display"),
        ("kwargs:Bug/Asserts-v0", "cannot be built, it raised AssertionError; "),
        ("kwargs:Bug/NoSpace-v0", "raised in telling its spaces: AttributeError"),
        ("kwargs:Bug/Exits-v0", "it raised SystemExit: license key missing"),
        ("kwargs:Bug/Missing-v0", "No module named 'no_such_module'; install what it needs"),
        ("kwargs:Bug/NoClass-v0", "AttributeError: module 'bugbase' has no attribute"),
        ("exits:Any-v0", "'exits' raised SystemExit: set LICENSE_KEY first on import"),
        ("import_error:Any-v0", "'import_error' raised AttributeError: module 'numpy'"),
    ],
)
@pytest.mark.parametrize("command", ["check-env", "record", "train"])
def test_what_cannot_be_built_is_one_line(command, env_id, said, tmp_path, capsys):
    given = {
        "check-env": [env_id],
        "record": [env_id, "--out", str(tmp_path / "demo.safetensors")],
        "train": ["--env", env_id, "--run-dir", str(tmp_path / "run"), *TINY],
    }
    assert main([command, *given[command]]) == 2
    printed = capsys.readouterr()
    assert said in " ".join(printed.err.split())
    assert printed.err.startswith("stormrl: env: ")
    assert printed.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:.*render_modes")
@pytest.mark.parametrize(
    "env_id",
    [
        *(f"no_render_mode:Bug/{name}-v0" for name in ("Plain", "NoMetadata", "Kwargs", "Factory")),
        "kwargs:Bug/LevelThree-v0",
        "endless:Bug/Limited-v0",
        "close:Bug/BadClose-v0",
        "inplace:Bug/Copies-v0",
        "huge_reward:Bug/Tiny-v0",
    ],
)
def test_what_gymnasium_builds_is_fit_for_training(env_id):
    report = check_env(env_id)
    assert report.ok, report


@pytest.mark.parametrize(
    "env_id",
    [
        *(f"old_api:Bug/{name}-v0" for name in ("Four", "ObsOnly", "NoSeed", "NoneInfo")),
        *(f"float_obs:Bug/{name}-v0" for name in ("Unit", "Float255", "OnlyInStep", "Nested")),
        "huge_reward:Bug/Googol-v0",
    ],
)
def test_what_cannot_be_trained_on_is_refused_by_check_env(env_id):
    report = check_env(env_id)
    assert not report.ok
    (refusal,) = [check for check in report.checks if check.required and not check.ok]
    assert refusal.name == "random play"


def test_a_note_tells_of_pictures_that_are_almost_black():
    for name in ("Zero1", "ZeroOneBox"):
        checks = {check.name: check for check in check_env(f"float_obs:Bug/{name}-v0").checks}
        assert not checks["pictures"].ok
        assert not checks["pictures"].required
        assert "multiply them by 255" in checks["pictures"].detail


def test_arguments_reach_the_environment_the_config_and_every_reader(tmp_path, capsys):
    run, env_id = str(tmp_path / "run"), "kwargs:Bug/Level-v0"
    given = ["--env-kwargs", "level=3", "render_mode=rgb_array"]
    args = ["--env", env_id, "--run-dir", run, *TINY, "--compile", "off", *given]
    assert main(["train", *args, "--evaluation-episodes", "1", "--dream-every", "0", "--json"]) == 0
    config = RunDirectory.open(run).config
    assert config.env_kwargs == {"level": 3, "render_mode": "rgb_array"}
    capsys.readouterr()
    allowed = ["--allow-import", "kwargs", "--device", "cpu", "--json"]
    assert main(["eval", run, "--episodes", "1", *allowed]) == 0
    assert len(json.loads(capsys.readouterr().out)["returns"]) == 1
    assert main(["check-env", env_id, *given]) == 0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-0.5", -0.5),
        ("true", True),
        ("null", None),
        ("[1, 2]", [1, 2]),
        ("a=b", "a=b"),
        ("__import__('os')", "__import__('os')"),
        ('"3"', "3"),
        ("", ""),
    ],
)
def test_values_are_json_or_texts(text, value):
    from stormrl.commands.check_env import CheckEnvOptions
    from stormrl.commands.flags import parse

    options = parse(CheckEnvOptions, ["X-v0", "--env-kwargs", f"level={text}"], "check-env")
    assert options.env_kwargs == {"level": value}


@pytest.mark.parametrize("word", ["level", "=3", "3=3", "a b=1"])
def test_an_argument_without_a_name_is_refused(word, capsys):
    assert main(["check-env", "stormrl/Catch-v0", "--env-kwargs", word]) == 2
    assert "env_kwargs" in capsys.readouterr().err


def test_what_the_protocol_decides_is_no_argument():
    with pytest.raises(UserError, match="frameskip is decided by the protocol"):
        make_env("ALE/Pong-v5", PROTOCOL, kwargs={"frameskip": 2})


@pytest.mark.parametrize(("word", "action"), [("left", 0), ("RIGHT", 2), ("Stay", 1), ("2", 2)])
def test_an_action_is_named_in_any_case_or_by_number(word, action):
    (episode,) = record("stormrl/Catch-v0", PROTOCOL, f"constant:{word}", 1).episodes
    assert set(episode.action.tolist()) == {action}


@pytest.mark.parametrize("word", ["up", "3", "-1", "", "\u0662x"])
def test_an_action_that_is_not_there_is_refused_with_those_that_are(word):
    with pytest.raises(UserError, match="give one of LEFT, STAY, RIGHT, or a number below 3"):
        record("stormrl/Catch-v0", PROTOCOL, f"constant:{word}", 1)


def named(words: object) -> list[str]:
    import gymnasium

    def meanings(self):
        if isinstance(words, Exception):
            raise words
        return words

    cls: Any = type("Named", (game("bugbase", "Base"),), {"get_action_meanings": meanings})
    gymnasium.registry.pop("test/Named-v0", None)
    gymnasium.register("test/Named-v0", cls)
    return action_meanings(make_env("test/Named-v0", PROTOCOL))


@pytest.mark.parametrize(
    "words",
    [
        None,
        ["left"],
        ["a", "b", "c", "d"],
        ["a", 2, 3],
        ["a", "A", "b"],
        ["a", "", "b"],
        ["a", "\x1b[31m", "b"],
        RuntimeError("no words"),
        7,
    ],
)
def test_words_that_do_not_fit_the_space_give_way_to_numbers(words):
    assert named(words) == ["0", "1", "2"]


def test_words_that_fit_are_used():
    assert named(("Left", "Stay", "right")) == ["Left", "Stay", "right"]
