"""Runs broken on purpose are told apart by the first cause that is named."""

import json
import math
from pathlib import Path

import pytest

from broken_runs import CONFIGS, recorded, run_config, train
from small_runs import new_run
from stormrl import cli
from stormrl.config.common import TwoHotConfig
from stormrl.config.parts import RunConfig
from stormrl.config.presets import agent_config
from stormrl.disk.jsonlines import read_jsonlines
from stormrl.errors import UserError
from stormrl.report.doctor import (
    CHECKS,
    ENOUGH,
    History,
    diagnose,
    entropy_gone,
    examine,
    setting,
    value_exploding,
)

TOY = Path(__file__).parents[1] / "results" / "toy" / "hidden_catch"

CAUSES = {
    "learning rate 0": ("reconstruction does not fall", "world_model.optimizer.learning_rate"),
    "KL weights 0": ("the prior does not learn", "world_model.dynamics_weight"),
    "KL weights 1000": (
        "KL collapsed: the latent carries nothing",
        "world_model.representation_weight",
    ),
    "reward head frozen": ("the reward head is at its prior", "world_model.head.width"),
    "entropy 10": ("the policy's entropy is stuck at its maximum", "actor_critic.entropy"),
    "one update": ("too few updates so far", "world_model_ratio"),
}


def history(name: str) -> History:
    return History(run_config(name), read_jsonlines(recorded(name)), [])


def healthy(lines: list[dict] | None = None, returns: tuple[float, ...] = (1.0, 2.0)) -> History:
    config = RunConfig(env="stormrl/Catch-v0", agent=agent_config(size="toy"))
    return History(config, lines or line(updates=76) + line(updates=1000), returns)


def line(updates: int, **fields: float | None) -> list[dict]:
    """Metrics as those of a run that learns."""
    agent = {"total": 1, "value": 1.2, "entropy": 0.5, "uniform_entropy": math.log(3)}
    scale = {"return_scale": 1.8, "imagined_return": 2.9, "skipped": 0}
    world_model = {
        "reconstruction": 500 / updates,
        "reward": 0.09,
        "reward_ignorant": 0.5,
        "reward_perfect": 0.08,
        "kl": 1.1,
        "posterior_entropy": 0.17,
        "prior_entropy": 0.28,
        "skipped": 0,
    }
    metrics = {f"agent/{name}": value for name, value in {**agent, **scale}.items()}
    metrics |= {f"world_model/{name}": value for name, value in world_model.items()}
    given = {name.replace("__", "/"): value for name, value in fields.items()}
    return [{"step": 1024 + updates, "update": updates, **metrics, **given}]


@pytest.mark.parametrize("name", CAUSES)
def test_recorded_broken_run(name: str) -> None:
    first, *_ = diagnose(history(name))
    assert (first.cause, first.settings[0]) == CAUSES[name]
    assert all(math.isfinite(value) for value in first.evidence.values())


def test_recorded_healthy_runs() -> None:
    assert not diagnose(history("whole"))
    assert not diagnose(healthy(read_jsonlines(recorded("catch learned"))))


@pytest.mark.parametrize("lacking", [(), ("reward_ignorant", "reward_perfect", "uniform_entropy")])
def test_a_run_that_learned_is_healthy_also_as_one_recorded_before_there_was_a_doctor(
    lacking: tuple[str, ...],
) -> None:
    config = RunConfig(env="stormrl/HiddenCatch-v0", agent=agent_config(size="toy"))
    returns = [line["return"] for line in read_jsonlines(TOY / "episodes.jsonl")]
    metrics = [
        {name: value for name, value in line.items() if name.rpartition("/")[2] not in lacking}
        for line in read_jsonlines(TOY / "metrics.jsonl")
    ]
    assert not diagnose(History(config, metrics, returns))


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_freshly_trained_run(name: str, tmp_path: Path) -> None:
    record = examine(train(name, tmp_path / "run"))
    assert record["healthy"] == (name == "whole")
    if name in CAUSES:
        first = record["findings"][0]
        assert (first["cause"], next(iter(first["settings"]))) == CAUSES[name]


def test_value_beyond_any_return() -> None:
    metrics = line(76) + line(1000, agent__imagined_return=-30.0)
    finding = value_exploding(healthy(metrics, returns=(-1.0, 2.9)))
    assert finding is not None
    assert finding.evidence["imagined return"] == 30
    assert value_exploding(healthy(metrics, returns=(-1.0, -3.1))) is None
    assert value_exploding(healthy(metrics, returns=())) is None


def test_lost_entropy_matters_while_returns_are_low() -> None:
    metrics = line(76) + line(1000, agent__entropy=0.01)
    assert entropy_gone(healthy(metrics, returns=(0.0, 1.0) * 20)) is not None
    assert entropy_gone(healthy(metrics, returns=(0.0,) * 20 + (5.0,) * 20)) is None


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"world_model__skipped": 0.2, "world_model__kl": None}, "updates are skipped"),
        ({"agent__skipped": 1.0}, "updates are skipped"),
        ({"world_model__reward_ignorant": 0.0801}, "rewards hardly ever differ"),
        ({"world_model__reward": 0.49}, "the reward head is at its prior"),
        ({"agent__value": 5.5}, "the agent does not learn"),
        ({"agent__total": None}, "the agent is never updated"),
    ],
)
def test_one_symptom_is_one_cause(fields: dict, cause: str) -> None:
    metrics = line(76, agent__total=fields.get("agent__total", 1)) + line(1000, **fields)
    assert [finding.cause for finding in diagnose(healthy(metrics))] == [cause]


def test_healthy_lines_are_healthy() -> None:
    assert not diagnose(healthy())


def test_every_setting_exists() -> None:
    config = RunConfig(env="stormrl/Catch-v0", agent=agent_config(size="toy"))
    found = [
        finding
        for check in CHECKS
        for name in CONFIGS
        if (finding := check(history(name))) is not None
    ]
    assert len({finding.cause for finding in found}) >= 5
    for finding in found:
        for name in finding.settings:
            setting(config, name)
    assert setting(config, "precision") == "auto"
    assert setting(config, "world_model.two_hot") == TwoHotConfig()


def test_without_any_update(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    record = examine(run.path)
    assert [finding["cause"] for finding in record["findings"]] == ["too few updates so far"]
    assert record["findings"][0]["settings"]["steps"] == 60
    assert record["findings"][0]["evidence"]["updates"] == 0 < ENOUGH


def test_command_in_words(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    name = "entropy 10"
    run = new_run(tmp_path / "run", agent=CONFIGS[name]())
    (run.path / "metrics.jsonl").write_bytes(recorded(name).read_bytes())
    assert cli.main(["doctor", str(run.path)]) == 0
    words = capsys.readouterr().out
    assert "1. the policy's entropy is stuck at its maximum" in words
    assert "--actor-critic.entropy" in words
    assert "now 10.0" in words


def test_command_as_json(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = new_run(tmp_path / "run", agent=CONFIGS["whole"]())
    (run.path / "metrics.jsonl").write_bytes(recorded("whole").read_bytes())
    assert cli.main(["doctor", str(run.path), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["healthy"] is True
    assert record["findings"] == []
    assert record["updates"] == read_jsonlines(recorded("whole"))[-1]["update"]


def test_a_damaged_history_is_named(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    (run.path / "metrics.jsonl").write_text('{"update": 3}\nnonsense\n{"update": 4}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl:2"):
        examine(run.path)
