"""A suite of small runs on a Ray cluster of this machine, and what can be done to it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from small_runs import assert_same_runs, history, small_config, started
from stormrl.config.parts import RunConfig, leaves, to_dict
from stormrl.disk.run_directory import RunDirectory
from stormrl.suite.plan import Task, tasks

GAME = "stormrl/Catch-v0"
PATIENCE_S = 300
NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 * 2**20}


def small_tasks(seeds: list[int], **fields) -> list[Task]:
    """Runs of Catch that differ in their seed."""
    return tasks([GAME], seeds, {"paper": small_config(**fields)})


def as_flags(config: RunConfig) -> list[str]:
    """The flags of `stormrl suite` that make such runs; game, seed and preset are left out."""
    default = RunConfig(env=config.env, seed=config.seed)
    wanted, known = flag_values(config), flag_values(default)
    changed = {flag: value for flag, value in wanted.items() if known[flag] != value}
    return [str(word) for pair in changed.items() for word in pair]


def flag_values(config: RunConfig) -> dict[str, Any]:
    named = leaves(to_dict(config))
    return {f"--{name.removeprefix('agent.').replace('_', '-')}": value for name, value in named}


def suite_command(planned: list[Task], out: Path | str) -> list[str]:
    """What makes a suite of these runs, as it is typed."""
    seeds = [str(task.config.seed) for task in planned]
    command = [sys.executable, "-m", "stormrl", "suite", "--games", GAME, "--seeds", *seeds]
    return [*command, "--out", str(out), *as_flags(planned[0].config)]


def train_alone(task: Task, folder: Path) -> Path:
    """The same run without a suite, in a process of its own, with as many threads as there."""
    path = folder / task.name
    RunDirectory.create(path, task.config)
    process = started(path, threads=NODE["num_cpus"])
    process.join()
    assert process.exitcode == 0
    return path


def starts(run: Path) -> list[dict[str, Any]]:
    """Every beginning of a run that its directory tells of."""
    path = run / "attempts.jsonl"
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    whole = [json.loads(line) for line in lines if line.endswith("\n")]
    return [line for line in whole if line["event"] == "start"]


def reached(run: Path) -> int:
    """The last step that a run has trained; it writes one line of metrics a step."""
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith(b"\n")]
    return json.loads(whole[-1])["step"] if whole else 0


def newest_checkpoint(run: Path) -> int:
    names = [path.name for path in (run / "checkpoints").glob("[0-9]*")]
    return max(map(int, names), default=0)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise TimeoutError(what)


def amid_training(run: Path, steps: int) -> bool:
    """Whether a run trains at this moment, with a checkpoint behind it and far from its end."""
    begun = starts(run)
    if not begun or not alive(begun[-1]["pid"]) or not (run / "metrics.jsonl").exists():
        return False
    at = newest_checkpoint(run)
    return begun[-1]["step"] < at < reached(run) < 0.8 * steps


@dataclass(frozen=True)
class Interrupted:
    """What was lost when something killed a run."""

    run: str
    by: str
    reached: int
    checkpoint: int
    attempt: int
    """Number of the attempt that was killed, from 0."""


class FaultySuite:
    """`stormrl suite` in a process of its own, on a cluster of two nodes."""

    def __init__(self, folder: Path, planned: list[Task]) -> None:
        self.out, self.planned = folder, planned
        self._log = folder.with_suffix(".log")
        self.steps = planned[0].config.steps
        self.interrupted: list[Interrupted] = []
        self.driver: subprocess.Popen | None = None

    @contextmanager
    def cluster(self) -> Iterator[None]:
        """Two nodes of one core each on this machine."""
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(initialize_head=True, head_node_args=NODE)
        self._node = self._new_node()
        try:
            yield
        finally:
            if self.driver is not None and self.driver.poll() is None:
                self.driver.kill()
            self._cluster.shutdown()

    def start_driver(self) -> None:
        command = suite_command(self.planned, self.out)
        command += ["--ray-address", self._cluster.address]
        with self._log.open("a") as log:
            self.driver = subprocess.Popen(command, stderr=log, stdout=log)

    def kill_worker(self) -> None:
        run = wait_until(lambda: next(self._training(), None), "a run in training")
        self._kill([run], "worker", lambda: os.kill(self._pid(run), signal.SIGKILL))

    def kill_node(self) -> None:
        run = wait_until(lambda: next(self._training_on_node(), None), "a run on the second node")
        self._kill([run], "node", lambda: self._cluster.remove_node(self._node, False))
        self._node = self._new_node()

    def kill_driver(self) -> None:
        def both() -> list[Path]:
            found = list(self._training())
            return found if len(found) == 2 else []

        assert self.driver is not None, "nothing was started"
        self._kill(wait_until(both, "two runs in training"), "driver", self.driver.kill)
        self.driver.wait()

    @property
    def said(self) -> str:
        """All that the drivers have printed."""
        return self._log.read_text()

    def finish(self) -> int:
        assert self.driver is not None, "nothing was started"
        return self.driver.wait(timeout=2 * PATIENCE_S)

    def trained_twice(self) -> dict[str, int]:
        """Steps that were done more than once, by run; asserts that none had been saved before."""
        twice = dict.fromkeys((task.name for task in self.planned), 0)
        for lost in self.interrupted:
            begun = starts(self.out / lost.run)
            assert begun[lost.attempt + 1]["step"] == lost.checkpoint, (lost, begun)
            twice[lost.run] += lost.reached - lost.checkpoint
        for task in self.planned:
            killed = sum(lost.run == task.name for lost in self.interrupted)
            assert len(starts(self.out / task.name)) == 1 + killed, task.name
        return twice

    def _new_node(self) -> Any:
        return self._cluster.add_node(wait=True, **NODE)

    def _training(self) -> Iterator[Path]:
        paths = (self.out / task.name for task in self.planned)
        return (path for path in paths if amid_training(path, self.steps))

    def _training_on_node(self) -> Iterator[Path]:
        raylet = self._node.all_processes["raylet"][0].process.pid
        return (path for path in self._training() if parent(self._pid(path)) == raylet)

    def _pid(self, run: Path) -> int:
        return starts(run)[-1]["pid"]

    def _kill(self, runs: list[Path], by: str, kill: Callable[[], object]) -> None:
        pids = {run: self._pid(run) for run in runs}
        attempts = {run: len(starts(run)) - 1 for run in runs}
        kill()
        for run, pid in pids.items():
            wait_until(lambda pid=pid: not alive(pid), f"the end of process {pid}")
            # Read at once: the next attempt cuts the history back to its checkpoint.
            lost = Interrupted(run.name, by, reached(run), newest_checkpoint(run), attempts[run])
            self.interrupted.append(lost)


def differences(planned: list[Task], suite: Path, alone: Path) -> dict[str, str]:
    """Runs of a suite that are not, bit for bit, what the same run is alone."""
    found = {}
    for task in planned:
        try:
            assert_same_runs(alone / task.name, suite / task.name)
            steps = [line["step"] for line in history(suite / task.name, "metrics.jsonl")]
            assert len(steps) == len(set(steps)), "a step is there twice"
        except AssertionError as difference:
            found[task.name] = next(iter(str(difference).splitlines()), "differs")
    return found
