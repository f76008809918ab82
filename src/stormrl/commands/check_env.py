"""`stormrl check-env`: whether an environment can be trained on, and what to mend if not."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.text import Text

from stormrl.commands.flags import parse
from stormrl.commands.output import print_json, results, say, table

if TYPE_CHECKING:
    from stormrl.envs import Check

EXIT_UNFIT = 1


@dataclass(frozen=True)
class CheckEnvOptions:
    """Look at an environment: its spaces, Gymnasium's rules, determinism, resume, rewards, speed.

    The exit code is 0 if an agent can be trained on it and 1 if not.
    """

    env: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ENV")]
    """Gymnasium id, such as ALE/Pong-v5; `my_package:MyEnv-v0` imports my_package first."""
    json: bool = False
    """Print nothing but one JSON object on standard output."""


def main(args: Sequence[str]) -> int:
    """Check; returns the exit code."""
    options = parse(CheckEnvOptions, args, "stormrl check-env")
    from stormrl.envs import check_env

    report = check_env(options.env)
    if options.json:
        print_json({**dataclasses.asdict(report), "ok": report.ok})
    else:
        rows = [_row(check) for check in report.checks]
        results().print(table(report.env_id, ("", "check", "finding"), rows))
        say(results(), _verdict(report.env_id, report.ok))
    return 0 if report.ok else EXIT_UNFIT


def _row(check: Check) -> tuple[Text, str, str]:
    if check.ok:
        mark = Text("ok", "green")
    else:
        mark = Text("no", "red") if check.required else Text("note", "yellow")
    return mark, check.name, check.detail


def _verdict(env_id: str, ok: bool) -> str:
    if ok:
        return f"An agent can be trained on it: stormrl train --env {env_id}"
    return "No agent can be trained on it before what is marked no is mended."
