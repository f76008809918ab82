"""What the types of fields say of their values, and by which path a mistake is called."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from random_configs import edited
from stormrl.cli import main
from stormrl.config.common import HeadConfig, TwoHotConfig
from stormrl.config.constraints import Above, AtLeast, Constraint, Fraction, Positive, Within
from stormrl.config.json import config_from_dict
from stormrl.config.parts import (
    ActorCriticConfig,
    AgentConfig,
    RunConfig,
    TransformerConfig,
    WorldModelConfig,
)
from stormrl.config.validation import Config, unchecked, validate
from stormrl.errors import UserError

NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("constraint", "kept", "broken"),
    [
        (Positive, (1, 1e-300, 2**70), (0, -0.0, -1, -INFINITE)),
        (Above(-2), (-1.999, 0), (-2, -3)),
        (AtLeast(2), (2, 2.0, 3), (1, 1.999, -2)),
        (Fraction, (0, -0.0, 0.5, 1), (-1e-9, 1.000001, NAN, INFINITE)),
        (Within(-1, 3), (-1, 3), (-1.1, 3.1)),
    ],
)
def test_a_constraint_is_kept_up_to_its_bounds(
    constraint: Constraint, kept: tuple[float, ...], broken: tuple[float, ...]
) -> None:
    assert [constraint.check(value) for value in kept] == [None] * len(kept)
    assert all(constraint.check(value) for value in broken)


# One of every kind of field, at every depth, and in parts that are used in two places.
MISTAKES = [
    # path in the run, value, what is said
    ("steps", 0, "is 0; give a number above 0"),
    ("seed", -1, "is -1; give 0 or more"),
    ("seed", 2**63, "is 9223372036854775808; give a whole number below 2**63"),
    ("env", "a\nb", "is 'a\\nb'; give a text of printable characters"),
    ("env", None, "is None; give a text of printable characters"),
    ("deterministic", 1, "is 1; give true or false"),
    ("log_every", True, "is True; give a whole number below 2**63"),
    ("compile", "maybe", "is 'maybe'; give one of auto, off, on"),
    ("agent.agent_ratio", -0.5, "is -0.5; give 0 or more"),
    ("agent.agent_ratio", "1", "is '1'; give a finite number"),
    ("agent.agent_ratio", True, "is True; give a finite number"),
    ("agent.replay.rewarded", 1.5, "is 1.5; give a number from 0 to 1"),
    ("agent.demonstration.world_model_windows", -1, "is -1; give 0 or more"),
    ("agent.world_model.free_nats", NAN, "is nan; give a finite number"),
    ("agent.world_model.free_nats", 10**400, "give a finite number"),
    ("agent.world_model.batch_length", 1, "is 1; give 2 or more"),
    ("agent.world_model.balance.kl", INFINITE, "is inf; give a finite number"),
    ("agent.world_model.latent.unimix", -0.1, "is -0.1; give a number from 0 to 1"),
    ("agent.world_model.head.layers", 0, "is 0; give a number above 0"),
    ("agent.actor_critic.head.layers", 0, "is 0; give a number above 0"),
    ("agent.world_model.two_hot.bins", 1, "is 1; give 2 or more"),
    ("agent.actor_critic.two_hot.bins", 2.5, "is 2.5; give a whole number"),
    ("agent.actor_critic.optimizer.clip", 0, "is 0; give a number above 0"),
    ("agent.actor_critic.optimizer.learning_rate", NAN, "is nan; give a finite number"),
    ("agent.actor_critic.gamma", NAN, "is nan; give a number from 0 to 1"),
    ("agent.actor_critic.state", "hz", "is 'hz'; give one of zh, z, h, frame"),
    # Between fields
    ("agent.world_model.sequence.heads", 7, "512 is not divisible by 7 heads"),
    ("agent.world_model.two_hot.low", 20.0, "must be below two_hot.high"),
    ("agent.actor_critic.two_hot.low", 30, "must be below two_hot.high"),
    ("agent.actor_critic.percentile_low", 0.99, "is 0.99; give less than percentile_high (0.95)"),
    ("agent.acting.context", 65, "is 65, more than world_model.sequence.max_length (64)"),
    ("agent.replay.warmup", 63, "63 steps hold no window of 64"),
]
SAID_OF = {"agent.world_model.sequence.heads": "agent.world_model.sequence.width"}
"""Where another field than the edited one is named."""


def refusal(call: Callable[[], object]) -> UserError:
    with pytest.raises(UserError) as caught:
        call()
    return caught.value


@pytest.mark.parametrize(("path", "value", "said"), MISTAKES)
def test_a_mistake_in_a_whole_is_named_by_its_whole_path(
    path: str, value: object, said: str
) -> None:
    with unchecked():
        config = edited(RunConfig(env="a"), path, value)
    mistake = refusal(lambda: validate(config))
    assert mistake.field == SAID_OF.get(path, path)
    assert said in mistake.message
    assert refusal(lambda: validate(config, "runs.first")).field == f"runs.first.{mistake.field}"


FLAGS = [(p, v, s) for p, v, s in MISTAKES if type(v) in (int, float) and p.startswith("agent.")]


@pytest.mark.parametrize(("path", "value", "said"), [f for f in FLAGS if f[1] != 10**400])
def test_a_mistake_on_the_command_line_is_named_like_its_flag(
    path: str, value: float, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flag = path.removeprefix("agent.")
    given = ["--env", "stormrl/Catch-v0", f"--{flag.replace('_', '-')}", str(value)]
    assert main(["train", *given]) == 2
    named, message = capsys.readouterr().err.removeprefix("stormrl: ").split(": ", maxsplit=1)
    assert named == SAID_OF.get(path, path).removeprefix("agent.")
    # What is no whole number never becomes an option; a float is shown as one.
    assert said.split("; ")[-1].split(" below 2**63")[0] in message


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: HeadConfig(layers=0), "layers"),
        (lambda: HeadConfig(layers="two"), "layers"),  # pyright: ignore[reportArgumentType]
        (lambda: TransformerConfig(width=30, heads=4), "width"),
        (lambda: TwoHotConfig(low=1.0, high=-1.0), "low"),
        (lambda: TwoHotConfig(low=-1.0, high=2.0, mean="natural"), "low"),
        (lambda: WorldModelConfig(batch_length=65), "batch_length"),
        (lambda: WorldModelConfig(head=3), "head"),  # pyright: ignore[reportArgumentType]
        (lambda: AgentConfig(agent_ratio=-1.0), "agent_ratio"),
        (lambda: replace(AgentConfig(), actor_critic=ActorCriticConfig(gamma=2.0)), "gamma"),
    ],
)
def test_what_is_made_in_python_names_its_mistakes_as_seen_from_itself(
    make: Callable[[], object], field: str
) -> None:
    assert refusal(make).field == field


def test_whole_numbers_are_numbers_in_python_too() -> None:
    config = RunConfig(env="a", agent=AgentConfig(world_model_ratio=2))
    assert (
        config_from_dict(json.loads(json.dumps({"env": "a", "agent": {"world_model_ratio": 2}})))
        == config
    )


def test_checking_goes_on_after_a_mistake_among_unchecked_parts() -> None:
    with pytest.raises(ZeroDivisionError), unchecked():
        HeadConfig(layers=1 // 0)
    assert refusal(lambda: HeadConfig(layers=0)).field == "layers"


def test_a_mistake_within_a_field_is_told_before_one_between_fields() -> None:
    """Rules between fields may rely on the type of every field."""
    with unchecked():
        config = TransformerConfig(width=30, heads=4, dropout="no")  # pyright: ignore
    assert refusal(lambda: validate(config)).field == "dropout"


@dataclass(frozen=True)
class Wider(TransformerConfig):
    """Of the same kind as its base: JSON could not tell them apart."""

    extra: int = 1


def test_a_subclass_does_not_pass_for_a_part() -> None:
    mistake = refusal(lambda: WorldModelConfig(sequence=Wider()))
    assert mistake.field == "sequence"
    assert mistake.message.endswith("give a value of the type TransformerConfig")


@dataclass(frozen=True)
class Even(Constraint):
    """Somebody else's rule."""

    def check(self, value: int) -> str | None:
        return "give an even number" if value % 2 else None


@dataclass(frozen=True)
class Inner(Config):
    level: Literal[1, 2] = 1
    rate: Annotated[float, Positive] | None = None
    even: Annotated[int, "a note for others", Even(), AtLeast(4)] = 4

    def problems(self) -> Iterator[tuple[str, str]]:
        """Level 2 needs a rate."""
        if self.level == 2 and self.rate is None:
            yield "rate", "is missing"


@dataclass(frozen=True)
class Outer:
    """No config itself, such as the options of a command."""

    inner: Inner = Inner()
    names: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("inner", "field", "said"),
    [
        ({"level": True}, "inner.level", "is True; give one of 1, 2"),
        ({"level": 3}, "inner.level", "is 3; give one of 1, 2"),
        ({"level": 2}, "inner.rate", "is missing"),
        ({"rate": 0.0}, "inner.rate", "is 0.0; give a number above 0"),
        ({"rate": "1"}, "inner.rate", "is '1'; give a finite number"),
        ({"even": 5}, "inner.even", "is 5; give an even number"),
        ({"even": 2}, "inner.even", "is 2; give 4 or more"),
        ({"even": None}, "inner.even", "is None; give a whole number"),
    ],
)
def test_types_of_ones_own(inner: dict[str, Any], field: str, said: str) -> None:
    validate(Outer(Inner(level=2, rate=0.5, even=6)))
    with unchecked():
        outer = Outer(Inner(**inner))
    mistake = refusal(lambda: validate(outer))
    assert (mistake.field, said in mistake.message) == (field, True)


@given(value=st.integers() | st.floats() | st.text(max_size=3) | st.none() | st.booleans())
def test_what_is_taken_keeps_its_constraint(value: Any) -> None:
    with unchecked():
        config = AgentConfig(replay=edited(AgentConfig().replay, "rewarded", value))
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and 0 <= value <= 1:
        validate(config)
    else:
        assert refusal(lambda: validate(config)).field == "replay.rewarded"
