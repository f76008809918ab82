"""`stormrl eval`: whole episodes with a trained agent, every score written down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from stormrl.commands.flags import AllowImport, MaxSize, parse
from stormrl.commands.output import busy, messages, number, print_json, results, table, warn
from stormrl.config.limits import MAX_SIZE
from stormrl.errors import UserError
from stormrl.seeds import EVALUATION_SEED

if TYPE_CHECKING:
    from stormrl.envs import Protocol
    from stormrl.runs.agent import Agent


@dataclass(frozen=True)
class EvalOptions:
    """Play whole episodes with a trained agent. Every score goes to the run's scores.jsonl."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Directory of the run, or pretrained:NAME."""
    episodes: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Episodes to play; by default as many as the protocol asks for."""
    protocol: Annotated[str | None, tyro.conf.arg(metavar="STR")] = None
    """Rules of play: official, atari100k or machado; by default those of the training."""
    step: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Step of the checkpoint; by default the newest."""
    seed: int = EVALUATION_SEED
    """Seed of the first episode; the next ones count on. The default is that of the training's own
    evaluations, and no episode of the training has it."""
    greedy: bool = False
    """Play the most probable action instead of a sampled one. The protocol is then recorded as
    NAME-greedy, whose scores are not comparable with those of NAME."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    allow_import: AllowImport = ()
    max_size: MaxSize = MAX_SIZE
    json: bool = False
    """Print nothing but one JSON object on standard output."""


def main(args: Sequence[str]) -> int:
    """Evaluate; returns the exit code."""
    options = parse(EvalOptions, args, "stormrl eval")
    _check(options)
    # Imported late: PyTorch takes longer to load than the help to print.
    from stormrl.acting.evaluate import cut_short
    from stormrl.machine.stop import StopRequest
    from stormrl.runs.agent import Agent
    from stormrl.runs.whole import agent_scores
    from stormrl.scores.file import write_scores
    from stormrl.scores.summary import summary

    agent = Agent.load(
        options.run, options.step, options.device, options.allow_import, options.max_size
    )
    warn(agent.warnings)
    protocol = _protocol(agent, options)
    episodes = options.episodes or protocol.evaluation_episodes
    console = messages()
    console.quiet = options.json
    doing = f"playing {episodes} episodes of {agent.config.env}"
    with busy(console, doing), StopRequest() as stop:
        scores = agent_scores(agent, episodes, protocol, options.seed, stop.asked)
    if count := sum(score.cut_short for score in scores):
        warn([cut_short(count, episodes, protocol)])
    try:
        write_scores(agent.path, agent.step, protocol.name, scores)
    except UserError as error:  # As in a run that may only be read.
        warn([f"the scores are shown here and kept nowhere: {error.message}"])
    record = summary(agent.config.env, protocol.name, agent.step, scores)
    if options.json:
        print_json(record)
    else:
        results().print(score_table(record))
    return 0


def score_table(record: dict) -> object:
    """A small table of what `scoring.summary` has found."""
    from stormrl.scores.summary import score_text

    normalised = record["human_normalised"]
    row = (
        record["protocol"],
        f"{record['step']:,}",
        str(record["episodes"]),
        score_text(record["mean"], record["stderr"]),
        f"{min(record['returns']):g} to {max(record['returns']):g}",
        "--" if normalised is None else f"{normalised:.3f}",
    )
    numbers = ("step", "episodes", "mean ± stderr", "range", "human-normalised")
    columns = ("protocol", *map(number, numbers))
    return table(record["env"], columns, [row])


def _check(options: EvalOptions) -> None:
    if options.episodes is not None and options.episodes < 1:
        raise UserError("episodes", f"is {options.episodes}; give 1 or more")
    if not 0 <= options.seed < 2**31:
        raise UserError("seed", f"is {options.seed}; give a number from 0 to below 2**31")


def _protocol(agent: Agent, options: EvalOptions) -> Protocol:
    from stormrl.envs import find_protocol

    protocol = find_protocol(options.protocol or agent.config.protocol)
    if options.greedy:
        return replace(protocol, name=f"{protocol.name}-greedy", greedy_evaluation=True)
    return protocol
