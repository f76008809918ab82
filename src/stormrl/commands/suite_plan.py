"""What `stormrl suite --dry-run` prints: what would run, how long, in how much memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stormrl.commands.output import number, print_facts, results, table
from stormrl.history.progress import duration_text
from stormrl.suite.estimate import Figures, figures_for, seconds_of_all
from stormrl.suite.plan import SuitePlan, Task
from stormrl.suite.share import Machine, Share, at_once


def plan_record(
    out: str, plan: SuitePlan, share: Share, machines: Sequence[Machine], bench: Sequence[Path]
) -> dict[str, Any]:
    """The plan with its estimates; JSON-able, null where no figures are at hand."""
    figures = {task: figures_for(task.config, share, bench) for task in plan.standings}
    places = at_once(share, machines)
    return {
        "out": out,
        "runs": [_run_record(plan, task, figures[task]) for task in plan.standings],
        "left": len(plan.left),
        "cpus_per_run": share.cpus,
        "gpus_per_run": share.gpus,
        "at_once": places,
        "seconds": _suite_seconds(plan, figures, places),
        "figures": sorted({f.source for f in figures.values() if f is not None}),
    }


def show_plan(record: Mapping[str, Any]) -> None:
    """Print it for a person."""
    console = results()
    rows = [
        (
            run["name"],
            run["state"],
            f"{run['steps'] - run['saved']:,}",
            _time_text(run["seconds"]),
            _memory_text(run["memory_bytes"]),
        )
        for run in record["runs"]
    ]
    columns = ("run", "state", *map(number, ("steps to go", "alone", "memory")))
    console.print(table(f"{len(rows)} runs in {record['out']}", columns, rows))
    memory = [run["memory_bytes"] for run in record["runs"] if run["state"] != "finished"]
    print_facts(
        console,
        {
            "left": f"{record['left']} of {len(rows)} runs, at most {record['at_once']} at once "
            f"({record['cpus_per_run']:g} CPUs, {record['gpus_per_run']:g} GPUs each)",
            "time": f"{_time_text(record['seconds'])}; evaluation, videos and the slowdown of runs "
            "that share a device are not counted",
            "memory": f"{_memory_text(_most_at_once(memory, record['at_once']))} at once",
            "figures": "; ".join(record["figures"]) or _no_figures(),
        },
    )


def _run_record(plan: SuitePlan, task: Task, figures: Figures | None) -> dict[str, Any]:
    saved, config = plan.standings[task].saved, task.config
    return {
        "name": task.name,
        "env": config.env,
        "preset": config.preset,
        "size": config.size,
        "seed": config.seed,
        "state": "finished" if task in plan.finished else "resumes" if saved else "new",
        "saved": saved,
        "steps": config.steps,
        "seconds": None if figures is None else figures.seconds(config, saved),
        "memory_bytes": None if figures is None else figures.run_memory_bytes(config),
    }


def _suite_seconds(
    plan: SuitePlan, figures: Mapping[Task, Figures | None], places: int
) -> float | None:
    seconds = []
    for task in plan.left:
        known = figures[task]
        if known is None or places == 0:
            return None
        seconds.append(known.seconds(task.config, plan.standings[task].saved))
    return seconds_of_all(seconds, max(places, 1))


def _most_at_once(memory: Sequence[int | None], places: int) -> int | None:
    known = sorted((size for size in memory if size is not None), reverse=True)
    return sum(known[:places]) if len(known) == len(memory) else None


def _time_text(seconds: float | None) -> str:
    return "unknown" if seconds is None else duration_text(seconds)


def _memory_text(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 2**30:.1f} GiB"


def _no_figures() -> str:
    return "none of this size and device; stormrl bench --json > results/bench/NAME.json makes them"
