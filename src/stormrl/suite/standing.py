"""Progress of a run, by what lies in its directory."""

from __future__ import annotations

import statistics
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from stormrl.config.json import CONFIG
from stormrl.disk.checkpoint import CHECKPOINTS, CHECKSUMS, LATEST, newest_of, parse_seals
from stormrl.disk.files import parse_json
from stormrl.disk.run_files import EPISODES, METRICS, SCORES
from stormrl.errors import UserError
from stormrl.history.progress import EPISODES_IN_MEAN
from stormrl.suite.attempt_log import ATTEMPTS, START
from stormrl.suite.storage import Storage

TAIL = 2**14
LINES_IN_RATE = 5


class Standing(NamedTuple):
    """How far a run is; None is what is not known yet."""

    saved: int = 0
    """Step of the newest checkpoint."""
    scored: bool = False
    """Whether the agent of that checkpoint has been evaluated."""
    step: int = 0
    """Newest step that any of its histories tells of."""
    mean_return: float | None = None
    """Of the last training episodes."""
    steps_per_s: float | None = None
    host: str | None = None
    """The machine it was begun on last."""
    attempts: int = 0
    """How often it was begun; of the last ones if there are many."""


def read_standing(storage: Storage, run: str) -> Standing:
    """The standing of a run; all zeros of one that has not begun."""
    saved = saved_step(storage, run)
    metrics = _last_records(storage, run, METRICS)
    episodes = _last_records(storage, run, EPISODES)
    scores = _last_records(storage, run, SCORES)
    starts = [line for line in _last_records(storage, run, ATTEMPTS) if line.get("event") == START]
    returns = [line["return"] for line in episodes[-EPISODES_IN_MEAN:]]
    return Standing(
        saved=saved,
        scored=any(line.get("checkpoint_step") == saved for line in scores),
        step=max([saved, *(line["step"] for line in (*metrics[-1:], *episodes[-1:]))]),
        mean_return=statistics.fmean(returns) if returns else None,
        steps_per_s=_rate(metrics[-LINES_IN_RATE:]),
        host=starts[-1]["host"] if starts else None,
        attempts=len(starts),
    )


def saved_step(storage: Storage, run: str) -> int:
    """Step of the checkpoint that the run would go on from, by sizes; 0 without one."""

    def check(name: str, step: int) -> None:
        _check_sizes(storage, run, CHECKPOINTS, name)

    names = storage.names(run, CHECKPOINTS)
    return newest_of(names, storage.read(run, CHECKPOINTS, LATEST), check) or 0


def read_config(storage: Storage, run: str) -> dict[str, Any] | None:
    """The config of a run as its directory tells it, None of one that has not begun."""
    content = storage.read(run, CONFIG)
    if content is None:
        return None
    return parse_json(content, Path(storage.where(run)) / CONFIG).get("config")


def _check_sizes(storage: Storage, *folder: str) -> None:
    """Raises `UserError` unless every file that checksums.json lists is there at its length."""
    path = Path(storage.where("/".join(folder)))
    sizes, content = storage.sizes(*folder), storage.read(*folder, CHECKSUMS)
    for name, seal in parse_seals(content or b"", path / CHECKSUMS).items():
        seal.check_size(sizes.get(name, 0), path / name)


def _last_records(storage: Storage, run: str, name: str) -> list[dict[str, Any]]:
    """The end of a history that may be written to, or cut back, at this moment.

    What is no record is passed over: a damaged history is refused by the run itself as it goes on.
    """
    records = []
    for line in storage.last_lines(TAIL, run, name):
        with suppress(UserError):
            records.append(parse_json(line, Path(storage.where(run)) / name))
    return records


def _rate(metrics: list[dict[str, Any]]) -> float | None:
    if len(metrics) < 2 or metrics[-1]["wall_s"] <= metrics[0]["wall_s"]:
        return None
    steps = metrics[-1]["step"] - metrics[0]["step"]
    return steps / (metrics[-1]["wall_s"] - metrics[0]["wall_s"])
