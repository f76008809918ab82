"""Kills a miniature run again and again, and compares what becomes of it with an unharmed run.

    python benchmarks/kill.py --kills 50

Kills come in turn at a moment drawn at random, while a checkpoint is being written, and while
replay is being written. Prints one JSON object; exits with 1 if anything differs.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from small_runs import assert_same_runs, new_run, started  # pyright: ignore[reportMissingImports]

WAITS = {"moment": "", "checkpoint": "checkpoints/.partial-*/*", "replay": "replay/.partial-*"}
"""When to kill: after a random time, or as soon as such a file is there."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        for run in (whole, killed):
            new_run(run, steps=options.steps, checkpoint_every=5, evaluation_episodes=2)
        finish(whole)
        waits = list(WAITS) * options.kills
        found = Counter(kill(killed, wait, moments) for wait in waits[: options.kills])
        finish(killed)
        difference = compare(whole, killed)
    hit = options.kills - found["over"]
    result = {"kills": hit, "resumed": hit, "found_after_kill": found, "difference": difference}
    print(json.dumps(result))
    return 0 if difference is None and hit == options.kills else 1


def kill(run: Path, wait: str, moments: random.Random) -> str:
    """Kill a process that goes on with the run; what it was about to do, judged by what it left."""
    process = started(run)
    before = set(run.glob("tensorboard/*"))
    while process.is_alive() and not set(run.glob("tensorboard/*")) - before:
        time.sleep(0.01)  # until the loop begins
    end = time.monotonic() + moments.uniform(0, 1)
    while process.is_alive() and time.monotonic() < end:
        time.sleep(0.001)
    while process.is_alive() and WAITS[wait] and not any(run.glob(WAITS[wait])):
        pass
    over = not process.is_alive()
    process.kill()
    process.join()
    return "over" if over else left_by(run)


def left_by(run: Path) -> str:
    if any(run.glob("checkpoints/.partial-*")):
        return "half a checkpoint"
    if any(run.glob("replay/.partial-*")):
        return "half a file of replay"
    if any(run.glob("checkpoints/.removed-*")):
        return "half a removed checkpoint"
    return "whole files"


def finish(run: Path) -> None:
    process = started(run)
    process.join()
    if process.exitcode != 0:
        raise SystemExit(f"the run in {run} ended with {process.exitcode}")


def compare(whole: Path, killed: Path) -> str | None:
    try:
        assert_same_runs(whole, killed)
    except AssertionError as difference:
        return str(difference).splitlines()[0] or "differs"
    return None


if __name__ == "__main__":
    raise SystemExit(main())
