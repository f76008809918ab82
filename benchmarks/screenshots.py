"""Pictures of the report and of the page to play on, from real runs, in a real browser.

    python benchmarks/screenshots.py RUN... [--out docs/images]

The report is of all runs, the page to play on of the first.
"""

import argparse
import io
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

DESK = {"viewport": {"width": 1240, "height": 1000}, "device_scale_factor": 1}
LOW_DESK = {"viewport": {"width": 1240, "height": 810}, "device_scale_factor": 1}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True}
COLOURS = 128
"""Of a picture's palette: flat areas and few colours, so it is small."""
CHROMIUM = "/usr/bin/chromium"
MOMENT = """() => document.querySelector('#real .over').hidden
    && document.querySelector('#dream .over').hidden
    && +document.querySelector('#real .steps').textContent >= 20"""
"""Of an episode at which its picture is taken."""
ADDRESS_LINE = 2
"""Of what `stormrl play` says."""


def main() -> None:
    arguments = _arguments()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        pictures = [*report_pictures(browser, arguments.runs)]
        pictures += play_pictures(browser, arguments.runs[0])
        browser.close()
    for name, picture in pictures:
        path = arguments.out / f"{name}.png"
        _shrunk(picture).save(path, optimize=True)
        print(f"{path}  {path.stat().st_size / 1000:.0f} kB")


def report_pictures(browser: Browser, runs: list[Path]) -> Iterator[tuple[str, bytes]]:
    """Its beginning, its curves and its dreams; the beginning on a phone as well."""
    with tempfile.TemporaryDirectory() as folder:
        page_file = Path(folder) / "report.html"
        _stormrl("report", *map(str, runs), "--out", str(page_file))
        views = [
            ("report-light", DESK, "light", "header"),
            ("report-dark", DESK, "dark", "#losses"),
            ("report-dreams", DESK, "light", "#ahead, #dreams, #runs"),
            ("report-phone", PHONE, "dark", "header"),
        ]
        for name, screen, scheme, place in views:
            with _page(browser, screen, scheme) as page:
                page.goto(page_file.as_uri())
                _show_dreams(page)
                page.evaluate("place => document.querySelector(place).scrollIntoView()", place)
                page.wait_for_timeout(1500)  # Scrolling is smooth.
                yield name, page.screenshot()


def play_pictures(browser: Browser, run: Path) -> Iterator[tuple[str, bytes]]:
    """The agent plays, in reality and in the dream."""
    command = [sys.executable, "-m", "stormrl", "play", str(run), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            lines = [server.stderr.readline() for _ in range(ADDRESS_LINE)]
            for name, screen, scheme in [
                ("play", LOW_DESK, "dark"),
                ("play-phone", PHONE, "light"),
            ]:
                with _page(browser, screen, scheme) as page:
                    page.goto(lines[-1].strip())
                    page.wait_for_selector("body[data-frame]")
                    page.keyboard.press("h")
                    while not page.evaluate(MOMENT):
                        page.wait_for_timeout(30)
                    yield name, page.screenshot()
        finally:
            server.terminate()


def _show_dreams(page: Page) -> None:
    """Every film at a moment in its dream."""
    page.evaluate(
        """() => Promise.all([...document.querySelectorAll('video')].map(film => new Promise(
            shown => { film.onseeked = shown; film.currentTime = 3; })))"""
    )


@contextmanager
def _page(browser: Browser, screen: dict, scheme: str) -> Iterator[Page]:
    context = browser.new_context(color_scheme=scheme, **screen)
    yield context.new_page()
    context.close()


def _stormrl(*args: str) -> None:
    subprocess.run([sys.executable, "-m", "stormrl", *args], check=True)


def _shrunk(picture: bytes) -> Image.Image:
    return (
        Image.open(io.BytesIO(picture)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
