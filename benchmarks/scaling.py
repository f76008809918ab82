"""How long a benchmark takes on a cluster, and whether the simulation that says so can be believed.

    python benchmarks/scaling.py                        # the planning table, as Markdown
    python benchmarks/scaling.py --bench results/bench/h200.json
    python benchmarks/scaling.py --measure              # a small suite, measured and simulated
    python benchmarks/scaling.py --replay runs/first    # a suite that has finished, simulated

The table takes iteration times from `stormrl bench --json`; without --bench, from the figures
that come with the package. The measurement times a few updates of one run alone and of several at
once, predicts a larger suite of longer runs from that, and runs that suite on this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from simulation import Cluster, Result, Work, simulate, uptimes
from stormrl.config.parts import RunConfig
from stormrl.config.presets import agent_config
from stormrl.disk.files import read_json
from stormrl.disk.jsonlines import read_jsonlines
from stormrl.suite.estimate import START_S, figures_for
from stormrl.suite.plan import SuitePlan, Task, tasks
from stormrl.suite.ray_pool import RayPool
from stormrl.suite.session import SuiteSession
from stormrl.suite.share import Share
from stormrl.suite.standing import Standing
from stormrl.suite.storage import Storage

HOUR = 3600.0
GAMES, SEEDS = 26, 5
TARGET_S = 0.006
TRIALS = 50
REPAIR_S = 600.0
SHARED = (1.0, 1.2, 1.6, 2.0)
"""Assumed: how many times longer a run takes when 1, 2, 3, 4 share a GPU."""


@dataclass(frozen=True)
class Row:
    """A cluster to plan for."""

    name: str
    iteration_s: float
    cluster: Cluster


class Costs(NamedTuple):
    """What a few updates told about the runs of a small suite."""

    iteration_s: float
    start_s: float
    """Everything that is no update: from being handed out until the outcome is there."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bench", type=Path, nargs="*", default=[])
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--replay", type=Path, help="folder of a suite that has finished")
    parser.add_argument("--slots", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--updates", type=int, default=250)
    options = parser.parse_args()
    if options.replay is not None:
        print(json.dumps(replay(options.replay, options.slots), indent=2))
    elif options.measure:
        print(json.dumps(measure(options.runs, options.updates), indent=2))
    else:
        print(planning_table(options.bench))
    return 0


def planning_table(bench: list[Path]) -> str:
    """26 games x 5 seeds of 100,000 steps at base size."""
    config = RunConfig(env="ALE/Pong-v5", agent=agent_config())
    lines = [
        "| cluster | one run | suite, nothing fails "
        "| a machine fails once a day | once in six hours |",
        "|---|---|---|---|---|",
    ]
    planned, sources = rows(config, bench)
    for row in planned:
        work = base_work(config, row.iteration_s)
        whole = simulate([work] * GAMES * SEEDS, row.cluster).seconds
        failing = [with_failures(work, row.cluster, hours * HOUR) for hours in (24, 6)]
        cells = [row.name, time_text(work.seconds), time_text(whole), *failing]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *sources])


def rows(config: RunConfig, bench: list[Path]) -> tuple[list[Row], list[str]]:
    """Clusters to plan for, and where their iteration times come from."""
    gpu, cpu = figures_for(config, Share(1, 1), bench), figures_for(config, Share(2), bench)
    assert gpu is not None, "the package brings figures for GPUs"
    assert cpu is not None, "the package brings figures for CPUs"
    gpu_s, cpu_s = (figures.seconds(config) / config.steps for figures in (gpu, cpu))
    made = [*gpu_rows("GPU", gpu_s), *gpu_rows("target GPU", TARGET_S)]
    for machines, cores in ((1, 16), (8, 16), (4, 64)):
        made.append(
            Row(f"{machines} x {cores} cores, 2 a run", cpu_s, Cluster(machines, cores // 2))
        )
    sources = [
        f"- GPU: {1000 * gpu.stages['iteration']:.0f} ms an iteration; {gpu.source}",
        f"- target GPU: {1000 * TARGET_S:.0f} ms an iteration; what the project aims at, assumed",
        f"- 4 runs a GPU: each takes {SHARED[-1]:g} times longer than alone, assumed",
        f"- cores: {cpu.stages['iteration']:.2f} s an iteration; {cpu.source}",
    ]
    return [replace(row, cluster=replace(row.cluster, repair_s=REPAIR_S)) for row in made], sources


def gpu_rows(name: str, iteration_s: float) -> list[Row]:
    single = [Row(f"{gpus} x {name}", iteration_s, Cluster(gpus, 1)) for gpus in (1, 8, 64)]
    return [*single, Row(f"8 x {name}, 4 runs each", iteration_s, Cluster(8, 4, SHARED))]


def base_work(config: RunConfig, iteration_s: float) -> Work:
    return Work(config.steps * iteration_s, config.checkpoint_every * iteration_s, START_S)


def with_failures(work: Work, cluster: Cluster, mean_s: float) -> str:
    """Mean and ninetieth percentile of the whole suite's time, and what is trained twice."""
    results: list[Result] = [
        simulate([work] * GAMES * SEEDS, cluster, uptimes(mean_s, seed)) for seed in range(TRIALS)
    ]
    times = sorted(result.seconds for result in results)
    lost = statistics.fmean(result.lost_s for result in results) / (work.seconds * GAMES * SEEDS)
    late = times[int(0.9 * (TRIALS - 1))]
    return f"{time_text(statistics.fmean(times))} (p90 {time_text(late)}), {lost:.1%} twice"


def time_text(seconds: float) -> str:
    hours = seconds / HOUR
    if hours < 1:
        return f"{60 * hours:.0f} min"
    return f"{hours:.1f} h" if hours < 100 else f"{hours / 24:,.1f} d"


def measure(runs: int, updates: int) -> dict:
    """Simulate a suite of toy Catch runs, from shorter runs and from its own, and run it."""
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name, RayPool(None) as pool:
        folder = Path(name)
        run_suite(pool, folder / "warm", catch_tasks(1, 10))
        alone = costs(pool, folder / "alone", catch_tasks(1, updates // 2))
        before = costs(pool, folder / "before", catch_tasks(cores, updates // 2))
        seconds = run_suite(pool, folder / "suite", catch_tasks(runs, updates))
        after = costs(pool, folder / "after", catch_tasks(cores, updates // 2))
        replayed = replay(folder / "suite", cores)
    predicted = simulate(predicted_works(runs, updates, before, after), Cluster(1, cores)).seconds
    return {
        "runs": runs,
        "updates": updates,
        "at_once": cores,
        "alone": alone._asdict(),
        "all_cores_before": before._asdict(),
        "all_cores_after": after._asdict(),
        "measured_s": seconds,
        "simulated_from_shorter_runs_s": predicted,
        "error_from_shorter_runs": predicted / seconds - 1,
        "replayed": replayed,
        "load": os.getloadavg(),
    }


def predicted_works(runs: int, updates: int, before: Costs, after: Costs) -> list[Work]:
    """All cores are at work nearly all the time: what was measured then holds throughout."""
    iteration = statistics.fmean((before.iteration_s, after.iteration_s))
    start = statistics.fmean((before.start_s, after.start_s))
    return [Work(updates * iteration, start_s=start)] * runs


def replay(out: Path, slots: int) -> dict:
    """Simulate a suite that was run without failures, from the times of its own iterations.

    A run's work is its updates times the mean of its iterations. What is no iteration (a process,
    imports, random steps, evaluation, the pause before it) is one number for all runs, the mean.
    """
    spans = sorted((*begin_and_end(path.parent), path.parent) for path in out.glob("*/config.json"))
    first, last = spans[0][0], max(end for _, end, _ in spans)
    updating = [training_s(run) for _, _, run in spans]
    others = [end - begin - work for (begin, end, _), work in zip(spans, updating, strict=True)]
    ends = sorted(end for _, end, _ in spans)
    pauses = [begin - end for (begin, _, _), end in zip(spans[slots:], ends, strict=False)]
    inside, pause = statistics.fmean(others), statistics.fmean(pauses or [0.0])
    works = [Work(work, start_s=inside + pause) for work in updating]
    # The clock of the measurement begins where the first run does: after its pause.
    simulated = simulate(works, Cluster(1, slots)).seconds - pause
    return {
        "runs": len(spans),
        "slots": slots,
        "training_s": updating,
        "other_s": inside,
        "pause_s": pause,
        "measured_s": last - first,
        "simulated_s": simulated,
        "error": simulated / (last - first) - 1,
    }


def begin_and_end(run: Path) -> tuple[float, float]:
    """Clock times of a run that was made in one attempt."""
    first, last = read_jsonlines(run / "attempts.jsonl")
    return first["time"], last["time"]


def training_s(run: Path) -> float:
    """All of a run's iterations with updates, at their mean time."""
    config = read_json(run / "config.json")["config"]
    return (config["steps"] - config["agent"]["replay"]["warmup"]) * iteration_s(run)


def catch_tasks(runs: int, updates: int) -> list[Task]:
    agent = agent_config(size="toy")
    config = RunConfig(
        env="stormrl/Catch-v0",
        size="toy",
        device="cpu",
        steps=agent.replay.warmup + updates,
        agent=agent,
        log_every=10,
        evaluation_episodes=0,
        dream_every=0,
    )
    return tasks(["stormrl/Catch-v0"], range(1, runs + 1), {"paper": config})


def costs(pool: RayPool, out: Path, planned: list[Task]) -> Costs:
    """Iteration time and time to start, of runs that are all trained at once."""
    seconds = run_suite(pool, out, planned)
    iteration = statistics.fmean(iteration_s(out / task.name) for task in planned)
    updates = planned[0].config.steps - planned[0].config.agent.replay.warmup
    return Costs(iteration, seconds - updates * iteration)


def iteration_s(run: Path) -> float:
    """Mean time of a step with its updates, from the run's own metrics."""
    lines = read_jsonlines(run / "metrics.jsonl")
    first, last = lines[0], lines[-1]
    return (last["wall_s"] - first["wall_s"]) / (last["step"] - first["step"])


def run_suite(pool: RayPool, out: Path, planned: list[Task]) -> float:
    """Seconds until all runs have finished."""
    session = SuiteSession(SuitePlan({task: Standing() for task in planned}), Storage(str(out)))
    began = time.monotonic()
    session.run(pool, Share(), lambda: False, lambda entries: None, lambda text: None)
    seconds = time.monotonic() - began
    assert all(entry.state == "finished" for entry in session.entries.values())
    return seconds


if __name__ == "__main__":
    raise SystemExit(main())
