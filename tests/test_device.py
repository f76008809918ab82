"""Which arithmetic a run gets, and that it keeps it."""

import time
from pathlib import Path

import pytest
import torch

from small_runs import new_run, small_config
from stormrl.disk.run_directory import RunDirectory
from stormrl.machine import device
from stormrl.runs import whole


@pytest.fixture(autouse=True)
def unmeasured():
    """No measurement of another test's counts, and none of these for others."""
    device.fastest_on_cpu.cache_clear()
    yield
    device.fastest_on_cpu.cache_clear()


@pytest.mark.parametrize(
    ("listed", "bf16_s", "expected"),
    [
        (True, 0.7, torch.bfloat16),
        (True, 1.2, torch.bfloat16),  # The processor's word counts where both are about as fast.
        (True, 1.4, torch.float32),
        (False, 0.7, torch.bfloat16),
        (False, 0.9, torch.float32),
    ],
)
def test_auto_takes_what_is_measured_faster(
    listed: bool, bf16_s: float, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that says how long each piece of work took; float32 always a second."""
    now = [0.0]

    class Slow(torch.nn.Module):
        def __init__(self, *_: object) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(()))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            now[0] += bf16_s if torch.is_autocast_enabled("cpu") else 1.0
            return self.weight

    monkeypatch.setattr(device, "Encoder", Slow)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: listed)
    assert device.choose_precision("auto", torch.device("cpu")) == expected


def test_a_run_keeps_the_arithmetic_that_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "fastest_on_cpu", lambda: torch.float32)
    whole.train(small_config(steps=20, precision="auto"), tmp_path / "run")
    monkeypatch.setattr(device, "fastest_on_cpu", lambda: torch.bfloat16)
    assert RunDirectory.open(tmp_path / "run").config.precision == "fp32"
    kept = []
    whole.resume(tmp_path / "run", 25, started=lambda trainer: kept.append(trainer.backend.dtype))
    assert kept == [torch.float32]


def test_a_run_that_began_before_this_was_measured_goes_on_as_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what the processor lists, and for good."""
    new_run(tmp_path / "run", steps=20, precision="auto")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    monkeypatch.setattr(device, "fastest_on_cpu", lambda: torch.float32)
    kept = []
    whole.resume(tmp_path / "run", started=lambda trainer: kept.append(trainer.backend.dtype))
    assert kept == [torch.bfloat16]
    assert RunDirectory.open(tmp_path / "run").config.precision == "bf16"


def test_measuring_leaves_the_random_stream_alone() -> None:
    torch.manual_seed(3)
    device.fastest_on_cpu()
    drawn = torch.rand(3)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(3))
