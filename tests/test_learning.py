"""Whole games are learned, with the command's own settings. Minutes each: slow."""

from pathlib import Path

import pytest

import stormrl

OPTIMAL = 5.0
"""Return of an episode in which every ball is caught."""


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_catch_is_learned_from_scratch(tmp_path: Path, seed: int) -> None:
    agent = stormrl.agent_config(size="tiny")
    config = stormrl.RunConfig(
        env="stormrl/Catch-v0", steps=4_000, seed=seed, size="tiny", agent=agent, device="cpu"
    )
    outcome = stormrl.train(config, tmp_path / "run")
    returns = [score.total for score in outcome.scores]
    assert len(returns) == 20
    assert sum(returns) / len(returns) >= 0.9 * OPTIMAL
