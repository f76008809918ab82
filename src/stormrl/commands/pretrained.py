"""`stormrl pretrained`: the trained agents that come with the package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stormrl.commands.flags import parse
from stormrl.commands.output import number, print_facts, print_json, results, say, table

if TYPE_CHECKING:
    from stormrl.disk.pretrained import Pretrained

TITLE = "pretrained agents"


@dataclass(frozen=True)
class PretrainedOptions:
    """List the trained agents that come with the package, their scores and how they were trained.

    Every command that takes the directory of a run takes pretrained:NAME as well.
    """

    json: bool = False
    """Print nothing but a list of JSON objects on standard output."""


def main(args: Sequence[str]) -> int:
    """List; returns the exit code."""
    options = parse(PretrainedOptions, args, "stormrl pretrained")
    # Imported late: PyTorch takes longer to load than the help to print.
    from stormrl.disk.pretrained import agents

    records = [describe(agent) for agent in agents()]
    if options.json:
        print_json(records)
    elif records:
        _show(records)
    else:
        say(results(), "No pretrained agent comes with this version of stormrl.")
    return 0


def describe(agent: Pretrained) -> dict[str, Any]:
    """What the list says of an agent; JSON-able."""
    from stormrl.scores.published import human_normalised
    from stormrl.scores.summary import mean_and_stderr

    config, returns = agent.config, list(agent.scores["return"])
    mean, stderr = mean_and_stderr(returns)
    random, random_stderr = mean_and_stderr(agent.random["return"])
    return {
        "name": agent.name,
        "env": config.env,
        "system": config.preset,
        "size": config.size,
        "steps": agent.step,
        "seed": config.seed,
        "protocol": agent.protocol,
        "episodes": len(returns),
        "mean": mean,
        "stderr": stderr,
        "random": random,
        "random_stderr": random_stderr,
        "human_normalised": human_normalised(config.env, mean),
        "returns": returns,
        "bytes": agent.networks.bytes,
        "command": agent.command,
    }


def _show(records: Sequence[Mapping[str, Any]]) -> None:
    console = results()
    columns = ("name", "game", "trained with", *map(number, ("steps", "mean ± stderr", "random")))
    console.print(table(TITLE, columns, [_row(record) for record in records]))
    console.print("\n[bold]how they were trained[/]")
    print_facts(console, {record["name"]: record["command"] for record in records})
    say(console, f"\nTo watch one: stormrl play pretrained:{records[0]['name']}")


def _row(record: Mapping[str, Any]) -> tuple[str, ...]:
    from stormrl.scores.summary import score_text

    return (
        record["name"],
        record["env"],
        f"{record['system']}, {record['size']}",
        f"{record['steps']:,}",
        score_text(record["mean"], record["stderr"], decimals=1),
        f"{record['random']:,.1f}",
    )
