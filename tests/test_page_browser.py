"""The page in a browser: on a phone and a desk, in light and dark, without a network."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bitfold.report import write_page
from boards import HOSTILE, WORDS, more, renamed, results, write_board

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
LOOKS = [(width, scheme) for width in (360, 390, 1280) for scheme in ("light", "dark")]


def collisions(svg: Any) -> list[tuple[str, str]]:
    """Labels of the axes that lie on each other; slanted ones are left out."""
    boxes = svg.evaluate(
        "svg => [...svg.querySelectorAll('.role-axis-label text')]"
        ".filter(t => t.textContent && !/rotate/.test(t.getAttribute('transform')))"
        ".map(t => [t.textContent, t.getBoundingClientRect()])"
        ".map(([text, r]) => [text, r.left, r.right, r.top, r.bottom])"
    )
    return [
        (one[0], two[0])
        for place, one in enumerate(boxes)
        for two in boxes[place + 1 :]
        if min(one[2], two[2]) - max(one[1], two[1]) > 0
        and min(one[4], two[4]) - max(one[3], two[3]) > 4  # a line's height holds some air
    ]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("NO BROWSER: chromium is not installed, so the page was not opened in one")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    whole = results() | more()
    return {
        "whole": write_page(write_board(folder / "whole", whole, WORDS)),
        "hostile": write_page(
            write_board(
                folder / "hostile",
                renamed(renamed(whole, "binary-code", HOSTILE), "user", HOSTILE * 3),
                renamed(WORDS, "binary-code", HOSTILE),
            )
        ),
    }


@pytest.mark.parametrize("kind", ["whole", "hostile"])
@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_the_page_opens(
    browser: Any, pages: dict[str, Path], width: int, scheme: str, kind: str
) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True
    )
    page = context.new_page()
    told: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(pages[kind].as_uri())
    assert told == []
    assert asked == [pages[kind].as_uri()]
    assert page.title() != "taken"
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for figure in page.query_selector_all("figure"):
        name = figure.query_selector("figcaption").inner_text()
        shown = [svg for svg in figure.query_selector_all(":scope > svg") if svg.is_visible()]
        assert len(shown) == 1, name
        box = shown[0].bounding_box()
        assert box["width"] > 200, name
        assert box["height"] > 30, name
        assert box["x"] >= 0, name
        assert box["x"] + box["width"] <= width, name
        assert len(shown[0].query_selector_all("path title")) > 0, f"{name} has no marks"
        # Every text of the chart lies on the screen.
        spans = shown[0].evaluate(
            "svg => [...svg.querySelectorAll('text')].map(t => t.getBoundingClientRect())"
            ".map(r => [r.left, r.right])"
        )
        assert min(left for left, _ in spans) >= 0, name
        assert max(right for _, right in spans) <= width, name
        assert not collisions(shown[0]), name
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}[scheme]
    line = page.evaluate(
        "getComputedStyle([...document.querySelectorAll('figure > svg path[stroke]')]"
        ".find(e => e.getAttribute('stroke') == 'var(--s1)')).stroke"
    )
    assert line == {"light": "rgb(11, 92, 196)", "dark": "rgb(116, 176, 255)"}[scheme]
    context.close()


def test_tables_open_with_the_keyboard(browser: Any, pages: dict[str, Path]) -> None:
    page = browser.new_page()
    page.goto(pages["whole"].as_uri())
    summary = page.query_selector("details summary")
    table = page.query_selector("details table")
    assert not table.is_visible()
    summary.focus()
    page.keyboard.press("Enter")
    assert table.is_visible()
    page.close()
