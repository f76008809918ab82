"""Replay buffer on disk, written as it grows: a checkpoint costs what is new since the last one.

Steps lie in immutable files `<first>-<last>.safetensors`, numbered from the run's first step. A
checkpoint keeps a manifest: the files that made up replay at that moment.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stormrl.disk import tensor_files
from stormrl.disk.files import Seal, make_folder, replace, writable
from stormrl.disk.tensor_files import Layout
from stormrl.errors import UserError
from stormrl.experience.replay import Replay

CHUNK_STEPS = 2_500
"""Most steps in one file, 31 MB of 64 x 64 RGB images; bounds the memory of writing and reading."""

FIELDS = ("obs", "action", "reward", "continues", "is_first")
DTYPES = {torch.uint8: "U8", torch.int64: "I64", torch.float32: "F32", torch.bool: "BOOL"}

_CHUNK_FILE = re.compile(r"[0-9]+-[0-9]+\.safetensors")

Manifest = dict[str, Any]
"""{"added": n, "chunks": [{"file", "first", "count", "sha256", "bytes"}, ..]}, ready for JSON."""


@dataclass(frozen=True)
class Chunk:
    """One file: `count` successive steps from step `first` on."""

    first: int
    count: int
    seal: Seal

    @property
    def end(self) -> int:
        """The step after the last one."""
        return self.first + self.count

    @property
    def file(self) -> str:
        """Name of the file; it follows from the steps, so that no manifest can name another."""
        return f"{self.first:09d}-{self.end - 1:09d}.safetensors"

    def as_dict(self) -> dict[str, Any]:
        """The chunk's entry in a manifest."""
        return {
            "file": self.file,
            "first": self.first,
            "count": self.count,
            "sha256": self.seal.sha256,
            "bytes": self.seal.bytes,
        }


class ReplayStore:
    """Keeps a replay's steps in a folder of the run, such as runs/pong/replay."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._chunks: list[Chunk] = []
        self._saved = 0

    def append_new(self, replay: Replay) -> Manifest:
        """Write the steps added since the last call, or since `restore`; the manifest of all.

        Raises `UserError` if the system refuses to write; files of earlier manifests stay.
        """
        oldest = replay.added - len(replay)
        with writable(f"replay to {self.folder}", self.folder.parent):
            make_folder(self.folder)
            # Steps that were overwritten before they were saved are lost to sampling as well.
            for first in range(max(self._saved, oldest), replay.added, CHUNK_STEPS):
                chunk = self._write(replay, first, min(first + CHUNK_STEPS, replay.added))
                self._chunks.append(chunk)
                self._saved = chunk.end
        self._chunks = [chunk for chunk in self._chunks if chunk.end > oldest]
        return {"added": replay.added, "chunks": [chunk.as_dict() for chunk in self._chunks]}

    def verify(self, manifest: Manifest, replay: Replay) -> None:
        """Raises `UserError` unless every file of the manifest is there, undamaged, and fits."""
        for chunk in _parse(manifest):
            self._check_layout(replay, chunk)
            chunk.seal.verify(self.folder / chunk.file)

    def restore(self, replay: Replay, manifest: Manifest) -> None:
        """Fill a replay in place: every step in the slot it was in.

        Raises `UserError` if a file is damaged, or does not fit the replay.
        """
        chunks = _parse(manifest)
        added = manifest["added"]
        if added and chunks[0].first > max(0, added - replay.capacity):
            remedy = "resume with the capacity that the run was started with"
            raise UserError("replay.capacity", f"is larger than what was saved; {remedy}")
        for chunk in chunks:
            self._read(replay, chunk)
        replay.moved_to(added)
        self._chunks, self._saved = chunks, added

    def prune(self, manifests: Iterable[Manifest]) -> None:
        """Delete the files that none of `manifests` lists: those of every checkpoint to be kept."""
        kept = {chunk.file for manifest in manifests for chunk in _parse(manifest)}
        with writable(f"to {self.folder}", self.folder.parent):
            for path in list(self.folder.glob("*.safetensors")):
                if _CHUNK_FILE.fullmatch(path.name) and path.name not in kept:
                    path.unlink()

    def _write(self, replay: Replay, first: int, end: int) -> Chunk:
        tensors = {
            field: torch.cat([ring[slots] for slots in _slots(first, end, replay.capacity)])
            for field, ring in _rings(replay).items()
        }
        content = tensor_files.to_bytes(tensors)
        chunk = Chunk(first, end - first, Seal.of(content))
        # A file of this name can be left over from a future that a resume has given up.
        replace(self.folder / chunk.file, content)
        return chunk

    def _read(self, replay: Replay, chunk: Chunk) -> None:
        path = self.folder / chunk.file
        self._check_layout(replay, chunk)
        tensors = tensor_files.from_bytes(chunk.seal.read(path), path)
        # Steps that the ring no longer held are overwritten again by the chunks that follow.
        for field, ring in _rings(replay).items():
            steps = tensors[field]
            for slots in _slots(chunk.first, chunk.end, replay.capacity):
                length = slots.stop - slots.start
                ring[slots] = steps[:length].to(ring.device)
                steps = steps[length:]

    def _check_layout(self, replay: Replay, chunk: Chunk) -> None:
        """Known from the header alone, before the content takes memory or time."""
        path = self.folder / chunk.file
        expected = {
            field: Layout(DTYPES[ring.dtype], (chunk.count, *ring.shape[1:]))
            for field, ring in _rings(replay).items()
        }
        if tensor_files.layouts(path) != expected:
            raise UserError(str(path), "does not hold steps of this run's kind")


def _rings(replay: Replay) -> dict[str, Tensor]:
    return {field: getattr(replay, field) for field in FIELDS}


def _slots(first: int, end: int, capacity: int) -> Iterator[slice]:
    """Where the steps from `first` to before `end` lie in the ring: one stretch or two."""
    while first < end:
        start = first % capacity
        stop = min(capacity, start + end - first)
        yield slice(start, stop)
        first += stop - start


def _parse(manifest: object) -> list[Chunk]:
    """The files of a manifest. Raises `UserError` unless they join up to one stretch of steps."""
    match manifest:
        case {"added": int(added), "chunks": [*records]}:
            chunks = [_chunk(record) for record in records]
        case _:
            raise UserError("replay", "the checkpoint's list of replay files is damaged")
    ends = [chunks[0].first if chunks else 0, *(chunk.end for chunk in chunks)]
    if [chunk.first for chunk in chunks] != ends[:-1] or ends[-1] != added:
        raise UserError("replay", "the checkpoint's list of replay files has gaps")
    return chunks


def _chunk(record: object) -> Chunk:
    match record:
        case {"file": str(file), "first": int(first), "count": int(count)}:
            try:
                chunk = Chunk(first, count, Seal.parse(record))
            except ValueError:
                pass
            else:
                if first >= 0 and 0 < count <= CHUNK_STEPS and file == chunk.file:
                    return chunk
    raise UserError("replay", "an entry of the checkpoint's list of replay files is damaged")
