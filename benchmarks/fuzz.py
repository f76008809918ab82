"""Random command lines, configs, files and environments: none may end in a traceback.

    python benchmarks/fuzz.py --examples 10000

Prints one JSON object with how many of each kind were taken and refused; a refusal that does not
name its field, or any other exception, is shown with the smallest example, and the exit code is 1.
"""

import argparse
import json
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import fuzzing  # pyright: ignore[reportMissingImports]
import wrong_games  # pyright: ignore[reportMissingImports]

SHARES = {
    "command lines": 0.25,
    "configs": 0.3,
    "files of a run": 0.3,
    "files of episodes": 0.15,
    "games": 1.0,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--kinds", nargs="+", default=list(SHARES), choices=list(SHARES))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = {
            kind: fuzz(strategy, check, round(SHARES[kind] * options.examples), options.seed)
            for kind, (strategy, check) in kinds(Path(folder)).items()
            if kind in options.kinds
        }
    failures = sum(result["failures"] for result in results.values())
    total = sum(result["taken"] + result["refused"] for result in results.values())
    print(json.dumps({"examples": total, "failures": failures, **results}))
    return 0 if failures == 0 else 1


def kinds(folder: Path) -> dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], bool]]]:
    mistakes = fuzzing.folder_of_mistakes(folder / "mistakes")
    run = fuzzing.SampleRun(folder / "runs" / "run")
    recording = fuzzing.SampleRecording(folder / "episodes.safetensors")
    return {
        "command lines": (
            fuzzing.COMMAND_LINES,
            lambda argv: fuzzing.command_line_is_taken_or_refused(argv, mistakes),
        ),
        "configs": (fuzzing.CONFIGS, fuzzing.config_is_taken_or_refused),
        "files of a run": (run.damages(run), lambda damage: run.is_taken_or_refused(*damage)),
        "games": (wrong_games.GAMES, wrong_games.game_is_played_or_refused),
        "files of episodes": (recording.damages(recording), recording.is_taken_or_refused),
    }


def fuzz(
    strategy: st.SearchStrategy[Any], check: Callable[[Any], bool], examples: int, number: int
) -> dict[str, int]:
    counts = Counter(taken=0, refused=0, failures=0)

    @seed(number)
    @settings(
        max_examples=examples, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(strategy)
    def each(example: Any) -> None:
        counts["taken" if check(example) else "refused"] += 1

    try:
        each()
    except Exception:
        traceback.print_exc()
        counts["failures"] += 1
    return dict(counts)


if __name__ == "__main__":
    raise SystemExit(main())
