"""Reader of run directories: runs as these tell of them, damaged and unfinished ones included."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from stormrl.config.json import CONFIG
from stormrl.config.parts import RunConfig
from stormrl.disk import checkpoint
from stormrl.disk.files import plain_size, read_json
from stormrl.disk.jsonlines import is_number, kept_every, lines, parsed
from stormrl.disk.run_directory import RunDirectory
from stormrl.disk.run_files import DIAGNOSES, EPISODES, FAILURE, METRICS, SCORES
from stormrl.errors import UserError
from stormrl.machine.lenient import printable
from stormrl.scores.on_track import Track, track

Line = dict[str, Any]


class Series(NamedTuple):
    """A metric over environment steps; finite values alone."""

    steps: list[float]
    values: list[float]


class Evaluation(NamedTuple):
    """The evaluation episodes of one checkpoint under one protocol."""

    step: int
    protocol: str
    returns: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The run's score."""
        return math.fsum(self.returns) / len(self.returns)


@dataclass(frozen=True)
class Run:
    """A run that can be shown, as far as its files can be read."""

    name: str
    path: Path
    config: RunConfig
    record: Mapping[str, Any]
    """Its config.json: versions, commit, hardware and command beside the config."""
    saved: int | None
    """Step of its newest good checkpoint; None for a run without any, as for a copy of evidence."""
    metrics: Sequence[Line]
    episodes: Sequence[Line]
    evaluation: Evaluation | None
    open_loop: Mapping[str, Any] | None
    """The newest open-loop error that `stormrl dream` has measured."""
    video: Path | None
    problems: tuple[str, ...]
    """What is wrong with its files, a sentence each."""

    @property
    def step(self) -> int:
        """The newest step that its histories tell of."""
        newest = [line.get("step") for line in (*self.metrics[-1:], *self.episodes[-1:])]
        scored = [] if self.evaluation is None else [self.evaluation.step]
        return int(max((step for step in (*newest, *scored) if is_number(step)), default=0))

    @property
    def finished(self) -> bool:
        """Whether its last step is saved; without checkpoints, whether its histories reach it."""
        return (self.step if self.saved is None else self.saved) >= self.config.steps

    @property
    def track(self) -> Track | None:
        """How it stands beside published learning curves; None if there are none of its game."""
        return track(self.config, self.episodes, self.step)

    def series(self, name: str) -> Series:
        """A metric's curve."""
        return numbers(self.metrics, name)

    def returns(self) -> Series:
        """Training returns by the step at which their episode ended."""
        return numbers(self.episodes, "return")

    def last(self, name: str) -> float | None:
        """A metric's newest value."""
        values = self.series(name).values
        return values[-1] if values else None


class Unreadable(NamedTuple):
    """A directory that cannot be shown, and why."""

    name: str
    problem: str


def read_runs(
    paths: Sequence[Path], allow_import: Sequence[str] = ()
) -> tuple[list[Run], list[Unreadable]]:
    """What is in these directories; none of them raises.

    allow_import: as of `RunDirectory.open`.
    """
    found = [read_run(path, allow_import) for path in paths]
    runs = [run for run in found if isinstance(run, Run)]
    return runs, [run for run in found if isinstance(run, Unreadable)]


def read_run(path: Path, allow_import: Sequence[str] = ()) -> Run | Unreadable:
    """A run, an agent `pretrained:NAME` among them, or why its directory is none."""
    try:
        directory = RunDirectory.open(path, allow_import)
        record = read_json(directory.path / CONFIG)
    except UserError as error:
        return Unreadable(printable(path.name), printable(str(error)))
    name, path = printable(path.resolve().name), directory.path
    problems: list[str] = []
    metrics = salvaged(path / METRICS, problems)
    episodes = salvaged(path / EPISODES, problems)
    scores = salvaged(path / SCORES, problems)
    return Run(
        name=name,
        path=path,
        config=directory.config,
        record=record,
        saved=_saved(path, problems),
        metrics=metrics,
        episodes=episodes,
        evaluation=newest_evaluation(scores, directory.config.protocol),
        open_loop=_open_loop(path / "videos", problems),
        video=_newest_video(path / "videos"),
        problems=(*problems, *_complaints(path, metrics)),
    )


def salvaged(path: Path, problems: list[str]) -> list[Line]:
    """The lines of a history that are whole; what is wrong with the file goes to `problems`."""
    records: list[Line] = []
    damaged: list[int] = []
    number, every = 0, 1
    try:
        plain_size(path)  # Elsewhere one that is missing is an empty one.
        every = kept_every(path)
        for number, line in lines(path):
            if (number - 1) % every:
                continue
            record = parsed(line)
            if record is None:
                damaged.append(number)
            else:
                records.append(record)
    except UserError as error:
        problems.append(f"{path.name} {error.message}")
    if every > 1:
        problems.append(f"{path.name} is long: one of every {every} lines is read")
    if damaged:
        problems.append(
            f"{path.name}: {len(damaged)} of {number} lines are damaged and left out, "
            f"the first is line {damaged[0]}"
        )
    return records


def numbers(lines: Sequence[Line], name: str) -> Series:
    """Steps and finite values of a field."""
    series = Series([], [])
    for line in lines:
        step, value = line.get("step"), line.get(name)
        if is_number(step) and is_number(value):
            series.steps.append(step)
            series.values.append(value)
    return series


def newest_evaluation(scores: Sequence[Line], protocol: str) -> Evaluation | None:
    """Episodes of the newest checkpoint, under the training's protocol if it was played so.

    Of an episode that was played more than once, the last time counts.
    """
    played: dict[tuple[int, str], dict[object, float]] = {}
    for line in scores:
        step, name, total = line.get("checkpoint_step"), line.get("protocol"), line.get("return")
        if type(step) is int and isinstance(name, str) and is_number(total):
            seed = line.get("seed")
            key = seed if type(seed) is int else object()
            played.setdefault((step, name), {})[key] = float(total)
    if not played:
        return None
    step, name = max(played, key=lambda found: (found[1] == protocol, found[0]))
    return Evaluation(step, name, tuple(played[step, name].values()))


def _saved(path: Path, problems: list[str]) -> int | None:
    try:
        return checkpoint.newest(path, checkpoint.verify_sizes)
    except UserError as error:
        problems.append(str(error))
        return None


def _complaints(path: Path, metrics: Sequence[Line]) -> Iterator[str]:
    """What the run's files say themselves of what went wrong."""
    absent = sum(not is_number(value) for line in metrics for value in line.values())
    if absent:
        yield f"{METRICS}: {absent} values are no finite numbers"
    if (path / FAILURE).exists():
        yield f"the run ended with a failure; its traceback is in {FAILURE}"
    if (path / DIAGNOSES).exists() and (path / DIAGNOSES).stat().st_size:
        yield f"updates were skipped; {DIAGNOSES} tells which"


def _open_loop(folder: Path, problems: list[str]) -> Mapping[str, Any] | None:
    for path in sorted(folder.glob("*.json"), reverse=True):
        try:
            record = read_json(path).get("open_loop")
        except UserError as error:
            problems.append(f"videos/{path.name} {error.message}")
            continue
        if is_open_loop(record):
            return record
    return None


def is_open_loop(record: object) -> bool:
    """Whether a decoded JSON value holds the three curves over steps ahead, all of one length."""
    match record:
        case {
            "ahead": [_, *_] as ahead,
            "dream": {"mean": [*dream]},
            "copy": {"mean": [*copy]},
            "reconstruction": {"mean": [*reconstruction]},
        }:
            curves = (ahead, dream, copy, reconstruction)
            whole = all(is_number(value) for curve in curves for value in curve)
            return whole and len({*map(len, curves)}) == 1
    return False


def _newest_video(folder: Path) -> Path | None:
    """The newest film that `stormrl dream` made, else the newest of the training's."""
    films = [path for path in folder.glob("*.mp4") if path.is_file()]
    films.sort(key=lambda path: (path.name.startswith("film"), path.name))
    return films[-1] if films else None
