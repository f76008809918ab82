"""Pictures of the page while the agent plays, for the documentation. Needs Chromium.

python benchmarks/screenshot_play.py runs/pong docs/images
"""

import argparse
import shutil
import subprocess
import sys
from json import loads
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

STEPS = 40
VIEWS = {
    "play": {"viewport": {"width": 1280, "height": 930}},
    "play-dark": {"viewport": {"width": 1280, "height": 930}, "color_scheme": "dark"},
    "play-phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    command = [sys.executable, "-m", "stormrl", "play", options.run, "--port", "0", "--json"]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server,
        sync_playwright() as playwright,
    ):
        assert server.stdout is not None
        url = loads(server.stdout.readline())["url"]
        path = shutil.which("chromium") or playwright.chromium.executable_path
        flags = ["--headless", "--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        for name, view in VIEWS.items():
            take(browser, url, options.out / f"{name}.png", view)
        browser.close()
        server.terminate()


def take(browser: Browser, url: str, path: Path, view: dict) -> None:
    page = browser.new_page(**view)
    page.goto(url)
    page.wait_for_selector("body[data-frame]")
    page.keyboard.press("h")
    while int(page.get_attribute("body", "data-step") or 0) < STEPS:
        page.wait_for_timeout(100)
    page.screenshot(path=path)
    page.close()
    print(path)


if __name__ == "__main__":
    main()
