from pathlib import Path

import pytest
import torch
from torch import Tensor

from miniature import SPACES
from stormrl.config.common import CategoricalConfig, ConvConfig, HeadConfig
from stormrl.config.parts import (
    ActingConfig,
    ActorCriticConfig,
    AgentConfig,
    ImaginationConfig,
    ReplayConfig,
    TransformerConfig,
    WorldModelConfig,
)
from stormrl.disk import checkpoint
from stormrl.errors import UserError
from stormrl.experience.replay import Replay
from stormrl.learning.learner import Learner
from stormrl.learning.state import learner_tensors, restore_learner
from stormrl.machine.device import Backend
from stormrl.machine.random_state import random_state, restore_random_state

HEAD = HeadConfig(layers=1, width=32)
CONFIG = AgentConfig(
    world_model=WorldModelConfig(
        image=ConvConfig(channels=4),
        latent=CategoricalConfig(categoricals=4, classes=4),
        sequence=TransformerConfig(width=32, layers=1, heads=2, feedforward=32, max_length=8),
        head=HEAD,
        batch_size=2,
        batch_length=4,
    ),
    imagination=ImaginationConfig(batch_size=4, context=2, horizon=3),
    actor_critic=ActorCriticConfig(head=HEAD),
    acting=ActingConfig(context=4),
    replay=ReplayConfig(capacity=32, warmup=8),
)


def new_learner(seed: int) -> Learner:
    torch.manual_seed(seed)
    return Learner(CONFIG, SPACES, backend=Backend(torch.device("cpu")))


def filled_replay() -> Replay:
    generator = torch.Generator().manual_seed(0)
    replay = Replay(32, (64, 64, 3))
    replay.obs.random_(0, 256, generator=generator)
    replay.action.random_(0, 3, generator=generator)
    replay.reward.normal_(generator=generator)
    replay.is_first[::9] = True
    replay.moved_to(32)
    return replay


def update(learner: Learner, replay: Replay) -> dict[str, Tensor]:
    parts = learner.update_world_model(replay), learner.update_agent(replay)
    return parts[0].metrics | parts[1].metrics


def flat(learner: Learner) -> dict[str, Tensor]:
    groups = learner_tensors(learner)
    return {f"{group}/{name}": t for group in groups for name, t in groups[group].items()}


def assert_same_bits(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_a_resumed_learner_takes_the_same_third_update(tmp_path: Path) -> None:
    replay, learner = filled_replay(), new_learner(seed=1)
    for _ in range(2):
        update(learner, replay)
    groups = {**learner_tensors(learner), "random": random_state()}
    checkpoint.save(tmp_path, 2, groups, {})
    expected = update(learner, replay)

    resumed = new_learner(seed=2)
    loaded = checkpoint.load(tmp_path).tensors
    restore_learner(resumed, loaded)
    restore_random_state(loaded["random"])
    assert_same_bits(update(resumed, replay), expected)
    assert_same_bits(flat(resumed), flat(learner))


def test_the_whole_state_is_in_it() -> None:
    learner = new_learner(seed=1)
    update(learner, filled_replay())
    tensors = flat(learner)
    for module in (learner.world_model, learner.actor_critic):
        group = "world_model" if module is learner.world_model else "actor_critic"
        assert {f"{group}/{name}" for name in module.state_dict()} <= tensors.keys()
    moments = [name for name in tensors if name.endswith(".exp_avg")]
    trained = [p for p in learner.world_model.parameters() if p.requires_grad]
    trained += [p for p in learner.actor_critic.parameters() if p.requires_grad]
    assert len(moments) == len(trained)
    assert "actor_critic/slow_critic.0.weight" in tensors
    assert "actor_critic/scale_high" in tensors
    assert any(name.endswith("num_batches_tracked") for name in tensors)
    assert tensors["world_optimizer/learning_rate.0"].item() == pytest.approx(1e-4)
    assert tensors["agent_optimizer/critic.0.weight.step"].item() == 1


def test_optimizer_state_is_laid_out_as_adam_does() -> None:
    adams, ours = new_learner(seed=1), new_learner(seed=1)
    learner_tensors(ours)
    update(adams, filled_replay())
    for parameter, mine in zip(
        adams.world_model.parameters(), ours.world_model.parameters(), strict=True
    ):
        expected = adams.world_optimizers["world"].state[parameter]
        given = ours.world_optimizers["world"].state[mine]
        assert expected.keys() == given.keys()
        for key in expected:
            assert expected[key].dtype == given[key].dtype
            assert expected[key].shape == given[key].shape
            assert expected[key].stride() == given[key].stride()


def test_asking_for_the_state_does_not_change_the_next_update() -> None:
    replay, plain, looked_at = filled_replay(), new_learner(seed=1), new_learner(seed=1)
    torch.manual_seed(5)
    update(plain, replay)
    learner_tensors(looked_at)
    torch.manual_seed(5)
    update(looked_at, replay)
    assert_same_bits(flat(plain), flat(looked_at))


def test_nothing_is_rebound() -> None:
    saved = {g: {n: t.clone() for n, t in ts.items()} for g, ts in copied(seed=1).items()}
    learner = new_learner(seed=2)
    update(learner, filled_replay())
    before = {name: (id(t), t.data_ptr()) for name, t in flat(learner).items()}
    rate = learner.world_optimizers["world"].param_groups[0]["lr"]
    restore_learner(learner, saved)
    assert {name: (id(t), t.data_ptr()) for name, t in flat(learner).items()} == before
    assert learner.world_optimizers["world"].param_groups[0]["lr"] is rate


def copied(seed: int) -> dict[str, dict[str, Tensor]]:
    groups = learner_tensors(new_learner(seed))
    return {g: {n: t.detach().clone() for n, t in ts.items()} for g, ts in groups.items()}


BIAS = "actor.3.bias"


def without(tensors: dict[str, Tensor]) -> None:
    del tensors[BIAS]


def with_another(tensors: dict[str, Tensor]) -> None:
    tensors["more"] = torch.zeros(1)


def reshaped(tensors: dict[str, Tensor]) -> None:
    tensors[BIAS] = torch.zeros(4)


def in_double(tensors: dict[str, Tensor]) -> None:
    tensors[BIAS] = tensors[BIAS].double()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without, "actor_critic lacks 'actor.3.bias'"),
        (with_another, "actor_critic holds 'more', which this model does not have"),
        (reshaped, r"of shape \[4\], expected shape \[3\]"),
        (in_double, "as torch.float64, expected dtype torch.float32"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(spoil, message: str) -> None:
    saved, learner = copied(seed=1), new_learner(seed=2)
    before = {name: tensor.detach().clone() for name, tensor in flat(learner).items()}
    spoil(saved["actor_critic"])
    with pytest.raises(UserError, match=message) as error:
        restore_learner(learner, saved)
    assert error.value.field == "checkpoint"
    assert_same_bits(flat(learner), before)
    del saved["actor_critic"]
    with pytest.raises(UserError, match="actor_critic lacks"):
        restore_learner(learner, saved)
