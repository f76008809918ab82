import json
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from stormrl.cli import main
from stormrl.config import recipes
from stormrl.config.parts import RunConfig
from stormrl.disk import pretrained
from stormrl.history.progress import SilentProgress
from stormrl.runs import demo, packing, whole
from stormrl.runs.demo import (
    Deadline,
    DemoComparison,
    Demonstration,
    DemoPlan,
    Screen,
    table,
    verdict,
)
from stormrl.scores.held_actions import HeldAction
from stormrl.scores.yardsticks import Yardsticks
from videos import read_video

# So few steps that all but one of them are warm-up: no agent is better than chance after that.
LONG = recipes.catch()
WARM = replace(LONG.agent, replay=replace(LONG.agent.replay, warmup=39))
SHORT = replace(LONG, agent=WARM, steps=40, device="cpu")
CATCH = DemoPlan(SHORT, share=0.5, reserve_s=1, episodes=4)
HIDDEN = CATCH._replace(config=replace(SHORT, env="stormrl/HiddenCatch-v0"), share=1)
ROAD = CATCH._replace(config=RunConfig("ALE/RoadRunner-v5", steps=100_000))


def comparison(random: list[float], trained: list[float], plan: DemoPlan = CATCH) -> DemoComparison:
    return DemoComparison(plan, Path("run"), 40, 66.0, random, trained, [])


class Interrupted(SilentProgress):
    """Somebody presses Ctrl-C after the third step."""

    def update(
        self, step: int, updates: int, metrics: Mapping[str, float], episode_return: float | None
    ) -> None:
        if step == 3:
            signal.raise_signal(signal.SIGINT)


class Listener(Screen):
    """Notes all that is said, and what goes on when."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    @contextmanager
    def busy(self, text: str) -> Iterator[None]:
        yield
        self.said.append(text)


@pytest.fixture(autouse=True)
def short_films(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "HORIZON", 4)
    monkeypatch.setattr(demo, "FILMED", 1)


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package without pretrained agents, and an empty cache."""
    folder = tmp_path / "package"
    monkeypatch.setattr(pretrained, "folder", lambda: folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def pack(tmp_path: Path, name: str, **fields) -> None:
    """A run that hardly learned anything, as a pretrained agent."""
    config = replace(SHORT, evaluation_episodes=0, **fields)
    whole.train(config, tmp_path / "runs" / name)
    packing.pack(tmp_path / "runs" / name, name, episodes=3, device="cpu")


def test_a_demonstration_leaves_what_it_promises(tmp_path: Path) -> None:
    pack(tmp_path, "Small")
    done = demo.demonstrate(tmp_path, 60, (CATCH, HIDDEN))
    assert [one.env for one in done.comparisons] == [CATCH.config.env, HIDDEN.config.env]
    for film, gif in (done.files[:2], done.files[2:4], done.files[5:7]):
        assert len(read_video(film)) == demo.CONTEXT + demo.HORIZON
        assert gif.read_bytes().startswith(b"GIF89a")
    for curve in (done.files[4], done.files[7]):
        assert curve.read_bytes().startswith(b"\x89PNG")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert all(Path(file).exists() for file in summary["pretrained"]["files"])
    assert len(summary["pretrained"]["returns"]) == demo.GAMES
    for game in summary["games"]:
        for player in (game["random"], game["trained"]):
            returns = player["returns"]
            assert len(returns) == 4
            assert player["mean"] == pytest.approx(np.mean(returns), rel=1e-5)
            assert player["stderr"] == pytest.approx(np.std(returns, ddof=1) / 2, rel=1e-5)
        assert game["step"] == 40
        assert (Path(game["run_dir"]) / "checkpoints" / "000000040").is_dir()
        assert all(Path(file).exists() for file in game["files"])
    assert summary["games"][0]["pretrained"]["name"] == "Small"
    assert summary["games"][1]["pretrained"] is None, "of another game"
    words = (tmp_path / "summary.md").read_text()
    assert words.count("NOT clearly better") == 2
    assert words.count("| trained here | 40 |") == 2
    assert words.count("| pretrained | 40 |") == 1


def test_the_pretrained_agent_of_the_last_game_plays(tmp_path: Path) -> None:
    screen = Listener()
    assert demo.present(tmp_path, (CATCH,), screen) is None
    assert screen.said == ["No pretrained agent comes with this version of stormrl."]
    pack(tmp_path, "A")
    pack(tmp_path, "B", env=HIDDEN.config.env)
    for plans, name in (((CATCH, HIDDEN), "B"), ((HIDDEN, CATCH), "A"), ((ROAD,), "A")):
        chosen = demo.choose_pretrained(plans)
        assert chosen is not None
        assert chosen.name == name


def test_time_is_shared_and_what_follows_is_set_aside() -> None:
    first, second = CATCH._replace(share=0.4, reserve_s=20), CATCH._replace(share=1, reserve_s=80)
    assert demo.training_s((first, second), 600) == pytest.approx(200)
    assert demo.training_s((second,), 400) == 320


def test_a_game_without_time_is_left_out(tmp_path: Path) -> None:
    screen = Listener()
    done = demo.demonstrate(tmp_path, 1e-9, (CATCH,), screen)
    assert done.comparisons == ()
    assert "No time is left for stormrl/Catch-v0." in screen.said[-1]
    assert json.loads((tmp_path / "summary.json").read_text())["games"] == []


def test_better_means_hardly_by_chance() -> None:
    random, trained = [-5.0, -3.0, -5.0, -1.0, -5.0], [3.0, 5.0, 5.0, -1.0, 5.0]
    clear = comparison(random, trained)
    assert clear.chance == mannwhitneyu(trained, random, alternative="greater").pvalue
    assert clear.clear
    assert "is clearly better than random play" in verdict(clear)
    assert "after 40 steps in 1.1 minutes" in verdict(clear)
    assert not comparison(trained, random).clear
    assert not comparison(random, random).clear
    assert comparison([1.0, 1.0], [1.0, 1.0]).chance == 1


def test_an_agent_that_only_holds_a_direction_has_not_learned_more() -> None:
    held = HeldAction("RIGHT", 0.8, 800, 10, 5, (780, 790, 800, 810, 820))
    measured = comparison([0.0, 100, 0, 0, 200], [790.0, 800, 780, 810, 820], ROAD)
    measured = measured._replace(yardsticks=Yardsticks(held))
    words = verdict(measured)
    assert "is clearly better than random play" in words
    assert "NOT clearly better than the best held action (RIGHT, 80 %)" in words
    record = measured.as_dict()["held"]
    assert record["action"] == "RIGHT"
    assert record["mann_whitney_p"] > 0.1


def test_the_table_sets_everyone_beside_the_agent() -> None:
    held = HeldAction("RIGHT", 1.0, 800, 10, 2, (790, 810))
    road = comparison([0.0, 200], [500.0, 700], ROAD)._replace(
        step=14_200, yardsticks=Yardsticks(held, storm=17_564)
    )
    rows = {row[1]: row[2:4] for row in table([road])}
    assert rows["random play"] == ("", "100 ± 100")
    assert rows["held RIGHT, 100 %"] == ("", "800 ± 10")
    assert rows["trained here"] == ("14,200", "600 ± 100")
    assert rows["STORM"] == ("100,000", "17564")
    steps, text = rows["DreamerV3 of 2023"]
    assert steps == "15,000"
    (then,) = road.published
    assert text == f"{then.median:.0f} ({then.low:.0f} to {then.high:.0f})"
    assert [row[1] for row in table([comparison([-5, -3], [3, 5])])] == [
        "random play",
        "trained here",
    ]


def test_time_is_up_when_it_is_up(tmp_path: Path) -> None:
    long = CATCH._replace(config=replace(SHORT, steps=100_000))
    one = demo.compare(long, 1e-9, tmp_path, Screen())
    assert 0 < one.step < 1000
    assert Demonstration(1, 1, None, [one]).unfinished == [one.run_dir]


def test_who_stops_a_training_is_told_how_to_go_on(tmp_path: Path) -> None:
    screen = Listener()
    screen.training = lambda steps, seconds: Interrupted()
    with pytest.raises(KeyboardInterrupt):
        demo.compare(CATCH, 3600, tmp_path, screen)
    run = tmp_path / "run-catch"
    assert screen.said[-1] == (f"Saved at step 3; to go on there: stormrl train --resume {run}")
    assert whole.steps_done(run) == 3


def test_a_deadline_asks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, now_s = [], [100.0]
    monkeypatch.setattr("signal.raise_signal", asked.append)
    monkeypatch.setattr("time.monotonic", lambda: now_s[0])
    with Deadline(SilentProgress(), seconds=60) as deadline:
        for now_s[0] in (100.0, 159.0, 161.0, 200.0):
            deadline.update(1, 0, {}, None)
            assert deadline.reached == (now_s[0] > 160)
    assert len(asked) == 1


def test_the_command_prints_a_table_and_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def compare(plan: DemoPlan, seconds: float, out: Path, screen: Screen) -> DemoComparison:
        return comparison([-5.0, -3.0], [-3.0, -5.0], plan)._replace(files=[out / "dream.gif"])

    monkeypatch.setattr(demo, "compare", compare)
    out = tmp_path / "new" / "demo"
    assert main(["demo", "--out", str(out), "--minutes", "3"]) == 0
    printed = capsys.readouterr()
    assert "This takes about 3 minutes" in printed.err
    assert "No pretrained agent" in printed.err
    assert printed.out.count("-4.00 ± 1.00") == 4
    assert {str(out / "dream.gif"), str(out / "summary.json")} <= set(printed.out.splitlines())
    assert main(["demo", "--out", str(out), "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == json.loads((out / "summary.json").read_text())
    assert printed.err == ""


def test_no_time_is_no_demonstration(capsys: pytest.CaptureFixture[str]) -> None:
    for minutes in ("0", "-1", "nan", "inf"):
        assert main(["demo", "--minutes", minutes]) == 2
        told = capsys.readouterr().err
        assert "give a number above 0" in told or "give a finite number" in told


def test_a_stopped_demonstration_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*args: object) -> DemoComparison:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "compare", stop)
    assert main(["demo", "--out", str(tmp_path)]) == 3
    assert "Stopped; what was compared before is in" in capsys.readouterr().err
