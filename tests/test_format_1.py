"""A run directory of format 1, as it was written then (tests/data/format1.tar.gz), still serves.

Forty steps of Catch, made by the code of that time.
"""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import golden
from stormrl.disk import checkpoint
from stormrl.disk.run_directory import RunDirectory
from stormrl.play.table import Table
from stormrl.runs import whole
from stormrl.runs.agent import Agent
from stormrl.runs.film import dream_film

ARCHIVE = Path(__file__).parent / "data" / "format1.tar.gz"
WRITTEN_BY = "GenuineIntel-6-207"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "format1"


def test_it_is_evaluated_and_dreams_and_plays(run: Path) -> None:
    agent = Agent.load(run)
    assert (agent.step, agent.spaces.action.n) == (40, 3)
    assert len(whole.agent_scores(agent, episodes=2)) == 2
    assert dream_film(agent, 1, context=3, horizon=2, seed=0).shape[0] == 5
    table = Table(agent, seed=0, context=3)
    assert table.advance({"step": None})
    table.close()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As many as wrote the archive: more of them add up in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_it_goes_on_as_if_nothing_had_happened(run: Path, tmp_path: Path) -> None:
    config = RunDirectory.open(run).config
    whole.resume(run, steps=60)
    whole.train(golden.replace(config, steps=60), tmp_path / "whole")
    record = json.loads((run / "config.json").read_text())
    assert (record["format"], record["spaces"]["action"]["n"]) == (2, 3)
    resumed, undisturbed = (checkpoint.load(path).tensors for path in (run, tmp_path / "whole"))
    same = golden.machine().startswith(WRITTEN_BY)
    for name, tensor in undisturbed["world_model"].items():
        assert resumed["world_model"][name].shape == tensor.shape
        # Elsewhere the first forty steps were rounded otherwise.
        assert torch.equal(resumed["world_model"][name], tensor) or not same, name
