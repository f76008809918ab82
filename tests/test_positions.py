"""A policy acts, and a dream goes on, only at positions that training has met."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from miniature import (
    CPU,
    SPACES,
    STORMS,
    StormLearner,
    filled_replay,
    memory_in,
    posterior_noise,
    random_batch,
)
from stormrl.config.common import CategoricalConfig, ConvConfig, HeadConfig
from stormrl.config.parts import AgentConfig, RunConfig, storm
from stormrl.config.presets import SIZES, agent_config
from stormrl.errors import UserError
from stormrl.runs import whole

NAMES = list(itertools.product(STORMS, SIZES))


def narrow(config: AgentConfig) -> AgentConfig:
    """As small as can be, but for the lengths of windows, dreams and memory."""
    world, head = storm(config), HeadConfig(layers=1, width=4)
    sequence = replace(world.sequence, width=4, heads=1, feedforward=4, layers=1)
    return replace(
        config,
        world_model=replace(
            world,
            image=ConvConfig(2),
            latent=CategoricalConfig(3, 4),
            sequence=sequence,
            head=head,
            batch_size=1,
        ),
        imagination=replace(config.imagination, batch_size=1),
        actor_critic=replace(config.actor_critic, head=head),
    )


@contextmanager
def positions_of(model: StormLearner) -> Iterator[list[Tensor]]:
    """Every tensor of positions that the sequence model looks up meanwhile."""
    seen: list[Tensor] = []
    hook = model.world_model.sequence.positions.register_forward_hook(
        lambda module, inputs, output: seen.append(inputs[0].clone())
    )
    yield seen
    hook.remove()


def trained_by_the_world_model(model: StormLearner) -> set[int]:
    """Positions of a window whose prior has a successor to be compared with."""
    config = model.config.world_model
    batch = random_batch(1, config.batch_length)
    with positions_of(model) as seen:
        model.learn_world(batch, posterior_noise(batch))
    (window,) = seen
    return set(window[:, :-1].flatten().tolist())


def dreamt(model: StormLearner) -> tuple[set[int], set[int]]:
    """Positions whose prior a dream goes on from, and those on which the policy is trained."""
    dreams = model.config.imagination
    batch = random_batch(1, model.config.world_model.batch_length)
    with positions_of(model) as seen, torch.no_grad():
        if dreams.dreams_from == "posteriors":
            z = model.world_model.latent.sample(
                model.world_model.encode(batch.obs), posterior_noise(batch)
            )
            model.imagination.from_posteriors(batch, z, model.branching_noise(batch))
            first = seen[0].flatten()
        else:
            context = random_batch(1, dreams.context)
            model.imagination(context, model.imagination_noise(context))
            first = seen[0][:, -1]
    assert len(seen) == 1 + dreams.horizon
    states = [first, *seen[1:]]
    return _members(states), _members(states[:-1])


def acted_at(model: StormLearner) -> set[int]:
    """Positions of the hidden states on which an actor decides in a long episode."""
    actor, positions = model.actor(), set()
    carry, is_first = actor.begin(1), torch.tensor([True])
    for _ in range(model.config.acting.context + 2):
        with positions_of(model) as seen:
            _, carry = actor.act(random_batch(1, 1).obs[:, 0], carry, is_first)
        if remembered := int(memory_in(carry).filled):
            positions.add(int(seen[0][0, remembered - 1]))
        is_first = torch.tensor([False])
    return positions


def _members(positions: list[Tensor]) -> set[int]:
    return {int(p) for tensor in positions for p in tensor.flatten()}


@pytest.mark.parametrize(("preset", "size"), NAMES, ids=map("-".join, NAMES))
def test_positions_of_dreams_and_acting_are_trained(preset: str, size: str) -> None:
    model = StormLearner(narrow(agent_config(preset, size)), SPACES, CPU)
    trained = trained_by_the_world_model(model)
    gone_on_from, decided_on = dreamt(model)
    assert gone_on_from <= trained
    assert max(acted_at(model)) <= max(decided_on)
    assert max(decided_on) == model.config.dreamt_steps - 1
    model.config.check_positions()


def test_a_gradient_reaches_every_position_but_what_the_rule_excludes() -> None:
    """What the rule is about: of the last step of a window, the prior is never corrected."""
    model = StormLearner(narrow(agent_config("paper", "toy")), SPACES, CPU)
    replay = filled_replay()
    window = replay.windows(torch.tensor([10]), model.config.world_model.batch_length)
    window = window._replace(is_first=torch.zeros_like(window.is_first))
    world = model.world_model
    h = world.observe(torch.rand(1, 17, 12), window.action, window.is_first)
    (gradient,) = torch.autograd.grad(
        world.latent.prior(h)[:, :-1].square().sum(), world.sequence.positions.weight
    )
    reached = gradient.abs().sum(1) > 0
    assert reached.nonzero().flatten().tolist() == list(range(16))


REFUSED = [
    ({"acting": {"context": 16}}, "acting.context", "is 16", "at most 15"),
    ({"imagination": {"horizon": 9}}, "imagination.horizon", "reaches step 17", "first 16"),
    (
        {"imagination": {"dreams_from": "posteriors"}, "acting": {"context": 16}},
        "acting.context",
        "is 16",
        "at most 15",
    ),
]


@pytest.mark.parametrize(("parts", "field", "asked", "possible"), REFUSED)
def test_a_new_run_that_reaches_untrained_positions_is_refused(
    parts: dict, field: str, asked: str, possible: str, tmp_path
) -> None:
    agent = agent_config("paper", "toy")
    for part, fields in parts.items():
        agent = replace(agent, **{part: replace(getattr(agent, part), **fields)})
    with pytest.raises(UserError) as caught:
        whole.train(RunConfig("stormrl/Catch-v0", agent=agent), tmp_path / "run")
    assert caught.value.field == field
    assert asked in caught.value.message
    assert possible in caught.value.message
    assert not (tmp_path / "run").exists()


def test_dreams_from_posteriors_are_updated_with_the_world_model() -> None:
    agent = agent_config("paper", "toy")
    dreams = replace(agent.imagination, dreams_from="posteriors")
    with pytest.raises(UserError) as caught:
        replace(agent, imagination=dreams, agent_ratio=0.5)
    assert caught.value.field == "agent_ratio"
    with pytest.raises(UserError) as caught:
        replace(agent, imagination=replace(dreams, horizon=16))
    assert caught.value.field == "imagination.horizon"
