"""`stormrl record`: whole episodes of a scripted, random or trained policy, in a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from stormrl.commands.flags import EnvKwargs, parse
from stormrl.commands.output import (
    busy,
    messages,
    number,
    print_json,
    results,
    say,
    table,
    warn,
    writing,
)
from stormrl.errors import UserError

if TYPE_CHECKING:
    from stormrl.envs import Protocol
    from stormrl.experience.episodes import Recording


@dataclass(frozen=True)
class RecordOptions:
    """Play whole episodes and keep every step, as a demonstration to train with or as data."""

    env: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ENV")]
    """Gymnasium id, such as ALE/Freeway-v5 or stormrl/Catch-v0."""
    out: Annotated[Path, tyro.conf.arg(metavar="PATH")]
    """File to write, such as demo.safetensors."""
    env_kwargs: EnvKwargs = field(default_factory=dict)
    """Arguments of the environment, as of train; without any, those of the run that plays."""
    policy: str = "random"
    """Who plays: random, noop, constant:ACTION (as in constant:UP), the directory of a run, or
    pretrained:NAME."""
    episodes: int = 1
    """Episodes to play."""
    protocol: str = "atari100k"
    """Named rules of play: official, atari100k or machado."""
    seed: int = 0
    """Seed of the first episode; the next ones count on."""
    device: str = "auto"
    """Where a trained policy computes: auto, cpu, cuda or cuda:N."""
    json: bool = False
    """Print nothing but one JSON object on standard output."""


def main(args: Sequence[str]) -> int:
    """Record; returns the exit code."""
    options = parse(RecordOptions, args, "stormrl record")
    _check(options)
    # Imported late: PyTorch takes longer to load than the help to print.
    from stormrl.envs import find_protocol
    from stormrl.experience.episodes import write_recording
    from stormrl.machine.stop import EXIT_INTERRUPTED, StopRequest
    from stormrl.runs.recording import record

    protocol = find_protocol(options.protocol)
    console = messages()
    console.quiet = options.json
    doing = f"playing {options.episodes} episodes of {options.env}"
    with busy(console, doing), StopRequest() as stop:
        recording = record(
            options.env,
            protocol,
            options.policy,
            options.episodes,
            options.seed,
            options.device,
            stop.asked,
            options.env_kwargs or None,
        )
    warn(_warnings(options, protocol, recording))
    with writing(options.out):
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_recording(options.out, recording)
    if options.json:
        print_json(_record(options.out, recording))
    else:
        _show(options.out, recording)
    return 0 if len(recording.episodes) == options.episodes else EXIT_INTERRUPTED


def _warnings(options: RecordOptions, protocol: Protocol, recording: Recording) -> Iterator[str]:
    from stormrl.acting.evaluate import cut_short, longest_episode

    episodes = recording.episodes
    if len(episodes) < options.episodes:
        yield f"stopped after {len(episodes)} of {options.episodes} episodes, which are kept"
    ends = [(episode.length, episode.end) for episode in episodes]
    if count := ends.count((longest_episode(protocol), "truncated")):
        yield cut_short(count, len(episodes), protocol)


def _check(options: RecordOptions) -> None:
    if options.episodes < 1:
        raise UserError("episodes", f"is {options.episodes}; give 1 or more")
    if not 0 <= options.seed < 2**31:
        raise UserError("seed", f"is {options.seed}; give a number from 0 to below 2**31")


def _record(out: Path, recording: Recording) -> dict:
    returns = [episode.total for episode in recording.episodes]
    return {
        "env": recording.env,
        "protocol": recording.protocol,
        "policy": recording.policy,
        "episodes": len(returns),
        "returns": returns,
        "lengths": [episode.length for episode in recording.episodes],
        "mean": sum(returns) / len(returns),
        "steps": recording.steps,
        "file": str(out),
    }


def _show(out: Path, recording: Recording) -> None:
    who = recording.policy, recording.protocol
    rows = [
        (*who, str(episode.seed), f"{episode.total:g}", f"{episode.length:,}", episode.end)
        for episode in recording.episodes
    ]
    columns = ("policy", "protocol", *map(number, ("seed", "return", "steps")), "end")
    results().print(table(recording.env, columns, rows))
    say(results(), str(out))
