"""Named tensors as bytes in the safetensors format: data alone, nothing that could execute."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from stormrl.disk.files import plain_size, readable
from stormrl.errors import UserError

HEADER_LIMIT = 16 * 2**20
"""No header of a file of ours comes near this many bytes; each tensor takes some hundred."""


class Layout(NamedTuple):
    """What a file's header says of a tensor."""

    dtype: str
    shape: tuple[int, ...]


def to_bytes(tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """Any dense tensors on any device, views and shared memory included; texts for the header."""
    owned = {name: _owned(tensor) for name, tensor in tensors.items()}
    return safetensors.torch.save(owned, metadata)


def from_bytes(content: bytes, path: Path) -> dict[str, Tensor]:
    """The tensors in the content of `path`, on CPU. Raises `UserError` if it is malformed."""
    _check_header(content[:8], path)
    try:
        return safetensors.torch.load(content)
    except (safetensors.SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise UserError(str(path), f"is not a usable safetensors file: {error}") from None


def layouts(path: Path) -> dict[str, Layout]:
    """The tensors that a file holds, from its header alone, checked against the file's size.

    Raises `UserError` if the file is missing or malformed.
    """
    with _opened(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        return {n: Layout(s.get_dtype(), tuple(s.get_shape())) for n, s in slices.items()}


def selected(path: Path, names: Collection[str]) -> dict[str, Tensor]:
    """Some tensors of a file, on CPU; the others take no memory. Raises as `layouts` does."""
    with _opened(path) as file:
        return {name: file.get_tensor(name).clone() for name in names}


def stretches(path: Path, name: str, rows: int) -> Iterator[Tensor]:
    """One tensor of a file piece by piece, so many rows at a time. Raises as `layouts` does."""
    with _opened(path) as file:
        whole = file.get_slice(name)
        for first in range(0, whole.get_shape()[0], rows):
            yield whole[first : first + rows]


def metadata(path: Path) -> dict[str, str]:
    """The texts in a file's header. Raises `UserError` if it is missing or malformed."""
    with _opened(path) as file:
        return file.metadata() or {}


def check_finite(saved: Mapping[str, Tensor], group: str) -> None:
    """Raises `UserError`, which names it, if a tensor holds numbers that are not finite."""
    bad = [name for name, tensor in saved.items() if not bool(tensor.isfinite().all())]
    if bad:
        others = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        what = f"{group} holds numbers that are not finite, in {bad[0]!r}{others}"
        raise UserError("checkpoint", f"{what}; use another one, the agent has learned nothing")


def check_tensors(live: Mapping[str, Tensor], saved: Mapping[str, Tensor], group: str) -> None:
    """Raises `UserError` unless `saved` can take the place of `live`, tensor for tensor."""
    for name in sorted(saved.keys() - live.keys()):
        raise _mismatch(group, f"holds {name!r}, which this model does not have")
    for name, expected in live.items():
        if name not in saved:
            raise _mismatch(group, f"lacks {name!r}")
        given = saved[name]
        if given.shape != expected.shape:
            shapes = f"{list(given.shape)}, expected shape {list(expected.shape)}"
            raise _mismatch(group, f"holds {name!r} of shape {shapes}")
        if given.dtype != expected.dtype:
            dtypes = f"{given.dtype}, expected dtype {expected.dtype}"
            raise _mismatch(group, f"holds {name!r} as {dtypes}")


@contextmanager
def _opened(path: Path) -> Iterator[safetensors.safe_open]:
    """Only the header is read, and checked against the file's size."""
    plain_size(path)
    with readable(path), path.open("rb") as start:
        _check_header(start.read(8), path)
    try:
        with readable(path), safetensors.safe_open(path, framework="pt") as file:
            yield file
    except safetensors.SafetensorError as error:
        raise UserError(str(path), f"is not a usable safetensors file: {error}") from None


def _check_header(start: bytes, path: Path) -> None:
    """A file begins with the length of its header, which as objects takes many times as much."""
    if int.from_bytes(start, "little") > HEADER_LIMIT:
        raise UserError(str(path), "is not a usable safetensors file: its header is far too large")


def _owned(tensor: Tensor) -> Tensor:
    """A copy that shares memory with no other tensor, as the format demands."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _mismatch(group: str, what: str) -> UserError:
    remedy = "use the configuration that the checkpoint was saved with"
    return UserError("checkpoint", f"{group} {what}; {remedy}")
