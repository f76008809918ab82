"""The GPU checklist where there is no GPU: what it keeps, what it skips, what it compares."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import gpu_checklist
from gpu_steps.setting import difference
from gpu_steps.variants import LAYERS, by_products, by_sums, default, relative

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

WITHOUT_EMULATOR = """
import importlib, sys
sys.modules.update(dict.fromkeys(("gymnasium", "ale_py", "cv2", "rich", "tyro", "av", "scipy")))
sys.path.insert(0, sys.argv[1])
import gpu_checklist
for name in gpu_checklist.STEPS:
    importlib.import_module(f"gpu_steps.{name}").findings
"""


def checklist(out: Path, *flags: str) -> tuple[int, dict]:
    script = str(BENCHMARKS / "gpu_checklist.py")
    common = ["--device", "cpu", "--size", "toy", "--updates", "2", "--commit", "abc"]
    command = [sys.executable, script, *common, "--out", str(out), *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    steps = json.loads((out / "checklist.json").read_text())["steps"]
    assert json.loads(done.stdout.splitlines()[-1]) == steps
    return done.returncode, steps


def test_a_step_that_runs_out_of_time_costs_the_others_nothing(tmp_path: Path) -> None:
    code, steps = checklist(tmp_path, "--steps", "compiled", "--timeout", "0.2")
    assert (code, steps["compiled"]["status"]) == (1, "timed out")
    code, steps = checklist(tmp_path, "--steps", "capture")
    assert code == 0
    assert list(steps) == ["capture", "compiled"]
    capture = steps["capture"]
    assert capture["status"] == "ok"
    assert capture["results"]["eager_twice"]["bit_equal"] is True
    assert capture["results"]["by_hand"] == "skipped: needs CUDA"
    about = capture["circumstances"]
    assert (about["commit"], about["device"], about["size"]) == ("abc", "cpu", "toy")
    assert {"torch", "cuda", "python"} <= set(about["versions"])


def test_what_a_step_found_before_it_died_is_kept() -> None:
    output = '{"circumstances": {"device": "cuda"}}\nsome library\n{"a": 1}\n{"b": [2]}\n{"c": '
    found = gpu_checklist._found(output)
    assert found == {"circumstances": {"device": "cuda"}, "results": {"a": 1, "b": [2]}}


def test_no_step_needs_an_emulator_or_the_command_line() -> None:
    command = [sys.executable, "-c", WITHOUT_EMULATOR, str(BENCHMARKS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_states_differ_by_their_worst_tensor() -> None:
    one = {"a": torch.ones(4), "b": torch.full((9,), 2.0)}
    assert difference(one, one)["bit_equal"] is True
    found = difference(one, {**one, "b": torch.full((9,), 2.5)})
    assert found == {"bit_equal": False, "largest_relative": 0.25, "in": "b"}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("after", [3, 5])
def test_every_form_of_a_decoder_layer_is_the_transposed_convolution(name: str, after: int) -> None:
    x = torch.randn(2, 6, 5, 7, requires_grad=True)
    weight = torch.randn(6, after, 4, 4, requires_grad=True)
    bias = torch.randn(after, requires_grad=True)
    expected, found = LAYERS["transposed"](x, weight, bias), LAYERS[name](x, weight, bias)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    upstream = torch.randn_like(expected)
    gradients = (torch.autograd.grad(y, (x, weight, bias), upstream) for y in (expected, found))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("attend", [by_products, by_sums])
def test_every_form_of_attention_with_one_query_is_the_same(attend) -> None:
    q, k, v = torch.randn(3, 2, 1, 4), torch.randn(3, 2, 6, 4), torch.randn(3, 2, 6, 4)
    mask = torch.rand(3, 1, 1, 6) < 0.5
    mask[..., 0] = True
    assert relative(attend(q, k, v, mask), default(q, k, v, mask).double()) < 1e-5
