"""What an agent is measured by: held actions as they are packed and read, published runs."""

import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest

from pack_held_actions import packed, to_json
from stormrl.scores import held_actions, yardsticks
from stormrl.scores.curves import at
from stormrl.scores.held_actions import HeldAction, held_action
from stormrl.scores.yardsticks import chance, published_then, storm_mean

FOUND = {
    "protocol": "atari100k",
    "how": "in words",
    "games": {
        "Pong": {
            "random": {"mean": -20.0},
            "held": {
                "action": "RIGHT",
                "share": 0.8,
                "mean": -19.0,
                "stderr": 1.0,
                "returns": [-20.0, -18.0],
                "lengths": [900, 950],
            },
            "scan": [],
        }
    },
}


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package in which one game has been looked at."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "held_actions.json").write_text(to_json(packed(FOUND)))
    monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path)
    held_actions._table.cache_clear()
    yield
    held_actions._table.cache_clear()


@pytest.mark.usefixtures("table")
def test_what_was_found_is_read_under_its_protocol_alone() -> None:
    expected = HeldAction("RIGHT", 0.8, -19.0, 1.0, 2, (-20.0, -18.0))
    assert held_action("ALE/Pong-v5", "atari100k") == expected
    assert expected.name == "RIGHT, 80 %"
    assert held_action("ALE/Pong-v5", "official") is None
    assert held_action("ALE/Boxing-v5", "atari100k") is None
    assert held_action("stormrl/Catch-v0", "atari100k") is None


def test_the_table_of_the_package_is_what_was_packed() -> None:
    path = resources.files("stormrl") / "data" / "held_actions.json"
    record = json.loads(path.read_text())
    for game, best in record["games"].items():
        found = held_action(f"ALE/{game}-v5", record["protocol"])
        assert found is not None
        assert found.episodes == len(found.returns)
        assert found.mean == pytest.approx(sum(best["returns"]) / len(best["returns"]))


def test_published_runs_are_taken_at_the_same_step() -> None:
    then = published_then("ALE/Pong-v5", 14_200)
    assert then is not None
    returns = at("Pong", ["v1"], 15_000)
    assert (then.end, then.low, then.high) == (15_000, min(returns), max(returns))
    assert published_then("ALE/Pong-v5", 100_001) is None
    assert published_then("stormrl/Catch-v0", 1_000) is None


def test_only_games_of_the_benchmark_have_a_published_mean() -> None:
    assert storm_mean("ALE/RoadRunner-v5") == 17_564
    assert storm_mean("stormrl/RoadRunner-v0") is None
    assert storm_mean("ALE/Centipede-v5") is None


def test_nothing_is_known_of_a_game_of_ones_own() -> None:
    assert yardsticks.yardsticks("stormrl/Catch-v0", "atari100k")[::2] == (None, None)


def test_equal_returns_are_no_better() -> None:
    assert chance([1.0, 1.0], [1.0, 1.0]) == 1
    assert chance([2.0] * 5, [1.0] * 5) < 0.01
    assert chance([1.0] * 5, [2.0] * 5) > 0.9
