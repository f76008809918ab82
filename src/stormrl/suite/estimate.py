"""How long runs take and how much memory, from what `stormrl bench` has measured."""

from __future__ import annotations

import glob
import heapq
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from stormrl.config.parts import RunConfig
from stormrl.disk.files import read_json
from stormrl.errors import UserError
from stormrl.suite.share import Share

MEASURED = "results/bench/*.json"
"""Figures of this machine, looked for in the folder where the command is typed."""
IMAGE_BYTES = 64 * 64 * 3
START_S = 12.0
"""From a free place to a run's first step: a process, PyTorch, the environment, the networks."""


class Figures(NamedTuple):
    """What one `stormrl bench` found, as far as planning needs it."""

    source: str
    """Where the figures come from, in words."""
    env: str
    size: str
    device: str
    """cpu or cuda."""
    stages: dict[str, float]
    """Median seconds of each stage, of `iteration` at least."""
    memory_bytes: int | None
    """At the most, without replay."""

    def seconds(self, config: RunConfig, done: int = 0) -> float:
        """Training of a run's remaining steps; evaluation and videos are not counted."""
        replay = config.agent.replay
        random_steps = max(min(replay.warmup, config.steps) - done, 0)
        trained_steps = config.steps - max(done, replay.warmup)
        random_s = random_steps * self.stages.get("env", 0.0)
        return random_s + max(trained_steps, 0) * self._iteration_s(config)

    def run_memory_bytes(self, config: RunConfig) -> int | None:
        """Of a run when its replay is full."""
        if self.memory_bytes is None:
            return None
        return self.memory_bytes + min(config.agent.replay.capacity, config.steps) * IMAGE_BYTES

    def _iteration_s(self, config: RunConfig) -> float:
        """A step with its updates, of which there may be fewer or more than one."""
        whole, agent = self.stages["iteration"], config.agent
        if not {"world_model", "act", "env"} <= self.stages.keys():
            return whole * max(agent.world_model_ratio, agent.agent_ratio)
        playing, world = self.stages["act"] + self.stages["env"], self.stages["world_model"]
        policy = max(whole - playing - world, 0.0)
        return playing + world * agent.world_model_ratio + policy * agent.agent_ratio


def seconds_of_all(runs: Sequence[float], places: int) -> float:
    """Until runs that take so long each have ended, begun in their order where a place is free.

    Never less than the work of all over the places, nor than the longest run. How runs slow each
    other down, and failures, are not counted (docs/scaling.md). places: 1 or more.
    """
    free_at = [0.0] * places
    for seconds in runs:
        heapq.heapreplace(free_at, free_at[0] + START_S + seconds)
    return max(free_at)


def figures_for(config: RunConfig, share: Share, files: Sequence[Path] = ()) -> Figures | None:
    """The figures nearest to a run: of its size and kind of device, of its game if there are any.

    Those in `files` come first, then those measured here, then those that come with the package.
    None if there are none of its size on that kind of device.
    """
    device = "cuda" if share.gpus > 0 else "cpu"
    for known in (_read_all(files), _read_all(_measured_here()), _shipped()):
        fitting = [f for f in known if (f.size, f.device) == (config.size, device)]
        if fitting:
            return max(fitting, key=lambda figures: figures.env == config.env)
    return None


def parse_all(record: dict[str, Any], source: str) -> list[Figures]:
    """Figures of all combinations that one call of bench measured; raises as `parse_figures`."""
    benches = record.get("benches", [record])
    if not isinstance(benches, list):
        benches = [benches]
    return [parse_figures(bench, source) for bench in benches if not _failed(bench)]


def _failed(bench: Any) -> bool:
    """Whether bench has written why it could not measure a combination, in the place of it."""
    return isinstance(bench, dict) and "error" in bench


def parse_figures(record: dict[str, Any], source: str) -> Figures:
    """Figures from bench's JSON object. Raises `UserError` if it is something else."""
    try:
        stages = {name: float(stage["median_s"]) for name, stage in record["stages"].items()}
        device = str(record["device"]).partition(":")[0]
        return Figures(
            source=record.get("source", source),
            env=record["env"],
            size=record["size"],
            device=device,
            stages={"iteration": stages["iteration"], **stages},
            memory_bytes=record.get("peak_memory_bytes"),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        problem = "is no result of stormrl bench --json"
        raise UserError(
            "bench", f"{source} {problem}; make one with stormrl bench --json"
        ) from None


def _read_all(files: Sequence[Path]) -> list[Figures]:
    return [figures for path in files for figures in parse_all(read_json(path), str(path))]


def _measured_here() -> list[Path]:
    return sorted(map(Path, glob.glob(MEASURED)))


def _shipped() -> list[Figures]:
    folder = resources.files("stormrl") / "data" / "bench"
    return [
        parse_figures(
            json.loads(file.read_text(encoding="utf-8")), f"{file.name}, shipped with stormrl"
        )
        for file in sorted(folder.iterdir(), key=lambda file: file.name)
    ]
