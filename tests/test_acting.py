"""What an acting agent remembers, and what its policy sees."""

import math
from collections import deque
from dataclasses import replace

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor

from miniature import ACTIONS, CPU, C, K, learner, random_batch, shrunk
from stormrl.acting.actor import Actor, empty_memory, remember
from stormrl.config.parts import ActingConfig, AgentConfig
from stormrl.learning.learner import Learner
from stormrl.types import Batch, Memory

LENGTH = 4
IMAGE = (3, 64, 64)


def acting(boundaries="respect", **fields) -> tuple[Learner, Actor]:
    config = shrunk()
    model = learner(
        replace(
            config,
            world_model=replace(config.world_model, episode_boundaries=boundaries),
            acting=replace(config.acting, **fields),
        )
    )
    return model, model.actor()


def memory_of(model: Learner, experience: Batch, filled: list[int]) -> Memory:
    """Row by row the first steps of some experience; the rest of the memory holds noise."""
    return Memory(
        obs=experience.obs,
        action=experience.action,
        is_first=experience.is_first,
        posterior=model.world_model.encode(experience.obs),
        encoded_by=torch.tensor(0),
        filled=torch.tensor(filled),
    )


def noise_of(batch: int) -> Tensor:
    return torch.rand(batch, LENGTH + 1, K)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=12))
def test_memory_holds_the_last_steps_of_each_row(resets: list[tuple[bool, bool]]) -> None:
    _, actor = acting(memory="episode")
    memory = empty_memory(2, LENGTH, (1, 1, 1), "cpu")
    expected = [deque(maxlen=LENGTH), deque(maxlen=LENGTH)]
    for step, row_resets in enumerate(resets):
        is_first = torch.tensor(row_resets)
        for row, reset in enumerate(row_resets):
            if reset:
                expected[row].clear()
            expected[row].append((10 * row + step, step % ACTIONS, reset))
        obs = torch.tensor([step, 10 + step], dtype=torch.uint8).view(2, 1, 1, 1)
        action = torch.full((2,), step % ACTIONS)
        posterior = torch.zeros(2, 0, 0)
        memory = remember(actor.forget(memory, is_first), obs, action, is_first, posterior)
        assert memory.filled.tolist() == [len(steps) for steps in expected]
        for row, steps in enumerate(expected):
            kept = slice(0, len(steps))
            assert memory.obs[row, kept].flatten().tolist() == [s[0] for s in steps]
            assert memory.action[row, kept].tolist() == [s[1] for s in steps]
            assert memory.is_first[row, kept].tolist() == [s[2] for s in steps]


def test_remembering_leaves_the_old_memory_as_it_was() -> None:
    model, _ = acting()
    experience = random_batch(2, LENGTH)
    memory = memory_of(model, experience, [2, 4])
    before = [x.clone() for x in memory]
    obs, action = experience.obs[:, 0], experience.action[:, 0]
    remember(memory, obs, action, torch.tensor([True, True]), memory.posterior[:, 0])
    assert all(torch.equal(a, b) for a, b in zip(memory, before, strict=True))


@pytest.mark.parametrize(("kind", "filled"), [("episode", [0, 4]), ("endless", [3, 4])])
def test_a_reset_empties_an_episodic_memory(kind, filled: list[int]) -> None:
    model, actor = acting(memory=kind)
    memory = memory_of(model, random_batch(2, LENGTH), [3, 4])
    assert actor.forget(memory, torch.tensor([True, False])).filled.tolist() == filled


def test_with_nothing_to_look_back_on_the_policy_is_uniform() -> None:
    model, actor = acting()
    experience = random_batch(3, LENGTH)
    memory = memory_of(model, experience, [0, 1, 0])
    log_probs = actor.policy(memory.posterior[:, 0], memory, noise_of(3))
    torch.testing.assert_close(log_probs[[0, 2]], torch.full((2, ACTIONS), -math.log(ACTIONS)))
    assert not torch.allclose(log_probs[1], log_probs[0])


@pytest.mark.parametrize("boundaries", ["respect", "ignore"])
@pytest.mark.parametrize("latent", ["posterior", "prior"])
def test_state_is_that_of_each_row_alone(latent, boundaries) -> None:
    """Each row's own steps, encoded and observed by themselves: unused places do not matter."""
    model, actor = acting(boundaries, latent=latent, memory="endless")
    world = model.world_model
    experience = random_batch(3, LENGTH, resets=((0, 0), (1, 2)))
    current = random_batch(3, 1).obs[:, 0]
    noise, filled = noise_of(3), [2, 4, 3]
    memory = memory_of(model, experience, filled)
    z, h = actor.state(world.encode(current), memory, noise)
    for row, steps in enumerate(filled):
        past = Batch(*(x[row : row + 1, :steps] for x in experience))
        tokens = world.latent.sample(world.encode(past.obs), noise[row : row + 1, :steps])
        hidden = world.observe(tokens, past.action, past.is_first)[0, -1]
        torch.testing.assert_close(h[row], hidden, rtol=0, atol=1e-5)
        posterior = world.encode(current[row : row + 1])[0]
        seen = {"posterior": posterior, "prior": world.latent.prior(hidden)}
        torch.testing.assert_close(z[row], world.latent.sample(seen[latent], noise[row, -1]))


def test_the_posterior_sees_the_current_frame_and_the_prior_does_not() -> None:
    experience = random_batch(2, LENGTH)
    noise = noise_of(2)
    frames = torch.zeros(2, *IMAGE, dtype=torch.uint8), torch.full((2, *IMAGE), 255).byte()
    for latent, same in (("posterior", False), ("prior", True)):
        torch.manual_seed(3)
        model, actor = acting(latent=latent)
        with torch.no_grad():
            model.world_model.latent.posterior_head.weight.mul_(100)
        memory, encode = memory_of(model, experience, [4, 4]), model.world_model.encode
        black, white = (actor.state(encode(frame), memory, noise)[0] for frame in frames)
        assert torch.equal(black, white) == same


def test_the_state_is_where_an_imagined_rollout_would_start() -> None:
    model, actor = acting(latent="prior")
    experience = random_batch(2, 3)
    room = random_batch(2, 1)
    full = Batch(*(torch.cat(pair, dim=1) for pair in zip(experience, room, strict=True)))
    noise = noise_of(2)
    current = model.world_model.encode(room.obs[:, 0])
    z, h = actor.state(current, memory_of(model, full, [3, 3]), noise)
    start = model.imagination.start(experience, noise[:, :3], noise[:, -1])
    torch.testing.assert_close((z, h), start[:2], rtol=0, atol=1e-5)


def test_rows_do_not_depend_on_each_other() -> None:
    model, actor = acting()
    experience, noise = random_batch(3, LENGTH), noise_of(3)
    memory = memory_of(model, experience, [1, 4, 2])
    current = model.world_model.encode(random_batch(3, 1).obs[:, 0])
    together = actor.policy(current, memory, noise)
    for row in range(3):
        only = slice(row, row + 1)
        own = Memory(*(x[only] if x.ndim else x for x in memory))
        alone = actor.policy(current[only], own, noise[only])
        torch.testing.assert_close(alone, together[only], rtol=0, atol=1e-5)


def test_acting_remembers_the_step_with_the_action_taken() -> None:
    _, actor = acting()
    memory, is_first = actor.begin(2, IMAGE), torch.tensor([True, True])
    for step in range(LENGTH + 2):
        obs = random_batch(2, 1).obs[:, 0]
        action, memory = actor.act(obs, memory, is_first)
        last = min(step, LENGTH - 1)
        assert memory.filled.tolist() == [last + 1] * 2
        assert torch.equal(memory.obs[:, last], obs)
        assert torch.equal(memory.action[:, last], action)
        assert torch.equal(memory.is_first[:, last], is_first)
        is_first = torch.tensor([False, False])


class FixedPolicy(Actor):
    """Ignores what it sees."""

    probs = torch.tensor([0.2, 0.7, 0.1])

    def policy(self, posterior: Tensor, memory: Memory, uniform: Tensor) -> Tensor:
        return self.probs.log().expand(len(posterior), -1)


def test_actions_are_drawn_from_the_policy_or_its_mode() -> None:
    model, _ = acting()
    draws = 50_000
    actor = FixedPolicy(model.world_model, model.actor_critic, ActingConfig(context=1))
    model.world_model.encode = lambda obs: torch.zeros(len(obs), K, C)  # type: ignore[method-assign]
    obs, is_first = torch.zeros(draws, 1, 1, 1).byte(), torch.zeros(draws, dtype=torch.bool)
    memory = actor.begin(draws, (1, 1, 1))
    action, _ = actor.act(obs, memory, is_first)
    share = torch.bincount(action, minlength=3) / draws
    deviation = (actor.probs * (1 - actor.probs) / draws).sqrt()
    assert ((share - actor.probs).abs() < 4 * deviation).all()
    greedy, _ = actor.act(obs, memory, is_first, greedy=True)
    assert set(greedy.tolist()) == {1}


def test_frames_are_encoded_once_until_the_weights_change(monkeypatch) -> None:
    model, actor = acting()
    encoded, encode = [], model.world_model.encode
    monkeypatch.setattr(
        model.world_model, "encode", lambda obs: encoded.append(obs.shape) or encode(obs)
    )
    memory, is_first = actor.begin(2, IMAGE), torch.tensor([False, False])
    for _ in range(3):
        _, memory = actor.act(random_batch(2, 1).obs[:, 0], memory, is_first)
    assert encoded == [(2, *IMAGE)] * 3
    with torch.no_grad():
        model.world_model.latent.posterior_head.bias.normal_()
    actor.weights += 1
    _, memory = actor.act(random_batch(2, 1).obs[:, 0], memory, is_first)
    assert encoded[3:] == [(2, LENGTH, *IMAGE), (2, *IMAGE)]
    torch.testing.assert_close(memory.posterior, encode(memory.obs), rtol=0, atol=1e-5)


def test_acting_leaves_statistics_and_gradients_alone() -> None:
    model, actor = acting()
    before = {name: t.clone() for name, t in model.world_model.state_dict().items()}
    obs = random_batch(2, 1).obs[:, 0]
    actor.act(obs, actor.begin(2, IMAGE), torch.tensor([True, True]))
    after = model.world_model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_the_actor_follows_the_learner() -> None:
    model = learner(AgentConfig(), CPU)
    actor = model.actor()
    assert actor.world_model is model.world_model
    assert actor.actor_critic is model.actor_critic
    assert actor.config == model.config.acting
