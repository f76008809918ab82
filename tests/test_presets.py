"""Presets, sizes and ablations; and that docs/fidelity.md tells the truth about them."""

import importlib
import re
from dataclasses import replace
from pathlib import Path

import pytest

import stormrl
from miniature import STORMS, learner, posterior_noise, random_batch, shrunk
from stormrl.config.json import config_from_dict
from stormrl.config.parts import RunConfig, storm, to_dict
from stormrl.config.presets import ABLATIONS, PRESETS, SIZES, agent_config
from stormrl.errors import UserError

DOCS = Path(__file__).parent.parent / "docs" / "fidelity.md"


def flat(record: dict, prefix: str = "") -> dict[str, object]:
    values = {}
    for name, value in record.items():
        nested = flat(value, f"{prefix}{name}.") if isinstance(value, dict) else None
        values |= nested if nested is not None else {f"{prefix}{name}": value}
    return values


def difference(ours, theirs) -> dict[str, tuple[object, object]]:
    first, second = flat(to_dict(ours)), flat(to_dict(theirs))
    return {name: (first[name], second[name]) for name in first if first[name] != second[name]}


def table_rows(heading: str) -> list[list[str]]:
    """Cells of the first table after a heading, without its head."""
    section = DOCS.read_text().partition(f"## {heading}")[2]
    table = re.search(r"(^\|.*\n)+", section, re.MULTILINE)
    assert table
    rows = table.group().splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_presets_differ_exactly_where_the_documentation_says() -> None:
    documented = {}
    for _, _, _, field, paper, official, _ in table_rows("Where the released code departs"):
        if field:
            documented[field.strip("`")] = (paper, official)
    assert len(documented) == 7
    assert difference(agent_config("paper"), agent_config("official")) == documented


def test_every_deviation_of_the_released_code_is_listed() -> None:
    numbers = {row[0] for row in table_rows("Where the released code departs")}
    assert numbers - {""} == {str(n) for n in range(1, 22)}


def test_every_test_and_function_in_the_documentation_exists() -> None:
    text = DOCS.read_text()
    tests = re.findall(r"`(test_\w+)::(test_\w+)`", text)
    assert len(tests) > 50
    for file, name in tests:
        source = (Path(__file__).parent / f"{file}.py").read_text()
        assert f"def {name}(" in source, f"{file}::{name}"
    functions = [row[2].strip("`") for row in table_rows("From equation to function to test")]
    assert len(functions) > 20
    for system in ("DreamerV3", "TWM"):
        rows = table_rows(f"{system}: from equation to function to test")
        functions += [row[1].strip("`") for row in rows if "`" in row[1]]
    for dotted in functions:
        folder, module, *path = dotted.split(".")
        found = importlib.import_module(f"{stormrl.__name__}.{folder}.{module}")
        for attribute in path:
            found = getattr(found, attribute)


def test_documented_fields_of_the_ablations_exist() -> None:
    names = {name for row in table_rows("The paper's ablations") for name in row[0].split(", ")}
    assert {name.strip("`") for name in names} == set(ABLATIONS)
    fields = flat(to_dict(agent_config()))
    for row in table_rows("The paper's ablations"):
        assert row[1].split("`")[1] in fields


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("decoder-at-rear", {"world_model.decoder_input": ("posterior", "prior")}),
        ("predictor-at-front", {"world_model.predictor_input": ("hidden", "latent")}),
        ("layers-2", {}),
        ("layers-4", {"world_model.sequence.layers": (2, 4)}),
        ("layers-6", {"world_model.sequence.layers": (2, 6)}),
        ("state-zh", {}),
        ("state-z", {"actor_critic.state": ("zh", "z")}),
        ("state-h", {"actor_critic.state": ("zh", "h")}),
        ("state-frame", {"actor_critic.state": ("zh", "frame")}),
    ],
)
def test_an_ablation_is_one_edit(name: str, expected: dict) -> None:
    for preset in STORMS:
        config = agent_config(preset)
        assert difference(config, ABLATIONS[name](config)) == expected


@pytest.mark.parametrize("ablation", [None, *ABLATIONS])
@pytest.mark.parametrize("preset", STORMS)
def test_every_preset_and_ablation_trains_and_is_read_back(
    preset: str, ablation: str | None
) -> None:
    config = shrunk(agent_config(preset))
    config = ABLATIONS[ablation](config) if ablation else config
    # At this size the KL stays below the clamp, where it trains nothing.
    config = replace(config, world_model=replace(config.world_model, free_nats=0.0))
    run = RunConfig("stormrl/Catch-v0", preset=preset, agent=config)
    assert config_from_dict(to_dict(run)) == run

    model = learner(config)
    assert len(model.world_model.sequence.blocks) == storm(config).sequence.layers
    before = {name: p.clone() for name, p in model.world_model.named_parameters()}
    batch = random_batch(resets=((0, 2), (1, 0)))
    context = random_batch(4, 3, resets=((1, 1),))
    for _ in range(2):
        metrics = model.learn_world(batch, posterior_noise(batch))
        agent_metrics = model.learn_agent(context, model.imagination_noise(context))
        for part in (metrics, agent_metrics):
            assert all(value.isfinite() for value in part.values())
            assert float(part["skipped"]) == 0
    moved = [not p.equal(before[name]) for name, p in model.world_model.named_parameters()]
    assert sum(moved) > 0.9 * len(moved)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_size_of_every_preset_is_read_back(preset: str, size: str) -> None:
    run = RunConfig("stormrl/Catch-v0", preset=preset, size=size, agent=agent_config(preset, size))
    assert config_from_dict(to_dict(run)) == run


def test_a_size_changes_no_choice_of_the_algorithm() -> None:
    for size in SIZES:
        numbers = difference(agent_config("paper", "base"), agent_config("paper", size))
        assert not any(isinstance(value, str) for pair in numbers.values() for value in pair)
        assert difference(
            agent_config("paper", size), agent_config("official", size)
        ) == difference(agent_config("paper"), agent_config("official"))


def test_hyperparameters_of_the_paper() -> None:
    config = flat(to_dict(agent_config()))
    expected = {
        "world_model.batch_size": 16,
        "world_model.batch_length": 64,
        "world_model.latent.unimix": 0.01,
        "world_model.dynamics_weight": 0.5,
        "world_model.representation_weight": 0.1,
        "world_model.free_nats": 1.0,
        "world_model.optimizer.learning_rate": 1e-4,
        "world_model.optimizer.epsilon": 1e-8,
        "world_model.optimizer.clip": 1000.0,
        "world_model.sequence.dropout": 0.1,
        "world_model.sequence.attention_dropout": 0.1,
        "world_model.two_hot.bins": 255,
        "imagination.batch_size": 1024,
        "imagination.context": 8,
        "imagination.horizon": 16,
        "actor_critic.gamma": 0.985,
        "actor_critic.lambda_": 0.95,
        "actor_critic.entropy": 3e-4,
        "actor_critic.slow_decay": 0.98,
        "actor_critic.scale_decay": 0.99,
        "actor_critic.percentile_low": 0.05,
        "actor_critic.percentile_high": 0.95,
        "actor_critic.optimizer.learning_rate": 3e-5,
        "actor_critic.optimizer.epsilon": 1e-5,
        "actor_critic.optimizer.clip": 100.0,
        "acting.context": 16,
        "replay.capacity": 100_000,
        "replay.warmup": 1024,
        "world_model_ratio": 1.0,
        "agent_ratio": 1.0,
    }
    assert {name: config[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("preset", "size", "field"), [("papers", "base", "preset"), ("paper", "huge", "size")]
)
def test_unknown_names_are_refused(preset: str, size: str, field: str) -> None:
    with pytest.raises(UserError) as caught:
        agent_config(preset, size)
    assert caught.value.field == field
    assert "give one of" in caught.value.message
