"""`stormrl demo`: a small agent within minutes, from nothing to films of its dreams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from stormrl.commands.output import messages, number, print_json, results, say, table, writing
from stormrl.errors import UserError
from stormrl.flags import parse
from stormrl.progress import TrainingProgress
from stormrl.stop import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from stormrl.demo import Comparison


@dataclass(frozen=True)
class Options:
    """Train on a real Atari game for some minutes, compare with random play, film the dreams.

    If the agent does not become clearly better than random play in that time, the demonstration
    says so and goes on with a toy game, where it does.
    """

    out: Path = Path("demo")
    """Folder for the run, films, curves, summary.json and summary.md."""
    minutes: Annotated[float | None, tyro.conf.arg(metavar="FLOAT")] = None
    """Training time at most, for each game; by default what is known to suffice."""
    json: bool = False
    """Print nothing but one JSON object, at the end, on standard output."""


def main(args: Sequence[str]) -> int:
    """Demonstrate; returns the exit code."""
    options = parse(Options, args, "stormrl demo")
    if options.minutes is not None and options.minutes <= 0:
        raise UserError("minutes", f"is {options.minutes:g}; give a number above 0")
    # Imported late: PyTorch takes longer to load than the help to print.
    from stormrl.commands.train_messages import say_start
    from stormrl.demo import DEMO, TOY, demonstrate

    plans = (DEMO, TOY)
    if options.minutes is not None:
        plans = tuple(plan._replace(minutes=options.minutes) for plan in plans)
    shown = {} if options.json else {"progress": TrainingProgress, "started": say_start}
    try:
        with writing(options.out):
            options.out.mkdir(parents=True, exist_ok=True)
            comparisons = demonstrate(options.out, plans, **shown)
    except KeyboardInterrupt:
        say(messages(), "Stopped, and nothing compared; stormrl demo begins anew.")
        return EXIT_INTERRUPTED
    if options.json:
        print_json({"games": [comparison.record() for comparison in comparisons]})
    else:
        _show(options.out, comparisons)
    return 0


def _show(out: Path, comparisons: Sequence[Comparison]) -> None:
    from stormrl.demo import table as rows
    from stormrl.demo import verdict

    for comparison in comparisons:
        say(messages(), verdict(comparison))
    columns = ("game", *map(number, ("steps", "random agent", "trained agent", "p")))
    console = results()
    console.print(table("mean return ± standard error", columns, rows(comparisons)))
    files = [file for comparison in comparisons for file in comparison.files]
    for file in (*files, out / "summary.json", out / "summary.md"):
        say(console, str(file))
