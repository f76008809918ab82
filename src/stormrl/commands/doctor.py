"""`stormrl doctor`: why a run does not learn, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from stormrl.commands.output import print_facts, print_json, results
from stormrl.flags import parse

WIDTH = 88
"""Longest line of prose."""
HEALTHY = "None of the known causes of a run that does not learn was found."


@dataclass(frozen=True)
class Options:
    """Tell why a run does not learn: causes, the evidence in its metrics, the settings to look at.

    The first cause is the one to start with; later ones often follow from it.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Directory of the run."""
    json: bool = False
    """Print nothing but one JSON object on standard output."""


def main(args: Sequence[str]) -> int:
    """Examine; returns the exit code."""
    options = parse(Options, args, "stormrl doctor")
    # Imported late: PyTorch takes longer to load than the help to print.
    from stormrl.doctor import examine

    record = examine(options.run)
    if options.json:
        print_json(record)
    else:
        _show(results(), record)
    return 0


def _show(console: Console, record: Mapping[str, Any]) -> None:
    console.width = min(console.width, WIDTH)
    done = f"step {record['step']:,}, {record['updates']:,} updates"
    console.print(Text.assemble((record["env"], "bold"), f", {done}"))
    if record["healthy"]:
        console.print(f"[green]{HEALTHY}[/]")
    for number, finding in enumerate(record["findings"], start=1):
        _show_finding(console, number, finding)
    known = {name: figure(value) for name, value in record["facts"].items() if value == value}
    console.print("\n[bold]how it goes[/]")
    print_facts(console, known)


def _show_finding(console: Console, number: int, finding: Mapping[str, Any]) -> None:
    console.print(f"\n[bold red]{number}. {finding['cause']}[/]")
    console.print(Padding(finding["explanation"], (0, 0, 0, 2)))
    print_facts(console, {name: figure(value) for name, value in finding["evidence"].items()})
    console.print("  look at")
    print_facts(
        console,
        {flag(name): f"now {value!r}" for name, value in finding["settings"].items()},
    )


def flag(setting: str) -> str:
    """The command line's name of a config field."""
    return "--" + setting.replace("_", "-")


def figure(value: float | None) -> str:
    """Four significant digits, thousands separated."""
    if value is None:
        return "--"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
