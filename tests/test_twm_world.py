"""TWM's world model: its losses in float64 NumPy, its frames, its acting and dreams."""

from typing import Any

import numpy as np
import pytest
import torch

import twm_miniature as miniature
from miniature import array, softmax
from stormrl.config.common import CategoricalConfig
from stormrl.config.twm import AdvantageConfig, StackedFramesConfig, TwmConfig
from stormrl.errors import UserError
from stormrl.learning.parameters import count_parameters
from stormrl.spaces import DiscreteSpace, ImageSpace, Spaces
from stormrl.types import Batch
from stormrl.worlds.protocol import Lesson
from stormrl.worlds.twm import TwmWorld, XLDream

K, C = miniature.K, miniature.C


@pytest.fixture
def setting() -> miniature.Setting:
    return miniature.setting()


def losses_by_hand(
    setting: miniature.Setting, config: TwmConfig
) -> tuple[dict[str, float], dict[str, float]]:
    """Of autoencoder and dynamics, from what networks say of the latents that were drawn."""
    world, _, batch, noise = setting
    lead, T = config.lead, config.batch_length
    with torch.no_grad():
        stacks = world.stacks(batch.obs, batch.is_first)[:, lead:]
        logits = world.encoder(stacks.flatten(0, 1)).unflatten(0, stacks.shape[:2])
        posterior = softmax(array(logits).reshape(*stacks.shape[:2], K, C))
        z = one_hot(posterior[:, :-1], array(noise.loss[..., :-1]))
        z = torch.from_numpy(z).float().flatten(-2)
        pictures = array(world.images(z[:, 1:]))
        reward = np.tanh(array(batch.reward[:, lead:-1]))
        alive, first = array(batch.continues[:, lead:-1]), batch.is_first[:, lead + 1 :].numpy()
        ends = (alive == 0) | first
        inputs = batch.action[:, lead:-1], torch.from_numpy(reward).float()
        h = world.sequence(z, *inputs, torch.from_numpy(ends))
        bent = torch.nn.functional.silu(h)
        prior = softmax(array(world.latent_head(bent)).reshape(*h.shape[:2], K, C))
        mean, lasting = array(world.reward_head(bent))[..., 0], array(world.continues_head(bent))
    discount = 1 / (1 + np.exp(-lasting[..., 0]))
    seen, pixels = posterior[:, 1:-1], array(stacks[:, 1:-1])
    entropy = -(seen * np.log(seen)).sum((-2, -1)).mean() / (K * np.log(C))
    observation = {
        "reconstruction": 0.5 * ((pictures - pixels) ** 2).sum((-3, -2, -1)).mean(),
        "missing_entropy": max(config.entropy_floor - entropy, 0),
        "consistency": -(prior[:, :-1] * np.log(seen)).sum((-2, -1)).mean(),
    }
    surprise, counted = 0.0, 0
    for row in range(len(ends)):
        for t in range(1, T + 1):
            if not ends[row, t]:
                target = posterior[row, t + 1]
                surprise -= (target * np.log(prior[row, t])).sum()
                counted += 1
    wanted = 0.99 * alive[:, 1:]
    said = discount[:, 1:]
    dynamics = {
        "dynamics": surprise / counted,
        "reward": 0.5 * ((mean[:, 1:] - reward[:, 1:]) ** 2).mean(),
        "continuation": -(wanted * np.log(said) + (1 - wanted) * np.log(1 - said)).mean(),
    }
    return observation, dynamics


def one_hot(probs: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """The class whose share of the cumulative distribution holds the number."""
    return np.eye(C)[(probs.cumsum(-1) < uniform[..., None]).sum(-1).clip(max=C - 1)]


def test_losses(setting: miniature.Setting) -> None:
    world, _, batch, noise = setting
    observation, dynamics = losses_by_hand(setting, world.config)
    lesson = world.loss(batch, noise.loss)
    for name, value in (observation | dynamics).items():
        assert float(lesson.metrics[name]) == pytest.approx(value, rel=1e-5, abs=1e-7), name
    o, d = observation, dynamics
    total = o["reconstruction"] + 5 * o["missing_entropy"] + 0.01 * o["consistency"]
    assert float(lesson.losses["observation"].detach()) == pytest.approx(total, rel=1e-5)
    total = d["dynamics"] + 10 * d["reward"] + 50 * d["continuation"]
    assert float(lesson.losses["dynamics"].detach()) == pytest.approx(total, rel=1e-5)


def test_the_hinge_pulls_below_the_floor_alone(setting: miniature.Setting) -> None:
    lesson = setting.world.loss(setting.batch, setting.noise.loss)
    share = float(lesson.metrics["posterior_entropy"]) / np.log(C)
    for floor, missing in ((share + 0.05, 0.05), (share - 0.05, 0.0)):
        world, _ = miniature.parts(
            miniature.world_config(entropy_floor=floor), miniature.agent_config()
        )
        world.load_state_dict(setting.world.state_dict())
        found = world.loss(setting.batch, setting.noise.loss).metrics["missing_entropy"]
        assert float(found) == pytest.approx(missing, abs=1e-6)


def gradients(world: TwmWorld, loss: torch.Tensor) -> set[str]:
    """Optimizer groups that a loss moves."""
    world.zero_grad()
    loss.backward(retain_graph=True)
    return {
        name
        for name, group in world.groups().items()
        if any(p.grad is not None and p.grad.abs().max() > 0 for p in group.parameters)
    }


def test_each_loss_moves_its_own_group(setting: miniature.Setting) -> None:
    lesson: Lesson = setting.world.loss(setting.batch, setting.noise.loss)
    for name, loss in lesson.losses.items():
        assert gradients(setting.world, loss) == {name}


def test_every_parameter_is_in_one_group() -> None:
    world, _ = miniature.parts(miniature.world_config(), miniature.agent_config())
    grouped = [id(p) for group in world.groups().values() for p in group.parameters]
    assert sorted(grouped) == sorted(map(id, world.parameters()))


def test_frames_are_stacked_within_an_episode() -> None:
    world, _ = miniature.parts(miniature.world_config(), miniature.agent_config())
    obs = torch.arange(6, dtype=torch.uint8)[None, :, None, None, None].expand(1, 6, 3, 64, 64)
    first = torch.tensor([[False, False, False, True, False, False]])
    stacks = world.stacks(obs, first)[0, :, :, 0, 0] * 255
    expected = [[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 2], [3, 3, 3, 3], [3, 3, 3, 4], [3, 3, 4, 5]]
    torch.testing.assert_close(stacks, torch.tensor(expected).float())


def test_acting_sees_the_stacks_of_training() -> None:
    """The most probable latent of each, whatever happened before the episode."""
    setting = miniature.setting()
    world, batch = setting.world, setting.batch
    logits = world.encode(world.stacks(batch.obs, batch.is_first))
    carry = world.begin(batch.obs.shape[0])
    noise = torch.zeros(len(batch.obs), 0)
    begun = torch.zeros(len(batch.obs), dtype=torch.bool)
    for t in range(batch.obs.shape[1]):
        first = batch.is_first[:, t] | (t == 0)
        carry, view = world.see(carry, batch.obs[:, t], batch.action[:, t], first, noise)
        begun |= first
        assert view.z is not None
        assert view.h is None
        assert view.known is None
        expected = torch.nn.functional.one_hot(logits[:, t].argmax(-1), C).flatten(-2)
        assert torch.equal(view.z, expected.float())


def test_grey_is_the_emulators() -> None:
    obs = torch.zeros(1, 1, 3, 64, 64, dtype=torch.uint8)
    obs[0, 0, 1] = 200
    world, _ = miniature.parts(miniature.world_config(), miniature.agent_config())
    stacks = world.stacks(obs, torch.ones(1, 1, dtype=torch.bool))
    assert float(stacks[0, 0, 0, 0, 0]) * 255 == pytest.approx(200 * 0.587, abs=0.05)


def test_pictures_are_grey() -> None:
    setting = miniature.setting()
    view = setting.world.branch(
        setting.batch, setting.world.loss(setting.batch, setting.noise.loss).seen, 5, ()
    )[1]
    pictures = setting.world.decode(view)
    assert pictures.shape == (6, 3, 64, 64)
    assert torch.equal(pictures[:, 0], pictures[:, 2])
    assert view.z is not None
    assert torch.equal(pictures[:, 0], setting.world.images(view.z)[:, -1])


def test_dreams_begin_in_pairs_drawn_without_replacement(setting: miniature.Setting) -> None:
    world, _, batch, noise = setting
    seen = world.loss(batch, noise.loss).seen
    lead = world.config.lead
    pairs = {
        (float(r), int(a))
        for r, a in zip(
            batch.reward[:, lead : lead + 5].tanh().flatten(),
            batch.action[:, lead : lead + 5].flatten(),
            strict=True,
        )
    }
    found = {(float(r), int(a)) for r, a in zip(seen.reward, seen.action, strict=True)}
    assert len(found) == world.rollouts(2, world.config.window, 5) == 6
    assert found <= pairs


def dreamt(setting: miniature.Setting, restart_below: float) -> tuple[list[XLDream], XLDream]:
    world = miniature.parts(
        miniature.world_config(restart_below=restart_below), miniature.agent_config()
    )[0]
    world.load_state_dict(setting.world.state_dict())
    seen = world.loss(setting.batch, setting.noise.loss).seen
    carry, _, _ = world.branch(setting.batch, seen, 5, ())
    first, found = carry, []
    with torch.no_grad():
        for t in range(5):
            noise = setting.noise.dream.steps[:, t]
            carry, _ = world.dream(carry, torch.zeros(6, dtype=torch.int64), noise)
            found.append(carry)
    return found, first


def test_a_dream_without_worth_goes_on_in_another_real_moment(setting: miniature.Setting) -> None:
    found, first = dreamt(setting, 0.5)
    assert any(bool(dream.ended.any()) for dream in found)
    for dream in found:
        for row in dream.ended.nonzero().flatten().tolist():
            assert any(torch.equal(dream.z[row], spare) for spare in first.spare)
            assert dream.worth[row] == 1


def test_without_a_bound_no_dream_begins_anew(setting: miniature.Setting) -> None:
    assert not any(bool(dream.ended.any()) for dream in dreamt(setting, 0.0)[0])


def test_a_dream_from_a_window_is_that_of_the_parallel_pass(setting: miniature.Setting) -> None:
    """`start` reads all the steps; the reward that follows is that of the last hidden state."""
    world, _, batch, _ = setting
    windows = Batch(*(part[:, :4] for part in batch))
    (draw,), _ = world.dream_noise(2, 4, 3, torch.rand)
    with torch.no_grad():
        carry, view = world.start(windows, 3, (draw,))
        z = miniature.drawn(world.encode(world.stacks(windows.obs, windows.is_first)), draw[:, :4])
        ends = windows.continues == 0
        ends[:, :-1] |= windows.is_first[:, 1:]
        h = world.sequence(z, windows.action, windows.reward.tanh(), ends)[:, -1]
        expected = world.expect(h)
    assert view.outcome is not None
    torch.testing.assert_close(view.outcome.reward, expected.reward)
    assert torch.equal(carry.z, miniature.drawn(expected.logits, draw[:, -1]))
    assert torch.equal(carry.ended, windows.continues[:, -1] == 0)


def test_parameter_counts_at_base_size() -> None:
    """21.64 M with six actions: 8.23 M that see, 10.78 M that predict, 1.32 M and 1.31 M."""
    with torch.device("meta"):
        world, agent = miniature.parts(TwmConfig(), AdvantageConfig(), actions=6)
    groups = {name: sum(p.numel() for p in g.parameters) for name, g in world.groups().items()}
    counts = count_parameters(agent)
    found = groups["observation"], groups["dynamics"], counts["actor"], counts["critic"]
    assert [round(count / 1e6, 2) for count in found] == [8.23, 10.78, 1.32, 1.31]
    assert round((sum(groups.values()) + counts["total"]) / 1e6, 2) == 21.64


def test_first_weights() -> None:
    """As the released code begins: what is bent by SiLU as for ReLU, the ends without gain."""
    torch.manual_seed(0)
    world, _ = miniature.parts(
        TwmConfig(
            image=StackedFramesConfig(channels=8),
            latent=CategoricalConfig(8, 8, unimix=0.0),
        ),
        AdvantageConfig(),
    )
    heads: Any = world.continues_head
    assert heads[-1].bias.tolist() == [pytest.approx(0.99)]
    mlp: Any = world.encoder.mlp
    for layer, gain in ((mlp[0], 6.0), (mlp[-1], 3.0)):
        bound = np.sqrt(gain / layer.in_features)
        assert float(layer.weight.detach().abs().max()) == pytest.approx(bound, rel=0.01)
        assert not layer.bias.any()


def test_other_pictures_than_rgb_are_refused() -> None:
    with pytest.raises(UserError, match=r"world_model\.kind"):
        TwmWorld(miniature.world_config(), Spaces(ImageSpace(64, 64, 1), DiscreteSpace(2)))
