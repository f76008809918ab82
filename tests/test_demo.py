import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from stormrl import demo
from stormrl.cli import main
from stormrl.demo import Comparison, Deadline, Plan, demonstrate, table, verdict
from stormrl.media import read_video
from stormrl.progress import SilentProgress

# So few steps that all of them are warm-up: no agent is better than chance after that.
CATCH = Plan("stormrl/Catch-v0", steps=85, minutes=5, episodes=4, entropy=3e-2, ratio=1.0)


def comparison(random: list[float], trained: list[float]) -> Comparison:
    return Comparison(CATCH, Path("run"), 85, 66.0, random, trained, [])


def test_a_demonstration_leaves_what_it_promises(tmp_path: Path) -> None:
    hidden = CATCH._replace(env="stormrl/HiddenCatch-v0")
    compared = demonstrate(tmp_path, (CATCH, hidden))
    assert [one.plan for one in compared] == [CATCH, hidden], "on to the next if it is not clear"
    for one in compared:
        film, gif, curve = one.files
        assert len(read_video(film)) == demo.CONTEXT + demo.HORIZON
        assert gif.read_bytes().startswith(b"GIF89a")
        assert curve.read_bytes().startswith(b"\x89PNG")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [game["env"] for game in summary["games"]] == [CATCH.env, hidden.env]
    for game in summary["games"]:
        for player in (game["random"], game["trained"]):
            returns = player["returns"]
            assert len(returns) == 4
            assert player["mean"] == pytest.approx(np.mean(returns), rel=1e-5)
            assert player["stderr"] == pytest.approx(np.std(returns, ddof=1) / 2, rel=1e-5)
        assert game["step"] == 85
        assert (Path(game["run_dir"]) / "checkpoints" / "000000085").is_dir()
        assert all(Path(file).exists() for file in game["files"])
    words = (tmp_path / "summary.md").read_text()
    assert words.count("NOT clearly better") == 2
    assert words.count("| 85 |") == 2


def test_a_clear_result_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    better = comparison([-5.0, -3.0, -5.0, -3.0, -5.0], [3.0, 5.0, 5.0, 5.0, 5.0])
    monkeypatch.setattr(demo, "compare", lambda *args: better)
    assert demonstrate(tmp_path, (CATCH, CATCH)) == [better]


def test_better_means_hardly_by_chance() -> None:
    random, trained = [-5.0, -3.0, -5.0, -1.0, -5.0], [3.0, 5.0, 5.0, -1.0, 5.0]
    clear = comparison(random, trained)
    assert clear.chance == mannwhitneyu(trained, random, alternative="greater").pvalue
    assert clear.clear
    assert "is clearly better than random play" in verdict(clear)
    assert "after 85 steps in 1.1 minutes" in verdict(clear)
    assert not comparison(trained, random).clear
    assert not comparison(random, random).clear
    assert comparison([1.0, 1.0], [1.0, 1.0]).chance == 1
    assert table([clear])[0][:4] == (CATCH.env, "85", "-3.80 ± 0.80", "3.40 ± 1.17")


def test_time_is_up_when_it_is_up(tmp_path: Path) -> None:
    in_no_time = CATCH._replace(steps=100_000, minutes=1e-9)
    one = demo.compare(in_no_time, tmp_path, SilentProgress(), lambda trainer: None)
    assert 0 < one.step < 1000


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
    asked = []

    def compare(plan: Plan, out: Path, *args: object) -> Comparison:
        asked.append(plan.minutes)
        return comparison([-5.0, -3.0], [-3.0, -5.0])._replace(files=[out / "dream.gif"])

    monkeypatch.setattr(demo, "compare", compare)
    out = tmp_path / "new" / "demo"
    assert main(["demo", "--out", str(out), "--minutes", "3"]) == 0
    assert asked == [3, 3]
    printed = capsys.readouterr()
    assert printed.err.count("NOT clearly better") == 2
    assert "-4.00 ± 1.00" in printed.out
    assert {str(out / "dream.gif"), str(out / "summary.json")} <= set(printed.out.splitlines())
    assert main(["demo", "--out", str(out), "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == json.loads((out / "summary.json").read_text())
    assert printed.err == ""


def test_a_stopped_demonstration_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*args: object) -> Comparison:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "compare", stop)
    assert main(["demo", "--out", str(tmp_path)]) == 3
    assert capsys.readouterr().err.startswith("Stopped")
