"""`stormrl presets`: what --preset, --size and --protocol can be."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Column

from stormrl.commands.flags import parse
from stormrl.commands.output import number, print_json, results, table
from stormrl.config.parts import AgentConfig, leaves, to_dict
from stormrl.config.presets import ABLATIONS, PRESETS, SIZES, Edit, agent_config
from stormrl.config.validation import unchecked
from stormrl.spaces import DiscreteSpace, ImageSpace, Spaces

SPACES = Spaces(ImageSpace(64, 64, 3), DiscreteSpace(6))
"""Of the game whose parameters are counted; each action more adds a few thousand."""


@dataclass(frozen=True)
class PresetsOptions:
    """List algorithms, sizes, ablations and protocols."""

    json: bool = False
    """Print nothing but one JSON object on standard output."""


def main(args: Sequence[str]) -> int:
    """List; returns the exit code."""
    options = parse(PresetsOptions, args, "stormrl presets")
    record = describe()
    if options.json:
        print_json(record)
    else:
        _show(record)
    return 0


def describe() -> dict[str, Any]:
    """Everything that has a name, with what it stands for; JSON-able."""
    from stormrl.envs import PROTOCOLS
    from stormrl.learning.parameters import parameters_of

    return {
        "presets": {
            name: {
                "description": _summary(edit),
                "system": edit(AgentConfig()).world_model.kind,
                "changes": changes(edit),
            }
            for name, edit in PRESETS.items()
        },
        "systems": [system(name) for name in PRESETS],
        "sizes": {
            name: {
                "description": _summary(edit),
                "parameters": parameters_of(agent_config(size=name), SPACES),
            }
            for name, edit in SIZES.items()
        },
        "ablations": {name: changes(edit) for name, edit in ABLATIONS.items()},
        "protocols": {name: asdict(protocol) for name, protocol in PROTOCOLS.items()},
    }


SEEN = {"zh": "latent, hidden", "z": "latent", "h": "hidden", "frame": "reconstruction"}
"""What an agent sees, by `ActorCriticConfig.state`."""


def system(preset: str) -> dict[str, Any]:
    """A preset at base size in the rows of the literature's table, read off what is run."""
    from stormrl.learning.parameters import parameters_of

    config = agent_config(preset)
    parameters = parameters_of(config, SPACES)
    return {
        "name": preset,
        **config.world_model.traits._asdict(),
        "agent_state": SEEN[config.actor_critic.state],
        "agent_training": config.actor_critic.training,
        "parameters": {part: counts["total"] for part, counts in parameters.items()},
    }


def changes(edit: Edit) -> dict[str, Any]:
    """Flags by which an edit of the default configuration can be spelled out, and their values.

    An edit that gives another world model or agent is compared with their own defaults.
    """
    edited = edit(AgentConfig())
    before, after = flag_values(default_like(edited)), flag_values(edited)
    return {flag: value for flag, value in after.items() if before[flag] != value}


def default_like(config: AgentConfig) -> AgentConfig:
    """The default configuration around a world model and an agent of the same types."""
    parts = {name: type(getattr(config, name))() for name in ("world_model", "actor_critic")}
    with unchecked():
        return AgentConfig(**parts)


def flag_values(config: AgentConfig) -> dict[str, Any]:
    """Every field of a configuration as a flag, with its value."""
    return {f"--{name.replace('_', '-')}": value for name, value in leaves(to_dict(config))}


def _summary(edit: Edit) -> str:
    return inspect.getdoc(edit) or ""


def _show(record: Mapping[str, Any]) -> None:
    console = results()
    presets = [
        (name, preset["description"], _flags_text(preset["changes"]))
        for name, preset in record["presets"].items()
    ]
    sizes = [
        (name, *_sizes(size["parameters"]), size["description"])
        for name, size in record["sizes"].items()
    ]
    ablations = [(name, _flags_text(flags)) for name, flags in record["ablations"].items()]
    protocols = [(name, *_rules(protocol)) for name, protocol in record["protocols"].items()]
    console.print(table("--preset: the algorithm", ("", "what it is", _flags_column()), presets))
    console.print(table("what they are made of", *systems_table(record["systems"])))
    wholes = (number("world model"), number("actor, critic"))
    console.print(table("--size: parameters", ("", *wholes, "what it is"), sizes))
    console.print(table("ablations of the paper", ("", _flags_column()), ablations))
    rules = (number("sticky actions"), number("idle start"), "lost life", number("episodes"))
    console.print(table("--protocol: the rules of play", ("", *rules), protocols))


ROWS = {
    "sequence_model": "sequence model",
    "tokens": "a step is",
    "latent": "latent",
    "historical_information": "which sees history",
    "agent_state": "agent sees",
    "agent_training": "agent's training",
    "parameters": "world model, agent",
}
"""Rows of the literature's table, by the names of their values."""


def systems_table(
    systems: Sequence[Mapping[str, Any]],
) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Head and rows of the table; presets that differ in none of them share a column."""
    columns = {
        tuple(_cell(system[row]) for row in ROWS): system["name"] for system in systems[::-1]
    }
    rows = zip(ROWS.values(), *reversed(columns), strict=True)
    return ("", *reversed(columns.values())), list(rows)


def _cell(value: Any) -> str:
    match value:
        case None:
            return "n/a"
        case bool():
            return "yes" if value else "no"
        case str():
            return value
    return " + ".join(f"{count / 1e6:.1f} M" for count in value.values())


def _flags_column() -> Column:
    """A column of flags; one for each table, since a column keeps the cells of its table."""
    return Column("as flags", no_wrap=True)


def _flags_text(changed: Mapping[str, Any]) -> str:
    return "\n".join(f"{flag} {value}" for flag, value in changed.items()) or "the default"


def _sizes(parameters: Mapping[str, Mapping[str, int]]) -> tuple[str, str]:
    return f"{parameters['world_model']['total']:,}", f"{parameters['actor_critic']['total']:,}"


def _rules(protocol: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        f"{protocol['sticky_actions']:g}",
        f"up to {protocol['noop_max']}" if protocol["noop_max"] else "none",
        protocol["life_loss"],
        str(protocol["evaluation_episodes"]),
    )
