import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from random_configs import run_configs
from stormrl.config.json import config_from_dict
from stormrl.config.parts import RunConfig, to_dict
from stormrl.config.presets import PRESETS, SIZES, agent_config
from stormrl.errors import UserError

PLAIN = to_dict(RunConfig(env="ALE/Pong-v5"))


def edited(path: str, value: object) -> dict[str, Any]:
    """The plain config with one field changed or added."""
    record = json.loads(json.dumps(PLAIN))
    *parents, name = path.split("/")
    inner = record
    for parent in parents:
        inner = inner[parent]
    inner[name] = value
    return record


def paths(record: dict[str, Any], prefix: str = "") -> list[str]:
    """Every field, sections as well."""
    found = []
    for name, value in record.items():
        found.append(prefix + name)
        if isinstance(value, dict):
            found += paths(value, f"{prefix}{name}/")
    return found


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_survives_json(preset: str, size: str) -> None:
    agent = agent_config(preset, size)
    config = RunConfig(env="a", seed=2**63 - 1, preset=preset, size=size, agent=agent)
    assert config_from_dict(json.loads(json.dumps(to_dict(config)))) == config


@given(config=run_configs())
def test_every_config_survives_json(config: RunConfig) -> None:
    assert config_from_dict(json.loads(json.dumps(to_dict(config)))) == config


def test_a_part_tells_its_kind_and_a_run_of_older_versions_tells_none() -> None:
    record = to_dict(RunConfig(env="a"))
    parts = record["agent"]["world_model"]
    assert parts["latent"].pop("kind") == "categorical"
    assert parts["sequence"].pop("kind") == "transformer"
    assert config_from_dict(record) == RunConfig(env="a")


def test_missing_fields_take_their_defaults() -> None:
    assert config_from_dict({"env": "a"}) == RunConfig(env="a")
    given = config_from_dict({"env": "a", "agent": {"actor_critic": {"entropy": 0.5}}})
    expected = RunConfig(env="a")
    actor_critic = dataclasses.replace(expected.agent.actor_critic, entropy=0.5)
    agent = dataclasses.replace(expected.agent, actor_critic=actor_critic)
    assert given == dataclasses.replace(expected, agent=agent)


def test_whole_numbers_are_numbers() -> None:
    given = config_from_dict(edited("agent/actor_critic/gamma", 1))
    assert type(given.agent.actor_critic.gamma) is float


@pytest.mark.parametrize(
    ("path", "value", "field", "message"),
    [
        ("steps", True, "steps", "is True; give a whole number"),
        ("steps", 1.0, "steps", "is 1.0; give a whole number"),
        ("steps", None, "steps", "is None; give a whole number"),
        ("steps", -5, "steps", "is -5; give a number above 0"),
        ("seed", 2**63, "seed", "is 9223372036854775808; give a whole number below 2**63"),
        ("env", 3, "env", "is 3; give a text"),
        ("env", "\ud800", "env", r"is '\ud800'; give a text"),
        ("env", "Pöng\n", "env", r"is 'P\xf6ng\n'; give a text"),
        ("precision", "fp8", "precision", "is 'fp8'; give one of auto, bf16, fp32"),
        ("precision", ["auto"], "precision", "is ['auto']; give one of"),
        ("agent", [], "agent", "is []; give an object of fields"),
        ("speed", 3, "speed", "is unknown; known are env, "),
        ("agent/a.b c", 3, "agent.'a.b c'", "is unknown"),
        ("agent/world_model/latent/classes", "many", None, "is 'many'; give a whole number"),
        ("agent/world_model/latent/classes", 0, None, "is 0; give a number above 0"),
        ("agent/world_model/latent/kind", "gauss", None, "is 'gauss'; give one of categorical"),
        ("agent/world_model/latent/kind", None, None, "is None; give one of categorical"),
        ("agent/world_model/head/kind", "mlp", None, "is unknown; known are layers, width"),
        ("agent/world_model/latent/codes", 8, None, "is unknown; known are categoricals, classes"),
        ("agent/world_model/sequence/width", 100, None, "100 is not divisible by 8 heads"),
        ("agent/world_model/free_nats", float("nan"), None, "is nan; give a finite number"),
        ("agent/world_model/free_nats", 10**400, None, "give a finite number"),
        ("agent/actor_critic/head/layers", 0, None, "is 0; give a number above 0"),
        ("agent/actor_critic/optimizer/clip", float("inf"), None, "is inf; give a finite"),
        ("agent/actor_critic/two_hot/low", 30.0, None, "must be below two_hot.high"),
        ("agent/imagination/horizon", 60, None, "context + horizon is 68"),
        ("agent/replay/warmup", 8, None, "8 steps hold no window of 64"),
    ],
)
def test_a_mistake_is_named_by_its_whole_path(
    path: str, value: object, field: str | None, message: str
) -> None:
    with pytest.raises(UserError) as error:
        config_from_dict(edited(path, value))
    assert error.value.field == (field or path.replace("/", "."))
    assert error.value.message.startswith(message) or message in error.value.message


def test_a_field_without_default_must_be_there() -> None:
    with pytest.raises(UserError, match=r"^env: is missing and has no default"):
        config_from_dict({})


ATOMS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, -1, 2**70, 10**400])
    | st.floats()
    | st.text(max_size=6)
)
GARBAGE = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(sorted(PLAIN)) | st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)


def assert_config_or_named_mistake(record: object) -> None:
    mistake = None
    config = None
    try:
        config = config_from_dict(record)
    except UserError as error:
        mistake = error
    if mistake is not None:
        assert mistake.field
        assert str(mistake).isascii()
        assert str(mistake).isprintable()
        assert len(str(mistake)) < 1000
        return
    assert config_from_dict(json.loads(json.dumps(to_dict(config)))) == config


@given(record=GARBAGE)
def test_garbage_is_a_named_mistake(record: object) -> None:
    assert_config_or_named_mistake(record)


@given(path=st.sampled_from(paths(PLAIN)), value=GARBAGE)
def test_garbage_in_any_field_is_a_named_mistake(path: str, value: object) -> None:
    assert_config_or_named_mistake(edited(path, value))


@given(path=st.sampled_from(paths(PLAIN)), value=st.integers() | st.floats())
def test_any_number_in_any_field_is_taken_or_refused(path: str, value: float) -> None:
    assert_config_or_named_mistake(edited(path, value))
