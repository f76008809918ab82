"""A field that holds one of several parts: told by its kind in JSON, by the default on flags."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import pytest

from stormrl.commands.flags import flags, parse
from stormrl.config.constraints import Positive
from stormrl.config.json import part_class, read_config
from stormrl.config.parts import WorldModelConfig, to_dict
from stormrl.config.validation import Config, validate
from stormrl.errors import UserError

Captured = pytest.CaptureFixture[str]


@dataclass(frozen=True)
class Recurrent(Config):
    """Reads one step after the other."""

    kind: ClassVar[str] = "recurrent"

    units: Annotated[int, Positive] = 8
    """Width of its memory."""


@dataclass(frozen=True)
class Attentive(Config):
    """Looks back on all of them."""

    kind: ClassVar[str] = "attentive"

    units: Annotated[int, Positive] = 4
    """Width of a step."""
    heads: Annotated[int, Positive] = 2
    """Looks at once."""


@dataclass(frozen=True)
class Model(Config):
    """Has a sequence model."""

    sequence: Recurrent | Attentive = Recurrent()
    """What reads the steps."""
    rate: float = 1.0
    """How fast it learns."""


@dataclass(frozen=True)
class Options:
    """Train a model."""

    model: Model = field(default_factory=Model)
    """The model."""


@dataclass(frozen=True)
class Mine(Config):
    """A part that the package does not know."""

    kind: ClassVar[str] = "mine:Mine"

    depth: Annotated[int, Positive] = 3


@dataclass(frozen=True)
class Elsewhere(Config):
    """A part that would be written under another name than it was read by."""

    kind: ClassVar[str] = "mine:Other"


@dataclass(frozen=True)
class Loose:
    """Nothing that is validated."""

    kind: ClassVar[str] = "mine:Mine"


def through_json(config: object) -> Any:
    return json.loads(json.dumps(to_dict(config)))


@pytest.mark.parametrize("sequence", [Recurrent(units=3), Attentive(units=6, heads=5)])
def test_a_part_comes_back_as_what_it_was(sequence: Recurrent | Attentive) -> None:
    model = Model(sequence)
    assert through_json(model)["sequence"]["kind"] == sequence.kind
    assert read_config(Model, through_json(model)) == model


def test_without_a_kind_the_first_is_meant() -> None:
    assert read_config(Model, {"sequence": {"units": 5}}) == Model(Recurrent(5))


@pytest.mark.parametrize(
    ("sequence", "named", "said"),
    [
        ({"kind": "convolutional"}, "sequence.kind", "give one of recurrent, attentive"),
        ({"kind": ["recurrent"]}, "sequence.kind", "give one of recurrent, attentive"),
        ({"kind": None}, "sequence.kind", "give one of recurrent, attentive"),
        ({"kind": "recurrent", "heads": 2}, "sequence.heads", "is unknown; known are units"),
        ({"heads": 2}, "sequence.heads", "is unknown; known are units"),
        ({"kind": "attentive", "heads": 0}, "sequence.heads", "is 0; give a number above 0"),
        ("recurrent", "sequence", "is 'recurrent'; give an object of fields"),
        (None, "sequence", "is None; give an object of fields"),
    ],
)
def test_a_mistake_in_a_part_is_one_line_with_its_place(
    sequence: object, named: str, said: str
) -> None:
    with pytest.raises(UserError) as caught:
        read_config(Model, {"sequence": sequence})
    assert caught.value.field == named
    assert said in caught.value.message
    assert "\n" not in str(caught.value)


def test_another_config_is_no_part_of_the_union() -> None:
    with pytest.raises(
        UserError, match=r"^sequence: .*; give a value of the type Recurrent or Attentive"
    ):
        Model(sequence=Model())  # pyright: ignore[reportArgumentType]


def test_a_part_of_ones_own_stands_only_where_parts_have_kinds() -> None:
    mine: Any = Mine()
    assert WorldModelConfig(latent=mine).latent == mine
    with pytest.raises(UserError, match=r"^head: .*; give a value of the type HeadConfig"):
        WorldModelConfig(head=mine)


def test_reading_imports_nothing() -> None:
    assert "this" not in sys.modules
    kind = "this:ZenOfAVeryLongAndWindingName"
    with pytest.raises(UserError) as caught:
        read_config(Model, {"sequence": {"kind": kind}})
    assert caught.value.field == "sequence.kind"
    assert f"'{kind}'" in caught.value.message
    assert "importer" in caught.value.message
    assert "this" not in sys.modules


def test_a_part_of_ones_own_is_read_where_an_importer_knows_it() -> None:
    model = Model(sequence=Mine(depth=7))  # pyright: ignore[reportArgumentType]
    asked = []

    def importer(kind: str, place: str) -> type:
        asked.append((kind, place))
        return Mine

    assert read_config(Model, through_json(model), importer) == model
    assert asked == [("mine:Mine", "sequence.kind")]
    with pytest.raises(UserError, match=r"^sequence\.depth: is 0; give a number above 0"):
        read_config(Model, {"sequence": {"kind": "mine:Mine", "depth": 0}}, importer)


@pytest.mark.parametrize("found", [Elsewhere, Loose, int])
def test_an_importer_must_find_a_config_of_that_kind(found: type) -> None:
    with pytest.raises(UserError, match=r"^sequence\.kind: is 'mine:Mine'; derive a dataclass"):
        part_class("mine:Mine", Recurrent | Attentive, "sequence.kind", lambda kind, place: found)


def test_parts_are_found_in_every_way_to_write_a_type() -> None:
    for union in (Recurrent | Attentive, Annotated[Recurrent | Attentive | None, "a note"]):
        assert part_class("attentive", union, "sequence.kind") is Attentive


def chosen(args: Sequence[str], sequence: Recurrent | Attentive) -> Model:
    return parse(Options, args, "test", Options(Model(sequence))).model


def test_flags_are_those_of_the_part_that_is_there() -> None:
    assert chosen(["--model.sequence.units", "9"], Recurrent()) == Model(Recurrent(9))
    given = ["--model.rate", "0.5", "--model.sequence.heads", "3"]
    assert chosen(given, Attentive(units=6)) == Model(Attentive(6, 3), rate=0.5)
    assert parse(Options, ["--model.sequence.units", "9"], "test").model == Model(Recurrent(9))


def test_flags_are_listed_by_the_part_that_is_there() -> None:
    default = ["model.sequence.units", "model.rate"]
    assert list(flags(Options)) == default
    other = Options(Model(Attentive()))
    assert list(flags(other)) == ["model.sequence.units", "model.sequence.heads", "model.rate"]


def test_help_shows_no_subcommands(capsys: Captured) -> None:
    with pytest.raises(SystemExit):
        chosen(["--help"], Attentive(units=6))
    printed = capsys.readouterr().out
    assert "--model.sequence.heads INT" in printed
    assert "(default: 6)" in printed
    assert "subcommands" not in printed


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["--model.sequence.heads", "3"], "--model.sequence.heads: is no flag of this command"),
        (["--model.sequence.units", "0"], "model.sequence.units: is 0; give a number above 0"),
        (["--model.sequence.units", "x"], "model.sequence.units: is 'x'; give a whole number"),
        (["recurrent"], "recurrent: is not expected here"),
    ],
)
def test_a_mistake_in_a_flag_of_a_part(args: list[str], line: str) -> None:
    with pytest.raises(UserError) as caught:
        chosen(args, Recurrent())
    assert str(caught.value).startswith(line)
    assert "did you mean --model.sequence.heads" not in str(caught.value)


def test_a_whole_with_a_part_of_the_union_is_valid() -> None:
    validate(Options(Model(Attentive())))
