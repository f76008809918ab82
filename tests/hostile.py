"""What somebody who makes a run directory on purpose may put into it, and what must come of it."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from stormrl.disk import checkpoint
from stormrl.disk.files import Seal

ESCAPES = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202e"
"""Clears a terminal, names its window, and turns the direction of what follows."""
SECRET = "nobody writes here\n"


def newest(run: Path) -> Path:
    """The folder of its newest checkpoint."""
    return run / "checkpoints" / (run / "checkpoints" / "latest").read_text().strip()


def sealed(path: Path, content: bytes) -> None:
    """Write a file of a checkpoint so that its checksums agree: it was damaged on purpose."""
    path.write_bytes(content)
    sums = json.loads((path.parent / checkpoint.CHECKSUMS).read_bytes())
    sums[path.name] = Seal.of(content)._asdict()
    (path.parent / checkpoint.CHECKSUMS).write_text(json.dumps(sums))


def edit_tensors(run: Path, group: str, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Change the tensors of a group in the newest checkpoint."""
    path = newest(run) / f"{group}.safetensors"
    tensors = safetensors.torch.load(path.read_bytes())
    change(tensors)
    sealed(path, safetensors.torch.save(tensors))


def edit_state(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what the newest checkpoint keeps beside tensors."""
    path = newest(run) / checkpoint.STATE
    record = json.loads(path.read_bytes())
    change(record["state"])
    sealed(path, json.dumps(record).encode())


def edit_replay(run: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Change the tensors of the newest file of replay; the checkpoint knows them so."""
    path = max((run / "replay").glob("*.safetensors"))
    tensors = safetensors.torch.load(path.read_bytes())
    change(tensors)
    path.write_bytes(safetensors.torch.save(tensors))

    def seal(state: dict[str, Any]) -> None:
        (entry,) = [entry for entry in state["replay"]["chunks"] if entry["file"] == path.name]
        entry |= Seal.of(path.read_bytes())._asdict()

    edit_state(run, seal)


def edit_config(run: Path, field: str, value: object) -> None:
    """Set a field of a run's config, by its dotted name."""
    record = json.loads((run / "config.json").read_bytes())
    part = record["config"]
    *path, name = field.split(".")
    for step in path:
        part = part[step]
    part[name] = value
    (run / "config.json").write_text(json.dumps(record))


def tree(folder: Path) -> dict[str, bytes | str]:
    """Everything in a folder: files with what they hold, links with where they lead."""
    return {
        str(path.relative_to(folder)): os.readlink(path)
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else ""
        for path in sorted(folder.rglob("*"))
    }


def controls(text: str) -> set[str]:
    """Characters that a terminal would obey."""
    return {letter for letter in text if not letter.isprintable()} - {"\n"}
