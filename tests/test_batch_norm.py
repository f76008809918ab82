"""BatchNorm against the library's, where channels are few and where they are many."""

import copy

import pytest
import torch
from torch import nn

from stormrl.nn.cpu.batch_norm import BatchNorm


@pytest.mark.parametrize("channels", [4, 8, 16, 24])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_numbers_gradients_and_statistics_are_the_librarys(
    channels: int, layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    ours, theirs = BatchNorm(channels).double(), nn.BatchNorm2d(channels).double()
    with torch.no_grad():
        ours.weight.uniform_(0.5, 2)
        ours.bias.normal_()
    theirs.load_state_dict(copy.deepcopy(ours.state_dict()))
    x = torch.randn(3, channels, 6, 4, dtype=torch.float64).contiguous(memory_format=layout)
    x.requires_grad_()
    for training in (True, True, False):
        y, expected = ours.train(training)(x), theirs.train(training)(x)
        torch.testing.assert_close(y, expected)
        grad = torch.randn_like(y)
        gradients = (
            torch.autograd.grad(out, [x, *module.parameters()], grad)
            for out, module in ((y, ours), (expected, theirs))
        )
        for mine, reference in zip(*gradients, strict=True):
            torch.testing.assert_close(mine, reference)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)


@pytest.mark.parametrize("channels", [8, 24])
def test_channels_stay_last_in_memory(channels: int) -> None:
    x = torch.randn(2, channels, 4, 4).contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    y = BatchNorm(channels)(x)
    (grad,) = torch.autograd.grad(y.square().sum(), x)
    for pictures in (y, grad):
        assert pictures.is_contiguous(memory_format=torch.channels_last)
