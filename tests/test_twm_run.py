"""Whole runs of TWM: pre-training, visit counts, and a resumed run that is the undisturbed one."""

import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import twm_miniature as miniature
from miniature import CPU
from small_runs import WARMUP, assert_same_runs, go_on, new_run, opened
from stormrl.config.presets import agent_config
from stormrl.config.twm import AdvantageConfig
from stormrl.disk.run_directory import RunDirectory
from stormrl.errors import UserError
from stormrl.history.progress import SilentProgress
from stormrl.learning.learner import Learner
from stormrl.runs.trainer import Trainer
from systems import twm

OBSERVATION, DYNAMICS, AGENT = 3, 2, 4


def weights(learner: Learner) -> dict[str, torch.Tensor]:
    groups = learner.world_groups | learner.agent_groups
    return {
        name: torch.cat([p.detach().flatten() for p in group.parameters])
        for name, group in groups.items()
    }


@pytest.mark.parametrize("stop_at", [19, 42])
def test_a_resumed_run_is_the_same_as_one_left_alone(tmp_path: Path, stop_at: int) -> None:
    for name in ("whole", "cut"):
        new_run(tmp_path / name, agent=twm())
    whole = go_on(tmp_path / "whole")
    go_on(tmp_path / "cut", stop_at)
    cut = go_on(tmp_path / "cut")
    assert_same_runs(tmp_path / "whole", tmp_path / "cut")
    assert torch.equal(whole.replay.visits, cut.replay.visits)
    assert whole.replay.visits.sum() > 0


def test_a_run_that_is_given_more_steps_has_room_for_them(tmp_path: Path) -> None:
    new_run(tmp_path, agent=twm())
    visits = go_on(tmp_path).replay.visits
    longer = Trainer(_with_steps(tmp_path, 64), SilentProgress())
    longer.restore()
    assert longer.replay.visits.tolist() == [*visits.tolist(), 0, 0, 0, 0]
    assert longer.train().finished


def _with_steps(path: Path, steps: int) -> RunDirectory:
    run = RunDirectory.open(path)
    return replace(run, config=replace(run.config, steps=steps))


def test_a_run_that_is_stopped_in_its_pretraining_goes_on_there(tmp_path: Path) -> None:
    for name in ("whole", "cut"):
        new_run(tmp_path / name, agent=twm())
    go_on(tmp_path / "whole")
    stopped = opened(tmp_path / "cut")
    assert len(stopped.pretraining) == OBSERVATION + DYNAMICS + AGENT
    _stop_after(stopped, OBSERVATION + 1)
    assert stopped.pretrained == OBSERVATION + 1
    go_on(tmp_path / "cut")
    assert_same_runs(tmp_path / "whole", tmp_path / "cut")


def _stop_after(trainer: Trainer, updates: int) -> None:
    """Train until so many updates of the pretraining are done, as after a SIGTERM."""
    last = trainer.pretraining[updates - 1]

    def then_stop(replay: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return last(replay)

    trainer.pretraining[updates - 1] = then_stop
    trainer.train()


def test_each_phase_moves_its_own_group(tmp_path: Path) -> None:
    trainer = Trainer(new_run(tmp_path / "run", agent=twm()), SilentProgress())
    for _ in range(WARMUP):
        trainer.collector.step(random=True)
    moves = [{"observation"}] * OBSERVATION + [{"dynamics"}] * DYNAMICS
    for update, moved in zip(
        trainer.pretraining, moves + [{"actor", "critic"}] * AGENT, strict=True
    ):
        before = weights(trainer.learner)
        update(trainer.replay)
        after = weights(trainer.learner)
        assert {name for name in after if not torch.equal(before[name], after[name])} == moved


def test_the_agent_learns_of_real_steps_first() -> None:
    """What a constant reward comes to; and to be undecided."""
    fast = replace(AdvantageConfig().optimizer, learning_rate=1e-2)
    agent = miniature.agent_config(optimizer=fast, critic_optimizer=fast, gamma=0.5)
    learner = Learner(replace(twm(), actor_critic=agent), miniature.spaces(), CPU)
    replay = miniature.replay(200)
    replay.reward.fill_(1.0)
    with torch.no_grad():
        learner.actor_critic.get_parameter("actor.4.bias")[0] += 2
    told = [learner.update_agent_early(replay)["agent"].metrics for _ in range(60)]
    assert told[-1]["entropy"] > 0.99 * math.log(miniature.ACTIONS)
    batch = replay.sample(8, 12)
    dreamt = learner.world_model.remembered(batch, learner.uniform)
    value = learner.actor_critic.opinion(dreamt.view, ())[0].value
    assert value is not None
    # tanh(1) at each step, of which each is worth half of the one before.
    assert float(value.detach().mean()) == pytest.approx(2 * math.tanh(1), rel=0.2)


def test_another_world_has_no_remembered_trajectories() -> None:
    config = replace(agent_config(size="toy"), actor_critic=miniature.agent_config())
    learner = Learner(config, miniature.spaces(), CPU)
    with pytest.raises(UserError, match=r"actor_critic\.pretraining"):
        learner.update_agent_early(miniature.replay(200))


def test_windows_are_drawn_by_visits() -> None:
    learner, replay = Learner(twm(), miniature.spaces(), CPU), miniature.replay(200)
    learner.update_both(replay)
    assert replay.visits.sum() == learner.config.world_model.batch_size
    assert replay.visits.max() == 1
