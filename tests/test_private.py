"""Private names of libraries: what is said where a release has changed them."""

import subprocess
import sys

import pytest
import torch

from stormrl.errors import UserError
from stormrl.nn.private import check_takes, private


def test_what_is_there_is_what_pytorch_has() -> None:
    assert private("nn.functional.relu") is torch.nn.functional.relu
    check_takes(torch.nn.functional.pad, "mode", "value")


@pytest.mark.parametrize("path", ["cpu._is_made_of_cheese", "ops.mkldnn._no_such_convolution"])
def test_what_is_missing_is_named(path: str) -> None:
    with pytest.raises(UserError, match=rf"torch: .* lacks torch\.{path}; install .*torch>="):
        private(path)


def test_a_parameter_that_is_missing_is_named() -> None:
    with pytest.raises(UserError, match=r"lacks found_inf of torch\.nn\.functional\.relu"):
        check_takes(torch.nn.functional.relu, "input", "found_inf")


WITHOUT = {
    "import torch; del torch.cpu._is_amx_tile_supported": "torch.cpu._is_amx_tile_supported",
    "import sys, torch; sys.modules['torch.optim.adam'].adam = lambda params: 0": "grad_scale",
    "import tyro._errors; del tyro._errors.BadValue": "BadValue",
}


@pytest.mark.parametrize(("code", "name"), WITHOUT.items(), ids=WITHOUT.values())
def test_a_command_says_at_its_start_which_name_is_missing(code: str, name: str) -> None:
    command = "import sys, stormrl.cli; sys.exit(stormrl.cli.main(['bench', '--repeats', '2']))"
    program = f"{code}\n{command}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert name in done.stderr
    assert "pip install" in done.stderr
