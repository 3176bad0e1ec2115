"""Photograph the first screen of a comparison's page. `make picture` takes the last demo's.

python docs/screen.py demo-out/board/board.html docs/page.png
"""

import shutil
import sys
from pathlib import Path

WIDTH, HEIGHT = 1200, 620


def main(page: Path, out: Path) -> None:
    """Open the page in Chromium, without a network, and save what is seen first."""
    from playwright.sync_api import sync_playwright

    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        sys.exit("the page's picture needs Chromium, which is not installed; it was not taken anew")
    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        context = opened.new_context(
            viewport={"width": WIDTH, "height": HEIGHT}, offline=True, color_scheme="light"
        )
        seen = context.new_page()
        seen.goto(page.resolve().as_uri())
        seen.screenshot(path=out)
        opened.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
