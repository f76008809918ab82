"""Kills a node, a worker and the driver of a suite, and compares what becomes of its runs.

    python benchmarks/suite_faults.py --runs 6

Two Ray nodes on this machine train small runs of Catch. Once a run on the second node is amid
training, that node is killed (a new one joins); then the process of another run gets SIGKILL;
then the driver, which is started again with the same command. All runs must finish, each bit for
bit what it is alone, and begin again nowhere but at their last checkpoint. Prints one JSON
object; exits with 1 if anything differs.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from suite_runs import (  # pyright: ignore[reportMissingImports]
    FaultySuite,
    differences,
    small_tasks,
    starts,
    train_alone,
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--steps", type=int, default=600)
    options = parser.parse_args()
    seeds = list(range(1, options.runs + 1))
    planned = small_tasks(seeds, steps=options.steps, log_every=1, checkpoint_every=50)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        suite = FaultySuite(folder / "suite", planned)
        began = time.monotonic()
        with suite.cluster():
            suite.start_driver()
            suite.kill_node()
            suite.kill_worker()
            suite.kill_driver()
            suite.start_driver()
            code = suite.finish()
        seconds = time.monotonic() - began
        sys.stderr.write(suite.out.with_suffix(".log").read_text())
        twice = suite.trained_twice()
        for task in planned:
            train_alone(task, folder / "alone")
        different = differences(planned, suite.out, folder / "alone")
        attempts = {task.name: len(starts(suite.out / task.name)) for task in planned}
    result = {
        "runs": len(planned),
        "exit_code": code,
        "seconds": round(seconds),
        "interrupted": [asdict(lost) for lost in suite.interrupted],
        "attempts": attempts,
        "steps_of_all_runs": options.steps * len(planned),
        "steps_trained_twice": twice,
        "different_from_alone": different,
    }
    print(json.dumps(result, indent=2))
    return 0 if code == 0 and not different else 1


if __name__ == "__main__":
    raise SystemExit(main())
