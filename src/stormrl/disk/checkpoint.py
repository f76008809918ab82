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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stormrl.disk import tensor_files
from stormrl.disk.files import (
    Seal,
    parse_json,
    read_json,
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

Tensors = Mapping[str, Mapping[str, Tensor]]
State = dict[str, Any]


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
        folder.mkdir(exist_ok=True)
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
    for candidate in order:
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


def steps(run: str | Path) -> list[int]:
    """Steps of the checkpoints at hand, in ascending order, good or damaged."""
    return sorted(_found(Path(run)))


def layouts(run: str | Path, group: str) -> dict[str, tensor_files.Layout]:
    """What the tensors of a group are, by the header of the newest checkpoint's file alone.

    Raises `UserError` if there is no checkpoint, or none with such a file.
    """
    found = _found(Path(run))
    if not found:
        raise UserError("run_dir", f"{run} holds no checkpoint yet; let it train until it does")
    return tensor_files.layouts(found[max(found)] / f"{group}.safetensors")


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
        names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    # In this order a successor takes the place of the one it replaces.
    return {
        int(name.removeprefix(_REPLACED)): folder / name
        for name in names
        if _NAME.fullmatch(name.removeprefix(_REPLACED))
    }


def _at(found: Mapping[int, Path], step: int) -> Path:
    if step not in found:
        at_hand = ", ".join(map(str, sorted(found))) or "none"
        raise UserError("step", f"there is no checkpoint at step {step}; at hand: {at_hand}")
    return found[step]


def _latest(folder: Path) -> int | None:
    """The step that `latest` names, or None if it is missing or damaged."""
    try:
        with (folder / LATEST).open("rb") as file:
            name = file.read(32).decode("ascii")
    except (OSError, ValueError):
        return None
    return int(name) if name.endswith("\n") and _NAME.fullmatch(name[:-1]) else None


def _newest_first(folder: Path, found: Mapping[int, Path]) -> tuple[list[int], list[str]]:
    """The order in which checkpoints are tried, and what is odd about them."""
    newest_first = sorted(found, reverse=True)
    latest = _latest(folder)
    if latest is None or latest not in found:
        odd = f"{folder / LATEST} is missing or damaged: the newest checkpoint is tried first"
        return newest_first, [odd] if found else []
    beyond = [step for step in newest_first if step > latest]
    odd = f"checkpoint {{}} is passed over: {folder / LATEST} names checkpoint {latest}"
    order = [step for step in newest_first if step <= latest] + beyond
    return order, [odd.format(step) for step in beyond]


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
    """What checksums.json says of each file; names are plain, so no path leaves the folder."""
    listed = read_json(path / CHECKSUMS)
    plain = all(name == STATE or _TENSORS.fullmatch(name) for name in listed)
    if STATE not in listed or not plain:
        raise UserError(str(path / CHECKSUMS), "is damaged: it lists other files than it should")
    try:
        return {name: Seal.parse(record) for name, record in listed.items()}
    except ValueError as error:
        raise UserError(str(path / CHECKSUMS), f"is damaged: {error}") from None


def _state_record(content: bytes, path: Path, step: int) -> dict[str, Any]:
    record = parse_json(content, path / STATE)
    match record:
        case {"step": saved, "groups": [*_], "state": {}} if saved == step:
            return record
    raise UserError(str(path / STATE), f"is not the state of checkpoint {step}")


def _on(device: torch.device | str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in tensors.items()}
