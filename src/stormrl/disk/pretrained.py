"""Pretrained agents that come with the package; each becomes an ordinary run when it is first used.

data/pretrained/<NAME>.json           where it comes from, scores, learning history, checksums
data/pretrained/<NAME>.safetensors    its networks

Wherever a run is read, `pretrained:NAME` stands for the directory that `unpacked` gives.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from stormrl.config.json import CONFIG, config_from_dict
from stormrl.config.parts import RunConfig
from stormrl.disk import checkpoint, tensor_files
from stormrl.disk.files import Seal, read_json, read_limited, reason, write
from stormrl.disk.jsonlines import JsonLines, is_number
from stormrl.disk.private import private_folder, temporary_path
from stormrl.disk.run_files import EPISODES, METRICS, SCORES
from stormrl.errors import UserError

PREFIX = "pretrained:"
FORMAT = 1
"""Version of the two files; a change that older code cannot read raises it."""
LARGEST = 3_000_000
"""Bytes that the networks of one agent may take."""
CHECKSUM = "sha256"
"""Field of the JSON file: SHA-256 of all its other fields."""

COLUMNS = {
    "scores": {"seed", "return", "length"},
    "random": {"seed", "return", "length"},
    "episodes": {"step", "return", "length"},
    "metrics": {"step", "update"},
}
"""Tables of the JSON file, and the columns that each of them has at least."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")

Columns = Mapping[str, Sequence[float | None]]
Scores = Mapping[str, Sequence[float]]
Tensors = dict[str, dict[str, Tensor]]


@dataclass(frozen=True)
class Pretrained:
    """What is known of a pretrained agent without its networks."""

    path: Path
    """Its JSON file."""
    sha256: str
    """Checksum of that file's content, the checksum of the networks included."""
    networks: Seal
    """Size and checksum of the file of its networks."""
    step: int
    """Environment steps that it was trained for."""
    protocol: str
    """Of its scores and of random play's."""
    scores: Scores
    """Evaluation episodes of the agent as it is packed: seed, return, length."""
    random: Scores
    """Episodes of uniformly random play under the same protocol."""
    episodes: Columns
    """Training episodes: step, return, length."""
    metrics: Columns
    """Lines of metrics.jsonl, evenly thinned."""
    record: Mapping[str, Any]
    """The run's config.json: versions, commit, hardware and command beside the config."""
    config: RunConfig
    """How it was trained."""

    @property
    def name(self) -> str:
        """As in `RoadRunner` for `pretrained:RoadRunner`."""
        return self.path.stem

    @property
    def command(self) -> str:
        """What trains such an agent."""
        return shlex.join(map(str, self.record["command"]))


def folder() -> Path:
    """Where the package keeps its pretrained agents."""
    return Path(__file__).parents[1] / "data" / "pretrained"


def names() -> list[str]:
    """Names of the agents at hand."""
    return sorted(path.stem for path in folder().glob("*.json") if _NAME.fullmatch(path.stem))


def path_of(name: str) -> Path:
    """The JSON file of an agent, in capitals or not; of a new one under the name as it is given.

    Raises `UserError` for what cannot be a name.
    """
    if not _NAME.fullmatch(name):
        raise UserError("name", f"is {name!r}; give letters, digits, - and _")
    known = {at_hand.lower(): at_hand for at_hand in names()}
    return folder() / f"{known.get(name.lower(), name)}.json"


def agents() -> list[Pretrained]:
    """Every agent at hand. Raises `UserError` for one whose JSON file is damaged."""
    return [read(path_of(name)) for name in names()]


def find(name: str) -> Pretrained:
    """The agent of that name, in capitals or not.

    Raises `UserError` if there is none, or if its JSON file is damaged.
    """
    at_hand = names()
    if name.lower() not in map(str.lower, at_hand):
        remedy = f"give one of {', '.join(at_hand)}" if at_hand else "none comes with this version"
        raise UserError("pretrained", f"no agent is called {name!r}; {remedy}")
    return read(path_of(name))


def read(path: Path) -> Pretrained:
    """What the JSON file of an agent says.

    Raises `UserError` if it is damaged, of a newer format, or not what `packing.pack` writes.
    """
    record = read_json(path)
    check_format(record.get("format"), path)
    expected = record.pop(CHECKSUM, None)
    _check(path, expected, checksum(record))
    run = _field(record, "run", path, dict)
    if not isinstance(run.get("command"), list):
        raise _unusable(path, "command")
    return Pretrained(
        path=path,
        sha256=str(expected),
        networks=_seal(record.get("networks"), path),
        step=_field(record, "step", path, int),
        protocol=_field(record, "protocol", path, str),
        scores=_scores(record, "scores", path),
        random=_scores(record, "random", path),
        episodes=_columns(record, "episodes", path),
        metrics=_columns(record, "metrics", path),
        record=run,
        config=config_from_dict(run.get("config")),
    )


def checksum(record: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON object's meaning: neither white space nor the order of fields counts."""
    content = json.dumps(record, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def networks_path(path: Path) -> Path:
    """The file of networks that belongs to a JSON file."""
    return path.with_suffix(".safetensors")


def networks(agent: Pretrained) -> Tensors:
    """Its networks by group and name, in float32. Raises `UserError` if their file is damaged."""
    path = networks_path(agent.path)
    content = read_limited(path, LARGEST)
    _check(path, agent.networks.sha256, hashlib.sha256(content).hexdigest())
    return widened(tensor_files.from_bytes(content, path))


def widened(tensors: Mapping[str, Tensor]) -> Tensors:
    """Tensors named `group.name`, by group and name, as a run's checkpoint has them."""
    groups: Tensors = {}
    for full_name, tensor in tensors.items():
        group, _, name = full_name.partition(".")
        wide = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
        groups.setdefault(group, {})[name] = wide
    return groups


def unpacked(name: str) -> Path:
    """The run directory of an agent, made in the user's cache unless it is there.

    Raises `UserError` if there is no such agent, if its files are damaged, or if neither the cache
    nor the folder of temporary files can be written.
    """
    agent = find(name)
    tensors = networks(agent)
    refusals = []
    for cache in caches():
        try:
            return _unpacked_into(cache, agent, tensors)
        except OSError as error:
            refusals.append(f"{cache}: {reason(error)}")
        except UserError as error:
            refusals.append(error.message)
    remedy = "set XDG_CACHE_HOME to a folder that can be written"
    raise UserError("pretrained", f"nowhere to unpack to ({'; '.join(refusals)}); {remedy}")


def caches() -> Iterator[Path]:
    """Where agents are unpacked to, in the order in which it is tried."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    with suppress(RuntimeError):  # A user without a home.
        # The convention has relative paths ignored.
        base = given if given.is_absolute() else Path.home() / ".cache"
        yield base / "stormrl" / "pretrained"
    yield temporary_path()


def check_format(version: object, path: Path) -> None:
    """Raises `UserError` unless this version of the package reads that format."""
    if version == FORMAT:
        return
    if type(version) is int and version > FORMAT:
        remedy = f"this stormrl reads up to {FORMAT}; upgrade stormrl"
        raise UserError("format", f"is {version} in {path}, written by a newer version; {remedy}")
    raise UserError("format", f"is missing or unknown in {path}; install stormrl again")


def _check(path: Path, expected: object, found: str) -> None:
    if expected == found:
        return
    shown = expected if isinstance(expected, str) and _DIGEST.fullmatch(expected) else "none"
    problem = f"is damaged: its SHA-256 is {found}, expected is {shown}"
    raise UserError(str(path), f"{problem}; install stormrl again")


def _field(record: Mapping[str, Any], name: str, path: Path, kind: type) -> Any:
    value = record.get(name)
    if type(value) is not kind:
        raise _unusable(path, name)
    return value


def _seal(value: object, path: Path) -> Seal:
    try:
        return Seal.parse(value)
    except ValueError:
        raise _unusable(path, "networks") from None


def _scores(record: Mapping[str, Any], name: str, path: Path) -> Scores:
    """A table of one episode or more, in which nothing lacks."""
    columns = _columns(record, name, path)
    if not columns["return"] or any(None in column for column in columns.values()):
        raise _unusable(path, name)
    return cast("Scores", columns)


def _columns(record: Mapping[str, Any], name: str, path: Path) -> Columns:
    """A table, column by column; its rows may lack single values."""
    match record.get(name):
        case {**columns} if COLUMNS[name] <= columns.keys() and _is_table(columns):
            return columns
    raise _unusable(path, name)


def _is_table(columns: Mapping[Any, Any]) -> bool:
    if not all(isinstance(column, list) for column in columns.values()):
        return False
    values = (value for column in columns.values() for value in column)
    whole = all(value is None or is_number(value) for value in values)
    return whole and len({*map(len, columns.values())}) == 1


def _unusable(path: Path, name: str) -> UserError:
    return UserError(str(path), f"holds no usable {name!r}; install stormrl again")


def _unpacked_into(cache: Path, agent: Pretrained, tensors: Tensors) -> Path:
    """Raises `OSError` or `UserError` if that cannot be done there."""
    private_folder(cache)
    run = cache / f"{agent.name}-{agent.sha256[:12]}"
    if not _is_usable(run, agent):
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=cache) as partial:
            made = Path(partial) / run.name
            _write_run(made, agent, tensors)
            _put(made, run, agent)
    return run


def _is_usable(run: Path, agent: Pretrained) -> bool:
    """Whether the agent lies there, whole, with room for what commands write into a run."""
    try:
        saved = checkpoint.load(run, agent.step)
        same = read_json(run / CONFIG) == agent.record and saved.state["pretrained"] == agent.name
    except (UserError, KeyError):
        return False
    return same and os.access(run, os.W_OK)


def _put(made: Path, run: Path, agent: Pretrained) -> None:
    """Move a run to its place, all of it at once; what is damaged there gives way."""
    try:
        os.rename(made, run)
    except OSError:
        if _is_usable(run, agent):
            return  # Another process was faster.
        os.rename(run, made.with_name("damaged"))
        os.rename(made, run)


def _write_run(path: Path, agent: Pretrained, tensors: Tensors) -> None:
    path.mkdir()
    write(path / CONFIG, json.dumps(agent.record, indent=2).encode() + b"\n")
    _write_lines(path / EPISODES, _rows(agent.episodes))
    _write_lines(path / METRICS, _rows(agent.metrics))
    played = {"checkpoint_step": agent.step, "protocol": agent.protocol}
    scores = enumerate(_rows(agent.scores))
    _write_lines(path / SCORES, (played | {"episode": index} | row for index, row in scores))
    checkpoint.save(path, agent.step, tensors, {"step": agent.step, "pretrained": agent.name})


def _rows(columns: Columns) -> Iterator[dict[str, Any]]:
    """The lines of a history, without what they lack."""
    for values in zip(*columns.values(), strict=True):
        row = zip(columns, values, strict=True)
        yield {name: value for name, value in row if value is not None}


def _write_lines(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    lines = JsonLines(path)
    for row in rows:
        lines.write(row)
    lines.close()
