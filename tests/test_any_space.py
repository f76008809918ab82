"""Whole runs on random spaces: two updates and more, resumed, evaluated, dreamt and filmed."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import gymnasium
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from hypothesis import Phase, given, settings

from any_space import ACTIONS, ENV_ID, OBSERVATIONS, Anything
from small_runs import assert_same_runs, go_on, small_config
from stormrl.config.parts import AgentConfig
from stormrl.disk.run_directory import RunDirectory
from stormrl.envs import find_protocol, make_env, spaces_of
from stormrl.play.packets import greeting
from stormrl.play.table import Table
from stormrl.runs import whole
from stormrl.runs.agent import Agent
from stormrl.runs.film import dreams, film
from systems import SYSTEMS

STEPS = 26
# A whole run each: a failing one is told as it is, for to make it smaller takes many.
SOME = settings(deadline=None, phases=(Phase.generate,))


def try_a_run(observation: spaces.Space, action: spaces.Space, agent: AgentConfig) -> None:
    """Everything that a person does with a run."""
    spec = EnvSpec(ENV_ID, lambda **_: Anything(observation, action))
    gymnasium.registry[ENV_ID] = spec
    config = small_config(env=ENV_ID, steps=STEPS, agent=agent, checkpoint_every=12)
    try:
        known = spaces_of(make_env(ENV_ID, find_protocol(config.protocol)))
        with tempfile.TemporaryDirectory() as folder:
            whole_run, interrupted = Path(folder) / "whole", Path(folder) / "interrupted"
            for path, stops in ((whole_run, ()), (interrupted, (9, 22))):
                RunDirectory.create(path, config, known)
                for stop in stops:
                    go_on(path, stop)
                go_on(path)
            assert_same_runs(whole_run, interrupted)
            trained = Agent.load(whole_run, device="cpu")
            assert len(whole.agent_scores(trained, episodes=2, seed=3)) == 2
            seen = film(dreams(trained, episodes=1, context=2, horizon=3, seed=0).filmed)
            assert seen.ndim == 4
            table = Table(trained, seed=0, context=3)
            assert greeting(trained, table, 3)["actions"]
            for _ in range(9):
                table.advance({})
            assert table.dream.steps or table.real.steps
            table.close()
    finally:
        del gymnasium.registry[ENV_ID]


@settings(SOME, max_examples=2)
@given(OBSERVATIONS, ACTIONS)
def test_storm_on_some(observation: spaces.Space, action: spaces.Space) -> None:
    try_a_run(observation, action, small_agent())


@settings(SOME, max_examples=1)
@given(OBSERVATIONS, ACTIONS)
def test_dreamer_on_some(observation: spaces.Space, action: spaces.Space) -> None:
    try_a_run(observation, action, SYSTEMS["dreamerv3"]())


@pytest.mark.slow
@settings(SOME, max_examples=8)
@given(OBSERVATIONS, ACTIONS)
def test_storm_on_many(observation: spaces.Space, action: spaces.Space) -> None:
    try_a_run(observation, action, small_agent())


def small_agent() -> AgentConfig:
    """Replay keeps what it needs of a short run."""
    agent = small_config().agent
    return replace(agent, replay=replace(agent.replay, capacity=40, warmup=16))
