"""What an acting agent remembers, and what its policy sees."""

from collections import deque
from dataclasses import replace

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor

from miniature import ACTIONS, CPU, K, StormLearner, learner, memory_in, random_batch, shrunk
from stormrl.acting.actor import Acting, Actor
from stormrl.agents.protocol import Behaviour, Opinion
from stormrl.config.parts import AgentConfig
from stormrl.types import Batch, Carry, View
from stormrl.worlds.memory import Memory, remember, with_newest

LENGTH = 4
IMAGE = (3, 64, 64)


def acting(boundaries="respect", **fields) -> tuple[StormLearner, Actor]:
    config = shrunk()
    model = learner(
        replace(
            config,
            world_model=replace(config.world_model, episode_boundaries=boundaries),
            acting=replace(config.acting, **fields),
        )
    )
    return model, model.actor()


def memory_of(model: StormLearner, experience: Batch, filled: list[int]) -> Memory:
    """Row by row the first steps of some experience; the rest of the memory holds noise."""
    return model.world_model.begin(len(filled))._replace(
        obs=experience.obs,
        action=experience.action,
        is_first=experience.is_first,
        posterior=model.world_model.encode(experience.obs),
        filled=torch.tensor(filled),
    )


def noise_of(batch: int) -> Tensor:
    return torch.rand(batch, LENGTH + 1, K)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=12))
def test_memory_holds_the_last_steps_of_each_row(resets: list[tuple[bool, bool]]) -> None:
    model, _ = acting(memory="episode")
    memory = model.world_model.begin(2)
    expected = [deque(maxlen=LENGTH), deque(maxlen=LENGTH)]
    action = torch.zeros(2, dtype=torch.int64)
    for step, row_resets in enumerate(resets):
        is_first = torch.tensor(row_resets)
        obs = torch.tensor([step, 10 + step], dtype=torch.uint8).view(2, 1, 1, 1)
        memory, _ = model.world_model.see(
            memory, obs.expand(2, *IMAGE), action, is_first, noise_of(2)
        )
        for row, reset in enumerate(row_resets):
            if reset:
                expected[row].clear()
            kept = slice(0, len(expected[row]))
            assert memory.filled[row] == len(expected[row])
            assert memory.obs[row, kept, 0, 0, 0].tolist() == [s[0] for s in expected[row]]
            assert memory.action[row, kept].tolist() == [s[1] for s in expected[row]]
            assert memory.is_first[row, kept].tolist() == [s[2] for s in expected[row]]
            expected[row].append((10 * row + step, step % ACTIONS, reset))
        action = torch.full((2,), step % ACTIONS)


def test_a_step_joins_the_others_once_and_leaves_the_old_memory_as_it_was() -> None:
    model, _ = acting()
    experience = random_batch(2, LENGTH)
    memory = memory_of(model, experience, [2, 4])
    never = torch.tensor([False, False])
    memory = with_newest(memory, experience.obs[:, 0], never, memory.posterior[:, 0])
    before = [x.clone() for x in memory]
    joined = remember(memory, experience.action[:, 0])
    assert all(torch.equal(a, b) for a, b in zip(memory, before, strict=True))
    again = remember(joined, experience.action[:, 1])
    assert joined.filled.tolist() == [3, 4]
    assert all(torch.equal(a, b) for a, b in zip(joined, again, strict=True))


@pytest.mark.parametrize(("kind", "filled"), [("episode", [0, 4]), ("endless", [3, 4])])
def test_a_reset_empties_an_episodic_memory(kind, filled: list[int]) -> None:
    model, _ = acting(memory=kind)
    memory, experience = memory_of(model, random_batch(2, LENGTH), [3, 4]), random_batch(2, 1)
    first = torch.tensor([True, False])
    seen = experience.obs[:, 0], experience.action[:, 0], first, noise_of(2)
    memory, view = model.world_model.see(memory, *seen)
    assert memory.filled.tolist() == filled
    assert view.known is not None
    assert view.known.tolist() == [count > 0 for count in filled]


def test_with_nothing_to_look_back_on_the_policy_is_uniform() -> None:
    model, actor = acting()
    carry = actor.begin(3)._replace(world=memory_of(model, random_batch(3, LENGTH), [0, 1, 0]))
    never = torch.tensor([False, False, False])
    _, opinion, _ = actor.look(random_batch(3, 1).obs[:, 0], carry, never, torch.rand)
    equal = torch.full((2, ACTIONS), 1 / ACTIONS)
    torch.testing.assert_close(opinion.probabilities[[0, 2]], equal)
    assert not torch.allclose(opinion.probabilities[1], opinion.probabilities[0])


@pytest.mark.parametrize("boundaries", ["respect", "ignore"])
@pytest.mark.parametrize("latent", ["posterior", "prior"])
def test_state_is_that_of_each_row_alone(latent, boundaries) -> None:
    """Each row's own steps, encoded and observed by themselves: unused places do not matter."""
    model, _ = acting(boundaries, latent=latent, memory="endless")
    world = model.world_model
    experience = random_batch(3, LENGTH, resets=((0, 0), (1, 2)))
    current = random_batch(3, 1).obs[:, 0]
    noise, filled = noise_of(3), [2, 4, 3]
    memory = memory_of(model, experience, filled)
    z, h = world.state(world.encode(current), memory, noise)
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
        model, _ = acting(latent=latent)
        with torch.no_grad():
            model.world_model.latent.posterior_head.weight.mul_(100)
        memory, encode = memory_of(model, experience, [4, 4]), model.world_model.encode
        black, white = (
            model.world_model.state(encode(frame), memory, noise)[0] for frame in frames
        )
        assert torch.equal(black, white) == same


def test_the_state_is_where_an_imagined_rollout_would_start() -> None:
    model, _ = acting(latent="prior")
    experience = random_batch(2, 3)
    room = random_batch(2, 1)
    full = Batch(*(torch.cat(pair, dim=1) for pair in zip(experience, room, strict=True)))
    noise = noise_of(2)
    current = model.world_model.encode(room.obs[:, 0])
    z, h = model.world_model.state(current, memory_of(model, full, [3, 3]), noise)
    _, view = model.imagination.start(experience, (noise[:, :3], noise[:, -1]))
    torch.testing.assert_close((z, h), view[:2], rtol=0, atol=1e-5)


def test_rows_do_not_depend_on_each_other() -> None:
    model, _ = acting()
    noise = noise_of(3)
    memory = memory_of(model, random_batch(3, LENGTH), [1, 4, 2])
    current = model.world_model.encode(random_batch(3, 1).obs[:, 0])
    together = model.world_model.state(current, memory, noise)
    for row in range(3):
        only = slice(row, row + 1)
        own = Memory(*(x[only] for x in memory))
        alone = model.world_model.state(current[only], own, noise[only])
        expected = tuple(part[only] for part in together)
        torch.testing.assert_close(alone, expected, rtol=0, atol=1e-5)


def test_acting_remembers_the_step_with_the_action_taken() -> None:
    _, actor = acting()
    carry, is_first = actor.begin(2), torch.tensor([True, True])
    done: list[tuple[Tensor, Tensor, Tensor]] = []
    for step in range(LENGTH + 3):
        obs = random_batch(2, 1).obs[:, 0]
        action, carry = actor.act(obs, carry, is_first)
        memory, last = memory_in(carry), min(step, LENGTH) - 1
        assert memory.filled.tolist() == [last + 1] * 2
        if done:
            remembered = memory.obs[:, last], memory.action[:, last], memory.is_first[:, last]
            assert all(map(torch.equal, remembered, done[-1]))
        done.append((obs, action, is_first))
        is_first = torch.tensor([False, False])


class FixedPolicy(Behaviour):
    """Ignores what it sees."""

    probs = torch.tensor([0.2, 0.7, 0.1])

    def opinion(self, view: View, carry: Carry) -> tuple[Opinion, Carry]:
        assert view.z is not None
        return Opinion(self.probs.expand(len(view.z), -1)), carry

    def act(self, view, carry, noise):
        raise NotImplementedError

    def loss(self, trajectory, taken):
        raise NotImplementedError


def test_actions_are_drawn_from_the_policy_or_its_mode(monkeypatch) -> None:
    model, _ = acting()
    draws = 50_000
    actor, world = Actor(model.world_model, FixedPolicy()), model.world_model
    view = View(torch.zeros(draws, 1), None)
    monkeypatch.setattr(world, "see", lambda *args: ((), view))
    carry = Acting((), (), torch.zeros(draws, dtype=torch.int64))
    obs, is_first = torch.zeros(draws, 1, 1, 1).byte(), torch.zeros(draws, dtype=torch.bool)
    action, _ = actor.act(obs, carry, is_first)
    share = torch.bincount(action, minlength=3) / draws
    probs = FixedPolicy.probs
    deviation = (probs * (1 - probs) / draws).sqrt()
    assert ((share - probs).abs() < 4 * deviation).all()
    greedy, _ = actor.act(obs, carry, is_first, greedy=True)
    assert set(greedy.tolist()) == {1}


def test_frames_are_encoded_once_until_the_weights_change(monkeypatch) -> None:
    model, actor = acting()
    encoded, encode = [], model.world_model.encode
    monkeypatch.setattr(
        model.world_model, "encode", lambda obs: encoded.append(obs.shape) or encode(obs)
    )
    carry, is_first = actor.begin(2), torch.tensor([False, False])
    for _ in range(3):
        _, carry = actor.act(random_batch(2, 1).obs[:, 0], carry, is_first)
    assert encoded == [(2, *IMAGE)] * 3
    with torch.no_grad():
        model.world_model.latent.posterior_head.bias.normal_()
    model.world_model.version += 1
    _, carry = actor.act(random_batch(2, 1).obs[:, 0], carry, is_first)
    assert encoded[3:] == [(2, LENGTH, *IMAGE), (2, *IMAGE)]
    memory = memory_in(carry)
    torch.testing.assert_close(memory.posterior, encode(memory.obs), rtol=0, atol=1e-5)


def test_acting_leaves_statistics_and_gradients_alone() -> None:
    model, actor = acting()
    before = {name: t.clone() for name, t in model.world_model.state_dict().items()}
    obs = random_batch(2, 1).obs[:, 0]
    actor.act(obs, actor.begin(2), torch.tensor([True, True]))
    after = model.world_model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_the_actor_follows_the_learner() -> None:
    model = learner(AgentConfig(), CPU)
    actor = model.actor()
    assert actor.world is model.world_model
    assert actor.behaviour is model.actor_critic
