"""`stormrl demo`: within minutes, from a pretrained agent to two that were trained from scratch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stormrl.commands.flags import parse
from stormrl.commands.output import messages, number, print_json, results, say, table, writing
from stormrl.errors import UserError
from stormrl.history.progress import busy, duration_text
from stormrl.machine.stop import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from stormrl.runs.demo import Demonstration


@dataclass(frozen=True)
class DemoOptions:
    """Watch a pretrained agent, train on a toy game and a real one, and compare.

    A pretrained agent plays, and its dreams are filmed. Then Catch is learned from scratch, and an
    Atari game for all the time that is left. A table sets random play, the best held action, both
    agents and published ones side by side, and a test says whether anything was learned.
    """

    out: Path = Path("demo")
    """Folder for the runs, films, curves, summary.json and summary.md."""
    minutes: float = 12.0
    """How long all of it may take."""
    json: bool = False
    """Print nothing but one JSON object, at the end, on standard output."""


def main(args: Sequence[str]) -> int:
    """Demonstrate; returns the exit code."""
    options = parse(DemoOptions, args, "stormrl demo")
    if not 0 < options.minutes < math.inf:
        raise UserError("minutes", f"is {options.minutes:g}; give a number above 0")
    try:
        with writing(options.out):
            options.out.mkdir(parents=True, exist_ok=True)
            done = _demonstrate(options)
    except KeyboardInterrupt:
        finished = f"what was compared before is in {options.out}"
        say(messages(), f"Stopped; {finished}, and stormrl demo begins anew.")
        return EXIT_INTERRUPTED
    if options.json:
        print_json(done.as_dict())
    else:
        _show(options.out, done)
    return 0


def _demonstrate(options: DemoOptions) -> Demonstration:
    # Imported late: PyTorch takes longer to load than the help to print.
    if options.json:
        from stormrl.runs.demo import demonstrate

        return demonstrate(options.out, options.minutes)
    say(messages(), f"This takes about {options.minutes:g} minutes; Ctrl-C stops it.")
    with busy(messages(), "loading PyTorch"):
        from stormrl.commands.demo_screen import VisibleScreen
        from stormrl.runs.demo import demonstrate
    return demonstrate(options.out, options.minutes, screen=VisibleScreen())


def _show(out: Path, done: Demonstration) -> None:
    from stormrl.runs.demo import HEADER, NOTE
    from stormrl.runs.demo import table as rows

    console = results()
    game, player, *numbers = HEADER
    columns = (game, player, *map(number, numbers))
    console.print()
    console.print(table("mean return ± standard error", columns, rows(done.comparisons)))
    say(console, f"\n{NOTE}\n")
    for file in (*done.files, out / "summary.json", out / "summary.md"):
        say(console, str(file))
    say(messages(), f"\nAll of it took {duration_text(done.seconds)}.")
    for path in done.unfinished:
        say(messages(), f"To go on training: stormrl train --resume {path}")
