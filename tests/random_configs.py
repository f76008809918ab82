"""Random configurations that are valid, for Hypothesis."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, get_args, get_origin

from hypothesis import strategies as st

from stormrl.config.constraints import Above, AtLeast, Within
from stormrl.config.fields import FieldType, field_types
from stormrl.config.parts import RunConfig
from stormrl.config.validation import LARGEST, unchecked, validate

TEXTS = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=8)


def run_configs() -> st.SearchStrategy[RunConfig]:
    """Every field is drawn from what its type allows, then made to agree with the others."""
    return st.tuples(configs(RunConfig), coupled()).map(lambda drawn: agreeing(*drawn))


def configs(config: type) -> st.SearchStrategy[Any]:
    fields = {name: values(declared) for name, declared in field_types(config).items()}
    return st.fixed_dictionaries(fields).map(lambda drawn: unvalidated(config, drawn))


def unvalidated(config: type, fields: dict[str, Any]) -> Any:
    with unchecked():
        return config(**fields)


def values(declared: FieldType) -> st.SearchStrategy[Any]:
    if declared.parts:
        return st.one_of([configs(part) for part in declared.parts])
    (kind,) = declared.kinds
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    if get_origin(kind) is Mapping:
        return st.dictionaries(st.sampled_from(["level", "name", "size"]), st.integers() | TEXTS)
    if kind in (int, float):
        return numbers(kind, declared)
    return {bool: st.booleans(), str: TEXTS}[kind]


def numbers(kind: type, declared: FieldType) -> st.SearchStrategy[Any]:
    low, high, open_end = -LARGEST, LARGEST, False
    for constraint in declared.constraints:
        match constraint:
            case Above(bound):
                low, open_end = bound, True
            case AtLeast(bound):
                low = bound
            case Within(low, high):
                pass
    if kind is int:
        return st.integers(int(low) + open_end, int(high))
    return st.floats(float(low), float(high), exclude_min=open_end, allow_subnormal=False)


@st.composite
def coupled(draw: st.DrawFn) -> dict[str, Any]:
    """Values of the fields that depend on each other, by their paths."""
    heads, width = draw(st.integers(1, 16)), draw(st.integers(1, 64))
    positions = draw(st.integers(4, 512))
    window = draw(st.integers(3, positions))
    horizon = draw(st.integers(1, window - 2))
    context = draw(st.integers(1, positions - horizon))
    # Of some world models a window takes some steps more.
    warmup = draw(st.integers(max(window + 5, context), 5_000))
    edges = st.lists(st.floats(0.01, 1.0), min_size=2, max_size=2, unique=True)
    percentiles = sorted(draw(edges))
    ratio, edge = draw(st.floats(0, 100)), draw(st.floats(0.01, 100))
    return {
        "world_model.sequence.heads": heads,
        "world_model.sequence.width": 2 * heads * width,  # TWM wants it even.
        "world_model.image.frames": 4,
        "world_model.sequence.max_length": positions,
        "world_model.batch_length": window,
        "imagination.horizon": horizon,
        "imagination.context": context,
        "acting.context": draw(st.integers(1, positions)),
        "replay.warmup": warmup,
        "replay.capacity": draw(st.integers(warmup, LARGEST)),
        "actor_critic.percentile_low": percentiles[0],
        "actor_critic.percentile_high": percentiles[1],
        "replay.balance": 0.0,  # Else windows may be asked for that the warmup does not hold.
        "world_model_ratio": ratio,
        "agent_ratio": ratio,
        **{
            f"{owner}.two_hot.{end}": sign * edge
            for owner in ("world_model", "actor_critic")
            for end, sign in (("low", -1), ("high", 1))
        },
    }


def agreeing(config: RunConfig, fields: dict[str, Any]) -> RunConfig:
    with unchecked():
        for path, value in fields.items():
            if has(config, f"agent.{path}"):
                config = edited(config, f"agent.{path}", value)
    validate(config)
    return config


def has(config: Any, path: str) -> bool:
    """Whether there is a field at a dotted path; parts differ in theirs."""
    name, _, inner = path.partition(".")
    return hasattr(config, name) and (not inner or has(getattr(config, name), inner))


def edited(config: Any, path: str, value: object) -> Any:
    """A copy with another value in the field at a dotted path."""
    name, _, inner = path.partition(".")
    return replace(
        config, **{name: edited(getattr(config, name), inner, value) if inner else value}
    )
