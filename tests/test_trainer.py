"""Whole small runs: what they write, and that an interrupted one loses nothing."""

import os
import random
import shutil
import signal
import time
from copy import deepcopy
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
import torch

from faults import crash, failures, full_disk
from miniature import shrunk
from small_runs import STEPS, WARMUP, assert_same_runs, go_on, history, new_run, opened, started
from stormrl.acting.run_state import RunState
from stormrl.disk import checkpoint
from stormrl.errors import UserError
from stormrl.history.recorder import Recorder
from stormrl.report.reading import Run, read_run
from stormrl.runs import whole as whole_runs
from stormrl.suite.plan import SuitePlan, Task
from stormrl.suite.standing import read_standing
from stormrl.suite.storage import Storage


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run that nothing interrupted, with dreams, which must leave no trace in it."""
    path = tmp_path_factory.mktemp("runs") / "whole"
    new_run(path, dream_every=40, evaluation_episodes=2)
    go_on(path)
    return path


def test_histories_have_every_step_once(whole):
    metrics = history(whole, "metrics.jsonl")
    assert [line["step"] for line in metrics] == list(range(21, STEPS + 1, 7))
    # The update after the step that follows warm-up is the first.
    assert [line["update"] for line in metrics] == [line["step"] - WARMUP for line in metrics]
    assert {"world_model/kl", "agent/entropy", "agent/gradient_norm"} <= metrics[0].keys()
    episodes = history(whole, "episodes.jsonl")
    assert [(line["step"], line["length"]) for line in episodes] == [(39, 39)]


def test_final_agent_is_scored_and_filmed(whole):
    scores = history(whole, "scores.jsonl")
    assert [line["checkpoint_step"] for line in scores] == [STEPS, STEPS]
    assert {line["protocol"] for line in scores} == {"atari100k"}
    assert [path.name for path in (whole / "videos").iterdir()] == ["dream-00000040.mp4"]


def test_old_checkpoints_and_their_replay_go(whole):
    assert checkpoint.steps(whole) == [50, STEPS]
    first_steps = sorted(int(path.name[:9]) for path in (whole / "replay").iterdir())
    assert first_steps == [0, 25, 50]  # Replay at step 50 still held step 10.


@pytest.mark.parametrize("stop_at", [10, 39, 50, 59])
def test_interrupted_run_equals_an_uninterrupted_one(whole, tmp_path, stop_at):
    new_run(tmp_path / "run", evaluation_episodes=2)
    stopped = go_on(tmp_path / "run", stop_at)
    assert stopped.step == stop_at
    go_on(tmp_path / "run")
    assert_same_runs(whole, tmp_path / "run")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.bool])
def test_actions_of_another_type_are_no_state_of_an_environment(tmp_path, dtype):
    new_run(tmp_path / "run")
    stopped = go_on(tmp_path / "run", stop_at=5)
    saved = stopped.collector.tensors()
    saved["env.actions"] = saved["env.actions"].to(dtype)
    state = RunState.from_record(next(iter(checkpoint.states(tmp_path / "run"))))
    with pytest.raises(UserError, match="no usable state of the environment"):
        opened(tmp_path / "run").collector.restore(saved, state)


def test_atari_run_resumes_in_the_middle_of_a_game(tmp_path):
    for name in ("whole", "cut"):
        new_run(tmp_path / name, env="ALE/Boxing-v5", protocol="official")
    go_on(tmp_path / "whole")
    go_on(tmp_path / "cut", stop_at=41)
    go_on(tmp_path / "cut")
    assert_same_runs(tmp_path / "whole", tmp_path / "cut")


@pytest.fixture
def deterministic_algorithms():
    """Whatever a run switches on for the process goes off again."""
    cuda = torch.backends.cuda
    before = cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), cuda.cudnn_sdp_enabled()
    yield
    torch.use_deterministic_algorithms(False)
    cuda.enable_flash_sdp(before[0])
    cuda.enable_mem_efficient_sdp(before[1])
    cuda.enable_cudnn_sdp(before[2])


@pytest.mark.usefixtures("deterministic_algorithms")
def test_deterministic_run_uses_no_other_algorithms_and_resumes(tmp_path):
    for name in ("whole", "cut"):
        new_run(tmp_path / name, deterministic=True)
    go_on(tmp_path / "whole")
    assert torch.are_deterministic_algorithms_enabled()
    go_on(tmp_path / "cut", stop_at=31)
    go_on(tmp_path / "cut")
    assert_same_runs(tmp_path / "whole", tmp_path / "cut")


def test_ratio_below_one_updates_every_few_steps(tmp_path):
    unlike = replace(shrunk(), world_model_ratio=0.25, agent_ratio=0.5)
    new_run(tmp_path / "run", agent=unlike)
    trainer = go_on(tmp_path / "run")
    world, agent = trainer.ratios
    assert world.updates == (STEPS - WARMUP) // 4
    assert agent.updates == (STEPS - WARMUP) // 2


def test_run_killed_before_its_first_checkpoint_starts_over(whole, tmp_path):
    new_run(tmp_path / "run", evaluation_episodes=2)
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 7}\n')
    go_on(tmp_path / "run")
    assert_same_runs(whole, tmp_path / "run")


def test_run_killed_again_and_again_equals_an_uninterrupted_one(tmp_path):
    """Five SIGKILLs at moments drawn at random, each in a process of its own."""
    moments = random.Random(0)
    # Not the run that other tests compare with: in this process, type checks draw random numbers.
    for name, kills in (("whole", 0), ("killed", 5)):
        run = tmp_path / name
        new_run(run, checkpoint_every=5)
        for _ in range(kills):
            process = started(run)
            time.sleep(moments.uniform(0.2, 1.5))
            process.kill()
            process.join()
        process = started(run)
        process.join()
        assert process.exitcode == 0
    assert_same_runs(tmp_path / "whole", tmp_path / "killed")


def test_a_run_that_does_not_get_through_its_last_save_is_not_finished(whole, tmp_path):
    """Before every step of the file system; who asks how far it is, is told by all the same."""
    run, before = tmp_path / "run", tmp_path / "before"
    new_run(run, evaluation_episodes=2)
    go_on(run, stop_at=57)
    trainer = opened(run)
    trainer.recorder = Recorder(run)
    while trainer.step < STEPS:
        trainer._advance()
    shutil.copytree(run, before)
    store, seen = deepcopy(trainer.store), set()

    def save():
        trainer.store = deepcopy(store)
        trainer.save()

    for raised in chain(failures(crash, save), failures(full_disk, save)):
        step = checkpoint.load(run).step
        assert raised or step == STEPS
        assert whole_runs.steps_done(run) == step
        shown = read_run(run)
        assert isinstance(shown, Run)
        assert shown.finished == (step == STEPS)
        assert read_standing(Storage(str(tmp_path)), "run").saved == step
        found = sorted(str(path.relative_to(run)) for path in run.glob("checkpoints/*"))
        if (step, *found) not in seen:
            seen.add((step, *found))
            assert whole_runs.resume(run).finished
            assert_same_runs(whole, run)
        shutil.rmtree(run)
        shutil.copytree(before, run)
    trainer.recorder.close()
    assert {step for step, *_ in seen} == {57, STEPS}


def test_the_newest_checkpoint_counts_as_far_as_it_is_good(whole, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    (path,) = run.glob(f"checkpoints/*{STEPS}/world_model.safetensors")
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert whole_runs.steps_done(run) == 50
    assert whole_runs.resume(run).finished
    assert_same_runs(whole, run)


def test_a_stop_between_the_steps_of_an_evaluation(whole, tmp_path, monkeypatch):
    """The run is saved by then, and its evaluation is made up for."""
    new_run(tmp_path / "run", evaluation_episodes=2)
    trainer = opened(tmp_path / "run")
    act, played = trainer.actor.act, []

    def stop_after_three(obs, memory, is_first, greedy=False):
        played.append(len(obs) == 2)
        if sum(played) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return act(obs, memory, is_first, greedy)

    monkeypatch.setattr(trainer.actor, "act", stop_after_three)
    outcome = trainer.train()
    assert (outcome.step, outcome.finished, outcome.scores) == (STEPS, False, ())
    assert sum(played) == 3
    assert history(tmp_path / "run", "scores.jsonl") == []
    plan = SuitePlan({Task("run", trainer.config): read_standing(Storage(str(tmp_path)), "run")})
    assert [task.name for task in plan.left] == ["run"]
    outcome = whole_runs.resume(tmp_path / "run")
    assert (outcome.finished, len(outcome.scores)) == (True, 2)
    assert_same_runs(whole, tmp_path / "run")
    outcome = whole_runs.resume(tmp_path / "run")
    assert (outcome.finished, outcome.scores) == (True, ())


def test_half_an_evaluation_is_completed(whole, tmp_path):
    """The process died between two lines of it."""
    run = shutil.copytree(whole, tmp_path / "run")
    first, _ = (run / "scores.jsonl").read_text().splitlines(keepends=True)
    (run / "scores.jsonl").write_text(first)
    assert whole_runs.resume(run).finished
    assert_same_runs(whole, run)


@pytest.mark.slow
def test_compiled_run_resumes_bit_for_bit(tmp_path):
    for name in ("whole", "cut"):
        new_run(tmp_path / name, compile="on")
    go_on(tmp_path / "whole")
    go_on(tmp_path / "cut", stop_at=39)
    torch.compiler.reset()  # as a new process would begin
    go_on(tmp_path / "cut")
    assert_same_runs(tmp_path / "whole", tmp_path / "cut")
