"""`stormrl dream`: a film of what the world model expects, next to what happens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from stormrl.commands.flags import AllowImport, MaxSize, parse
from stormrl.commands.output import busy, messages, print_json, results, say, warn, writing
from stormrl.config.limits import MAX_SIZE
from stormrl.disk.files import make_way
from stormrl.disk.jsonlines import plain
from stormrl.errors import UserError
from stormrl.seeds import FILM_SEED

if TYPE_CHECKING:
    from stormrl.dreams.scenes import Scene
    from stormrl.runs.agent import Agent
    from stormrl.runs.film import Dreams

SUFFIXES = (".mp4", ".gif", ".png", ".json")


@dataclass(frozen=True)
class DreamOptions:
    """Film dreams: the world model sees a few frames of a fresh episode, then only the actions.

    Rows show the real frames, their reconstructions, what the model makes up under the same
    actions, and under the policy's own; below them reward, continuation, value and the KL between
    prior and posterior. A contact sheet shows the same at one glance, and a JSON file holds the
    error of the dreams by step.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Directory of the run, or pretrained:NAME."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """What to write: a film (.mp4 or .gif), a contact sheet (.png) or the error by step (.json);
    without a suffix all of them and a plot of the error. By default RUN/videos/film-<step>."""
    episodes: int = 3
    """Episodes to film, side by side."""
    error_episodes: int = 8
    """Episodes over which the error by step is measured, in several windows each; they begin with
    those that are filmed."""
    context: int = 8
    """Frames that the model sees."""
    horizon: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Frames that it dreams; by default up to the length that it was trained on."""
    temperature: float = 1.0
    """1 draws from the prior as it is, less sharpens it, 0 takes the most probable."""
    step: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Step of the checkpoint; by default the newest."""
    seed: int = FILM_SEED
    """Seed of the first episode and of the draws; the next episodes count on. The default is that
    of no episode of the training."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    allow_import: AllowImport = ()
    max_size: MaxSize = MAX_SIZE
    json: bool = False
    """Print nothing but one JSON object on standard output."""


def main(args: Sequence[str]) -> int:
    """Film; returns the exit code."""
    options = parse(DreamOptions, args, "stormrl dream")
    _check(options)
    # Imported late: PyTorch takes longer to load than the help to print.
    from stormrl.machine.stop import StopRequest
    from stormrl.runs.agent import Agent
    from stormrl.runs.film import dreams

    agent = Agent.load(
        options.run, options.step, options.device, options.allow_import, options.max_size
    )
    warn(agent.warnings)
    paths = film_paths(options.out or agent.path / "videos" / f"film-{agent.step:08d}")
    horizon = (
        default_horizon(agent, options.context) if options.horizon is None else options.horizon
    )
    console = messages()
    console.quiet = options.json
    with busy(console, f"dreaming of {agent.config.env}"), StopRequest() as stop:
        seen = dreams(
            agent,
            options.episodes,
            options.context,
            horizon,
            options.seed,
            options.temperature,
            options.error_episodes,
            stop.asked,
        )
    record = _record(agent, options, seen)
    with writing(paths[0]):
        if options.out is None:  # In a run that somebody else may have made.
            for path in paths:
                make_way(path)
        _write(paths, seen, record)
    if options.json:
        print_json({**record, "files": [str(path) for path in paths]})
    else:
        _show(record, paths)
    return 0


def default_horizon(agent: Agent, context: int) -> int:
    """Up to the length of the training's windows, at least as far as the agent imagines."""
    config = agent.config.agent
    return max(config.world_model.batch_length - context, config.imagination.horizon)


def film_paths(out: Path) -> list[Path]:
    """The files that `--out` stands for."""
    if not out.suffix:
        plot = out.with_name(f"{out.name}-error.png")
        return [*(out.with_suffix(suffix) for suffix in SUFFIXES), plot]
    if out.suffix.lower() not in SUFFIXES:
        kinds = f"{', '.join(SUFFIXES[:-1])}, {SUFFIXES[-1]} or no suffix"
        raise UserError("out", f"{out} is no known kind of film; give {kinds}")
    return [out]


def _write(paths: Sequence[Path], seen: Dreams, record: dict[str, Any]) -> None:
    from stormrl.pictures.figures import error_curves
    from stormrl.pictures.media import write_png
    from stormrl.runs.film import film, sheet, write_film

    films = [path for path in paths if path.suffix.lower() in (".mp4", ".gif")]
    if films:
        write_film(films, film(seen.filmed))
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() == ".json":
            path.write_text(json.dumps(plain(record), indent=2, allow_nan=False) + "\n")
        elif path.stem.endswith("-error"):
            error_curves(path, record["open_loop"], record["env"])
        elif path.suffix.lower() == ".png":
            write_png(path, sheet(seen.filmed))


def _record(agent: Agent, options: DreamOptions, seen: Dreams) -> dict[str, Any]:
    return {
        "env": agent.config.env,
        "protocol": agent.config.protocol,
        "step": agent.step,
        "context": options.context,
        "horizon": len(seen.filmed[0].real.frames) - options.context,
        "temperature": options.temperature,
        "seed": options.seed,
        "sees_ahead": seen.error.sees_ahead,
        "open_loop": seen.error.as_dict(),
        "filmed": [_curves(scene) for scene in seen.filmed],
    }


def _curves(scene: Scene) -> dict[str, dict[str, list[float]]]:
    """What the strips show, by course; index `t` is what came with frame `t`."""
    names = ("reward", "continues", "value", "kl")
    return {
        kind: {name: getattr(course, name).tolist() for name in names}
        for kind, course in scene._asdict().items()
        if isinstance(course, tuple)
    }


def _show(record: dict[str, Any], paths: Sequence[Path]) -> None:
    ahead, error = record["sees_ahead"], record["open_loop"]
    steps = f"{ahead} of {record['horizon']}"
    say(
        results(),
        f"nearer to what happens than a copy of the last frame for {steps} steps "
        f"({error['episodes']} episodes)",
    )
    say(results(), "\n".join(map(str, paths)))


def _check(options: DreamOptions) -> None:
    for name in ("episodes", "error_episodes"):
        if getattr(options, name) < 1:
            raise UserError(name, f"is {getattr(options, name)}; give 1 or more")
    if not 0 <= options.temperature <= 10:
        raise UserError("temperature", f"is {options.temperature}; give 0 to 10")
    if not 0 <= options.seed < 2**31:
        raise UserError("seed", f"is {options.seed}; give a number from 0 to below 2**31")
