"""`stormrl check-env`: whether an environment can be trained on, and what to mend if not."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.text import Text

from stormrl.commands.flags import EnvKwargs, argument_text, parse
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
    env_kwargs: EnvKwargs = field(default_factory=dict)
    """Arguments of the environment, such as level=3 name=easy: what JSON reads as a value is that,
    anything else a text."""
    json: bool = False
    """Print nothing but one JSON object on standard output."""


def main(args: Sequence[str]) -> int:
    """Check; returns the exit code."""
    options = parse(CheckEnvOptions, args, "stormrl check-env")
    from stormrl.envs import check_env

    report = check_env(options.env, options.env_kwargs)
    if options.json:
        print_json({**dataclasses.asdict(report), "ok": report.ok})
    else:
        rows = [_row(check) for check in report.checks]
        results().print(table(report.env_id, ("", "check", "finding"), rows))
        say(results(), _verdict(options, report.ok))
    return 0 if report.ok else EXIT_UNFIT


def _row(check: Check) -> tuple[Text, str, str]:
    if check.ok:
        mark = Text("ok", "green")
    else:
        mark = Text("no", "red") if check.required else Text("note", "yellow")
    return mark, check.name, check.detail


def _verdict(options: CheckEnvOptions, ok: bool) -> str:
    given = argument_text(options.env_kwargs)
    kwargs = f" --env-kwargs {given}" if given else ""
    if ok:
        return f"An agent can be trained on it: stormrl train --env {options.env}{kwargs}"
    return "No agent can be trained on it before what is marked no is mended."
