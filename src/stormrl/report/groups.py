"""Runs in groups: games, and what was run on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from stormrl.config.parts import AgentConfig, leaves, to_dict
from stormrl.config.presets import agent_config
from stormrl.errors import UserError
from stormrl.report.reading import Run
from stormrl.scores.published import game_of, games

LONGEST_LABEL = 60
"""Characters."""


class Variant(NamedTuple):
    """What runs have in common if they differ in nothing but game and seed."""

    preset: str
    size: str
    protocol: str
    """Of the scores; that of the training where there are none."""
    steps: int
    changes: tuple[str, ...]
    """Settings that are not those of preset and size, as `name=value`."""

    @classmethod
    def of(cls, run: Run) -> Variant:
        """What a run is a sample of."""
        config = run.config
        protocol = config.protocol if run.evaluation is None else run.evaluation.protocol
        return cls(config.preset, config.size, protocol, config.steps, changes(run))


class GameRuns(NamedTuple):
    """The runs of one variant on one game."""

    name: str
    """As in `Pong` for Atari games, else the environment's id."""
    variant: str
    """Label of what was run."""
    runs: list[Run]

    @property
    def scores(self) -> list[float]:
        """Mean return of each run that was evaluated."""
        return [run.evaluation.mean for run in self.runs if run.evaluation is not None]


def grouped(runs: Sequence[Run]) -> list[GameRuns]:
    """By variant and game; variants in the order in which they come, games as published."""
    labels = labelled(runs)
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((labels[Variant.of(run)], game_of(run.config.env)), []).append(run)
    order = {label: index for index, label in enumerate(dict.fromkeys(labels.values()))}
    known = {game: index for index, game in enumerate(games())}
    return sorted(
        (GameRuns(game, label, members) for (label, game), members in groups.items()),
        key=lambda group: (order[group.variant], known.get(group.name, len(known)), group.name),
    )


def labelled(runs: Sequence[Run]) -> dict[Variant, str]:
    """A label for each variant, which says what it does not share with all others.

    Variants of one label are one: games may be trained for different times.
    """
    variants = list(dict.fromkeys(map(Variant.of, runs)))
    telling = _telling(runs, variants)
    words = {variant: " ".join(_words(variant, telling)) for variant in variants}
    distinct = list(dict.fromkeys(words.values()))
    return {
        variant: text
        if len(text) <= LONGEST_LABEL
        else f"{variant.preset} {variant.size}, {_numbered(distinct, text)}"
        for variant, text in words.items()
    }


def changes(run: Run) -> tuple[str, ...]:
    """Settings of the agent that are not those of the run's preset and size."""
    try:
        named = agent_config(run.config.preset, run.config.size)
    except UserError:  # A preset of another version of the package.
        return ()
    return differences(run.config.agent, named)


def differences(config: AgentConfig, named: AgentConfig) -> tuple[str, ...]:
    """`name=value` for every setting in which `config` differs from `named`.

    How much of a demonstration is mixed in is no difference where there is none.
    """
    before = dict(leaves(to_dict(named)))
    return tuple(
        f"{name}={value}"
        for name, value in leaves(to_dict(config))
        if before.get(name) != value
        and (config.demonstration.path or not name.startswith("demonstration."))
    )


def _telling(runs: Sequence[Run], variants: Sequence[Variant]) -> list[str]:
    """Fields of a variant that its label needs."""
    fields = ["preset", "size"]
    if len({variant.protocol for variant in variants}) > 1:
        fields.append("protocol")
    lengths = {(run.config.env, run.config.steps) for run in runs}
    if len(lengths) > len({run.config.env for run in runs}):
        fields.append("steps")
    return [*fields, "changes"]


def _numbered(distinct: Sequence[str], text: str) -> str:
    """In place of settings that are too many for a label."""
    if len(distinct) == 1:
        return "some settings changed"
    return f"variant {distinct.index(text) + 1}"


def _words(variant: Variant, fields: Sequence[str]) -> Iterator[str]:
    for name in fields:
        match getattr(variant, name):
            case tuple() as changed:
                yield from changed
            case int() as steps:
                yield f"{steps:,} steps"
            case word:
                yield word
