"""Every published system behind the same commands: what works for STORM works for all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from miniature import SPACES, filled_replay
from small_runs import small_config
from stormrl.cli import main
from stormrl.config.presets import agent_config
from stormrl.learning.graphs import updates
from stormrl.learning.learner import Learner
from stormrl.learning.state import learner_tensors
from stormrl.machine.device import Backend
from stormrl.play.packets import greeting
from stormrl.play.table import Table
from stormrl.runs import whole
from stormrl.runs.agent import Agent
from systems import SYSTEMS

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module", params=SYSTEMS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 60 steps, with one evaluation."""
    path = tmp_path_factory.mktemp(request.param) / "run"
    agent = SYSTEMS[request.param]()
    whole.train(small_config(agent=agent, preset=request.param, evaluation_episodes=2), path)
    return path


def test_a_run_is_evaluated_and_read(run: Path, tmp_path: Path, capsys: Captured) -> None:
    assert main(["eval", str(run), "--episodes", "3", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert len(scores["returns"]) == 3
    assert main(["doctor", str(run)]) == 0
    assert main(["report", str(run), "--out", str(tmp_path / "page.html")]) == 0
    assert "Catch" in (tmp_path / "page.html").read_text()


def test_its_dreams_are_filmed_and_measured(run: Path, tmp_path: Path, capsys: Captured) -> None:
    film = tmp_path / "dream.gif"
    assert main(["dream", str(run), "--out", str(film), "--json"]) == 0
    assert film.stat().st_size > 1000
    assert json.loads(capsys.readouterr().out)


def test_one_plays_in_its_dream(run: Path) -> None:
    agent = Agent.load(run, device="cpu")
    table = Table(agent, seed=0, context=3)
    assert len(greeting(agent, table, 3)["actions"]) == 3
    for _ in range(12):
        assert table.advance({})
    table.close()
    assert table.dream.obs.shape == table.real.obs.shape
    assert np.isfinite(table.dream.reward)


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_eager_and_compiled_learn_the_same(system: str) -> None:
    results = []
    for compiled in (False, True):
        torch.manual_seed(5)
        backend = Backend(torch.device("cpu"), compiled=compiled)
        model = Learner(SYSTEMS[system](), SPACES, backend)
        replay = filled_replay()
        for _ in range(2):
            for scheduled in updates(model, replay):
                scheduled.update()
        results.append(learner_tensors(model))
    for group in ("world_model", "actor_critic"):
        for name, eager in results[0][group].items():
            torch.testing.assert_close(results[1][group][name], eager, rtol=1e-3, atol=1e-4)


def test_systems_are_all_presets_but_those_of_storm() -> None:
    kinds = {agent_config(name).world_model.kind for name in SYSTEMS}
    assert len(kinds) == len(SYSTEMS)
