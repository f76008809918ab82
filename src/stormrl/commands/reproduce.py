"""`stormrl reproduce`: whether new runs agree with the released ones, game by game."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from stormrl.commands.flags import parse
from stormrl.commands.output import busy, messages, number, print_json, results, say, table
from stormrl.commands.train import default_directory
from stormrl.config.parts import RunConfig
from stormrl.config.presets import agent_config
from stormrl.errors import UserError
from stormrl.history.progress import SilentProgress, TrainingProgress
from stormrl.machine.stop import EXIT_INTERRUPTED
from stormrl.scores.curves import CAVEATS, FAMILY, WIDTH, run_set
from stormrl.scores.published import PRESET, PROTOCOL, SIZE, STEPS, game_of, games

if TYPE_CHECKING:
    from stormrl.disk.run_directory import RunDirectory
    from stormrl.report.reading import Run
    from stormrl.runs.scored import ScoredRun
    from stormrl.scores.on_track import Bin
    from stormrl.scores.reproduction import Comparison

TITLE = f"mean return under protocol {PROTOCOL}"
CURVES = "training returns beside published curves, at the same environment step"


@dataclass(frozen=True)
class ReproduceOptions:
    """Tell whether runs agree with the published ones, game by game.

    Trains on games of the Atari 100k benchmark, or takes finished runs; evaluates under protocol
    official, and compares the mean return of a game with the 95 % prediction interval of the
    released runs.

    Exit code 0: all do. 1: a game lies outside. 3: none does, but for some game the interval of so
    few seeds would hold random play or PPO as well; or the training was stopped. The same command
    goes on where it was stopped.

    Beside that, and without any influence on the exit code, it tells whether the training returns
    of a run are where published learning curves were after as many steps.
    """

    games: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="GAME...")] = ()
    """Games, such as Boxing; with --runs by default all that the runs played."""
    runs: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="RUN...")] = ()
    """Take these finished runs, and train nothing."""
    unfinished: bool = False
    """Of the runs take unfinished ones as well: they have no score yet, but a learning curve."""
    seeds: Annotated[tuple[int, ...], tyro.conf.arg(metavar="INT...")] = (1,)
    """Seeds of the runs to train on each game."""
    preset: str = PRESET
    """Algorithm to train."""
    size: str = SIZE
    """Size to train."""
    steps: int = STEPS
    """Environment steps of each run."""
    episodes: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Episodes whose mean is a run's score; by default as many as the protocol asks for."""
    folder: Path = Path("runs")
    """Where new runs go."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    compile: Literal["auto", "off", "on"] = "auto"
    """Compile the update."""
    json: bool = False
    """Print nothing but one JSON object, at the end, on standard output."""


def main(args: Sequence[str]) -> int:
    """Train or take runs, evaluate and compare; returns the exit code."""
    options = parse(ReproduceOptions, args, "stormrl reproduce")
    _check(options)
    names = tuple(dict.fromkeys(map(_game, options.games)))
    # Imported late: PyTorch takes longer to load than the help to print.
    from stormrl.scores.reproduction import compare, exit_code

    paths = options.runs or _trained(options, names)
    if paths is None:
        return _stopped(options.json)
    complete, parts = _sorted(options, paths, names)
    names = names or tuple(dict.fromkeys(_game(run.config.env) for run in (*complete, *parts)))
    runs = [_scored(run, options) for run in complete]
    comparisons = [compare(name, [run.mean for run in runs if run.game == name]) for name in names]
    if options.json:
        games = _records(comparisons, runs, parts)
        print_json({"finished": True, "protocol": PROTOCOL, "games": games})
    else:
        _show(comparisons, runs)
        _show_curves([run.run for run in runs] + parts)
    return exit_code(comparisons)


def _sorted(
    options: ReproduceOptions, paths: Sequence[Path], names: Sequence[str]
) -> tuple[list[RunDirectory], list[RunDirectory]]:
    """Finished runs, and where these are asked for unfinished ones."""
    from stormrl.runs.scored import distinct_runs, finished, finished_runs

    if not options.unfinished:
        return finished_runs(paths, names), []
    found = distinct_runs(paths, names)
    return list(filter(finished, found)), list(itertools.filterfalse(finished, found))


def _check(options: ReproduceOptions) -> None:
    if not options.games and not options.runs:
        raise UserError("GAME", "is missing; give games, such as Boxing, or finished --runs")
    if options.episodes is not None and options.episodes < 1:
        raise UserError("episodes", f"is {options.episodes}; give 1 or more")
    if len(set(options.seeds)) < len(options.seeds):
        raise UserError("seeds", "repeat one, and the same seed gives the same run")


def _game(name: str) -> str:
    """As the published scores call it: `Boxing` for `boxing` and `ALE/Boxing-v5`."""
    known = {game.lower(): game for game in games()}
    name = game_of(name)
    if name.lower() in known:
        return known[name.lower()]
    nearest = difflib.get_close_matches(name.lower(), known, n=1)
    remedy = f"did you mean {known[nearest[0]]}?" if nearest else f"known are {', '.join(games())}"
    raise UserError("GAME", f"no scores of {name!r} are published; {remedy}")


def _trained(options: ReproduceOptions, names: Sequence[str]) -> list[Path] | None:
    """Directories of a finished run for every game and seed; None if the training was stopped."""
    from stormrl.runs.scored import train_on
    from stormrl.runs.whole import steps_done

    paths = []
    for name, seed in itertools.product(names, options.seeds):
        config = _config(options, name, seed)
        path = options.folder / default_directory(config).name
        progress = SilentProgress()
        if not options.json:
            say(messages(), f"{name}, seed {seed}: {path}")
            progress = TrainingProgress(config.steps, steps_done(path))
        if not train_on(config, path, progress):
            return None
        paths.append(path)
    return paths


def _config(options: ReproduceOptions, game: str, seed: int) -> RunConfig:
    return RunConfig(
        env=f"ALE/{game}-v5",
        protocol=PROTOCOL,
        steps=options.steps,
        seed=seed,
        preset=options.preset,
        size=options.size,
        device=options.device,
        compile=options.compile,
        evaluation_episodes=_episodes(options),
        agent=agent_config(options.preset, options.size),
    )


def _episodes(options: ReproduceOptions) -> int:
    from stormrl.envs import PROTOCOLS

    return options.episodes or PROTOCOLS[PROTOCOL].evaluation_episodes


def _scored(run: RunDirectory, options: ReproduceOptions) -> ScoredRun:
    from stormrl.envs import PROTOCOLS
    from stormrl.runs.scored import scored

    console = messages()
    console.quiet = options.json
    with busy(console, f"score of {run.path}"):
        return scored(run, PROTOCOLS[PROTOCOL], _episodes(options), options.device)


def _stopped(json: bool) -> int:
    if json:
        print_json({"finished": False})
    else:
        say(messages(), "Stopped, and nothing compared; the same command goes on.")
    return EXIT_INTERRUPTED


def _records(
    comparisons: Sequence[Comparison], runs: Sequence[ScoredRun], parts: Sequence[RunDirectory]
) -> list[dict[str, Any]]:
    return [
        comparison.as_dict()
        | {
            "runs": [_run_record(run) for run in runs if run.game == comparison.game],
            "unfinished": [
                _curve_record(run) for run in parts if game_of(run.config.env) == comparison.game
            ],
        }
        for comparison in comparisons
    ]


def _run_record(run: ScoredRun) -> dict[str, Any]:
    from stormrl.scores.reproduction import differences

    return _curve_record(run.run) | {
        "returns": list(run.returns),
        "differences": differences(run.run.config),
    }


def _curve_record(run: RunDirectory) -> dict[str, Any]:
    from stormrl.scores.on_track import track_record

    history = _history(run)
    return {
        "run_dir": str(run.path),
        "seed": run.config.seed,
        "step": history.step,
        "on_track": track_record(run.config, history.track),
    }


def _history(run: RunDirectory) -> Run:
    """Its histories as far as they can be read."""
    from stormrl.report.reading import Unreadable, read_run

    found = read_run(run.path)
    if isinstance(found, Unreadable):
        raise UserError("runs", found.problem)
    return found


def _show(comparisons: Sequence[Comparison], runs: Sequence[ScoredRun]) -> None:
    from stormrl.scores.reproduction import differences

    rows = [
        (
            comparison.game,
            str(len(comparison.scores)),
            f"{comparison.mean:,.1f}" if comparison.scores else "--",
            "{:,.1f} to {:,.1f}".format(*comparison.interval),
            _verdict(comparison),
        )
        for comparison in comparisons
    ]
    numbers = map(number, ("runs", "mean", "expected (95 %)"))
    results().print(table(TITLE, ("game", *numbers, "verdict"), rows))
    for run in runs:
        for difference in differences(run.run.config):
            say(messages(), f"not as released: {run.run.path} has {difference}")


def _show_curves(runs: Sequence[RunDirectory]) -> None:
    from stormrl.commands.doctor import published
    from stormrl.scores.on_track import differences

    rows = [
        (str(run.path), f"{history.step:,}", *_judged(found.judged), found.verdict.value)
        for run, history in zip(runs, map(_history, runs), strict=True)
        if (found := history.track) is not None
    ]
    if not rows:
        return
    numbers = map(number, ("at step", "episodes of steps", "mean", "expected (95 %)"))
    results().print()
    results().print(table(CURVES, ("run", *numbers, "on track?"), rows))
    say(messages(), f"published: {published([run_set(name)._asdict() for name in FAMILY])}")
    for run in runs:
        for difference in differences(run.config):
            say(messages(), f"not as published: {run.path} has {difference}")
        if caveat := CAVEATS.get(game_of(run.config.env)):
            say(messages(), caveat)


def _judged(found: Bin | None) -> tuple[str, str, str]:
    """Steps, mean and interval that a verdict is drawn from."""
    if found is None:
        return "--", "--", "--"
    steps = f"{found.end - WIDTH + 1:,} to {found.end:,}"
    return steps, f"{found.mean:,.1f}", "{:,.1f} to {:,.1f}".format(*found.interval)


def _verdict(comparison: Comparison) -> str:
    from stormrl.scores.reproduction import ReproductionVerdict

    match comparison.verdict, comparison.runs_needed:
        case ReproductionVerdict.TOO_FEW, None:
            return "no number of seeds can tell"
        case ReproductionVerdict.TOO_FEW, needed:
            return f"too few seeds, {needed} would tell"
        case ReproductionVerdict.OUTSIDE, _:
            return "below" if comparison.mean < comparison.interval.low else "above"
    return comparison.verdict
