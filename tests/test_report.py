"""The report's figures against published ones, and its page in a real browser."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from many_runs import LINES, STEPS, one_run, write_published, write_run
from stormrl import cli
from stormrl.config.presets import agent_config
from stormrl.pictures.media import write_mp4
from stormrl.report.overview import Overview
from stormrl.report.page import html
from stormrl.report.reading import Run, Unreadable, newest_evaluation, read_run
from stormrl.scores.published import STORM, published_agent

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from browser import NewPage

OPEN_LOOP = ("dream", "copy", "reconstruction")
NAMES = ("mean", "median", "iqm", "optimality_gap")
LARGEST = 5_000_000
"""Bytes of a page without videos."""
HOSTILE = "</title><script>alert(1)</script><img src=x onerror=alert(2)> $\\frac{1}$ & 'q' \"q\" 漢"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Overview:
    return Overview.of(write_published(tmp_path_factory.mktemp("runs")))


@pytest.fixture(scope="module")
def page_of_all(published: Overview, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html(published))
    return path


def report(capsys: pytest.CaptureFixture, *args: object) -> dict:
    assert cli.main(["report", *map(str, args), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def lines(path: Path, name: str) -> list[str]:
    return (path / name).read_text().splitlines()


def test_aggregates_of_the_released_runs_are_the_published_ones(published: Overview) -> None:
    assert len(published.runs) == 130
    found = published.as_dict()["aggregate"]
    known = published_agent(STORM).recomputed
    for name in NAMES:
        assert found[name]["value"] == pytest.approx(known[name], abs=5e-4), name
        low, high = found[name]["ci95"]
        assert low < found[name]["value"] < high
    assert [round(found[name]["value"], 3) for name in NAMES[:3]] == [1.222, 0.425, 0.561]


def test_published_agents_stand_beside_with_their_own_figures(published: Overview) -> None:
    (standing,) = published.standings
    for row in standing.rows[1:]:
        assert row.published is not None
        for name in NAMES:
            ours, known = getattr(row.aggregate, name).value, row.published.recomputed.get(name)
            if math.isnan(ours):
                assert not row.published.seeds
            else:
                assert ours == pytest.approx(known, abs=5e-4), (row.name, name)


def test_the_released_runs_reproduce_themselves(published: Overview) -> None:
    verdicts = [game["reproduction"]["verdict"] for game in published.as_dict()["games"]]
    assert len(verdicts) == 26
    assert "outside" not in verdicts
    assert verdicts.count("reproduced") > 10
    assert published.as_dict()["improvement"]["official base"][STORM]["value"] == 0.5


@pytest.mark.browser
def test_page_of_130_runs(page: Page, page_of_all: Path) -> None:
    assert page_of_all.stat().st_size < LARGEST
    page.goto(page_of_all.as_uri())
    tiles = dict(zip(texts(page, ".tile dt"), texts(page, ".tile .value"), strict=True))
    assert tiles == {"IQM": "0.561", "optimality gap": "0.472", "mean": "1.222", "median": "0.425"}
    assert page.locator("#scores tbody").first.locator("tr").count() == 26
    assert page.locator("#learning svg").count() == 26
    assert page.locator("#runs tbody tr").count() == 130
    assert page.locator("#scores th", has_text="BBF").first.inner_text() == "BBF †"
    assert page.locator("#scores th", has_text="IRIS").first.inner_text() == "IRIS"


@pytest.mark.browser
def test_page_fits_a_phone_in_the_dark(new_page: NewPage, page_of_all: Path) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "is_mobile": True}
    colours = {}
    for scheme in ("light", "dark"):
        page = new_page(color_scheme=scheme, **phone)
        page.goto(page_of_all.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        colours[scheme] = [
            page.eval_on_selector(selector, f"e => getComputedStyle(e).{name}")
            for selector, name in [("body", "backgroundColor"), ("#learning svg text", "fill")]
        ]
    assert all(light != dark for light, dark in zip(*colours.values(), strict=True))


@pytest.mark.browser
def test_page_of_one_run_plays_its_dream(page: Page, tmp_path: Path) -> None:
    run = one_run(tmp_path)
    (run / "videos").mkdir()
    write_mp4(run / "videos" / "dream-00100000.mp4", np.zeros((9, 16, 16, 3), np.uint8), 8)
    ahead = {"mean": [0.1, 0.2], "low": [0.05, 0.1], "high": [0.2, 0.3]}
    record = {"open_loop": {"ahead": [1, 2], **dict.fromkeys(OPEN_LOOP, ahead)}}
    (run / "videos" / "film.json").write_text(json.dumps(record))
    out = tmp_path / "report.html"
    assert cli.main(["report", str(run), "--out", str(out)]) == 0
    page.goto(out.as_uri())
    page.wait_for_function("document.querySelector('video').readyState >= 2")
    assert page.eval_on_selector("video", "v => [v.videoWidth, v.error]") == [16, None]
    assert page.locator("#ahead svg").count() == 1
    assert page.locator("#learning svg").count() == 1
    assert "no interval" in page.locator("#aggregate").inner_text()
    assert cli.main(["report", str(run), "--out", str(out), "--no-videos"]) == 0
    page.goto(out.as_uri())
    assert page.locator("video").count() == 0


@pytest.mark.browser
def test_texts_of_a_run_are_only_texts(page: Page, tmp_path: Path) -> None:
    run = write_run(tmp_path / "<b onclick=x>", HOSTILE, 1, 2.0, size=HOSTILE)
    config = json.loads((run / "config.json").read_text())
    config |= {"commit": HOSTILE, "command": [HOSTILE], "versions": {HOSTILE: HOSTILE}}
    (run / "config.json").write_text(json.dumps(config))
    (run / "videos").mkdir()
    (run / "videos" / "film.json").write_text("nonsense <script>alert(3)</script>")
    out = tmp_path / "report.html"
    assert cli.main(["report", str(run), "--out", str(out)]) == 0
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    page.goto(out.as_uri())
    assert page.locator("script, main img, [onclick], [onerror]").count() == 0
    assert page.locator("h1").inner_text().startswith("</title><script>alert(1)")
    assert page.locator("#runs tbody td").first.inner_text() == "<b onclick=x>"


def texts(page: Page, selector: str) -> list[str]:
    return [text.strip() for text in page.locator(selector).all_inner_texts()]


def test_seeds_of_two_variants_are_kept_apart(tmp_path: Path) -> None:
    paths = [
        write_run(
            tmp_path / f"{protocol}{seed}", "ALE/Pong-v5", seed, 5.0 * seed, protocol=protocol
        )
        for protocol in ("official", "machado")
        for seed in (1, 2)
    ]
    overview = Overview.of(paths)
    assert overview.variants == ["official base official", "official base machado"]
    assert [game.scores for game in overview.groups] == [[5.0, 10.0], [5.0, 10.0]]
    assert "<svg" in html(overview)
    assert "protocol machado instead of official" in html(overview)


def test_settings_make_a_variant_and_a_demonstration_that_is_not_there_does_not(
    tmp_path: Path,
) -> None:
    agent = agent_config("official", "base")
    mixed = replace(agent, demonstration=replace(agent.demonstration, world_model_windows=9))
    slower = replace(agent, world_model_ratio=0.5)
    paths = [
        write_run(tmp_path / name, f"ALE/{game}-v5", 1, 5.0, steps, agent=config)
        for name, game, steps, config in [
            ("same", "Pong", 100, agent),
            ("mixed", "Boxing", 200, mixed),
            ("slower", "Pong", 100, slower),
        ]
    ]
    assert Overview.of(paths).variants == ["official base", "official base world_model_ratio=0.5"]
    longer = write_run(tmp_path / "longer", "ALE/Pong-v5", 1, 5.0, 200, agent=agent)
    assert Overview.of([paths[0], longer]).variants == [
        "official base 100 steps",
        "official base 200 steps",
    ]
    texts = replace(slower, agent_ratio=0.123456789, replay=replace(agent.replay, capacity=99_999))
    changed = write_run(tmp_path / "changed", "ALE/Pong-v5", 1, 5.0, 100, agent=texts)
    assert Overview.of([changed]).variants == ["official base, some settings changed"]
    assert Overview.of([paths[0], changed]).variants == [
        "official base",
        "official base, variant 2",
    ]
    assert "agent_ratio=0.123456789" in html(Overview.of([changed]))


def test_toy_games_have_curves_and_no_aggregate(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = write_run(tmp_path / "catch", "stormrl/Catch-v0", 1, 4.6)
    out = tmp_path / "report.html"
    record = report(capsys, run, "--out", out)
    assert record["aggregate"] is None
    (game,) = record["games"]
    assert (game["game"], game["mean"], game["human_normalised"]) == ("stormrl/Catch", 4.6, None)
    assert 'id="learning"' in out.read_text()
    assert 'id="aggregate"' not in out.read_text()


def test_damaged_runs_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    good = one_run(tmp_path)
    torn = write_run(tmp_path / "torn", "ALE/Pong-v5", 1, 3.0)
    half = lines(torn, "metrics.jsonl")
    (torn / "metrics.jsonl").write_text(
        "\n".join([*half[:9], "{nonsense", *half[9:20], half[20][:9]])
    )
    (torn / "episodes.jsonl").unlink()
    (torn / "scores.jsonl").write_bytes(b"\xff\xfe\x00\n[1]\n")
    poisoned = write_run(tmp_path / "poisoned", "ALE/Qbert-v5", 2, 9.0)
    first = json.loads(lines(poisoned, "metrics.jsonl")[0])
    worse = first | {
        "world_model/kl": math.nan,
        "agent/entropy": "high",
        "update": 1e300,
        "step": None,
    }
    (poisoned / "metrics.jsonl").write_text(f"{json.dumps(first)}\n{json.dumps(worse)}\n")
    (poisoned / "failure.txt").write_text("Traceback")
    empty, foreign = tmp_path / "empty", tmp_path / "foreign"
    for path in (empty, foreign):
        path.mkdir()
    (foreign / "config.json").write_text('{"format": 1, "config": {"env": 3}}')
    out = tmp_path / "report.html"
    record = report(capsys, good, torn, poisoned, empty, foreign, tmp_path / "none", "--out", out)
    assert record["runs"] == 3
    assert set(record["unreadable"]) == {"empty", "foreign", "none"}
    assert "does not exist" in record["unreadable"]["none"]
    assert set(record["problems"]) == {"torn", "poisoned"}
    assert "2 of 22 lines are damaged" in record["problems"]["torn"][0]
    assert "the first is line 10" in record["problems"]["torn"][0]
    assert "episodes.jsonl is missing" in record["problems"]["torn"]
    assert "4 values are no finite numbers" in record["problems"]["poisoned"][0]
    assert "failure.txt" in record["problems"]["poisoned"][1]
    text = out.read_text()
    assert all(name in text for name in ("torn", "poisoned", "empty", "foreign"))


def test_unfinished_run(tmp_path: Path) -> None:
    path = one_run(tmp_path)
    (path / "scores.jsonl").write_text("")
    for name in ("metrics.jsonl", "episodes.jsonl"):
        (path / name).write_text("\n".join(lines(path, name)[: LINES // 2]) + "\n")
    run = read_run(path)
    assert isinstance(run, Run)
    assert (run.step, run.finished, run.evaluation) == (STEPS // 2, False, None)
    text = html(Overview.of([path]))
    assert "unfinished" in text
    assert 'id="scores"' not in text


def test_the_newest_evaluation_counts() -> None:
    def line(step: int, protocol: str, seed: int, total: float) -> dict:
        return {"checkpoint_step": step, "protocol": protocol, "seed": seed, "return": total}

    scores = [
        line(50, "official", 1, 1.0),
        line(100, "official", 1, 2.0),
        line(100, "official", 2, 4.0),
        line(100, "official", 1, 3.0),
        line(200, "machado", 1, 9.0),
    ]
    evaluation = newest_evaluation(scores, "official")
    assert evaluation is not None
    assert evaluation == (100, "official", (3.0, 4.0))
    assert evaluation.mean == 3.5
    other = newest_evaluation(scores, "atari100k")
    assert other is not None
    assert other.step == 200
    assert newest_evaluation([{"return": 1.0}], "official") is None


def test_mistakes_are_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["report"]) == 2
    assert "give directories of runs" in capsys.readouterr().err
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "none of them can be read" in capsys.readouterr().err
    assert isinstance(read_run(tmp_path), Unreadable)
    run = one_run(tmp_path)
    assert cli.main(["report", str(run), "--out", str(run / "config.json" / "x.html")]) == 2
    assert "out:" in capsys.readouterr().err
