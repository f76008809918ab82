"""The page in a real browser."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("starlette", reason="pip install 'stormrl[play]'")

from browser import NewPage
from playing import Serving, miniature_agent, serving
from stormrl.experience.episodes import read_recording
from stormrl.runs.agent import Agent
from videos import read_video

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

RIGHT = 2
PADDLE = np.array([64, 160, 255])


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Agent:
    return miniature_agent(tmp_path_factory.mktemp("runs") / "catch")


@pytest.fixture(scope="module")
def served(agent: Agent, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(agent, tmp_path_factory.mktemp("recordings")) as server:
        yield server


@pytest.fixture
def game(page: Page, served: Serving) -> Page:
    return opened(page, served)


def opened(page: Page, served: Serving) -> Page:
    """The page with a game that stands still at its beginning."""
    page.goto(served.url)
    page.wait_for_selector("body[data-frame]")
    press(page, "p", "#pause[aria-pressed=true]")
    reset(page)
    return page


def until(page: Page, script: str) -> None:
    """Wait until an expression holds. The page's own policy forbids Playwright's way of it."""
    deadline = time.monotonic() + 30
    while not page.evaluate(script):
        assert time.monotonic() < deadline, script
        page.wait_for_timeout(20)


def press(page: Page, key: str, until: str) -> None:
    page.keyboard.press(key)
    page.wait_for_selector(until, state="attached")


def reset(page: Page) -> None:
    """Another moment; told by a new frame."""
    before = page.get_attribute("body", "data-frame")
    page.keyboard.press("r")
    until(
        page,
        f"document.body.dataset.frame !== '{before}'"
        " && document.querySelector('#real .steps').textContent === '0'",
    )


def wake(page: Page) -> None:
    """The dream begins anew; told by a new frame."""
    before = page.get_attribute("body", "data-frame")
    page.keyboard.press("e")
    until(
        page,
        f"document.body.dataset.frame !== '{before}'"
        " && document.querySelector('#dream .steps').textContent === '0'",
    )


def step(page: Page) -> None:
    """One step, and the picture of it."""
    before = page.get_attribute("body", "data-step")
    page.keyboard.press("n")
    until(page, f"document.body.dataset.step !== '{before}'")


def pixels(page: Page, canvas: str) -> np.ndarray:
    """uint8 [height, width, 3] of what a canvas holds."""
    script = """canvas => {
        const {width, height} = canvas;
        const {data} = canvas.getContext('2d').getImageData(0, 0, width, height);
        return [height, width, Array.from(data)];
    }"""
    height, width, data = page.eval_on_selector(canvas, script)
    return np.array(data, np.uint8).reshape(height, width, 4)[..., :3]


def frame(page: Page, side: str) -> np.ndarray:
    return pixels(page, f"#{side} .frame")


def text(page: Page, selector: str) -> str:
    return page.eval_on_selector(selector, "element => element.textContent").strip()


def steps(page: Page, side: str) -> int:
    return int(text(page, f"#{side} .steps"))


def choose(page: Page, side: str, who: str) -> None:
    """Click on who plays; told by the server's answer."""
    page.click(f"input[name={side}][value={who}]")
    plays(page, side, who)


def plays(page: Page, side: str, who: str) -> None:
    page.wait_for_selector(f"input[name={side}][value={who}]:checked", state="attached")


def slide(page: Page, name: str, value: float, shown: str) -> None:
    script = "(input, value) => { input.value = value; input.dispatchEvent(new Event('input')); }"
    page.eval_on_selector(f"#{name}", script, value)
    until(page, f"document.getElementById('{name}-text').textContent === '{shown}'")


def paddle(image: np.ndarray) -> int:
    """The paddle's column on the grid of eight."""
    return int(np.flatnonzero((image[-1] == PADDLE).all(-1))[0]) // 8


def ball_has_landed(image: np.ndarray) -> bool:
    """The step after that starts the next fall, whatever is held."""
    return bool((image[-8] == 255).all(-1).any())


def test_the_page_loads_and_moves_and_tells_its_pace(page: Page, served: Serving) -> None:
    page.goto(served.url)
    until(page, "Number(document.querySelector('#dream .steps').textContent) > 3")
    assert text(page, "#game") == "Catch"
    assert page.title() == "Catch \u2013 stormrl play"
    words = "document.getElementById('link-text').textContent"
    until(page, f"/[1-9][0-9.]* steps.s, [0-9.]+ shown.s/.test({words})")


def test_dream_and_reality_start_from_the_same_frame(game: Page) -> None:
    for _ in range(3):
        reset(game)
        real = frame(game, "real")
        np.testing.assert_array_equal(frame(game, "dream"), real)
        colours = {tuple(colour) for colour in real.reshape(-1, 3).tolist()}
        assert colours == {(0, 0, 0), (255, 255, 255), tuple(PADDLE.tolist())} - (
            {(255, 255, 255)} if not (real == 255).all(-1).any() else set()
        )
    step(game)
    assert (frame(game, "real") != frame(game, "dream")).any(), "an untrained dream is no game"


@pytest.mark.parametrize(("key", "move"), [("ArrowLeft", -1), ("d", 1), (None, 0)])
def test_a_key_moves_the_game(game: Page, key: str | None, move: int) -> None:
    while ball_has_landed(frame(game, "real")):
        reset(game)
    before = paddle(frame(game, "real"))
    if key is not None:
        game.keyboard.down(key)
    step(game)
    assert paddle(frame(game, "real")) == min(max(before + move, 0), 7)
    word = {-1: "left", 1: "right", 0: "stay"}[move]
    assert text(game, "#real .action") == text(game, "#dream .action") == word


def test_the_keys_are_shown(game: Page) -> None:
    shown = game.eval_on_selector_all("#keys li", "items => items.map(item => item.innerText)")
    keys = [["\u2190", "left"], ["\u2013", "stay"], ["\u2192", "right"]]
    assert [words.split() for words in shown] == keys


def test_pause_holds_and_a_step_is_one_step(game: Page) -> None:
    game.wait_for_timeout(400)
    assert steps(game, "real") == 0
    for count in (1, 2, 3):
        step(game)
        assert (steps(game, "real"), steps(game, "dream")) == (count, count)
    press(game, "p", "#pause[aria-pressed=false]")
    until(game, "Number(document.querySelector('#real .steps').textContent) > 5")


def test_reset_shows_another_moment(game: Page) -> None:
    shown = set()
    for _ in range(6):
        reset(game)
        assert (steps(game, "real"), steps(game, "dream")) == (0, 0)
        shown.add(frame(game, "real").tobytes())
    assert len(shown) > 2


def test_waking_takes_the_dream_to_where_reality_is(game: Page) -> None:
    for _ in range(3):
        step(game)
    real = frame(game, "real")
    wake(game)
    assert steps(game, "real") == 3
    np.testing.assert_array_equal(frame(game, "dream"), real)
    np.testing.assert_array_equal(frame(game, "real"), real)


def test_the_agent_plays_either_side_and_hands_over(game: Page) -> None:
    game.keyboard.down("ArrowLeft")
    choose(game, "real", "agent")
    taken: dict[str, list[str]] = {"real": [], "dream": []}
    for _ in range(12):
        step(game)
        for side, words in taken.items():
            words.append(text(game, f"#{side} .action"))
    assert set(taken["dream"]) == {"left"}, "a key is held for the dream"
    assert len(set(taken["real"])) > 1, "the agent does as it likes"
    reset(game)
    choose(game, "dream", "real")
    for _ in range(6):
        step(game)
        assert text(game, "#dream .action") == text(game, "#real .action")
    game.keyboard.press("h")
    plays(game, "real", "you")
    plays(game, "dream", "you")
    reset(game)
    step(game)
    assert text(game, "#real .action") == text(game, "#dream .action") == "left"
    game.keyboard.press("h")
    plays(game, "real", "agent")
    plays(game, "dream", "agent")


def test_temperature_reaches_the_dream(game: Page, served: Serving) -> None:
    slide(game, "temperature", 0.3, "0.3")
    step(game)
    tables = [session.table for session in served.server.open]
    assert 0.3 in [table.env.temperature for table in tables]
    assert 0.3 in [table.settings.temperature for table in tables]


def test_speed_is_that_of_the_slider(game: Page) -> None:
    slide(game, "speed", 4, "4 / s")
    choose(game, "real", "agent")
    press(game, "p", "#pause[aria-pressed=false]")
    before = int(game.get_attribute("body", "data-step") or 0)
    game.wait_for_timeout(2000)
    assert 2 <= int(game.get_attribute("body", "data-step") or 0) - before <= 10


def test_dream_only_leaves_reality_alone(game: Page) -> None:
    press(game, "b", "main[data-view=dream]")
    assert not game.is_visible("#real")
    step(game)
    assert (steps(game, "real"), steps(game, "dream")) == (0, 1)
    press(game, "b", "main[data-view=both]")
    until(game, "document.querySelector('#dream .steps').textContent === '0'")
    np.testing.assert_array_equal(frame(game, "real"), frame(game, "dream"))


def test_what_is_recorded_is_what_was_played(game: Page, served: Serving) -> None:
    press(game, "c", "#record[aria-pressed=true]")
    shown = [frame(game, "real")]
    game.keyboard.down("ArrowRight")
    for _ in range(3):
        step(game)
        shown.append(frame(game, "real"))
    press(game, "c", "#record[aria-pressed=false]")
    game.wait_for_selector("#saved a")
    names = game.eval_on_selector_all("#saved a", "links => links.map(link => link.textContent)")
    real, dream, video = (served.server.recordings / name for name in names)
    recording = read_recording(real)
    played = np.concatenate([episode.obs[1:] for episode in recording.episodes])
    np.testing.assert_array_equal(played, np.stack(shown[1:]))
    np.testing.assert_array_equal(recording.episodes[0].obs[0], shown[0])
    assert recording.rows()["action"].tolist() == [RIGHT] * 3
    assert recording.actions == ("LEFT", "STAY", "RIGHT")
    dreamt = read_recording(dream)
    np.testing.assert_array_equal(dreamt.episodes[0].obs[0], shown[0])
    assert "dream" in dreamt.policy
    assert len(read_video(video)) == 3
    with game.expect_download() as download:
        game.click("#saved a")
    assert Path(download.value.path()).read_bytes() == real.read_bytes()


def test_two_tabs_do_not_disturb_each_other(new_page: NewPage, served: Serving) -> None:
    one, other = (opened(new_page(), served) for _ in range(2))
    before = frame(other, "real"), frame(other, "dream")
    one.keyboard.down("ArrowLeft")
    for _ in range(3):
        step(one)
    slide(one, "temperature", 2, "2.0")
    one.keyboard.press("h")
    plays(one, "real", "agent")
    other.wait_for_timeout(300)
    assert (steps(one, "real"), steps(other, "real")) == (3, 0)
    np.testing.assert_array_equal(frame(other, "real"), before[0])
    np.testing.assert_array_equal(frame(other, "dream"), before[1])
    assert text(other, "#temperature-text") == "1.0"
    plays(other, "real", "you")
    one.close()
    step(other)
    assert steps(other, "real") == 1


def test_more_tabs_than_allowed_are_told_so(
    agent: Agent, tmp_path: Path, new_page: NewPage
) -> None:
    with serving(agent, tmp_path, sessions=1) as served:
        first, second = opened(new_page(), served), new_page()
        second.goto(served.url)
        second.wait_for_selector("#link[data-state=refused]")
        assert "1 games are being played" in text(second, "#link-text")
        step(first)
        for page in (first, second):
            page.close()


def test_the_connection_comes_back_after_a_restart(
    agent: Agent, tmp_path: Path, new_page: NewPage, complaints: list[str]
) -> None:
    with serving(agent, tmp_path) as served:
        page = opened(new_page(), served)
        slide(page, "temperature", 0.5, "0.5")
    page.wait_for_selector("#link[data-state=lost]")
    with serving(agent, tmp_path, port=served.port):
        page.wait_for_selector("#link[data-state=open]")
        page.wait_for_selector("#pause[aria-pressed=true]")
        assert text(page, "#temperature-text") == "0.5", "what was set is set again"
        step(page)
        page.close()
    # The browser itself writes down each attempt that failed.
    complaints[:] = [words for words in complaints if "ERR_CONNECTION_REFUSED" not in words]


def test_a_slow_page_gets_fewer_frames_and_the_game_goes_on(game: Page) -> None:
    press(game, "b", "main[data-view=dream]")
    slide(game, "speed", 60, "60 / s")
    # Drawing waits: what the server sends meanwhile is not acknowledged.
    game.evaluate("""() => {
        const decode = window.createImageBitmap;
        window.createImageBitmap = async (...given) => {
            await new Promise(done => setTimeout(done, 500));
            return decode(...given);
        };
        window.drawn = 0;
        new MutationObserver(() => window.drawn++)
            .observe(document.body, {attributes: true, attributeFilter: ['data-frame']});
    }""")
    before = int(game.get_attribute("body", "data-step") or 0)
    game.keyboard.press("p")
    until(game, f"Number(document.body.dataset.step) - {before} > 60")
    assert 1 <= game.evaluate("() => window.drawn") < 30


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_works_on_a_phone(new_page: NewPage, served: Serving, scheme: str) -> None:
    phone = new_page(
        viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True, color_scheme=scheme
    )
    opened(phone, served)
    assert phone.evaluate("document.documentElement.scrollWidth") <= 360
    background = phone.evaluate("getComputedStyle(document.body).backgroundColor")
    bright = [int(part) for part in background[4:-1].split(",")]
    assert (min(bright) > 200) == (scheme == "light")
    phone.dispatch_event("#pad .RIGHT", "pointerdown")
    step(phone)
    assert text(phone, "#real .action") == "right"
    phone.dispatch_event("#pad .RIGHT", "pointerup")
    step(phone)
    assert text(phone, "#real .action") == "stay"


def test_another_address_needs_the_token(
    agent: Agent, tmp_path: Path, new_page: NewPage, complaints: list[str]
) -> None:
    with serving(agent, tmp_path, host="0.0.0.0") as served:
        page = new_page()
        assert "token=" in served.url
        answer = page.goto(served.url.partition("?")[0])
        assert answer is not None
        assert answer.status == 403
        step(opened(page, served))
        page.close()
    # The browser itself writes the refusal down, and that of the icon it looks for.
    complaints[:] = [words for words in complaints if "403" not in words]


def test_everything_has_a_name_for_those_who_do_not_see_it(game: Page) -> None:
    script = """() => [...document.querySelectorAll('button, input, canvas, section, nav')]
        .filter(each => !(each.getAttribute('aria-label') || each.innerText || each.title
            || each.labels?.length || each.closest('figure')))
        .map(each => each.outerHTML)"""
    assert game.evaluate(script) == []
    assert game.evaluate("document.documentElement.lang") == "en"
