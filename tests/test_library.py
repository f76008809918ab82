"""`stormrl.train` in somebody else's program: the program is afterwards what it was."""

import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from small_runs import small_config
from stormrl.errors import UserError
from stormrl.machine.process import flushes_denormals, kept_process
from stormrl.runs import whole


def settings() -> dict[str, object]:
    """What training sets, read without its own words."""
    cuda = torch.backends.cuda
    return {
        "numbers": (torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()),  # noqa: NPY002
        "denormal": (np.float32(1e-38) * np.float32(1e-4)).item(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "attention": (
            cuda.flash_sdp_enabled(),
            cuda.mem_efficient_sdp_enabled(),
            cuda.cudnn_sdp_enabled(),
        ),
        "benchmark": torch.backends.cudnn.benchmark,
        "workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    }


def seed() -> None:
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002
    random.seed(7)


def train(path: Path) -> None:
    assert whole.train(small_config(steps=20, deterministic=True), path).finished


def train_and_go_on(path: Path) -> None:
    train(path)
    assert whole.resume(path, steps=22).finished


def fail(path: Path) -> None:
    def refuse(trainer: object) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError):
        whole.train(small_config(deterministic=True), path, started=refuse)


@pytest.mark.parametrize("work", [train, train_and_go_on, fail])
@pytest.mark.parametrize("benchmark", [False, True])
def test_training_leaves_the_program_as_it_was(
    tmp_path: Path, work: Callable[[Path], None], benchmark: bool
) -> None:
    torch.backends.cudnn.benchmark = benchmark
    try:
        seed()
        expected = settings()
        seed()
        work(tmp_path / "run")
        assert settings() == expected
    finally:
        torch.backends.cudnn.benchmark = False


def test_a_program_that_flushes_denormals_goes_on_to() -> None:
    try:
        torch.set_flush_denormal(True)
        with kept_process():
            torch.set_flush_denormal(False)
            assert not flushes_denormals()
        assert flushes_denormals()
    finally:
        torch.set_flush_denormal(False)
    assert not flushes_denormals()


@pytest.mark.parametrize("before", [None, ":16:8"])
def test_the_variable_of_cublas_is_put_back(
    monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    if before is not None:
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", before)
    with kept_process():
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == before


def test_an_unknown_protocol_is_a_mistake_everywhere(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="protocol: 'chess' is unknown; give one of official"):
        whole.train(small_config(protocol="chess"), tmp_path / "run")
