"""`stormrl report`: one HTML page about one run or hundreds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from stormrl.commands.flags import AllowImport, parse
from stormrl.commands.output import messages, print_json, results, say, writing
from stormrl.disk.files import make_way

PAGE = Path("report.html")


@dataclass(frozen=True)
class ReportOptions:
    """Write one self-contained HTML page about runs: scores, curves, losses, dreams, setup.

    Damaged and unfinished runs are shown as far as they can be read, with what is wrong with them.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")] = ()
    """Directories of runs, or pretrained:NAME."""
    out: Path = PAGE
    """Page to write."""
    videos: bool = True
    """Put a dream of each game on the page."""
    allow_import: AllowImport = ()
    json: bool = False
    """Print nothing but one JSON object on standard output: the figures on the page."""


def main(args: Sequence[str]) -> int:
    """Write the page; returns the exit code."""
    options = parse(ReportOptions, args, "stormrl report")
    # Imported late: PyTorch takes longer to load than the help to print.
    from stormrl.report.overview import Overview
    from stormrl.report.page import html

    console = messages()
    console.quiet = options.json
    with console.status(f"reading {len(options.runs)} runs"):
        overview = Overview.of(options.runs, options.allow_import)
        page = html(overview, options.videos)
    with writing(options.out):
        options.out.parent.mkdir(parents=True, exist_ok=True)
        if options.out == PAGE:  # Nobody has chosen what lies there.
            make_way(options.out)
        options.out.write_text(page, encoding="utf-8", errors="replace")
    record = overview.as_dict() | {"out": str(options.out)}
    if options.json:
        print_json(record)
    else:
        _show(record)
    return 0


def _show(record: Mapping[str, Any]) -> None:
    for name, problem in record["unreadable"].items():
        say(messages(), f"left out {name}: {problem}")
    for name, problems in record["problems"].items():
        say(messages(), f"{name}: {'; '.join(problems)}")
    say(results(), record["out"])
