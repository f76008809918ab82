"""Checkpoints: saved atomically, verified before they are read, one good one always there.

checkpoints/<step>/<group>.safetensors    named tensors
checkpoints/<step>/state.json             everything that is not a tensor
checkpoints/<step>/checksums.json         size and SHA-256 of the files above
checkpoints/latest                        name of the newest checkpoint; moves last
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stormrl.disk import tensor_files
from stormrl.disk.files import (
    JSON_LIMIT,
    Seal,
    make_folder,
    parse_json,
    read_limited,
    readable,
    replace,
    sync_folder,
    writable,
    write,
)
from stormrl.errors import UserError

CHECKPOINTS = "checkpoints"
LATEST = "latest"
STATE = "state.json"
CHECKSUMS = "checksums.json"

# Folders that a crash may leave behind. A checkpoint that is being saved anew under the same step
# lies under _REPLACED for a moment, and counts as long as its successor is not there.
_PARTIAL, _REMOVED, _REPLACED = ".partial-", ".removed-", ".replaced-"

_NAME = re.compile(r"[0-9]{9}|[1-9][0-9]{9,17}")
_TENSORS = re.compile(r"[a-z][a-z0-9_]*\.safetensors")

LARGEST = 4 * 2**30
"""Bytes whose content is compared without knowing what model they are of; a file that is nothing
but a hole may claim any number of them."""

Tensors = Mapping[str, Mapping[str, Tensor]]
State = dict[str, Any]
Check = Callable[[Path, int], object]
"""Raises `UserError` for a folder that is no good checkpoint of that step."""


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint."""

    step: int
    tensors: dict[str, dict[str, Tensor]]
    """By group and name."""
    state: State
    path: Path
    warnings: tuple[str, ...] = ()
    """What was wrong with other checkpoints that would have come first; one sentence each."""


def save(run: str | Path, step: int, tensors: Tensors, state: Mapping[str, Any]) -> Path:
    """Write one file of tensors for each group, and the JSON-able `state`; the folder written.

    Raises `UserError` if the system refuses to write; earlier checkpoints stay as they are.
    """
    folder = Path(run) / CHECKPOINTS
    partial, path = folder / f"{_PARTIAL}{_name(step)}", folder / _name(step)
    with writable(f"checkpoint {path}", Path(run)):
        make_folder(folder)
        _remove_leftovers(folder)
        try:
            _write_files(partial, step, tensors, state)
            _move(partial, path)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        replace(folder / LATEST, f"{path.name}\n".encode())
    return path


def load(
    run: str | Path,
    step: int | None = None,
    device: torch.device | str = "cpu",
    verify: Callable[[State], None] | None = None,
    limit: int | None = None,
) -> Checkpoint:
    """The newest good checkpoint, or the one at `step`; tensors on `device`.

    `verify` may refuse a checkpoint's state with a `UserError`, as for damaged replay files. One of
    more than `limit` bytes is refused before it takes memory.
    Raises `UserError` if no good checkpoint is left, or if the one at `step` is not good.
    """
    found = _found(Path(run))
    if step is not None:
        return _read(_at(found, step), step, device, verify, limit)
    order, warnings = _newest_first(Path(run) / CHECKPOINTS, found)
    for candidate in order:  # As `newest` does, which says where the run stands.
        try:
            good = _read(found[candidate], candidate, device, verify, limit)
        except UserError as error:
            warnings.append(f"checkpoint {candidate} is not used: {error}")
        else:
            return Checkpoint(candidate, good.tensors, good.state, good.path, tuple(warnings))
    if not found:
        raise UserError("run_dir", f"{run} holds no checkpoint yet; let it train until it does")
    reasons = "".join(f"; {warning}" for warning in warnings)
    raise UserError("run_dir", f"{run} holds no usable checkpoint{reasons}; start a new run")


def newest(run: str | Path, good: Check | None = None) -> int | None:
    """The step at which a run stands: of its newest good checkpoint; None without one.

    Whoever asks how far a run is, asks here: what counts is what `load` would go on from, which
    need not be the folder with the highest number. good: raises `UserError` for a folder that is
    none; by default one whose content differs from its checksums.
    """
    folder = Path(run) / CHECKPOINTS
    names = [path.name for path in _found(Path(run)).values()]
    check = good or verify_content
    return newest_of(names, _latest_content(folder), lambda name, step: check(folder / name, step))


def newest_of(
    names: Iterable[str], latest: bytes | None, good: Callable[[str, int], object]
) -> int | None:
    """The same for checkpoints of which names and the content of `latest` are at hand.

    good: raises `UserError` for a folder, known by name and step, that is no good checkpoint.
    """
    found = _by_step(names)
    for step in _order(found, _named_by(latest)):
        try:
            good(found[step], step)
        except UserError:
            continue
        return step
    return None


def verify_content(path: Path, step: int) -> None:
    """Raises `UserError` unless every file of a checkpoint's folder holds what it was given.

    Of one that is far too large the sizes alone: `load`, which knows its model, refuses it.
    """
    seals = _seals(path)
    if sum(seal.bytes for seal in seals.values()) > LARGEST:
        verify_sizes(path, step)
        return
    for name, seal in seals.items():
        seal.verify(path / name)
    _state_record(seals[STATE].read(path / STATE), path, step)


def verify_sizes(path: Path, step: int) -> None:
    """The same by the sizes of the files, in no time; for looks at many runs."""
    for name, seal in _seals(path).items():
        seal.verify_size(path / name)


def parse_seals(content: bytes, path: Path) -> dict[str, Seal]:
    """Size and checksum of each file, as the checksums.json at `path` lists them.

    Raises `UserError` if it is damaged; names are plain, so no path leaves the folder.
    """
    listed = parse_json(content, path)
    plain = all(name == STATE or _TENSORS.fullmatch(name) for name in listed)
    if STATE not in listed or not plain:
        raise UserError(str(path), "is damaged: it lists other files than it should")
    try:
        return {name: Seal.parse(record) for name, record in listed.items()}
    except ValueError as error:
        raise UserError(str(path), f"is damaged: {error}") from None


def steps(run: str | Path) -> list[int]:
    """Steps of the checkpoints at hand, in ascending order, good or damaged."""
    return sorted(_found(Path(run)))


def layouts(run: str | Path, group: str) -> dict[str, tensor_files.Layout]:
    """What the tensors of a group are, by the header of the newest file of theirs that is good.

    Raises `UserError` if there is none.
    """
    found = _found(Path(run))
    for step in sorted(found, reverse=True):
        with suppress(UserError):
            return tensor_files.layouts(found[step] / f"{group}.safetensors")
    raise UserError("run_dir", f"{run} holds no usable checkpoint yet; let it train until it does")


def states(run: str | Path) -> list[State]:
    """What the checkpoints at hand hold beside tensors, oldest first; damaged ones left out."""
    readable_states = []
    for step, path in sorted(_found(Path(run)).items()):
        try:
            content = _seals(path)[STATE].read(path / STATE)
            readable_states.append(_state_record(content, path, step)["state"])
        except UserError:
            continue
    return readable_states


def prune(run: str | Path, keep: int) -> None:
    """Keep `latest` and the `keep` - 1 checkpoints before it.

    Those beyond `latest` go too: they belong to a future that was given up.
    """
    folder, found = Path(run) / CHECKPOINTS, _found(Path(run))
    latest = _latest(folder)
    past = [step for step in sorted(found) if latest is None or step <= latest]
    with writable(f"to {folder}", Path(run)):
        for step in set(found) - set(past[-keep:]):
            # Renamed first: a checkpoint is there as a whole or not at all.
            removed = folder / f"{_REMOVED}{_name(step)}"
            shutil.rmtree(removed, ignore_errors=True)
            os.rename(found[step], removed)
            shutil.rmtree(removed, ignore_errors=True)


def _name(step: int) -> str:
    return f"{step:09d}"


def _write_files(folder: Path, step: int, tensors: Tensors, state: Mapping[str, Any]) -> None:
    folder.mkdir()
    seals = {}
    for group, members in tensors.items():
        name = f"{group}.safetensors"
        if not _TENSORS.fullmatch(name):
            raise ValueError(f"{group!r} cannot be part of a file's name")
        seals[name] = _write_sealed(folder / name, tensor_files.to_bytes(members))
    record = {"step": step, "groups": sorted(tensors), "state": state}
    seals[STATE] = _write_sealed(folder / STATE, _to_json(record))
    write(folder / CHECKSUMS, _to_json({name: seal._asdict() for name, seal in seals.items()}))
    sync_folder(folder)


def _write_sealed(path: Path, content: bytes) -> Seal:
    write(path, content)
    return Seal.of(content)


def _to_json(record: Mapping[str, Any]) -> bytes:
    """Without white space: no byte of it can change without changing the meaning."""
    return json.dumps(record, separators=(",", ":")).encode()


def _move(partial: Path, path: Path) -> None:
    replaced = path.with_name(f"{_REPLACED}{path.name}")
    if path.exists():
        os.rename(path, replaced)
    os.rename(partial, path)
    sync_folder(path.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _remove_leftovers(folder: Path) -> None:
    for path in folder.glob(".*-*"):
        successor = folder / path.name.removeprefix(_REPLACED)
        if path.name.startswith((_PARTIAL, _REMOVED)) or successor.exists():
            shutil.rmtree(path, ignore_errors=True)


def _found(run: Path) -> dict[int, Path]:
    """Every checkpoint folder by its step."""
    folder = run / CHECKPOINTS
    if not folder.is_dir():
        return {}
    with readable(folder):
        names = [path.name for path in folder.iterdir() if path.is_dir()]
    return {step: folder / name for step, name in _by_step(names).items()}


def _by_step(names: Iterable[str]) -> dict[int, str]:
    # In this order a successor takes the place of the one it replaces.
    return {
        int(name.removeprefix(_REPLACED)): name
        for name in sorted(names)
        if _NAME.fullmatch(name.removeprefix(_REPLACED))
    }


def _at(found: Mapping[int, Path], step: int) -> Path:
    if step not in found:
        at_hand = ", ".join(map(str, sorted(found))) or "none"
        raise UserError("step", f"there is no checkpoint at step {step}; at hand: {at_hand}")
    return found[step]


def _latest(folder: Path) -> int | None:
    """The step that `latest` names, or None if it is missing or damaged."""
    return _named_by(_latest_content(folder))


def _latest_content(folder: Path) -> bytes | None:
    try:
        with (folder / LATEST).open("rb") as file:
            return file.read(32)
    except OSError:
        return None


def _named_by(latest: bytes | None) -> int | None:
    name = (latest or b"").decode("ascii", "replace")
    return int(name) if name.endswith("\n") and _NAME.fullmatch(name[:-1]) else None


def _order(steps: Iterable[int], latest: int | None) -> list[int]:
    """The order in which checkpoints are tried.

    What lies beyond `latest` comes last: it is of a future that was given up, or of a moment at
    which the process died, and then the run has not heard of it.
    """
    newest_first = sorted(steps, reverse=True)
    if latest is None or latest not in newest_first:
        return newest_first
    return sorted(newest_first, key=lambda step: step > latest)


def _newest_first(folder: Path, found: Mapping[int, Path]) -> tuple[list[int], list[str]]:
    """The order in which checkpoints are tried, and what is odd about them."""
    latest = _latest(folder)
    order = _order(found, latest)
    if latest is None or latest not in found:
        odd = f"{folder / LATEST} is missing or damaged: the newest checkpoint is tried first"
        return order, [odd] if found else []
    odd = f"checkpoint {{}} is passed over: {folder / LATEST} names checkpoint {latest}"
    return order, [odd.format(step) for step in order if step > latest]


def _read(
    path: Path,
    step: int,
    device: torch.device | str,
    verify: Callable[[State], None] | None,
    limit: int | None,
) -> Checkpoint:
    seals = _seals(path)
    if limit is not None and sum(seal.bytes for seal in seals.values()) > limit:
        raise UserError(str(path), "is far too large to be a checkpoint of this run's model")
    # Every file is verified before the first is parsed.
    contents = {name: seal.read(path / name) for name, seal in seals.items()}
    record = _state_record(contents.pop(STATE), path, step)
    names = [f"{group}.safetensors" for group in record["groups"]]
    if names != sorted(contents):
        raise UserError(str(path / CHECKSUMS), "is damaged: it does not list every file")
    if verify is not None:
        verify(record["state"])
    tensors = {
        group: _on(device, tensor_files.from_bytes(contents[name], path / name))
        for group, name in zip(record["groups"], names, strict=True)
    }
    return Checkpoint(step, tensors, record["state"], path)


def _seals(path: Path) -> dict[str, Seal]:
    return parse_seals(read_limited(path / CHECKSUMS, JSON_LIMIT), path / CHECKSUMS)


def _state_record(content: bytes, path: Path, step: int) -> dict[str, Any]:
    record = parse_json(content, path / STATE)
    match record:
        case {"step": saved, "groups": [*_], "state": {}} if saved == step:
            return record
    raise UserError(str(path / STATE), f"is not the state of checkpoint {step}")


def _on(device: torch.device | str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in tensors.items()}
