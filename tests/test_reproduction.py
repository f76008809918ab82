"""When new runs agree with the released ones: the arithmetic, and the command on real games."""

import json
import math
import os
import re
import signal
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from scipy.stats import t

from small_runs import go_on, new_run
from stormrl.acting.collector import Collector, Episode
from stormrl.acting.evaluate import Score, random_scores
from stormrl.cli import main
from stormrl.config.parts import RunConfig
from stormrl.config.presets import agent_config
from stormrl.disk.run_directory import RunDirectory
from stormrl.envs import PROTOCOLS
from stormrl.runs.scored import scored
from stormrl.runs.whole import steps_done
from stormrl.scores.file import read_scores, write_scores
from stormrl.scores.published import STORM, games, published_agent
from stormrl.scores.reproduction import (
    Comparison,
    Interval,
    ReproductionVerdict,
    compare,
    differences,
    exit_code,
    prediction_interval,
)
from stormrl.seeds import EVALUATION_SEED

TELLING = ("Boxing", "RoadRunner", "CrazyClimber")
STEPS = 24


def test_prediction_interval_of_hand_worked_runs():
    # Mean 2, standard deviation 1; Student's t with 2 degrees of freedom is 4.302653 at 97.5 %.
    one = prediction_interval([1, 2, 3], 1)
    assert one == pytest.approx((2 - 4.302653 * math.sqrt(4 / 3), 2 + 4.302653 * math.sqrt(4 / 3)))
    four = prediction_interval([1, 2, 3], 4)
    assert four.high - 2 == pytest.approx(4.302653 * math.sqrt(1 / 3 + 1 / 4))
    assert prediction_interval([5, 5], 1) == (5, 5)
    with pytest.raises(ValueError, match="spread"):
        prediction_interval([1], 3)


@pytest.mark.parametrize("new", [1, 3])
def test_the_interval_holds_as_many_means_as_it_claims(new):
    generator = np.random.default_rng(new)
    published = generator.normal(size=(4000, 5))
    means = generator.normal(size=(4000, new)).mean(-1)
    held = [
        prediction_interval(runs.tolist(), new).holds(mean)
        for runs, mean in zip(published, means, strict=True)
    ]
    assert np.mean(held) == pytest.approx(0.95, abs=0.012)  # 3.5 standard errors


def test_released_runs_left_out_one_at_a_time_are_accepted():
    accepted = []
    for game in games():
        seeds = published_agent(STORM).seeds[game]
        for i, score in enumerate(seeds):
            others = seeds[:i] + seeds[i + 1 :]
            comparison = compare(game, [score])._replace(published=others)
            # SciPy's interval of Student's t, apart from the arithmetic that is tested.
            scale = np.std(others, ddof=1) * math.sqrt(1 / 4 + 1)
            low, high = t.interval(0.95, 3, loc=np.mean(others), scale=scale or 1e-9)
            assert comparison.inside == (low <= score <= high)
            assert comparison.inside == (comparison.verdict is not ReproductionVerdict.OUTSIDE)
            accepted.append(comparison.inside)
    assert len(accepted) == 130
    assert np.mean(accepted) >= 0.9


@pytest.mark.parametrize("game", TELLING)
def test_published_weak_play_is_rejected(game):
    weak = compare(game, []).weak
    assert weak.keys() == {"random play", "PPO"}
    for score in weak.values():
        assert compare(game, [score]).verdict is ReproductionVerdict.OUTSIDE
    assert (
        compare(game, published_agent(STORM).seeds[game]).verdict is ReproductionVerdict.REPRODUCED
    )


@pytest.mark.parametrize("game", TELLING)
def test_real_random_play_is_rejected(game):
    played = random_scores(f"ALE/{game}-v5", PROTOCOLS["official"], episodes=1)
    assert compare(game, [played[0].total]).verdict is ReproductionVerdict.OUTSIDE


def test_a_mean_inside_says_nothing_while_weak_play_would_be_inside():
    middle = np.mean(published_agent(STORM).seeds["Alien"]).item()
    one = compare("Alien", [middle])
    assert one.interval.holds(227.8)
    assert one.confused == ["random play", "PPO"]
    assert one.verdict is ReproductionVerdict.TOO_FEW
    needed = one.runs_needed
    assert needed is not None
    assert compare("Alien", [middle] * (needed - 1)).verdict is ReproductionVerdict.TOO_FEW
    assert compare("Alien", [middle] * needed).verdict is ReproductionVerdict.REPRODUCED


def test_some_games_can_never_be_told():
    """Released runs of Freeway score nothing, those of DemonAttack as much as PPO."""
    for game, score in (("Freeway", 0.0), ("DemonAttack", 164.6)):
        comparison = compare(game, [score] * 20)
        assert comparison.verdict is ReproductionVerdict.TOO_FEW
        assert comparison.runs_needed is None


def test_no_run_at_all_is_too_few():
    comparison = compare("Boxing", [])
    assert comparison.verdict is ReproductionVerdict.TOO_FEW
    assert math.isnan(comparison.mean)


def made(*, scores: list[float]) -> Comparison:
    """The published runs lie close together, and far from weak play."""
    return Comparison("Game", tuple(scores), (10, 10.2, 9.8, 10.1), {"random play": 5})


def test_the_exit_code_tells_the_worst():
    inside, outside, none = made(scores=[10]), made(scores=[5]), made(scores=[])
    assert exit_code([inside]) == 0
    assert exit_code([inside, none]) == 3
    assert exit_code([none, outside, inside]) == 1
    assert Interval(1, 2).holds(2)


def test_what_is_not_as_the_released_runs_is_told():
    released = RunConfig(
        env="ALE/Boxing-v5",
        preset="official",
        protocol="official",
        agent=agent_config("official", "base"),
    )
    assert differences(released) == []
    other = RunConfig(env="ALE/Boxing-v5", steps=50, agent=agent_config("official"))
    assert differences(other) == [
        "preset paper instead of official",
        "protocol atari100k instead of official",
        "steps 50 instead of 100000",
    ]
    edited = RunConfig(env="ALE/Boxing-v5", preset="official", protocol="official")
    assert differences(edited) == ["settings other than those of preset official"]


def test_every_game_of_the_benchmark_can_be_played():
    assert {f"ALE/{game}-v5" for game in games()} <= gymnasium.registry.keys()


def test_the_page_lists_how_many_runs_tell_a_game():
    page = (Path(__file__).parents[1] / "docs" / "evaluation.md").read_text()
    rows = page.partition("excludes random play and PPO | |")[2].splitlines()
    for game in games():
        needed = compare(game, []).runs_needed
        (row,) = [row for row in rows if re.search(rf"\b{game}\b", row)]
        assert str(needed or "never") in row.split("|")[1]


# The command.


@pytest.fixture(scope="module")
def boxing(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two finished runs; tests write their scores."""
    paths = [tmp_path_factory.mktemp("runs") / f"boxing-{seed}" for seed in (1, 2)]
    for seed, path in enumerate(paths, start=1):
        new_run(path, env="ALE/Boxing-v5", protocol="official", steps=STEPS, seed=seed)
        go_on(path)
    return paths


def reproduce(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = main(["reproduce", *map(str, args), "--json"])
    printed = capsys.readouterr()
    assert printed.err == ""
    return code, json.loads(printed.out)


def give(path: Path, *returns: float) -> None:
    seeds = range(EVALUATION_SEED, EVALUATION_SEED + len(returns))
    scores = [Score(total, 9, seed) for total, seed in zip(returns, seeds, strict=True)]
    write_scores(path, STEPS, "official", scores)


def test_finished_runs_are_compared_by_the_scores_they_have(boxing, capsys):
    give(boxing[0], 70, 90)
    give(boxing[1], 60, 90)
    args = ["Boxing", "--runs", *boxing, "--episodes", 2]
    code, record = reproduce(capsys, *args)
    assert code == 0
    (game,) = record["games"]
    assert game["verdict"] == "reproduced"
    assert game["inside"] is True
    assert game["scores"] == [80, 75]
    assert game["mean"] == 77.5
    # Mean 79.68; Student's t with 4 degrees of freedom is 2.776445.
    squares = 8.18**2 + 10.82**2 + 10.82**2 + 7.88**2 + 5.58**2
    half = 2.776445 * math.sqrt(squares / 4) * math.sqrt(1 / 5 + 1 / 2)
    assert game["interval"] == pytest.approx([79.68 - half, 79.68 + half], rel=1e-4)
    assert [run["seed"] for run in game["runs"]] == [1, 2]
    assert f"steps {STEPS} instead of 100000" in game["runs"][0]["differences"]
    give(boxing[0], 3, 3)  # The newest evaluation counts.
    give(boxing[1], 3, 3)
    code, record = reproduce(capsys, *args)
    assert (code, record["games"][0]["verdict"]) == (1, "outside")
    assert main(["reproduce", *map(str, args)]) == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines()[2].split() == [
        "Boxing",
        "2",
        "3.0",
        "56.6",
        "to",
        "102.7",
        "below",
    ]
    assert "not as released" in printed.err


def test_a_game_without_a_run_cannot_be_told(boxing, capsys):
    give(boxing[0], 80, 80)
    give(boxing[1], 80, 80)
    code, record = reproduce(capsys, "Boxing", "pong", "--runs", *boxing, "--episodes", 2)
    assert code == 3
    assert [game["verdict"] for game in record["games"]] == ["reproduced", "too few seeds to tell"]
    assert [game["inside"] for game in record["games"]] == [True, None]


def test_scores_of_another_checkpoint_protocol_or_seed_do_not_count(boxing):
    path = boxing[0]
    write_scores(path, STEPS - 1, "official", [Score(1, 1, 7)])
    write_scores(path, STEPS, "atari100k", [Score(2, 1, 7)])
    assert read_scores(path, STEPS, "official", [7]) is None
    write_scores(path, STEPS, "official", [Score(3, 1, 7)])
    assert read_scores(path, STEPS, "official", [7]) == [Score(3, 1, 7)]
    assert read_scores(path, STEPS, "official", [7, 8]) is None
    with (path / "scores.jsonl").open("a") as file:
        file.write('{"checkpoint_step": 24, "protocol": "official", "seed": 8, "return": null}\n')
    assert read_scores(path, STEPS, "official", [7, 8]) is None


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "GAME: is missing"),
        (["Boxin"], "did you mean Boxing?"),
        (["Boxing", "--seeds", "2", "2"], "seeds: repeat one"),
        (["Boxing", "--episodes", "0"], "episodes: is 0"),
        (["--runs", "nowhere"], "nowhere does not exist"),
    ],
)
def test_mistakes_are_told_in_a_line(args, words, capsys):
    assert main(["reproduce", *args]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert words in printed.err


def test_runs_that_are_no_samples_of_the_game_are_refused(boxing, tmp_path, capsys):
    twin, part, toy = (tmp_path / name for name in ("twin", "part", "toy"))
    new_run(twin, env="ALE/Boxing-v5", steps=STEPS, seed=1)
    go_on(twin)
    assert main(["reproduce", "--runs", str(boxing[0]), str(twin)]) == 2
    assert "both have seed 1" in capsys.readouterr().err
    new_run(part, env="ALE/Boxing-v5", steps=STEPS)
    assert main(["reproduce", "--runs", str(part)]) == 2
    assert f"at step 0 of {STEPS}" in capsys.readouterr().err
    new_run(toy, steps=STEPS)
    go_on(toy)
    assert main(["reproduce", "--runs", str(toy)]) == 2
    assert "no scores of" in capsys.readouterr().err


def test_a_game_is_trained_evaluated_and_compared_once(tmp_path, capsys):
    args = ["RoadRunner", "--size", "toy", "--steps", "1027", "--episodes", "1"]
    args += ["--device", "cpu", "--compile", "off", "--folder", str(tmp_path)]
    code, record = reproduce(capsys, *args)
    run = tmp_path / "roadrunner-official-toy-seed1"
    lines = [json.loads(line) for line in (run / "scores.jsonl").read_text().splitlines()]
    assert [(line["protocol"], line["checkpoint_step"]) for line in lines] == [("official", 1027)]
    (game,) = record["games"]
    assert game["scores"] == [lines[0]["return"]]
    assert (code, game["verdict"]) == (1, "outside"), "a thousand steps teach nothing"
    again = reproduce(capsys, *args)
    assert again == (code, record)
    assert len((run / "scores.jsonl").read_text().splitlines()) == 1
    assert main(["reproduce", *args, "--steps", "1028"]) == 2
    assert "other settings" in capsys.readouterr().err


def test_a_stopped_training_goes_on(tmp_path, monkeypatch, capsys):
    args = ["RoadRunner", "--size", "toy", "--steps", "1025", "--episodes", "1"]
    args += ["--device", "cpu", "--compile", "off", "--folder", str(tmp_path)]
    step = Collector.step

    def stopped_step(collector: Collector, random: bool) -> Episode | None:
        if len(collector.replay) == 9:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(collector, random)

    with monkeypatch.context() as patch:
        patch.setattr(Collector, "step", stopped_step)
        assert reproduce(capsys, *args) == (3, {"finished": False})
    run = tmp_path / "roadrunner-official-toy-seed1"
    assert steps_done(run) == 10
    code, record = reproduce(capsys, *args)
    assert (code, record["finished"]) == (1, True)
    assert steps_done(run) == 1025


def test_a_run_without_scores_is_evaluated(boxing, monkeypatch):
    monkeypatch.setattr(
        "stormrl.runs.whole.agent_scores", lambda agent, n, rules: [Score(4, 1, 6)] * n
    )
    run = scored(RunDirectory.open(boxing[0]), PROTOCOLS["machado"], 2, "cpu")
    assert run.returns == (4, 4)
    assert run.mean == 4
