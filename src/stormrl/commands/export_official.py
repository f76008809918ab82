"""`stormrl export-official`: a run's weights as the authors' released code reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from stormrl.commands.flags import parse
from stormrl.commands.output import print_json, results, say

FILES = ("world_model.pth", "agent.pth")


@dataclass(frozen=True)
class ExportOfficialOptions:
    """Write a run's networks as the two files of weights that the released code reads.

    It knows the networks of size base, without ablations.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Directory of the run, or pretrained:NAME."""
    out: Annotated[Path, tyro.conf.arg(metavar="PATH")]
    """Folder for world_model.pth and agent.pth."""
    step: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Step of the checkpoint; by default the newest."""
    json: bool = False
    """Print nothing but one JSON object on standard output."""


def main(args: Sequence[str]) -> int:
    """Export; returns the exit code."""
    options = parse(ExportOfficialOptions, args, "stormrl export-official")
    # Imported late: PyTorch takes longer to load than the help to print.
    from stormrl.runs.official_weights import export_official

    world_model, agent = paths = [options.out / name for name in FILES]
    export_official(options.run, world_model, agent, options.step)
    if options.json:
        print_json({"files": [str(path) for path in paths]})
    else:
        say(results(), "\n".join(map(str, paths)))
    return 0
