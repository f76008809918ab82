"""What runs on Atari amount to beside play that sees nothing and beside a published agent.

    python benchmarks/held_actions.py --out results/atari/held_actions.json
    python benchmarks/atari_evidence.py runs/* --out results/atari

Writes into DIR summary.json (scores, tests, configurations), episodes.csv (every training episode),
table.md, and the learning curves over environment steps and over minutes, steps.png and
minutes.png. A run that is not finished or not evaluated is shown as such. Without runs, table and
pictures are made again from the first two files.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import mannwhitneyu

from atari_figures import Episodes, draw, standing
from held_actions import policy_text, return_text, with_episodes
from scripts import run as run_script
from stormrl.disk.files import read_json
from stormrl.disk.jsonlines import plain
from stormrl.disk.run_directory import RunDirectory
from stormrl.errors import UserError
from stormrl.report.reading import Run, Series, numbers, read_run
from stormrl.runs.whole import steps_done
from stormrl.scores import curves
from stormrl.scores.published import game_of
from stormrl.scores.summary import mean_and_stderr

SUMMARY, EPISODES, TABLE, HELD = "summary.json", "episodes.csv", "table.md", "held_actions.json"
FIELDS = ("game", "seed", "step", "minutes", "return", "length")
PUBLISHED = curves.NEAREST
HEADER = (
    *("game", "seed", "steps", "updates", "minutes", "score"),
    *("random play", "p", "best held action", "p", "DreamerV3 at that step"),
)
ABOUT = (
    "Scores are mean ± standard error of evaluation episodes under the protocol {protocol}, their "
    "number in brackets; a run's are those of its last checkpoint. p: one-sided Mann-Whitney test "
    "that the trained agent's episodes return more than those in the column before. Minutes are of "
    "training, as its metrics tell. DreamerV3: median and range over the published seeds, each the "
    "mean of the training episodes that ended in the same {width:,} steps as the run; {title}, "
    "{compute} ({source})."
)


def main() -> None:
    options = _options()
    if options.runs:
        collect(options.runs, options.held or options.out / HELD, options.out)
    record = read_json(options.out / SUMMARY)
    text = markdown(record)
    (options.out / TABLE).write_text(text)
    draw(options.out, record, read_episodes(options.out / EPISODES))
    print(text, end="")


def collect(paths: Sequence[Path], held: Path, out: Path) -> None:
    """Write summary.json and episodes.csv of these runs.

    Raises `UserError` for a directory that is no run, for two runs of one game and seed, and for a
    run whose game or protocol is another than those in the file of held actions.
    """
    baselines = read_json(held)
    runs = [opened(path) for path in paths]
    check(runs, baselines)
    runs.sort(key=lambda run: (list(baselines["games"]).index(game(run)), run.config.seed))
    out.mkdir(parents=True, exist_ok=True)
    record = plain(evidence(runs, baselines))
    (out / SUMMARY).write_text(json.dumps(record, indent=1) + "\n")
    write_episodes(out / EPISODES, runs)


def opened(path: Path) -> Run:
    """A run. Raises `UserError` if the directory is none."""
    RunDirectory.open(path)
    run = read_run(path)
    assert isinstance(run, Run)
    return run


def game(run: Run) -> str:
    """As in `Boxing`."""
    return game_of(run.config.env)


def check(runs: Sequence[Run], baselines: Mapping[str, Any]) -> None:
    """Raises `UserError` for runs that cannot stand in one table beside these baselines."""
    found: dict[tuple[str, int], Run] = {}
    for run in runs:
        if run.config.protocol != baselines["protocol"]:
            problem = f"{run.path} was trained under {run.config.protocol}"
            raise UserError("runs", f"{problem}, the held actions under {baselines['protocol']}")
        if game(run) not in baselines["games"]:
            remedy = "run held_actions.py with this game too"
            raise UserError("held", f"has no held actions of {game(run)}; {remedy}")
        twin = found.setdefault((game(run), run.config.seed), run)
        if twin is not run:
            twins = f"{twin.path} and {run.path} both have seed {run.config.seed}"
            raise UserError("runs", f"{twins}: no two samples; leave one out")


def evidence(runs: Sequence[Run], baselines: Mapping[str, Any]) -> dict[str, Any]:
    """All that table and pictures need, but for the training episodes."""
    games = {game(run): run.config.env for run in runs}
    return {
        "protocol": baselines["protocol"],
        "held_actions": baselines["how"],
        "published": curves.run_set(PUBLISHED)._asdict(),
        "games": {
            name: {
                "random": baselines["games"][name]["random"],
                "held": baselines["games"][name]["held"],
                "published": published_band(env),
            }
            for name, env in games.items()
        },
        "runs": [run_summary(run, baselines["games"][game(run)]) for run in runs],
    }


def run_summary(run: Run, baseline: Mapping[str, Any]) -> dict[str, Any]:
    """What a run did and reached."""
    steps = max(run.step, steps_done(run.path))
    returns = final_returns(run)
    return {
        "game": game(run),
        "seed": run.config.seed,
        "steps": steps,
        "of_steps": run.config.steps,
        "updates": run.last("update"),
        "minutes": minutes_of(run)[-1],
        "score": score(returns, baseline) if returns else None,
        "published": published_at(run.config.env, steps),
        "problems": run.problems,
        "details": run.record,
    }


def final_returns(run: Run) -> tuple[float, ...]:
    """Returns of the evaluation at the run's last step under its own protocol; without one, none.

    An evaluation on the way there is not the score of the run.
    """
    found = run.evaluation
    if found is None or (found.step, found.protocol) != (run.config.steps, run.config.protocol):
        return ()
    return found.returns


def score(returns: Sequence[float], baseline: Mapping[str, Any]) -> dict[str, Any]:
    """Mean and error of these returns, and whether they are more than those of blind play."""
    mean, stderr = mean_and_stderr(returns)
    return {
        "mean": mean,
        "stderr": stderr,
        "returns": returns,
        "p_random": p_greater(returns, baseline["random"]["returns"]),
        "p_held": p_greater(returns, baseline["held"]["returns"]),
    }


def p_greater(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """How probably ranks as good as ours come by chance: Mann and Whitney's test, one-sided."""
    return float(mannwhitneyu(ours, theirs, alternative="greater").pvalue)


def published_band(env: str) -> dict[str, Any] | None:
    """The published curve of a game: its seeds, bin by bin; None where there is none."""
    name = curves.game_with_curves(env)
    return None if name is None else curves.band(name, (PUBLISHED,))._asdict()


def published_at(env: str, step: int) -> dict[str, float] | None:
    """The published seeds' training returns in the bin that holds a step."""
    name, end = curves.game_with_curves(env), bin_end(step)
    if name is None or end not in curves.bin_ends():
        return None
    seeds = curves.at(name, (PUBLISHED,), end)
    if not seeds:
        return None
    return {"low": min(seeds), "median": float(np.median(seeds)), "high": max(seeds)}


def bin_end(step: int) -> int:
    """The last step of the bin that holds `step`."""
    return math.ceil(step / curves.WIDTH) * curves.WIDTH


def minutes_of(run: Run) -> Sequence[float]:
    """Minutes of training when each episode ended, and at the end of the metrics.

    Before the first metrics, and between any two, time is taken to have gone evenly.
    """
    metrics = numbers(run.metrics, "wall_s")
    clock = Series([0, *metrics.steps], [0.0, *(wall_s / 60 for wall_s in metrics.values)])
    ends = [*run.returns().steps, clock.steps[-1]]
    return np.interp(ends, clock.steps, clock.values).tolist()


def write_episodes(path: Path, runs: Sequence[Run]) -> None:
    """The training episodes of all runs."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(FIELDS)
        for run in runs:
            writer.writerows(episode_rows(run))


def episode_rows(run: Run) -> list[tuple[Any, ...]]:
    """Game, seed, step, minutes, return and length of a run's training episodes."""
    returns, lengths = run.returns(), numbers(run.episodes, "length")
    at = [f"{minutes:.3f}" for minutes in minutes_of(run)[:-1]]
    columns = zip(returns.steps, at, returns.values, lengths.values, strict=True)
    return [(game(run), run.config.seed, *episode) for episode in columns]


def read_episodes(path: Path) -> dict[tuple[str, int], Episodes]:
    """By game and seed, what `write_episodes` has written."""
    found: dict[tuple[str, int], Episodes] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            key = row["game"], int(row["seed"])
            episodes = found.setdefault(key, Episodes([], [], []))
            episodes.steps.append(float(row["step"]))
            episodes.minutes.append(float(row["minutes"]))
            episodes.returns.append(float(row["return"]))
    return found


def markdown(record: Mapping[str, Any]) -> str:
    """The table of all runs, and what its columns mean."""
    rows = [HEADER, ["---", *["---:"] * (len(HEADER) - 1)]]
    rows += [table_row(run, record["games"][run["game"]]) for run in record["runs"]]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    about = ABOUT.format(protocol=record["protocol"], width=curves.WIDTH, **record["published"])
    return "\n".join([*lines, "", about, "", f"Held actions: {record['held_actions']}", ""])


def table_row(run: Mapping[str, Any], baseline: Mapping[str, Any]) -> list[str]:
    """The cells of one run."""
    random, held, final = baseline["random"], baseline["held"], run["score"]
    return [
        run["game"],
        str(run["seed"]),
        steps_text(run),
        "--" if run["updates"] is None else f"{run['updates']:,.0f}",
        f"{run['minutes']:.1f}",
        standing(run) if final is None else with_episodes(final),
        with_episodes(random),
        "--" if final is None else p_text(final["p_random"]),
        f"{policy_text(held)}: {with_episodes(held)}",
        "--" if final is None else p_text(final["p_held"]),
        published_text(run["published"]),
    ]


def steps_text(run: Mapping[str, Any]) -> str:
    """As in `10,000`, or `6,000 of 10,000` for a run that has not got there."""
    there = run["steps"] >= run["of_steps"]
    return f"{run['steps']:,}" if there else f"{run['steps']:,} of {run['of_steps']:,}"


def p_text(p: float) -> str:
    """As in `0.042`, small ones as in `3e-07`."""
    return f"{p:.0e}" if p < 0.001 else f"{p:.3f}"


def published_text(found: Mapping[str, float] | None) -> str:
    """As in `1,300 (940 to 2,600)`."""
    if found is None:
        return "--"
    low, median, high = (return_text(found[name]) for name in ("low", "median", "high"))
    return f"{median} ({low} to {high})"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What runs on Atari amount to.")
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN")
    parser.add_argument("--held", type=Path, help=f"what held_actions.py wrote; OUT/{HELD}")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main)
