import random

import numpy as np
import pytest
import torch

from stormrl.disk import checkpoint
from stormrl.errors import UserError
from stormrl.machine.random_state import random_state, restore_random_state


def draw() -> list[float]:
    """One number of each kind from each generator; the Gaussian ones leave half a pair behind."""
    return [
        torch.rand(()).item(),
        torch.randn(()).item(),
        np.random.random(),  # noqa: NPY002
        np.random.standard_normal(),  # noqa: NPY002
        random.random(),
        random.gauss(0, 1),
    ]


@pytest.mark.parametrize("before", [0, 1, 2, 700])
def test_every_generator_goes_on_where_it_was(tmp_path, before: int) -> None:
    for _ in range(before):
        draw()
    checkpoint.save(tmp_path, 1, {"random": random_state()}, {})
    expected = [draw() for _ in range(700)]
    restore_random_state(checkpoint.load(tmp_path).tensors["random"])
    assert [draw() for _ in range(700)] == expected


@pytest.mark.gpu
def test_cuda_goes_on_where_it_was() -> None:
    torch.rand(3, device="cuda")
    saved = random_state()
    expected = torch.rand(8, device="cuda")
    restore_random_state(saved)
    assert torch.equal(torch.rand(8, device="cuda"), expected)


def test_a_malformed_state_is_refused() -> None:
    good = random_state()
    reads_beyond_its_end = good["numpy"].clone()
    reads_beyond_its_end[-2] = 625
    malformed = [
        {},
        good | {"torch": torch.zeros(3, dtype=torch.uint8)},
        good | {"torch": good["torch"].float()},
        good | {"numpy": good["numpy"][:-1]},
        good | {"numpy": -good["numpy"]},
        good | {"numpy": torch.tensor(1)},
        good | {"numpy": torch.tensor([0, 0])},
        good | {"numpy": reads_beyond_its_end},
        good | {"python": good["python"][1:]},
        good | {"python": good["python"] + 2**40},
    ]
    for state in malformed:
        with pytest.raises(UserError, match=r"^checkpoint: holds no usable random state"):
            restore_random_state(state)
