"""Progress of a run, by what lies in its directory."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from stormrl.config.json import CONFIG
from stormrl.disk.checkpoint import CHECKPOINTS, CHECKSUMS, LATEST, newest_of, parse_seals
from stormrl.disk.files import parse_json
from stormrl.disk.jsonlines import is_number
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
    returns = _numbers(episodes[-EPISODES_IN_MEAN:], "return")
    return Standing(
        saved=saved,
        scored=any(line.get("checkpoint_step") == saved for line in scores),
        step=int(max([saved, *_numbers([*metrics[-1:], *episodes[-1:]], "step")])),
        mean_return=statistics.fmean(returns) if returns else None,
        steps_per_s=_rate(metrics[-LINES_IN_RATE:]),
        host=_word(starts[-1:], "host"),
        attempts=len(starts),
    )


def saved_step(storage: Storage, run: str) -> int:
    """Step of the checkpoint that the run would go on from, by sizes; 0 without one."""

    def check(name: str, step: int) -> None:
        _check_sizes(storage, run, CHECKPOINTS, name)

    names = storage.names(run, CHECKPOINTS)
    return newest_of(names, storage.read(run, CHECKPOINTS, LATEST), check) or 0


def read_config(storage: Storage, run: str) -> dict[str, Any] | None:
    """The config of a run as its directory tells it, None of one that has not begun.

    Raises `UserError` if its config.json holds none.
    """
    content = storage.read(run, CONFIG)
    if content is None:
        return None
    path = Path(storage.where(run)) / CONFIG
    config = parse_json(content, path).get("config")
    if not isinstance(config, dict):
        raise UserError(str(path), "holds no config; remove the directory or give another --out")
    return config


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


def _numbers(lines: Sequence[dict[str, Any]], name: str) -> list[float]:
    """The values of a field where it is there and a number."""
    return [line[name] for line in lines if is_number(line.get(name))]


def _word(lines: Sequence[dict[str, Any]], name: str) -> str | None:
    """The last value of a field, where it is a text."""
    words = [line[name] for line in lines if isinstance(line.get(name), str)]
    return words[-1] if words else None


def _rate(metrics: Sequence[dict[str, Any]]) -> float | None:
    """Steps a second, of the lines that tell both."""
    steps, seconds = (_numbers(metrics, name) for name in ("step", "wall_s"))
    if len(steps) != len(seconds) or len(steps) < 2 or seconds[-1] <= seconds[0]:
        return None
    return (steps[-1] - steps[0]) / (seconds[-1] - seconds[0])
