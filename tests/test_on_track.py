"""Published learning curves, where a run lies among them, and who says so."""

import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t

import on_track as benchmark
from many_runs import write_run
from stormrl import cli
from stormrl.acting.evaluate import random_scores
from stormrl.config.parts import RunConfig
from stormrl.config.presets import agent_config
from stormrl.envs import PROTOCOLS
from stormrl.report.overview import Overview
from stormrl.report.page import html
from stormrl.scores.curves import (
    FAMILY,
    PPO,
    at,
    band,
    bin_ends,
    curves,
    game_with_curves,
    random_play,
    run_set,
    run_sets,
)
from stormrl.scores.on_track import (
    FIRST,
    ReturnScale,
    TrackVerdict,
    compare_curve,
    differences,
    track,
    track_record,
)
from stormrl.scores.published import games

EARLY = ("RoadRunner", "UpNDown", "CrazyClimber", "KungFuMaster", "Boxing")
Mistake = Callable[[], object]


def interval_by_hand(game: str, end: int, seeds: Sequence[float]) -> tuple[float, float]:
    """Logarithms and SciPy's interval of Student's t, apart from the arithmetic that is tested."""
    random = random_play(game)
    unit = max(random.deviation, 1)
    distance = (np.array(seeds) - random.mean) / unit
    places = np.log(distance + np.sqrt(distance**2 + 1))
    spread = places.std(ddof=1) * math.sqrt(1 + 1 / len(places))
    ends = t.interval(0.95, len(places) - 1, loc=places.mean(), scale=spread)
    low, high = (random.mean + unit * (math.exp(x) - math.exp(-x)) / 2 for x in ends)
    return low, high


def config(env: str = "ALE/RoadRunner-v5", **fields) -> RunConfig:
    return RunConfig(env=env, agent=agent_config("paper", "base"), **fields)


# The data.


def test_a_point_is_the_mean_of_its_bin_in_the_published_file() -> None:
    # Seed 0 of RoadRunner in danijar/dreamerv3@423291a, at 10,000, 20,000, ... emulator frames.
    frames = [0.0, 0.0, 15.384615384615385, 500.0, 933.3333333333334, 950.0, 1100.0, 1500.0]
    assert curves("RoadRunner", "v1")[0][:4] == tuple(
        round(sum(frames[i : i + 2]) / 2, 2) for i in (0, 2, 4, 6)
    )
    assert at("RoadRunner", ("v1",), 10_000)[0] == 257.69
    assert bin_ends()[:2] == (5_000, 10_000)
    assert bin_ends()[-1] == 100_000


def test_every_game_of_the_benchmark_has_five_seeds_of_every_run_set() -> None:
    assert all(game_with_curves(f"ALE/{game}-v5") == game for game in games())
    assert [runs.seeds for runs in run_sets()] == [5] * 5
    assert run_set("Harm").source.startswith("thuml/HarmonyDream@0a22e33")
    assert {
        len(curve) for game in games() for runs in run_sets() for curve in curves(game, runs.name)
    } == {20}


@pytest.mark.parametrize(
    ("env", "game"),
    [
        ("ALE/RoadRunner-v5", "RoadRunner"),
        ("ALE/Tetris-v5", None),
        ("RoadRunner-v4", None),
        ("mine:RoadRunner-v0", None),
        ("stormrl/Catch-v0", None),
    ],
)
def test_games_with_curves(env: str, game: str | None) -> None:
    assert game_with_curves(env) == game


def test_band_of_five_seeds() -> None:
    found = band("RoadRunner", ("v1",))
    place = found.steps.index(10_000)
    # 257.69, 655.0, 735.71, 908.33, 1033.33
    assert (found.low[place], found.median[place], found.high[place]) == (257.69, 735.71, 1033.33)
    assert found.until(10_000).steps == (5_000, 10_000)
    assert found.until(10_001).high == found.high[:3]
    assert found.until(1e9) == found
    assert math.isnan(band("ChopperCommand", ("v1",)).median[1])


@pytest.mark.parametrize(
    "mistake",
    [
        lambda: curves("Tetris", "v1"),
        lambda: curves("Pong", "v9"),
        lambda: run_set("v9"),
        lambda: random_play("Tetris"),
        lambda: compare_curve("Tetris", [], 0),
    ],
)
def test_what_is_not_there_is_a_key_error(mistake: Mistake) -> None:
    with pytest.raises(KeyError):
        mistake()


# The comparison.


def test_interval_of_one_run_more() -> None:
    found = compare_curve("RoadRunner", [(14_000, 900.0)], 15_000).judged
    assert found is not None
    seeds = [curve[2] for name in ("v1", "HD", "Harm") for curve in curves("RoadRunner", name)]
    assert len(seeds) == 15
    low, high = interval_by_hand("RoadRunner", 15_000, [seed for seed in seeds if seed is not None])
    assert found.interval == pytest.approx((low, high))
    assert min(x for x in seeds if x is not None) > low


def test_scale_is_linear_in_the_noise_of_random_play_and_logarithmic_beyond() -> None:
    scale = ReturnScale(middle=100, unit=10)
    assert scale.to(101) == pytest.approx(0.1, rel=0.01)
    assert scale.to(99) == -scale.to(101)
    assert scale.to(200_100) - scale.to(100_100) == pytest.approx(math.log(2), rel=1e-6)
    assert scale.back(scale.to(-7_000)) == pytest.approx(-7_000)
    assert ReturnScale.of("Freeway").unit == 1  # All of its random episodes return 0.


def test_an_episode_counts_where_it_ended_and_a_bin_once_it_is_complete() -> None:
    episodes = [(5_000, 1.0), (5_001, 2.0), (10_000, 4.0), (10_001, 64.0)]
    found = compare_curve("RoadRunner", episodes, 14_999)
    assert [(each.end, each.returns) for each in found.bins] == [(5_000, (1,)), (10_000, (2, 4))]
    assert found.judged is not None
    assert found.judged.mean == 3
    later = compare_curve("RoadRunner", episodes, 20_000)
    assert later.judged is not None
    assert later.judged.returns == (64,)
    assert later.bins[-1].verdict is TrackVerdict.NO_EPISODE
    assert math.isnan(later.bins[-1].mean)


def test_nothing_is_said_before_10000_steps_or_without_an_episode() -> None:
    assert compare_curve("RoadRunner", [(4_000, 9e9)], FIRST - 1).verdict is TrackVerdict.EARLY
    assert compare_curve("RoadRunner", [(4_000, 9e9)], FIRST).verdict is TrackVerdict.NO_EPISODE
    assert compare_curve("RoadRunner", [(6_000, 9e9)], FIRST).verdict is TrackVerdict.ABOVE


@pytest.mark.parametrize(
    ("game", "end", "score", "verdict"),
    [
        ("RoadRunner", 20_000, 30.0, TrackVerdict.BELOW),
        ("RoadRunner", 20_000, 2_000.0, TrackVerdict.WITHIN),
        ("RoadRunner", 20_000, 50_000.0, TrackVerdict.ABOVE),
        # Two published seeds had not risen yet.
        ("RoadRunner", 10_000, 500.0, TrackVerdict.UNTOLD),
        ("Freeway", 50_000, 0.0, TrackVerdict.UNTOLD),
        ("Freeway", 50_000, 1.0, TrackVerdict.ABOVE),
    ],
)
def test_verdicts(game: str, end: int, score: float, verdict: TrackVerdict) -> None:
    assert compare_curve(game, [(end, score)], end).verdict is verdict


def test_published_seeds_left_out_one_at_a_time_lie_inside() -> None:
    inside = []
    for game in games():
        for end in (10_000, 20_000, 50_000):
            seeds = at(game, FAMILY, end)
            for i, score in enumerate(seeds):
                others = seeds[:i] + seeds[i + 1 :]
                (found,) = (b for b in compare_curve(game, [(end, score)], end).bins[-1:])
                found = found._replace(published=others)
                if max(others) > min(others):
                    by_hand = interval_by_hand(game, end, others)
                    assert found.interval == pytest.approx(by_hand, rel=1e-6, abs=1e-6)
                inside.append(found.verdict in (TrackVerdict.WITHIN, TrackVerdict.UNTOLD))
    assert len(inside) > 1_100
    assert 0.92 < np.mean(inside) < 0.97


@pytest.mark.parametrize("game", [game for game in EARLY if game != "UpNDown"])
def test_ppo_and_random_play_are_told_apart_where_games_rise_early(game: str) -> None:
    for end in bin_ends()[5:]:
        for score in (random_play(game).mean, *at(game, (PPO,), end)):
            assert compare_curve(game, [(end, score)], end).verdict is TrackVerdict.BELOW


def test_real_random_play_is_below() -> None:
    played = random_scores("ALE/RoadRunner-v5", PROTOCOLS["atari100k"], episodes=8)
    mean = float(np.mean([score.total for score in played]))
    assert compare_curve("RoadRunner", [(15_000, mean)], 15_000).verdict is TrackVerdict.BELOW


def test_damaged_lines_and_episodes_that_were_cut_short_are_left_out() -> None:
    lines = [
        {"step": 12_000, "return": 900},
        {"step": 12_100, "return": 0, "cut_short": True},
        {"step": 12_200, "return": None},
        {"return": 5},
    ]
    found = track(config(), lines, 15_000)
    assert found is not None
    assert found.judged is not None
    assert found.judged.returns == (900,)
    newest = track(config(), [*lines, {"step": 15_100, "return": 1}])
    assert newest is not None
    assert newest.step == 15_100


def test_record_of_an_environment_without_curves() -> None:
    catch = config("stormrl/Catch-v0")
    assert track(catch, [{"step": 20_000, "return": 5}]) is None
    record = track_record(catch, None)
    assert record["applicable"] is False
    assert "stormrl/Catch-v0" in record["reason"]


def test_what_is_not_as_in_the_published_runs_is_told() -> None:
    assert differences(config(protocol="atari100k")) == []
    tiny = RunConfig(env="ALE/Pong-v5", protocol="official", agent=agent_config("paper", "tiny"))
    window = tiny.agent.world_model.batch_size * tiny.agent.world_model.batch_length
    ratio = window * tiny.agent.world_model_ratio
    assert differences(tiny) == [
        "protocol official instead of one without sticky actions",
        f"{ratio:,.4g} steps trained on for each step played instead of 1,024",
    ]


# Who says it.


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """An unfinished run of RoadRunner at step 18,000, with returns of 30."""
    path = write_run(tmp_path / "road", "ALE/RoadRunner-v5", 1, 30.0)
    cut_back(path, 18_000, [{"step": step, "return": 30} for step in range(200, 18_001, 200)])
    return path


def cut_back(path: Path, step: int, episodes: list[dict]) -> None:
    metrics = map(json.loads, (path / "metrics.jsonl").read_text().splitlines())
    histories = {
        "metrics": [line for line in metrics if line["step"] <= step],
        "episodes": episodes,
    }
    for name, lines in histories.items():
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (path / f"{name}.jsonl").write_text(text)
    (path / "scores.jsonl").write_text("")


def as_json(capsys: pytest.CaptureFixture[str], *args: object) -> dict:
    capsys.readouterr()
    cli.main([*map(str, args), "--json"])
    return json.loads(capsys.readouterr().out)


def test_doctor(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = as_json(capsys, "doctor", run)["on_track"]
    assert (record["applicable"], record["verdict"], record["step"]) == (True, "below", 18_000)
    assert record["judged"]["mean"] == 30
    assert record["judged"]["episodes"] == 25
    assert record["judged"]["seeds"] == sum(runs["seeds"] for runs in record["published"]) == 15
    assert [each["last_step"] for each in record["bins"]] == [5_000, 10_000, 15_000]
    assert cli.main(["doctor", str(run)]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "verdict below" in words
    assert "return, steps 10,001 to 15,000 30, mean of 25 episodes" in words
    assert "this run has protocol official instead of one without sticky actions" in words
    catch = write_run(tmp_path / "catch", "stormrl/Catch-v0", 1, 4.0)
    assert cli.main(["doctor", str(catch)]) == 0
    assert "not applicable" in capsys.readouterr().out


def test_reproduce_takes_unfinished_runs_if_it_is_asked_to(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["reproduce", "--runs", str(run)]) == 2
    assert "--unfinished" in capsys.readouterr().err
    args = ["reproduce", "--runs", str(run), "--unfinished"]
    (game,) = as_json(capsys, *args)["games"]
    assert (game["game"], game["verdict"], game["runs"]) == (
        "RoadRunner",
        "too few seeds to tell",
        [],
    )
    (found,) = game["unfinished"]
    assert (found["seed"], found["step"], found["on_track"]["verdict"]) == (1, 18_000, "below")
    assert cli.main(args) == 3
    printed = capsys.readouterr()
    row = printed.out.splitlines()[-1].split()
    assert row[1:6] == ["18,000", "10,001", "to", "15,000", "30.0"]
    assert row[-1] == "below"
    assert "HarmonyDream" in printed.err


def test_report_draws_published_curves_behind(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (game,) = as_json(capsys, "report", run, "--out", tmp_path / "page.html")["games"]
    assert [found["verdict"] for found in game["on_track"]] == ["below"]
    page = (tmp_path / "page.html").read_text()
    learning = page[page.index('id="learning"') : page.index('id="losses"')]
    assert len(re.findall(r"stroke: var\(--pale\)", learning)) == 1
    assert "danijar/dreamerv3@423291a" in learning
    assert "15 published seeds" in learning
    assert "protocol official instead of one without sticky actions" in learning
    assert "<dt>on track?</dt>" in page


def test_report_of_a_game_without_curves_says_nothing_of_them(tmp_path: Path) -> None:
    page = html(Overview.of([write_run(tmp_path / "catch", "stormrl/Catch-v0", 1, 4.0)]))
    assert "on track" not in page
    assert "danijar/dreamerv3" not in page


def test_the_page_says_from_where_on_ppo_is_told_apart() -> None:
    page = (Path(__file__).parents[1] / "docs" / "evaluation.md").read_text()
    for game in EARLY:
        (row,) = re.findall(rf"^\| {game} \|.*$", page, re.MULTILINE)
        for names in (("v1",), FAMILY):
            told = benchmark.told_for_good(
                game, names, lambda end, game=game: at(game, (PPO,), end)
            )
            assert told in row
