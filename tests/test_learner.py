"""One update: what it changes, what it leaves alone, and that tracing it changes nothing."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from miniature import (
    CPU,
    array,
    filled_replay,
    learner,
    posterior_noise,
    random_batch,
    shrunk,
)
from stormrl.config.common import OptimizerConfig
from stormrl.config.parts import AgentConfig, WorldModelConfig, storm
from stormrl.learning.learner import Learner
from stormrl.learning.state import learner_tensors
from stormrl.machine.device import Backend
from stormrl.types import Batch
from stormrl.worlds.build import WORLDS
from stormrl.worlds.latent import WorldModel
from stormrl.worlds.protocol import Group, Lesson

AVERAGES = {
    "world_model": ("running_mean", "running_var", "num_batches_tracked"),
    "actor_critic": ("slow_critic", "scale_low", "scale_high"),
}


@dataclass(frozen=True)
class Traced(Backend):
    """Traces an update as one graph without breaks, and runs the graph as it is."""

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return torch.compile(function, fullgraph=True, dynamic=False, backend="eager")


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    torch.compiler.reset()


def snapshot(model: Learner) -> dict[str, Tensor]:
    return {
        f"{group}.{name}": tensor.detach().clone()
        for group, tensors in learner_tensors(model).items()
        for name, tensor in tensors.items()
    }


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def update(model: Learner, batch: Batch, noise: Tensor) -> list[dict[str, Tensor]]:
    """Both updates on the same experience."""
    context = Batch(*(x.repeat(2, *[1] * (x.ndim - 1))[:, :3] for x in batch))
    return [
        model.learn_world(batch, noise),
        model.learn_agent(context, model.imagination_noise(context)),
    ]


def test_a_world_model_update_changes_every_part_of_the_world_model_and_no_agent() -> None:
    config = AgentConfig()
    config = replace(config, world_model=replace(config.world_model, free_nats=0.0))
    model, batch = learner(config), random_batch()
    before = snapshot(model)
    metrics = model.learn_world(batch, posterior_noise(batch))
    moved = changed(before, snapshot(model))
    for name, _ in model.world_model.named_parameters():
        if "positions" not in name:
            assert f"world_model.{name}" in moved
    assert all(name.startswith("world_") for name in moved)
    assert any(name.endswith("running_mean") for name in moved)
    assert float(metrics["skipped"]) == 0
    assert not model.world_model.training


def test_an_agent_update_changes_the_agent_and_no_world_model() -> None:
    model, context = learner(), random_batch(4, 3)
    before = snapshot(model)
    metrics = model.learn_agent(context, model.imagination_noise(context))
    moved = changed(before, snapshot(model))
    for name, _ in model.actor_critic.named_parameters():
        assert f"actor_critic.{name}" in moved
    assert {"actor_critic.scale_low", "actor_critic.scale_high"} <= moved
    assert not any(name.startswith("world_") for name in moved)
    assert float(metrics["skipped"]) == 0


def test_the_weight_of_the_entropy_falls_with_every_update_that_counts() -> None:
    config = AgentConfig()
    falling = replace(
        config.actor_critic, entropy=0.4, entropy_end=0.1, entropy_hold=1, entropy_updates=3
    )
    model, context = learner(replace(config, actor_critic=falling)), random_batch(4, 3)
    trajectory = model.imagination(context, model.imagination_noise(context))
    broken = trajectory._replace(reward=trajectory.reward * math.nan)
    metrics = [model.learn_policy(t) for t in (trajectory, broken, *[trajectory] * 5)]
    weights = [float(m["entropy_weight"]) for m in metrics]
    assert weights == pytest.approx([0.4, 0.4, 0.4, 0.3, 0.2, 0.1, 0.1])


def test_the_slow_critic_follows_the_updated_critic() -> None:
    model, context = learner(), random_batch(4, 3)
    before = snapshot(model)
    model.learn_agent(context, model.imagination_noise(context))
    after = snapshot(model)
    for name, _ in model.actor_critic.critic.named_parameters():
        slow = before[f"actor_critic.slow_critic.{name}"]
        expected = slow + 0.02 * (after[f"actor_critic.critic.{name}"] - slow)
        torch.testing.assert_close(after[f"actor_critic.slow_critic.{name}"], expected)


@pytest.mark.parametrize("part", ["reward", "continues"])
@pytest.mark.parametrize("number", [math.nan, -math.nan])
def test_a_batch_that_is_not_finite_changes_nothing_at_all(part: str, number: float) -> None:
    model, batch = learner(), random_batch()
    model.learn_world(batch, posterior_noise(batch))
    before = snapshot(model)
    getattr(batch, part)[1, 3] = number
    metrics = model.learn_world(batch, posterior_noise(batch))
    assert changed(before, snapshot(model)) == set()
    assert float(metrics["skipped"]) == 1


@pytest.mark.parametrize("number", [math.nan, math.inf])
@pytest.mark.parametrize("part", ["reward", "continues", "h"])
def test_a_trajectory_that_is_not_finite_changes_nothing_at_all(part: str, number: float) -> None:
    model, context = learner(), random_batch(4, 3)
    trajectory = model.imagination(context, model.imagination_noise(context))
    model.learn_policy(trajectory)
    before = snapshot(model)
    getattr(trajectory, part)[2, 1] = number
    metrics = model.learn_policy(trajectory)
    assert changed(before, snapshot(model)) == set()
    assert float(metrics["skipped"]) == 1


def test_a_world_model_that_has_lost_its_numbers_skips_updates_and_does_not_crash() -> None:
    model, batch = learner(), random_batch()
    with torch.no_grad():
        model.world_model.latent.posterior_head.bias[0] = math.nan
    metrics = update(model, batch, posterior_noise(batch))
    assert [float(m["skipped"]) for m in metrics] == [1, 1]


def test_learning_goes_on_after_a_skipped_update_as_if_it_had_not_been() -> None:
    batch = random_batch()
    noise = posterior_noise(batch)
    broken = batch._replace(reward=torch.full_like(batch.reward, math.nan))
    results = []
    for batches in ([batch, batch], [batch, broken, batch]):
        torch.manual_seed(1)
        model = learner(without_dropout())
        for each in batches:
            model.learn_world(each, noise)
        results.append(snapshot(model))
    assert changed(*results) == set()


def without_dropout(config: AgentConfig | None = None) -> AgentConfig:
    config = config or AgentConfig()
    sequence = replace(storm(config).sequence, dropout=0.0, attention_dropout=0.0)
    return replace(config, world_model=replace(config.world_model, sequence=sequence))


def optimized(**fields) -> AgentConfig:
    config = without_dropout()
    return replace(
        config, world_model=replace(config.world_model, optimizer=OptimizerConfig(**fields))
    )


def gradients(model: Learner, batch: Batch, noise: Tensor) -> dict[str, np.ndarray]:
    world = model.world_model.train()
    buffers = {name: b.clone() for name, b in world.named_buffers()}
    loss = world.loss(batch, noise).losses["world"]
    names, parameters = zip(*world.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters)
    for name, buffer in world.named_buffers():
        buffer.copy_(buffers[name])
    world.eval()
    return {name: array(g) for name, g in zip(names, found, strict=True)}


@pytest.mark.parametrize("clip", [1e9, 0.5])
def test_an_update_is_one_step_of_adam_on_the_clipped_gradient(clip: float) -> None:
    rate, epsilon = 1e-2, 1e-3
    model = learner(optimized(learning_rate=rate, epsilon=epsilon, clip=clip))
    batch = random_batch()
    noise = posterior_noise(batch)
    gradient = gradients(model, batch, noise)
    norm = math.sqrt(sum((g**2).sum() for g in gradient.values()))
    before = {name: array(p).copy() for name, p in model.world_model.named_parameters()}
    metrics = model.learn_world(batch, noise)
    assert float(metrics["gradient_norm"]) == pytest.approx(norm, rel=1e-4)
    assert norm > 0.5
    for name, p in model.world_model.named_parameters():
        g = gradient[name] * min(1, clip / norm)
        # The first step: both moments, freed of their bias, are the gradient's own.
        expected = before[name] - rate * g / (np.abs(g) + epsilon)
        np.testing.assert_allclose(array(p), expected, atol=1e-5, err_msg=name)


def test_updates_from_replay_repeat_with_the_seed() -> None:
    replay, results = filled_replay(), []
    for _ in range(2):
        torch.manual_seed(5)
        model = learner()
        updated = [model.update_world_model(replay), model.update_agent(replay)]
        metrics = [part.metrics for part in updated]
        assert all(float(m["skipped"]) == 0 for m in metrics)
        assert not any(value.requires_grad for m in metrics for value in m.values())
        results.append(snapshot(model))
    assert changed(*results) == set()


def test_learning_lowers_the_loss() -> None:
    model, batch = learner(optimized(learning_rate=3e-3)), random_batch()
    noise = posterior_noise(batch)
    losses = [float(model.learn_world(batch, noise)["total"]) for _ in range(30)]
    assert losses[-1] < 0.8 * losses[0]


def three_updates(backend: Backend, state: str = "zh") -> tuple[dict[str, Tensor], list[float]]:
    torch.manual_seed(2)
    config = without_dropout()
    config = replace(config, actor_critic=replace(config.actor_critic, state=state))
    model, batch = learner(config, backend), random_batch(resets=((0, 0), (1, 3)))
    noise = posterior_noise(batch)
    totals = []
    for _ in range(3):
        totals += [float(metrics["total"]) for metrics in update(model, batch, noise)]
    return snapshot(model), totals


def assert_agree(ours: tuple[dict, list], theirs: tuple[dict, list], tolerance: float) -> None:
    assert ours[1] == pytest.approx(theirs[1], rel=tolerance)
    for name, tensor in ours[0].items():
        torch.testing.assert_close(tensor, theirs[0][name], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("state", ["zh", "frame"])
def test_the_update_is_one_graph_and_tracing_it_changes_nothing(state: str) -> None:
    assert_agree(three_updates(CPU, state), three_updates(Traced(CPU.device), state), 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("state", ["zh", "frame"])
def test_compiled_updates_equal_eager_ones(state: str) -> None:
    eager, compiled = (
        three_updates(backend, state) for backend in (CPU, Backend(CPU.device, compiled=True))
    )
    # Not the optimizers' moments: gradients in front of a BatchNorm are small differences of large
    # sums, and the order of those sums is the compiler's.
    assert_agree(learned(eager), learned(compiled), 1e-4)


def learned(result: tuple[dict, list]) -> tuple[dict, list]:
    tensors, totals = result
    return {n: t for n, t in tensors.items() if "optimizer" not in n.split(".")[0]}, totals


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
def test_updates_on_a_gpu_equal_those_on_the_cpu(compiled: bool) -> None:
    gpu = Backend(torch.device("cuda"), compiled=compiled)
    model = learner(without_dropout(), gpu)
    twin = learner(without_dropout(), CPU)
    twin.world_model.load_state_dict(model.world_model.state_dict())
    batch = random_batch()
    noise = posterior_noise(batch)
    theirs = twin.learn_world(batch, noise)
    ours = model.learn_world(Batch(*(x.cuda() for x in batch)), noise.cuda())
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name].cpu(), value, rtol=1e-3, atol=1e-3)


def test_reduced_precision_keeps_parameters_and_statistics_in_float32() -> None:
    model, batch = learner(backend=Backend(CPU.device, torch.bfloat16)), random_batch()
    metrics = update(model, batch, posterior_noise(batch))
    assert [float(m["skipped"]) for m in metrics] == [0, 0]
    assert all(m["total"].dtype == torch.float32 for m in metrics)
    kinds = {t.dtype for name, t in snapshot(model).items() if "num_batches" not in name}
    assert kinds == {torch.float32}


def test_averages_are_what_a_skipped_update_has_to_put_back() -> None:
    """Every tensor that no optimizer owns is one of the known running averages."""
    model = learner()
    for group, known in AVERAGES.items():
        module = getattr(model, group)
        owned = {name for name, p in module.named_parameters() if p.requires_grad}
        for name in module.state_dict().keys() - owned:
            assert any(average in name for average in known)


def test_noise_has_the_shapes_that_the_updates_ask_for() -> None:
    model, config = learner(), shrunk()
    rollouts, k = 5, config.world_model.latent.categoricals
    noise = model.imagination_noise(random_batch(rollouts, config.imagination.context))
    assert noise.start[0].shape == (rollouts, config.imagination.context, k)
    assert noise.steps.shape == (rollouts, config.imagination.horizon, k)
    assert noise.action.shape == (rollouts, config.imagination.horizon)
    numbers = (*noise.start, noise.steps, noise.action)
    assert all(float(x.min()) >= 0 and float(x.max()) < 1 for x in numbers)


class TwoGroups(WorldModel):
    """Encoder and decoder have an optimizer of their own."""

    def groups(self) -> dict[str, Group]:
        images = [*self.encoder.parameters(), *self.decoder.parameters()]
        others = [p for p in self.parameters() if all(p is not image for image in images)]
        slow = replace(self.config.optimizer, learning_rate=1e-5)
        return {"images": Group(images, slow), "world": Group(others, self.config.optimizer)}

    def loss(self, batch: Batch, noise: Tensor) -> Lesson:
        losses, metrics, seen = super().loss(batch, noise)
        half = losses["world"] / 2
        return Lesson({"images": half, "world": half}, metrics, seen)


def test_groups_of_parameters_have_optimizers_of_their_own(monkeypatch) -> None:
    monkeypatch.setitem(WORLDS, WorldModelConfig, TwoGroups)
    model, batch = learner(), random_batch()
    world = model.world_model
    before = {name: p.detach().clone() for name, p in world.named_parameters()}
    model.learn_world(batch, posterior_noise(batch))
    moved = {n: float((p.detach() - before[n]).abs().max()) for n, p in world.named_parameters()}
    # Adam's first step is its rate.
    assert moved["decoder.stem.weight"] == pytest.approx(1e-5, rel=0.05)
    assert moved["reward_head.0.weight"] == pytest.approx(1e-4, rel=0.05)
    assert {"images_optimizer", "world_optimizer"} < learner_tensors(model).keys()


def test_no_group_is_moved_if_the_gradient_of_one_is_not_finite(monkeypatch) -> None:
    monkeypatch.setitem(WORLDS, WorldModelConfig, TwoGroups)
    model, batch = learner(), random_batch()
    model.world_model.sequence.norm.weight.register_hook(lambda gradient: gradient * torch.nan)
    before = {name: p.detach().clone() for name, p in model.world_model.named_parameters()}
    metrics = model.learn_world(batch, posterior_noise(batch))
    assert metrics["skipped"] == 1
    for name, parameter in model.world_model.named_parameters():
        assert torch.equal(parameter, before[name]), name
