"""`stormrl suite`: games x presets x seeds, on one machine or a Ray cluster."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from stormrl.commands.flags import parse, parse_some
from stormrl.commands.output import messages, print_json, results, say
from stormrl.config.parts import AgentConfig, RunConfig
from stormrl.config.presets import agent_config
from stormrl.errors import UserError
from stormrl.suite.share import Machine, Share, at_once

if TYPE_CHECKING:
    from rich.console import Console

    from stormrl.suite.plan import SuitePlan, Task
    from stormrl.suite.session import SuiteSession
    from stormrl.suite.storage import Storage

PROG = "stormrl suite"
ELSEWHERE = {"env": "games", "seed": "seeds", "preset": "presets", "run-dir": "out"}
"""Flags of `stormrl train` that a suite has in the plural, or under another name."""
LOCK = "lock"
"""Of the suite that trains in a folder."""
LOOK_S, LOOK_FAR_S = 1.0, 20.0
"""Between two looks at run directories that are folders, or lie behind a URL."""


@dataclass(frozen=True)
class SuiteOptions(RunConfig):
    """Train every game with every preset and every seed.

    Each run has a directory of its own: what is finished there is skipped, what is half done
    goes on from its last checkpoint. After Ctrl-C, a crash or the loss of a machine, the same
    command goes on. The other flags are those of `stormrl train` and hold for every run.
    """

    env: Annotated[str, tyro.conf.Suppress] = ""
    seed: Annotated[int, tyro.conf.Suppress] = 0
    preset: Annotated[str, tyro.conf.Suppress] = ""
    games: tuple[str, ...] = ()
    """Atari games by name, as in Boxing RoadRunner, or Gymnasium ids, as in stormrl/Catch-v0;
    atari100k stands for the 26 games of that benchmark."""
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    """Seeds; each is a run of its own."""
    presets: tuple[str, ...] = ("paper",)
    """Algorithms, as `stormrl presets` lists them."""
    out: Annotated[str, tyro.conf.arg(metavar="PATH|URL")] = "runs"
    """Where the run directories lie: a folder that every machine sees, or an fsspec URL, to which
    machines copy what they train in a folder of their own."""
    scratch: Annotated[str, tyro.conf.arg(metavar="PATH")] = ""
    """With a URL: the folder on each machine to train in; by default one of yours among the
    temporary files."""
    ray_address: Annotated[str | None, tyro.conf.arg(metavar="ADDRESS")] = None
    """A running Ray cluster, as in auto or ray-head:6379; without it this machine is used alone."""
    gpus_per_run: Annotated[float | None, tyro.conf.arg(metavar="FLOAT")] = None
    """Share of a GPU for each run, as in 0.25; by default 1 where there are GPUs, else 0."""
    cpus_per_run: float = 1.0
    """Processor cores for each run, and threads of its arithmetic."""
    attempts: int = 3
    """A run is given up after so many attempts in a row that end without a new checkpoint."""
    silence_minutes: float = 30.0
    """A run whose process has ended no step of training or evaluation for so long is ended and goes
    on from its last checkpoint; longer than a first compilation or a checkpoint may take."""
    bench: tuple[Path, ...] = ()
    """With --dry-run: results of `stormrl bench --json` to plan with; by default those in
    results/bench/, or those that come with the package."""
    dry_run: bool = False
    """Print what would be run, how long it would take and how much memory, and end."""
    json: bool = False
    """Print nothing but one JSON object, at the end, on standard output."""
    agent: Annotated[AgentConfig, tyro.conf.arg(name="")] = field(default_factory=AgentConfig)
    """The algorithm."""

    def config(self, preset: str) -> RunConfig:
        """What is common to all runs with a preset."""
        names = [field.name for field in dataclasses.fields(RunConfig)]
        values: dict[str, Any] = {name: getattr(self, name) for name in names}
        values["preset"] = preset
        return RunConfig(**values)


@dataclass(frozen=True)
class SuiteChoice:
    """The flags that decide what the others mean."""

    presets: tuple[str, ...] = ("paper",)
    size: str = "base"


def main(args: Sequence[str]) -> int:
    """Run the suite; returns the exit code."""
    _refuse_singular(args)
    choice = parse_some(SuiteChoice, args)
    by_preset = {
        preset: parse(SuiteOptions, args, PROG, _defaults(preset, choice.size))
        for preset in choice.presets
    }
    options = next(iter(by_preset.values()), None)
    if options is None or not options.games or not options.seeds:
        empty = next(n for n in ("presets", "games", "seeds") if not getattr(options, n, ()))
        raise UserError(empty, f"is empty; give --{empty} and one or more")
    # Imported late: PyTorch takes longer to load than the help to print.
    from stormrl.suite.plan import tasks

    configs = {preset: given.config(preset) for preset, given in by_preset.items()}
    planned = tasks(options.games, options.seeds, configs)
    if options.dry_run:
        return _dry_run(options, planned)
    return _run(options, planned, args)


def _defaults(preset: str, size: str) -> SuiteOptions:
    return SuiteOptions(preset=preset, size=size, agent=agent_config(preset, size))


def _refuse_singular(args: Sequence[str]) -> None:
    for arg in args:
        name = arg.partition("=")[0].removeprefix("--").replace("_", "-")
        if arg.startswith("--") and name in ELSEWHERE:
            raise UserError(name, f"belongs to stormrl train; here, give --{ELSEWHERE[name]}")
        if arg == "--resume":
            raise UserError("resume", "is not needed: the same command as before goes on")


def _run(options: SuiteOptions, planned: Sequence[Task], args: Sequence[str]) -> int:
    from stormrl.suite.ray_pool import import_ray
    from stormrl.suite.session import SuiteSession

    if not options.silence_minutes > 0:
        raise UserError("silence_minutes", f"is {options.silence_minutes}; give more than 0")
    import_ray(options.ray_address)  # Before anything takes time.
    storage, plan = _standing_plan(options, planned)
    session = SuiteSession(plan, storage, options.attempts, options.scratch)
    session.period_s = LOOK_S if storage.in_place else LOOK_FAR_S
    session.silence_s = 60 * options.silence_minutes
    if plan.left:
        with _alone(storage):
            _hand_out(options, session)
    return _report(options, session, args)


@contextmanager
def _alone(storage: Storage) -> Iterator[None]:
    """While entered, no other suite trains in this folder. Raises `UserError` if one does."""
    from stormrl.disk.files import make_folder, reason
    from stormrl.disk.lock import HeldElsewhere, held
    from stormrl.suite.heartbeat import SIGNS

    if not storage.in_place:  # An object store has no locks.
        yield
        return
    with ExitStack() as stack:
        try:
            make_folder(storage.path(SIGNS))
            stack.enter_context(held(storage.path(SIGNS) / LOCK))
        except HeldElsewhere as error:
            problem = f"{storage.out} is in use by a suite, process {error.owner}"
            remedy = "wait for its end, stop it, or give another folder"
            raise UserError("out", f"{problem}; {remedy}") from None
        except OSError as error:
            raise UserError("out", f"{storage.out} cannot be written: {reason(error)}") from None
        yield


def _hand_out(options: SuiteOptions, session: SuiteSession) -> None:
    """Train what is left, on Ray."""
    from stormrl.machine.stop import StopRequest
    from stormrl.suite.ray_pool import RayPool
    from stormrl.suite.table import SuiteDisplay

    # In this order: Ray sets signal handlers of its own when it starts.
    with RayPool(options.ray_address) as pool, StopRequest() as stop:
        share = _share(options, pool.machines())
        display = SuiteDisplay(_console(options))
        display.message(_start_text(options, session.plan, share, pool.machines()))
        with display:
            session.run(pool, share, lambda: stop.requested, display.show, display.message)


def _dry_run(options: SuiteOptions, planned: Sequence[Task]) -> int:
    from stormrl.commands.suite_plan import plan_record, show_plan

    _, plan = _standing_plan(options, planned)
    machines = _machines(options)
    record = plan_record(options.out, plan, _share(options, machines), machines, options.bench)
    if options.json:
        print_json(record)
    else:
        show_plan(record)
    return 0


def _standing_plan(options: SuiteOptions, planned: Sequence[Task]) -> tuple[Storage, SuitePlan]:
    """The plan with what its directories hold. Raises `UserError` if some of it cannot be run."""
    from stormrl.suite.plan import SuitePlan, check_games, refuse_others
    from stormrl.suite.standing import read_config, read_standing
    from stormrl.suite.storage import Storage

    storage = Storage(options.out)
    for task in planned:
        refuse_others(task, read_config(storage, task.name))
    check_games(planned)
    return storage, SuitePlan({task: read_standing(storage, task.name) for task in planned})


def _machines(options: SuiteOptions) -> list[Machine]:
    """Those that runs would share: a cluster's, or this one."""
    if options.ray_address is not None:
        from stormrl.suite.ray_pool import RayPool

        with RayPool(options.ray_address) as pool:
            return pool.machines()
    import torch

    from stormrl.machine.system import usable_cores

    return [Machine(usable_cores(), torch.cuda.device_count())]


def _share(options: SuiteOptions, machines: Sequence[Machine]) -> Share:
    """What a run gets. Raises `UserError` if that is nothing that a machine could give."""
    on_cpu = options.device == "cpu" or not any(machine.gpus for machine in machines)
    gpus = options.gpus_per_run
    share = Share(options.cpus_per_run, (0.0 if on_cpu else 1.0) if gpus is None else gpus)
    share.check()
    if options.device.startswith("cuda") and share.gpus == 0:
        raise UserError("gpus_per_run", "is 0, but --device asks for a GPU; give 1 or a share")
    if options.ray_address is None and at_once(share, machines) == 0:
        cores, gpus = machines[0].cpus, machines[0].gpus
        has = f"this machine has {cores:g} cores and {gpus:g} GPUs"
        short = "gpus_per_run" if share.gpus > gpus else "cpus_per_run"
        raise UserError(short, f"no run finds room: {has}; give less for each run")
    return share


def _console(options: SuiteOptions) -> Console:
    console = messages()
    console.quiet = options.json
    return console


def _start_text(
    options: SuiteOptions, plan: SuitePlan, share: Share, machines: Sequence[Machine]
) -> str:
    runs = f"{len(plan.left)} of {len(plan.standings)} runs are left to do in {options.out}"
    room = f"{at_once(share, machines)} find room at once on {len(machines)} machine(s)"
    return f"{runs}; {room}. Ctrl-C saves all of them; the same command goes on."


def _report(options: SuiteOptions, session: SuiteSession, args: Sequence[str]) -> int:
    """How it ended and what to do next; the exit code."""
    from stormrl.machine.stop import EXIT_INTERRUPTED
    from stormrl.suite.table import suite_table

    entries = list(session.entries.values())
    if options.json:
        print_json(_record(options, session))
    else:
        console = results()
        console.print(suite_table(entries, len(entries), console.width))
    again = shlex.join(["stormrl", "suite", *args])
    failed = [entry for entry in entries if entry.state == "failed"]
    if failed:
        first = f"{failed[0].task.name}: {failed[0].error}"
        problem = f"{len(failed)} of {len(entries)} runs are given up, the first is {first}"
        raise UserError("suite", f"{problem}; put that right, then go on with {again}")
    if any(entry.state != "finished" for entry in entries):
        say(_console(options), f"Stopped, everything is saved. To go on:\n  {again}")
        return EXIT_INTERRUPTED
    say(_console(options), f"Finished. To compare them:\n  stormrl report {options.out}/*")
    return 0


def _record(options: SuiteOptions, session: SuiteSession) -> dict[str, Any]:
    runs = [
        {
            "name": name,
            "run_dir": session.storage.where(name),
            "state": entry.state,
            "step": entry.standing.saved,
            "steps": entry.task.config.steps,
            "mean_return": entry.standing.mean_return,
            "attempts": entry.standing.attempts,
            "error": entry.error,
        }
        for name, entry in session.entries.items()
    ]
    finished = all(run["state"] == "finished" for run in runs)
    return {"out": options.out, "finished": finished, "runs": runs}
