"""`stormrl train`: a new run, or an old one that goes on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from stormrl.commands.flags import AllowImport, EnvKwargs, MaxSize, flags, parse, parse_some
from stormrl.commands.output import messages, say
from stormrl.config.limits import MAX_SIZE
from stormrl.config.parts import AgentConfig, RunConfig
from stormrl.config.presets import agent_config
from stormrl.config.validation import unchecked
from stormrl.errors import UserError
from stormrl.history.progress import TrainingProgress

PROG = "stormrl train"


@dataclass(frozen=True)
class NewRun(RunConfig):
    """Train an agent.

    The preset decides about the algorithm and the size how large it is; every other flag changes
    one detail of what these two give.
    """

    env: Annotated[str, tyro.conf.arg(metavar="ALE/GAME-v5")]
    """Gymnasium id, such as ALE/Pong-v5 or stormrl/Catch-v0; `my_package:MyEnv-v0` imports
    my_package first."""
    env_kwargs: EnvKwargs = field(default_factory=dict, hash=False)
    """Arguments of the environment, such as level=3 name=easy: what JSON reads as a value is that,
    anything else a text."""
    agent: Annotated[AgentConfig, tyro.conf.arg(name="")] = field(default_factory=AgentConfig)
    """The algorithm."""
    run_dir: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Directory of the new run; by default runs/<game>-<preset>-<size>-seed<seed>."""
    resume: Annotated[Path | None, tyro.conf.arg(metavar="RUN")] = None
    """Go on with this run exactly where it was saved. Of the flags here only --steps, for a later
    end, --device, --allow-import, --max-size, --wandb and --json can be given with it."""
    allow_import: AllowImport = ()
    max_size: MaxSize = MAX_SIZE
    wandb: Annotated[str | None, tyro.conf.arg(metavar="PROJECT")] = None
    """Show the run in this project of Weights & Biases too; to be given again when it resumes."""
    world: Annotated[str, tyro.conf.arg(metavar="MODULE:CLASS")] = ""
    """A world model of your own in place of the preset's (docs/extending.md); --world-model.FIELD
    then sets a field of its configuration."""
    behaviour: Annotated[str, tyro.conf.arg(name="agent", metavar="MODULE:CLASS")] = ""
    """An agent of your own in place of the preset's; --actor-critic.FIELD then sets its fields."""
    json: bool = False
    """Print nothing but one JSON object, at the end, on standard output."""

    def config(self) -> RunConfig:
        """The run without what is only asked of the command."""
        names = [field.name for field in dataclasses.fields(RunConfig)]
        return RunConfig(**{name: getattr(self, name) for name in names})


@dataclass(frozen=True)
class OldRun:
    """Go on with a run exactly where it was saved."""

    resume: Path
    """Directory of the run."""
    steps: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """A later end of the run, in environment steps."""
    device: Annotated[str | None, tyro.conf.arg(metavar="STR")] = None
    """Another device than the run's, this time: auto, cpu, cuda or cuda:N."""
    wandb: Annotated[str | None, tyro.conf.arg(metavar="PROJECT")] = None
    """Show the run in this project of Weights & Biases too, under the same name as before."""
    allow_import: AllowImport = ()
    max_size: MaxSize = MAX_SIZE
    json: bool = False
    """Print nothing but one JSON object, at the end, on standard output."""


@dataclass(frozen=True)
class TrainChoice:
    """The flags that decide what the others mean."""

    preset: str = "paper"
    size: str = "base"
    world: str = ""
    behaviour: Annotated[str, tyro.conf.arg(name="agent")] = ""
    resume: Annotated[Path | None, tyro.conf.arg(metavar="RUN")] = None


def main(args: Sequence[str]) -> int:
    """Train; returns the exit code."""
    asks_help = any(arg in ("-h", "--help") for arg in args)
    choice = parse_some(TrainChoice, args)
    if choice.resume is not None and not asks_help:
        return _resume(args)
    agent = agent_config(choice.preset, choice.size)
    own, args = _own_parts(choice, args)
    with unchecked():  # The game is yet to be given.
        default = NewRun(env=tyro.MISSING, preset=choice.preset, size=choice.size, agent=agent)

    def completed(options: NewRun) -> NewRun:
        return replace(options, agent=replace(options.agent, **own))

    return _start(parse(NewRun, args, PROG, default, completed))


def _own_parts(choice: TrainChoice, args: Sequence[str]) -> tuple[dict[str, Any], Sequence[str]]:
    """Configurations of parts of one's own, by field, and the flags that are left."""
    own: dict[str, Any] = {}
    for name, kind in (("world_model", choice.world), ("actor_critic", choice.behaviour)):
        if not kind:
            continue
        from stormrl.worlds.own import own_config

        mine, args = _split(args, f"--{name.replace('_', '-')}.")
        own[name] = _parsed(own_config(kind, name), mine, name)
    return own, args


def _parsed(config: type, args: Sequence[str], name: str) -> Any:
    """A configuration of one's own, whose mistakes are named by their whole path."""
    try:
        return parse(config, args, PROG)
    except UserError as error:
        if error.field.startswith("--"):
            raise
        raise UserError(f"{name}.{error.field}", error.message) from None


def _split(args: Sequence[str], prefix: str) -> tuple[list[str], list[str]]:
    """Flags that begin with `prefix`, without it, with their values; and the others."""
    mine: list[str] = []
    others: list[str] = []
    taken = others
    for arg in args:
        name, equals, value = arg.partition("=")
        flag = name.replace("_", "-")
        if arg.startswith("--"):
            taken = mine if flag.startswith(prefix) else others
        own = f"--{flag.removeprefix(prefix)}{equals}{value}"
        taken.append(own if flag.startswith(prefix) else arg)
    return mine, others


def _start(options: NewRun) -> int:
    # Imported late: PyTorch takes longer to load than the help to print.
    from stormrl.commands.train_messages import report, say_start
    from stormrl.runs import whole

    config = options.config()
    run_dir = options.run_dir or whole.fresh(default_directory(config))
    if options.json:
        outcome = whole.train(config, run_dir, wandb=options.wandb)
    else:
        progress = TrainingProgress(config.steps)
        outcome = whole.train(config, run_dir, progress, say_start, options.wandb)
    return report(run_dir, config, outcome, options.json)


def default_directory(config: RunConfig) -> Path:
    """Where a run goes that is given no place."""
    from stormrl.runs.whole import run_name

    return Path("runs") / run_name(config)


def _resume(args: Sequence[str]) -> int:
    from stormrl.commands.train_messages import report, say_start
    from stormrl.runs import whole

    _refuse_changes(args)
    options = parse(OldRun, args, PROG)
    run = whole.resumable(options.resume, options.allow_import)
    end = options.steps or run.config.steps
    allowed = {
        "allow_import": options.allow_import,
        "device": options.device,
        "max_size": options.max_size,
    }
    if options.json:
        outcome = whole.resume(run.path, options.steps, wandb=options.wandb, **allowed)
    elif whole.is_finished(run, end):
        say(
            messages(),
            f"{run.path} has finished its {end:,} steps, nothing is left to do. To train on:\n"
            f"  stormrl train --resume {run.path} --steps {2 * end}",
        )
        return 0
    else:
        progress = TrainingProgress(end, whole.steps_done(run.path))
        outcome = whole.resume(
            run.path, options.steps, progress, say_start, options.wandb, **allowed
        )
    return report(run.path, run.config, outcome, options.json)


def _refuse_changes(args: Sequence[str]) -> None:
    """A flag that is good for a new run alone gets a reason, not a guess at what was meant."""
    unchangeable = set(flags(NewRun)) - set(flags(OldRun))
    for arg in args:
        name = arg.partition("=")[0].removeprefix("--").replace("_", "-")
        if arg.startswith("--") and name in unchangeable:
            remedy = "a resumed run keeps its configuration, only --steps and --device may be given"
            raise UserError(name.replace("-", "_"), f"cannot be set with --resume; {remedy}")
