"""Play that sees nothing: who holds what, how the best is found, and that it can be repeated."""

import argparse
import json
import sys
from pathlib import Path

import pytest
import torch

import held_actions
from held_actions import Held, HeldPlayer
from stormrl.acting.evaluate import Score, random_scores
from stormrl.envs import PROTOCOLS
from stormrl.errors import UserError
from stormrl.seeds import HELD_SEED, RANDOM_SEED, SCAN_SEED

CATCH = "stormrl/Catch-v0"
RULES = PROTOCOLS["atari100k"]
FEW = argparse.Namespace(
    random_episodes=3, scan_episodes=2, max_steps=1_000, candidates=2, episodes=4
)


def actions(held: Held, count: int) -> torch.Tensor:
    player = HeldPlayer(held, actions=4)
    obs, is_first = torch.zeros(count, 3, 8, 8, dtype=torch.uint8), torch.zeros(count).bool()
    chosen, _ = player.act(obs, player.begin(count), is_first)
    return chosen


def call(monkeypatch: pytest.MonkeyPatch, game: str, out: Path, *flags: str) -> None:
    counts = ["--random-episodes=2", "--scan-episodes=1", "--candidates=2", "--episodes=2"]
    arguments = ["held_actions.py", "--games", game, *counts, "--out", str(out), *flags]
    monkeypatch.setattr(sys, "argv", arguments)
    held_actions.main()


def test_a_held_action_is_played_in_its_share_of_the_steps() -> None:
    assert (actions(Held(2, 1.0), 1000) == 2).all()
    frequencies = torch.bincount(actions(Held(2, 0.8), 10_000), minlength=4) / 10_000
    # A fifth of the steps is random, and a quarter of those plays the held action too.
    assert frequencies.tolist() == pytest.approx([0.05, 0.05, 0.85, 0.05], abs=0.01)


def test_every_action_is_scanned_in_every_share() -> None:
    tried = held_actions.scanned(CATCH, RULES, 3, FEW)
    assert set(tried) == {Held(action, share) for action in range(3) for share in (0.8, 1.0)}
    assert {len(scores) for scores in tried.values()} == {2}


def test_the_leaders_are_the_highest_and_of_equals_the_first() -> None:
    means = {Held(0, 0.8): 1.0, Held(1, 0.8): 5.0, Held(2, 0.8): 5.0, Held(3, 1.0): -2.0}
    assert held_actions.leaders(means, 3) == [Held(1, 0.8), Held(2, 0.8), Held(0, 0.8)]


def test_the_best_is_measured_on_other_episodes_than_it_was_found_on() -> None:
    found = held_actions.measured(CATCH, RULES, FEW)
    words = found["actions"]
    best = max(found["candidates"], key=lambda candidate: candidate["mean"])
    assert found["held"] == best
    again = held_actions.played(
        Held(words.index(best["action"]), best["share"]),
        len(words),
        CATCH,
        RULES,
        FEW.episodes,
        HELD_SEED,
    )
    assert [score.total for score in again] == best["returns"]
    assert not {score.seed for score in again} & set(
        range(SCAN_SEED, SCAN_SEED + FEW.scan_episodes)
    )
    random = random_scores(CATCH, RULES, FEW.random_episodes, RANDOM_SEED)
    assert [score.total for score in random] == found["random"]["returns"]


def test_only_the_scan_is_cut() -> None:
    game, cut = "ALE/RoadRunner-v5", argparse.Namespace(max_steps=20, scan_episodes=1)
    tried = held_actions.scanned(game, RULES, 1, cut)
    # The idle frames of the start count too.
    assert {score.length <= 20 for scores in tried.values() for score in scores} == {True}
    (whole,) = held_actions.played(Held(0, 1.0), 1, game, RULES, 1, SCAN_SEED)
    assert whole.length > 20


def test_a_summary_of_returns_worked_by_hand() -> None:
    found = held_actions.summary([Score(1.0, 7, 0), Score(4.0, 9, 1)])
    assert (found["mean"], found["stderr"]) == pytest.approx((2.5, 1.5))
    assert (found["returns"], found["lengths"]) == ([1.0, 4.0], [7, 9])
    assert held_actions.with_episodes(found) == "2.5 ± 1.5 (2)"
    assert held_actions.summary([Score(1.0, 7, 0)])["stderr"] is None
    assert held_actions.mean_text({"mean": 12345.6, "stderr": 78.9}) == "12,346 ± 79"
    assert held_actions.mean_text({"mean": -3.0, "stderr": None}) == "-3.0 ± --"


def test_the_script_writes_what_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    games = []
    for name in ("first", "second"):
        out = tmp_path / name / "held.json"
        call(monkeypatch, CATCH, out)
        record = json.loads(out.read_text())
        assert "different episodes" in record["how"]
        (game,) = record["games"].values()
        assert game["command"][:2] == ["held_actions.py", "--games"]
        assert "cpu" in game["hardware"]
        games.append({key: game[key] for key in ("random", "held", "candidates", "scan")})
    assert games[0] == games[1]
    printed = capsys.readouterr().out
    assert "best held action" in printed
    assert "different episodes" in printed


def test_a_file_keeps_its_other_games_and_refuses_other_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "held.json"
    call(monkeypatch, CATCH, out)
    call(monkeypatch, "stormrl/HiddenCatch-v0", out)
    assert list(json.loads(out.read_text())["games"]) == ["stormrl/Catch", "stormrl/HiddenCatch"]
    with pytest.raises(UserError) as refused:
        call(monkeypatch, CATCH, out, "--max-steps=7")
    assert refused.value.field == "out"
