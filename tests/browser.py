"""A real Chromium for tests. Its pages fail the test that complains of something unexpected.

Mark a test that uses `page` or `new_page` with `pytest.mark.browser`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page, Request, WebSocket

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
LOCAL = ("127.0.0.1", "localhost", "::1")

NewPage: TypeAlias = "Callable[..., Page]"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for a module's tests: the system's, else the one that playwright installed."""
    tool = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with tool.sync_playwright() as playwright:
        path = next(filter(None, map(shutil.which, NAMES)), playwright.chromium.executable_path)
        if not os.path.exists(path):
            pytest.skip("no Chromium: apt install chromium, or playwright install chromium")
        with playwright.chromium.launch(executable_path=path, args=list(FLAGS)) as browser:
            yield browser


@pytest.fixture
def complaints() -> Iterator[list[str]]:
    """Errors on a page's console and requests that leave the machine; none may be left at the end.

    A test that expects one takes it out of the list.
    """
    noticed: list[str] = []
    yield noticed
    assert not noticed


@pytest.fixture
def new_page(browser: Browser, complaints: list[str]) -> Iterator[NewPage]:
    """Makes pages, each in a profile of its own; arguments are those of `Browser.new_context`."""
    contexts = []

    def make(**options) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        return watched(context.new_page(), complaints)

    yield make
    for context in contexts:
        context.close()


@pytest.fixture
def page(new_page: NewPage) -> Page:
    """One page of a desktop's size."""
    return new_page(viewport={"width": 1280, "height": 900})


def watched(page: Page, complaints: list[str]) -> Page:
    """The page, with all that is wrong with it written down."""

    def console(message: ConsoleMessage) -> None:
        if message.type == "error":
            complaints.append(message.text)

    def request(request: Request | WebSocket) -> None:
        if is_outside(request.url):
            complaints.append(request.url)

    page.on("console", console)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", request)
    page.on("websocket", request)
    return page


def is_outside(url: str) -> bool:
    """Whether a request for it would leave the machine."""
    parts = urlsplit(url)
    return parts.scheme in ("http", "https", "ws", "wss") and parts.hostname not in LOCAL
