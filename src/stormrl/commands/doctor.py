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

from stormrl.commands.flags import AllowImport, parse
from stormrl.commands.output import print_facts, print_json, results

WIDTH = 88
"""Longest line of prose."""
HEALTHY = "None of the known causes of a run that does not learn was found."


@dataclass(frozen=True)
class DoctorOptions:
    """Tell why a run does not learn: causes, the evidence in its metrics, the settings to look at.

    The first cause is the one to start with; later ones often follow from it.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Directory of the run, or pretrained:NAME."""
    allow_import: AllowImport = ()
    json: bool = False
    """Print nothing but one JSON object on standard output."""


def main(args: Sequence[str]) -> int:
    """Examine; returns the exit code."""
    options = parse(DoctorOptions, args, "stormrl doctor")
    # Imported late: PyTorch takes longer to load than the help to print.
    from stormrl.report.doctor import examine

    record = examine(options.run, options.allow_import)
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
    _show_track(console, record["on_track"])


def _show_finding(console: Console, number: int, finding: Mapping[str, Any]) -> None:
    console.print(f"\n[bold red]{number}. {finding['cause']}[/]")
    console.print(Padding(finding["explanation"], (0, 0, 0, 2)))
    print_facts(console, {name: figure(value) for name, value in finding["evidence"].items()})
    console.print("  look at")
    print_facts(
        console,
        {flag(name): f"now {value!r}" for name, value in finding["settings"].items()},
    )


def _show_track(console: Console, record: Mapping[str, Any]) -> None:
    console.print("\n[bold]on track? beside published runs, at the same environment step[/]")
    if not record["applicable"]:
        print_facts(console, {"not applicable": record["reason"]})
        return
    print_facts(console, {"verdict": record["verdict"]} | _judged(record["judged"]))
    words = [f"published: {published(record['published'])}"]
    words += [f"this run has {difference}" for difference in record["differences"]]
    words += filter(None, [record["caveat"]])
    console.print(Padding("\n".join(words), (0, 0, 0, 2)))


def _judged(record: Mapping[str, Any] | None) -> dict[str, str]:
    """What the verdict is drawn from."""
    if record is None:
        return {}
    steps = f"steps {record['first_step']:,} to {record['last_step']:,}"
    low, high = map(figure, record["interval"])
    return {
        f"return, {steps}": f"{figure(record['mean'])}, mean of {record['episodes']} episodes",
        "expected there (95 %)": f"{low} to {high}, by {record['seeds']} published seeds",
        "weak play there": ", ".join(f"{n} {figure(v)}" for n, v in record["weak"].items()),
    }


def published(run_sets: Sequence[Mapping[str, Any]]) -> str:
    """What the published curves are of, and how they were trained."""
    titles = "; ".join(f"{runs['title']}, {runs['seeds']} seeds" for runs in run_sets)
    return f"{titles}; {run_sets[0]['compute']}, no sticky actions"


def flag(setting: str) -> str:
    """The command line's name of a config field."""
    return "--" + setting.replace("_", "-")


def figure(value: float | None) -> str:
    """Four significant digits, thousands separated."""
    if value is None:
        return "--"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
