"""`stormrl dream`: a film of what the world model expects, next to what happens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from stormrl.commands.output import messages, print_json, results, say, writing
from stormrl.errors import UserError
from stormrl.flags import parse

if TYPE_CHECKING:
    from stormrl.agent import Agent

SUFFIXES = (".mp4", ".gif")


@dataclass(frozen=True)
class Options:
    """Film dreams: the world model sees a few frames of a fresh episode, then only the actions.

    Three rows show the real frames, their reconstructions, and what the model makes up.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Directory of the run."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Film to write, .mp4 or .gif; both without a suffix. By default RUN/videos/film-<step>."""
    episodes: int = 3
    """Episodes, side by side."""
    context: int = 8
    """Frames that the model sees."""
    horizon: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Frames that it dreams; by default up to the length that it was trained on."""
    step: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Step of the checkpoint; by default the newest."""
    seed: int = 2_000_000
    """Seed of the first episode and of the draws; the next episodes count on."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    json: bool = False
    """Print nothing but one JSON object on standard output."""


def main(args: Sequence[str]) -> int:
    """Film; returns the exit code."""
    options = parse(Options, args, "stormrl dream")
    _check(options)
    # Imported late: PyTorch takes longer to load than the help to print.
    from stormrl.agent import Agent
    from stormrl.film import dream_film, write_film

    agent = Agent.load(options.run, options.step, options.device)
    paths = film_paths(options.out or options.run / "videos" / f"film-{agent.step:08d}")
    horizon = (
        default_horizon(agent, options.context) if options.horizon is None else options.horizon
    )
    console = messages()
    console.quiet = options.json
    with console.status(f"dreaming of {agent.config.env}"):
        film = dream_film(agent, options.episodes, options.context, horizon, options.seed)
    with writing(paths[0]):
        write_film(paths, film)
    if options.json:
        print_json({"step": agent.step, "files": [str(path) for path in paths]})
    else:
        say(results(), "\n".join(map(str, paths)))
    return 0


def default_horizon(agent: Agent, context: int) -> int:
    """Up to the length of the training's windows, at least as far as the agent imagines."""
    config = agent.config.agent
    return max(config.world_model.batch_length - context, config.imagination.horizon)


def film_paths(out: Path) -> list[Path]:
    """The files that `--out` stands for."""
    if not out.suffix:
        return [out.with_suffix(suffix) for suffix in SUFFIXES]
    if out.suffix.lower() not in SUFFIXES:
        raise UserError("out", f"{out} is no known kind of film; give .mp4, .gif or no suffix")
    return [out]


def _check(options: Options) -> None:
    if options.episodes < 1:
        raise UserError("episodes", f"is {options.episodes}; give 1 or more")
    if not 0 <= options.seed < 2**31:
        raise UserError("seed", f"is {options.seed}; give a number from 0 to below 2**31")
