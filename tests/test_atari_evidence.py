"""The evidence on Atari: scores, tests, published points, and pictures from the files alone."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import atari_evidence
from atari_evidence import HELD, SUMMARY, TABLE
from many_runs import write_run
from small_runs import go_on, new_run
from stormrl.errors import UserError
from stormrl.scores import curves
from stormrl.scores.published import game_of

BOXING = "ALE/Boxing-v5"
CATCH = "stormrl/Catch-v0"
RULES = {"protocol": "atari100k", "preset": "paper"}
RANDOM = {"mean": 0.0, "stderr": 1.0, "returns": [-1.0, 1.0]}
BEST = {"action": "FIRE", "share": 0.8, "mean": 5.0, "stderr": 1.0, "returns": [4.0, 6.0]}


def write_baselines(folder: Path, *games: str) -> Path:
    found = {game: {"random": RANDOM, "held": BEST} for game in games}
    record = {"protocol": "atari100k", "how": "Chosen on other episodes.", "games": found}
    (folder / HELD).write_text(json.dumps(record))
    return folder / HELD


def boxing(folder: Path, seed: int = 1, score: float = 20.0, steps: int = 12_000) -> Path:
    return write_run(folder / f"boxing-{seed}", BOXING, seed, score, steps, **RULES)


def cut(path: Path, lines: int) -> None:
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:lines]))


def collected(runs: list[Path], folder: Path, *games: str) -> dict[str, Any]:
    atari_evidence.collect(runs, write_baselines(folder, *games), folder)
    return json.loads((folder / SUMMARY).read_text())


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["atari_evidence.py", *map(str, arguments)])
    atari_evidence.main()


def test_a_p_value_worked_by_hand() -> None:
    # Of the 20 ways to give three of six ranks to ours, one puts ours above all others.
    assert atari_evidence.p_greater([4, 5, 6], [1, 2, 3]) == pytest.approx(1 / 20)
    assert atari_evidence.p_greater([1, 2, 3], [4, 5, 6]) == pytest.approx(1)


def test_a_run_is_summed_up(tmp_path: Path) -> None:
    (run,) = collected([boxing(tmp_path)], tmp_path, "Boxing")["runs"]
    assert (run["game"], run["seed"], run["steps"], run["updates"]) == ("Boxing", 1, 12_000, 12_000)
    assert run["minutes"] == 60
    final = run["score"]
    assert len(final["returns"]) == 20
    # Ten returns of 18 and ten of 22.
    assert final["mean"] == 20
    assert final["stderr"] == pytest.approx(2 * math.sqrt(20 / 19) / math.sqrt(20), rel=1e-5)
    assert final["p_random"] < 0.05
    assert run["details"]["config"]["seed"] == 1


@pytest.mark.parametrize(("step", "end"), [(1, 5_000), (5_000, 5_000), (5_001, 10_000)])
def test_the_published_point_is_that_of_the_bin_that_holds_the_step(step: int, end: int) -> None:
    seeds = curves.at("Boxing", ("v1",), end)
    found = atari_evidence.published_at(BOXING, step)
    assert found == {"low": min(seeds), "median": float(np.median(seeds)), "high": max(seeds)}


def test_there_is_no_published_point_beyond_the_curves_and_for_other_games() -> None:
    assert atari_evidence.published_at(BOXING, 100_000) is not None
    assert atari_evidence.published_at(BOXING, 100_001) is None
    assert atari_evidence.published_at(CATCH, 10) is None


def test_minutes_go_evenly_between_the_metrics(tmp_path: Path) -> None:
    run = boxing(tmp_path)
    metrics = [{"step": 100, "update": 0, "wall_s": 60}, {"step": 300, "update": 9, "wall_s": 660}]
    episodes = [{"step": step, "return": 1, "length": 5, "seed": 0} for step in (50, 100, 200, 300)]
    for name, lines in (("metrics.jsonl", metrics), ("episodes.jsonl", episodes)):
        (run / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    minutes = atari_evidence.minutes_of(atari_evidence.opened(run))
    assert minutes == pytest.approx([0.5, 1, 6, 11, 11])


def test_episodes_come_back_from_their_file(tmp_path: Path) -> None:
    runs = [boxing(tmp_path, seed) for seed in (1, 2)]
    collected(runs, tmp_path, "Boxing")
    found = atari_evidence.read_episodes(tmp_path / atari_evidence.EPISODES)
    assert list(found) == [("Boxing", 1), ("Boxing", 2)]
    kept = [json.loads(line) for line in (runs[1] / "episodes.jsonl").read_text().splitlines()]
    episodes = found["Boxing", 2]
    assert episodes.steps == [line["step"] for line in kept]
    assert episodes.returns == [line["return"] for line in kept]
    assert episodes.minutes == pytest.approx([index * 60 / 50 for index in range(1, 51)], abs=1e-3)


def test_what_is_not_finished_or_not_evaluated_is_shown_as_such(tmp_path: Path) -> None:
    finished, stopped, unscored = (boxing(tmp_path, seed) for seed in (1, 2, 3))
    for name in ("metrics.jsonl", "episodes.jsonl"):
        cut(stopped / name, 25)
    # An evaluation on the way is not the score of the run.
    scores = (stopped / "scores.jsonl").read_text()
    (stopped / "scores.jsonl").write_text(scores.replace("12000", "6000"))
    (unscored / "scores.jsonl").unlink()
    record = collected([unscored, stopped, finished], tmp_path, "Boxing")
    assert [run["seed"] for run in record["runs"]] == [1, 2, 3]
    lines = atari_evidence.markdown(record).splitlines()
    assert "| Boxing | 1 | 12,000 | 12,000 | 60.0 | 20.0 ± 0.5 (20) | 0.0 ± 1.0 (2) |" in lines[2]
    assert "| FIRE, 80 %: 5.0 ± 1.0 (2) |" in lines[2]
    assert "| Boxing | 2 | 6,000 of 12,000 | 6,000 | 30.0 | not finished |" in lines[3]
    assert "| Boxing | 3 | 12,000 | 12,000 | 60.0 | not evaluated |" in lines[4]


@pytest.mark.parametrize(
    ("field", "games", "runs"),
    [
        ("held", ["Pong"], [{"seed": 1}]),
        ("runs", ["Boxing"], [{"seed": 1}, {"seed": 1}]),
        ("runs", ["Boxing"], [{"seed": 1, "protocol": "official"}]),
    ],
)
def test_runs_that_cannot_stand_in_one_table_are_refused(
    tmp_path: Path, field: str, games: list[str], runs: list[dict[str, Any]]
) -> None:
    paths = [
        write_run(tmp_path / str(index), BOXING, score=1.0, **{**RULES, **run})
        for index, run in enumerate(runs)
    ]
    with pytest.raises(UserError) as refused:
        collected(paths, tmp_path, *games)
    assert refused.value.field == field


def test_pictures_are_made_again_from_the_files_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_baselines(tmp_path, "Boxing")
    call(monkeypatch, boxing(tmp_path / "runs", 1), boxing(tmp_path / "runs", 2), "--out", tmp_path)
    names = ("steps.png", "minutes.png", TABLE)
    first = {name: (tmp_path / name).read_bytes() for name in names}
    for name in names:
        (tmp_path / name).unlink()
    call(monkeypatch, "--out", tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in names} == first
    assert capsys.readouterr().out.encode() == 2 * first[TABLE]
    with Image.open(tmp_path / "steps.png") as image:
        colours = {colour for _, colour in image.convert("RGB").getcolors(2**24) or []}
    # Both seeds, the held action and the published median.
    assert colours >= {(0, 114, 178), (0, 158, 115), (213, 94, 0), (204, 121, 167)}


def test_real_runs_can_be_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished one, and one that has not begun."""
    new_run(tmp_path / "whole", steps=24, seed=1, evaluation_episodes=2)
    new_run(tmp_path / "new", steps=24, seed=2)
    go_on(tmp_path / "whole")
    write_baselines(tmp_path, game_of(CATCH))
    call(monkeypatch, tmp_path / "whole", tmp_path / "new", "--out", tmp_path)
    whole, new = json.loads((tmp_path / SUMMARY).read_text())["runs"]
    assert (whole["steps"], len(whole["score"]["returns"])) == (24, 2)
    assert (new["steps"], new["updates"], new["minutes"], new["score"]) == (0, None, 0, None)
    assert (tmp_path / "minutes.png").stat().st_size > 0
