"""Compare finished runs of one game with random play under the same protocol.

    python benchmarks/against_random.py runs/a runs/b runs/c --out results/cpu/game

Writes summary.json (scores, significance, configuration), curve.png and curve.csv (training
episodes). The scores are those that `stormrl train` or `stormrl eval` wrote at the last checkpoint.
"""

import argparse
import csv
import json
import statistics
from pathlib import Path

from scipy.stats import mannwhitneyu

from stormrl.acting.evaluate import random_scores
from stormrl.disk.jsonlines import read_jsonlines
from stormrl.disk.run_directory import RunDirectory
from stormrl.envs import PROTOCOLS
from stormrl.pictures.figures import Curve, learning_curve
from stormrl.scores.summary import mean_and_stderr
from stormrl.seeds import RANDOM_SEED


def main() -> None:
    options = _options()
    runs = [RunDirectory.open(path) for path in options.runs]
    config = runs[0].config
    protocol = PROTOCOLS[config.protocol]
    random = [
        score.total
        for score in random_scores(config.env, protocol, options.random_episodes, RANDOM_SEED)
    ]
    summary = {
        "env": config.env,
        "protocol": protocol.name,
        "random": _summary(random),
        "runs": [_run_summary(run, random) for run in runs],
        "pooled": _against(random, [value for run in runs for value in _final_returns(run)]),
        "details": json.loads((runs[0].path / "config.json").read_text()),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    _write_curve(options.out, config.env, runs, mean_and_stderr(random))
    print(json.dumps({key: summary[key] for key in ("env", "random", "pooled")}, indent=2))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--random-episodes", type=int, default=60)
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def _final_returns(run: RunDirectory) -> list[float]:
    """Returns of the last checkpoint's evaluation under the run's own protocol."""
    scores = [
        score
        for score in read_jsonlines(run.path / "scores.jsonl")
        if score["protocol"] == run.config.protocol
    ]
    last = max(score["checkpoint_step"] for score in scores)
    return [score["return"] for score in scores if score["checkpoint_step"] == last]


def _run_summary(run: RunDirectory, random: list[float]) -> dict:
    last = read_jsonlines(run.path / "metrics.jsonl")[-1]
    return {
        "seed": run.config.seed,
        "steps": run.config.steps,
        "updates": last["update"],
        "training_s": last["wall_s"],
        **_against(random, _final_returns(run)),
    }


def _against(random: list[float], trained: list[float]) -> dict:
    test = mannwhitneyu(trained, random, alternative="greater")
    return {**_summary(trained), "mann_whitney_p": float(test.pvalue), "returns": trained}


def _summary(returns: list[float]) -> dict:
    mean, stderr = mean_and_stderr(returns)
    return {
        "episodes": len(returns),
        "mean": mean,
        "stderr": stderr,
        "median": statistics.median(returns),
    }


def _write_curve(out: Path, env: str, runs: list[RunDirectory], random: tuple) -> None:
    seeds = []
    with (out / "curve.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["seed", "step", "return", "length"])
        for run in runs:
            episodes = read_jsonlines(run.path / "episodes.jsonl")
            seeds.append(Curve([e["step"] for e in episodes], [e["return"] for e in episodes]))
            writer.writerows(
                [run.config.seed, e["step"], e["return"], e["length"]] for e in episodes
            )
    learning_curve(out / "curve.png", {"trained agent": seeds}, env, random_return=random)


if __name__ == "__main__":
    main()
