"""Updates launched as a graph: the warm-up leaves no trace, the results are the eager ones."""

import pytest
import torch
from torch import Tensor

from miniature import CPU, filled_replay, learner
from stormrl.errors import UserError
from stormrl.learning.graphs import undone, updates
from stormrl.learning.learner import Learner
from stormrl.learning.state import learner_tensors
from stormrl.machine.device import Backend, choose_capture
from stormrl.machine.random_state import random_state, seed_all


def state(model: Learner) -> dict[str, Tensor]:
    tensors = {
        f"{group}.{name}": tensor.detach().clone()
        for group, tensors in learner_tensors(model).items()
        for name, tensor in tensors.items()
    }
    return tensors | random_state()


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_updates_that_are_undone_leave_no_trace() -> None:
    model, replay = learner(), filled_replay()
    before = state(model)
    with undone(model):
        for scheduled in updates(model, replay):
            scheduled.update()
        assert not torch.equal(state(model)["torch"], before["torch"])
    assert_same(before, state(model))


def test_updates_that_are_undone_change_nothing_that_follows() -> None:
    results = []
    for rehearsals in (0, 2):
        seed_all(5)
        model, replay = learner(), filled_replay()
        with undone(model):
            for scheduled in updates(model, replay) * rehearsals:
                scheduled.update()
        for scheduled in updates(model, replay):
            scheduled.update()
        results.append(state(model))
    assert_same(*results)


def test_a_failed_rehearsal_is_undone_too() -> None:
    model = learner()
    before = state(model)
    with pytest.raises(RuntimeError, match="broke"):
        break_after_an_update(model)
    assert_same(before, state(model))


def break_after_an_update(model: Learner) -> None:
    with undone(model):
        updates(model, filled_replay())[0].update()
        raise RuntimeError("it broke")


def test_a_graph_needs_cuda() -> None:
    assert not choose_capture("off", CPU.device)
    assert choose_capture("on", torch.device("cuda"))
    with pytest.raises(UserError, match="needs a CUDA device, not cpu"):
        choose_capture("on", CPU.device)


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
def test_three_captured_updates_equal_eager_ones(compiled: bool) -> None:
    results = []
    for captured in (False, True):
        backend = Backend(torch.device("cuda"), compiled=compiled, captured=captured)
        seed_all(5)
        model, replay = learner(backend=backend), filled_replay("cuda")
        world_model, agent = updates(model, replay)
        drawn = []
        for _ in range(3):
            drawn.append(world_model.update()["world_model"].rows.clone())
            agent.update()
        results.append((state(model), torch.stack(drawn)))
    (eager, eager_drawn), (graph, graph_drawn) = results
    assert torch.equal(eager_drawn, graph_drawn)
    for name, tensor in eager.items():
        torch.testing.assert_close(graph[name], tensor, rtol=1e-4, atol=1e-4)
