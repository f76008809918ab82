"""Arranged convolutions against the library's own."""

import pytest
import torch
from torch import Tensor, nn

from stormrl.nn.cpu import strided
from stormrl.nn.cpu.strided import Doubling, Halving, halve_relu


def assert_equal(layer: nn.Module, x: Tensor, expected: Tensor) -> None:
    y, inputs, grad = layer(x), [x, *layer.parameters()], torch.randn(expected.shape).double()
    torch.testing.assert_close(y, expected)
    gradients = (torch.autograd.grad(out, inputs, grad) for out in (y, expected))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("few", [0, 8])
@pytest.mark.parametrize(("height", "width"), [(4, 4), (6, 4), (8, 8), (10, 12)])
def test_halving_and_its_gradients_are_those_of_a_convolution(
    few: int, height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strided, "FEW_CHANNELS", few)
    layer = Halving(6, 5).double()
    x = torch.randn(3, 6, 2 * height, 2 * width, dtype=torch.float64, requires_grad=True)
    assert_equal(layer, x, nn.Conv2d.forward(layer, x))


@pytest.mark.parametrize("few", [0, 8])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("height", "width"), [(4, 4), (6, 4), (8, 8), (10, 12)])
def test_doubling_and_its_gradients_are_those_of_a_transposed_convolution(
    few: int, bias: bool, height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strided, "FEW_CHANNELS", few)
    layer = Doubling(5, 6, bias=bias).double()
    x = torch.randn(3, 5, height, width, dtype=torch.float64, requires_grad=True)
    assert_equal(layer, x, nn.ConvTranspose2d.forward(layer, x))


def test_pictures_that_lie_channels_last_give_the_same() -> None:
    torch.manual_seed(0)
    for layer in (Halving(3, 8), Doubling(8, 3, bias=True)):
        x = torch.randn(2, layer.in_channels, 8, 8)
        last = x.contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(layer(x), layer(last))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("grad", [False, True], ids=["no gradients", "gradients"])
def test_halving_with_relu_is_a_convolution_and_relu(dtype: torch.dtype, grad: bool) -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 3, 8, 8), torch.randn(5, 3, 4, 4), torch.randn(5)
    expected = torch.nn.functional.conv2d(x, weight, bias, stride=2, padding=1).clamp(min=0)
    with torch.set_grad_enabled(grad):
        y = halve_relu(x.to(dtype).contiguous(memory_format=torch.channels_last), weight, bias)
    assert y.dtype == dtype
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 0.1}[dtype]
    torch.testing.assert_close(y.float(), expected, rtol=0, atol=tolerance)
