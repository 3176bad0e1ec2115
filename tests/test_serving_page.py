"""The page of a server in a browser: a row is typed, its score and the run are seen."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from served import Fake, serving
from test_page_browser import CHROMIUM, FLAGS

TOKEN = "a-token-of-ours"
LOOKS = [(360, "light"), (360, "dark"), (1280, "light")]


class Named(Fake):
    columns = ("user", "item", "<img src=x onerror=alert(1)>")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None or shutil.which(CHROMIUM) is None:
        pytest.skip("NO BROWSER: chromium is not installed, so the page was not opened in one")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield launched
        launched.close()


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_a_row_is_typed_and_its_score_seen(browser: Any, width: int, scheme: str) -> None:
    with serving(Named(), token=TOKEN) as served:
        context = browser.new_context(viewport={"width": width, "height": 700}, color_scheme=scheme)
        page = context.new_page()
        told: list[str] = []
        asked: list[str] = []
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("console", lambda message: told.append(message.text))
        page.on("dialog", lambda dialog: told.append("a dialog"))
        page.on("request", lambda request: asked.append(request.url))
        home = f"http://127.0.0.1:{served.port}/"
        page.goto(home)

        # Without a token the page knows nothing, and says so.
        page.get_by_role("alert").get_by_text("this server needs a token").wait_for()
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Use it").click()
        page.get_by_label("user").fill("u7")
        page.get_by_label("item").fill("a")
        assert page.get_by_role("textbox").count() == 3
        page.get_by_role("button", name="Score").click()
        page.get_by_text("Answered by run").wait_for()
        assert page.locator("#run").inner_text() == "a" * 64
        assert (
            page.locator("#score").inner_text() == f"{Fake().of({'user': 'u7', 'item': 'a'}):.6f}"
        )

        # A mistake takes the score's place, as text.
        page.get_by_label("user").fill("wrong")
        page.keyboard.press("Enter")
        page.get_by_role("alert").get_by_text("expected: another").wait_for()
        assert not page.locator("#answer").is_visible()

        overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.evaluate(overflow) == 0
        ink, paper = page.evaluate(
            "(({color, backgroundColor}) => [color, backgroundColor])"
            "(getComputedStyle(document.body))"
        )
        dark = scheme == "dark"
        assert (sum(map(int, _digits(ink))) > sum(map(int, _digits(paper)))) == dark
        small = page.evaluate(
            "[...document.querySelectorAll('button, input')]"
            ".filter(e => e.checkVisibility() && e.getBoundingClientRect().height < 40).length"
        )
        assert small == 0
        assert {url.removeprefix(home) for url in asked} == {
            "", "page.css", "page.js", "openapi.json", "score",
        }  # fmt: skip
        # What the browser says of the refusals that were asked for is all that it says.
        assert [text for text in told if "Failed to load resource" not in text] == []
        context.close()


def _digits(colour: str) -> list[str]:
    return colour[colour.index("(") + 1 : -1].split(",")[:3]


def test_the_page_lets_nothing_else_in() -> None:
    with serving(Fake()) as served:
        got = served.ask("GET", "/")
        policy = got.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert b"style=" not in got.body
    assert b"<script>" not in got.body
    assert b"http" not in got.body
