"""Minds: the one that every world model has agrees with the one that STORM brings along."""

import torch
from torch import Tensor

from miniature import ACTIONS, learner, random_batch
from stormrl.worlds.mind import Mind, WindowMind

STEPS = 4
"""No more than acting looks back on in the miniature: then both look back on the same."""


def halves(shape) -> Tensor:
    """Noise that draws the same everywhere."""
    return torch.full(tuple(shape), 0.5)


def played(mind: Mind, obs: Tensor, action: Tensor) -> list[Tensor]:
    """What a mind expects of each action, where it saw two frames, sees two more and dreams on."""
    mind.begin(obs[:, :2], action[:, :1], halves)
    found = []
    for t in range(1, STEPS + 2):
        expected = mind.take(int(action[0, t]), halves)
        assert expected.belief is not None or isinstance(mind, WindowMind)
        found += [expected.outcome.reward, expected.outcome.continues]
        if t + 1 < STEPS:
            mind.see(obs[:, t + 1], halves)
        else:
            mind.dream(halves)
        assert mind.view.z is not None
        found.append(mind.view.z)
    return found


def test_the_common_mind_and_storms_own_expect_the_same() -> None:
    world = learner().world_model
    batch = random_batch(1, STEPS + 2)
    common = played(WindowMind(world, limit=8), batch.obs, batch.action)
    own = played(world.mind(limit=8), batch.obs, batch.action)
    assert int(batch.action.max()) < ACTIONS
    for ours, theirs in zip(common, own, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_a_dream_without_end_starts_anew_in_its_own_pictures() -> None:
    world = learner().world_model
    batch = random_batch(1, 2)
    mind = WindowMind(world, limit=4, room=3)
    mind.begin(batch.obs, batch.action[:, :1], torch.rand)
    for _ in range(10):
        expected = mind.take(1, torch.rand)
        assert 0 < float(expected.outcome.continues) < 1
        mind.dream(torch.rand)
