"""PyTorch's own layers and those made for CPUs are one network."""

import torch
from torch import Tensor, nn

from miniature import SPACES, shrunk
from stormrl.learning.learner import Learner
from stormrl.machine.device import Backend
from stormrl.nn.conv import Decoder, Encoder
from stormrl.nn.cpu.batch_norm import BatchNorm
from stormrl.nn.cpu.strided import Doubling, Halving
from stormrl.nn.layers import FOR_CPU, PLAIN, Layers, layers_for

LATENT = 12


class Both(nn.Module):
    """An encoder and a decoder of its embeddings."""

    def __init__(self, layers: Layers) -> None:
        super().__init__()
        self.encoder = Encoder(3, 4, layers)
        self.between = nn.Linear(4 * 8 * 16, LATENT)
        self.decoder = Decoder(LATENT, 3, 4, layers)

    def forward(self, images: Tensor) -> Tensor:
        return self.decoder(self.between(self.encoder(images)))


def twins() -> tuple[Both, Both]:
    torch.manual_seed(0)
    plain, for_cpu = Both(PLAIN), Both(FOR_CPU)
    for_cpu.load_state_dict(plain.state_dict())
    return plain, for_cpu


def test_both_compute_the_same_and_move_the_same_statistics() -> None:
    torch.manual_seed(1)
    images = torch.randint(256, (5, 3, 64, 64), dtype=torch.uint8)
    plain, for_cpu = twins()
    for _ in range(2):
        grad = torch.randn(5, 3, 64, 64)
        outputs = plain(images), for_cpu(images)
        torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)
        for net, output in zip((plain, for_cpu), outputs, strict=True):
            net.zero_grad()
            output.backward(grad)
        for ours, theirs in zip(plain.parameters(), for_cpu.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-3)
    for grads in (True, False):
        with torch.set_grad_enabled(grads):
            again = plain.eval()(images), for_cpu.eval()(images)
        torch.testing.assert_close(*again, rtol=1e-4, atol=1e-5)


def test_what_one_has_saved_loads_into_the_other() -> None:
    plain, for_cpu = twins()
    for_cpu(torch.randint(256, (4, 3, 64, 64), dtype=torch.uint8))
    plain.load_state_dict(for_cpu.state_dict())
    assert list(plain.state_dict()) == list(for_cpu.state_dict())
    for name, value in for_cpu.state_dict().items():
        assert torch.equal(plain.state_dict()[name], value)


def kinds(net: nn.Module) -> set[type[nn.Module]]:
    sought = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)
    return {type(module) for module in net.modules() if isinstance(module, sought)}


def test_a_learner_on_a_cpu_is_built_of_layers_for_cpus() -> None:
    learner = Learner(shrunk(), SPACES, Backend(torch.device("cpu")))
    assert kinds(learner.world_model) == {Halving, Doubling, BatchNorm}


def test_elsewhere_the_layers_are_pytorchs_own() -> None:
    layers = layers_for(torch.device("cuda"))
    assert kinds(Both(layers)) == {nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d}
