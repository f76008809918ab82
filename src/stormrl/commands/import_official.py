"""`stormrl import-official`: the authors' released weights as a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from stormrl.commands.flags import parse
from stormrl.commands.output import print_json, results, say


@dataclass(frozen=True)
class ImportOfficialOptions:
    """Make a run directory out of the two files of weights that the released code saves.

    The run can be evaluated, filmed and exported again. It cannot be trained further: the files
    hold no optimizer states.
    """

    world_model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="WORLD_MODEL")]
    """File of the world model, such as world_model_100000.pth."""
    agent: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="AGENT")]
    """File of actor and critic, such as agent_100000.pth."""
    env: Annotated[str, tyro.conf.arg(metavar="ALE/GAME-v5")]
    """The game that they were trained on."""
    out: Annotated[Path, tyro.conf.arg(metavar="RUN")]
    """Directory of the new run."""
    json: bool = False
    """Print nothing but one JSON object on standard output."""


def main(args: Sequence[str]) -> int:
    """Import; returns the exit code."""
    options = parse(ImportOfficialOptions, args, "stormrl import-official")
    # Imported late: PyTorch takes longer to load than the help to print.
    from stormrl.runs.official_weights import import_official

    run = import_official(options.world_model, options.agent, options.env, options.out)
    if options.json:
        print_json({"run_dir": str(run.path), "env": options.env, "step": run.config.steps})
    else:
        say(results(), f"{run.path}\nTo play with it: stormrl eval {run.path}")
    return 0
