"""TWM against its authors' own modules: what these compute is kept in tests/data.

`benchmarks/twm_authors.py --golden` writes it. Weights, experience and draws follow from names and
seeds, so that only what came of them has to be kept.
"""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import twm_miniature as miniature
from stormrl.errors import UserError
from stormrl.runs.twm_weights import load_twm, twm_names

GOLDEN = load_file(Path(__file__).parent / "data" / "twm.safetensors")


@pytest.fixture(scope="module")
def computed() -> dict[str, Tensor]:
    return miniature.computed(miniature.setting())


# Discounts of theirs stand at restarts as well, where ours are 0.
QUANTITIES = [n for n in GOLDEN if not n.startswith("after.") and n != "dream.discount"]


@pytest.mark.parametrize("name", QUANTITIES)
def test_ours_is_theirs(computed: dict[str, Tensor], name: str) -> None:
    torch.testing.assert_close(computed[name], GOLDEN[name], rtol=1e-5, atol=1e-5)


def test_weights_after_one_update_are_theirs(computed: dict[str, Tensor]) -> None:
    after = [name for name in GOLDEN if name.startswith("after.")]
    for name in after:
        torch.testing.assert_close(computed[name], GOLDEN[name], rtol=1e-5, atol=1e-6)


def test_dreams_began_anew_in_the_comparison() -> None:
    over = GOLDEN["dream.over"].bool()
    assert over.any()
    assert (GOLDEN["dream.weight"][:, 1:][over[:, :-1]] == 1).all()


def test_every_weight_of_theirs_has_its_place() -> None:
    world, agent = miniature.parts(miniature.world_config(), miniature.agent_config())
    names = twm_names(world, agent)
    assert sorted(names.world.values()) == sorted(dict(world.named_parameters()))
    assert sorted(names.agent.values()) == sorted(dict(agent.named_parameters()))


def released() -> dict[str, Tensor]:
    """What a state dict of theirs holds."""
    world, agent = miniature.parts(miniature.world_config(), miniature.agent_config())
    names, found = twm_names(world, agent), {}
    for table, module in ((names.world, world), (names.agent, agent)):
        for theirs, ours in table.items():
            found[theirs] = miniature.weights(theirs, module.state_dict()[ours].shape)
    return found


def test_their_state_dict_is_read() -> None:
    setting = miniature.setting()
    world, agent = miniature.parts(miniature.world_config(), miniature.agent_config())
    load_twm(world, agent, released())
    for one, other in ((world, setting.world), (agent, setting.agent)):
        for name, parameter in one.named_parameters():
            assert torch.equal(parameter, other.get_parameter(name)), name


def test_a_state_dict_of_another_kind_is_refused() -> None:
    world, agent = miniature.parts(miniature.world_config(), miniature.agent_config())
    before = [parameter.clone() for parameter in world.parameters()]
    weights = released()
    name = "wm.obs_model.encoder.0.conv1.weight"
    for wrong in (
        {other: tensor for other, tensor in weights.items() if other != name},
        weights | {"wm.more": torch.zeros(1)},
        weights | {name: torch.zeros(1)},
    ):
        with pytest.raises(UserError):
            load_twm(world, agent, wrong)
    assert all(map(torch.equal, before, world.parameters()))
