"""The state of every global random generator as tensors; nothing is pickled."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from stormrl.errors import UserError

WORDS = 624
"""Length of the Mersenne Twister's state."""


def seed_all(seed: int) -> None:
    """Start every random stream of the process from `seed`."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - environments may still draw from it
    random.seed(seed)


def random_state() -> dict[str, Tensor]:
    """State of PyTorch's generators (CPU, and each CUDA device in use), NumPy's and Python's."""
    return {"torch": torch.get_rng_state(), **_cuda_state(), **_numpy_state(), **_python_state()}


def restore_random_state(state: Mapping[str, Tensor]) -> None:
    """Put the generators back; those of CUDA devices that this machine lacks are left out.

    Raises `UserError` if `state` is not what `random_state` returns.
    """
    try:
        torch.set_rng_state(state["torch"].cpu())
        for index in range(torch.cuda.device_count()):
            if f"cuda_{index}" in state:
                torch.cuda.set_rng_state(state[f"cuda_{index}"].cpu(), index)
        _restore_numpy(state)
        _restore_python(state)
    except (KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise UserError("checkpoint", f"holds no usable random state: {error}") from error


@contextmanager
def kept_random_state() -> Iterator[None]:
    """Whatever is drawn while this is entered, the generators are afterwards as they were."""
    state = random_state()
    try:
        yield
    finally:
        restore_random_state(state)


def _cuda_state() -> dict[str, Tensor]:
    # Asking for a generator would start CUDA, which a run on CPU does not want.
    if not torch.cuda.is_initialized():
        return {}
    count = torch.cuda.device_count()
    return {f"cuda_{index}": torch.cuda.get_rng_state(index) for index in range(count)}


def _numpy_state() -> dict[str, Tensor]:
    state = np.random.get_state(legacy=False)  # noqa: NPY002 - libraries draw from it
    words = state["state"]
    return {
        "numpy": torch.tensor([*words["key"].tolist(), words["pos"], state["has_gauss"]]),
        "numpy_gauss": torch.tensor(state["gauss"], dtype=torch.float64),
    }


def _restore_numpy(state: Mapping[str, Tensor]) -> None:
    *key, position, has_gauss = state["numpy"].tolist()
    words = np.array(key, dtype=np.uint32)
    # NumPy itself would read beyond the end.
    if len(words) != WORDS or not 0 <= position <= WORDS:
        raise ValueError(f"NumPy's position is {position} of {len(words)}")
    gauss = state["numpy_gauss"].item()
    np.random.set_state(("MT19937", words, position, has_gauss, gauss))  # noqa: NPY002


def _python_state() -> dict[str, Tensor]:
    _, words, gauss = random.getstate()
    left_over = [] if gauss is None else [gauss]
    return {
        "python": torch.tensor(words),
        "python_gauss": torch.tensor(left_over, dtype=torch.float64),
    }


def _restore_python(state: Mapping[str, Tensor]) -> None:
    left_over = state["python_gauss"].tolist()
    random.setstate((3, tuple(state["python"].tolist()), left_over[0] if left_over else None))
