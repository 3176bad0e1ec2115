"""Each method has a page, which says what every page says and names every option."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from bitfold.method.base import Method
from bitfold.method.registry import method_kinds

PAGES = Path(__file__).resolve().parents[1] / "docs" / "methods"
SHARED = {"mgqe": "dpq"}  # told on another's page
EVERYBODYS = {each.name for each in fields(Method)}
SAID = ("When", "Bytes", "(?:Our f|F)igures", "Papers?")


@pytest.mark.parametrize("name", method_kinds())
def test_a_method_has_a_page(name: str) -> None:
    page = PAGES / f"{SHARED.get(name, name)}.md"
    text = page.read_text()
    assert re.match(rf"# .*\b{name}\b", text), "its title names it"
    for heading in SAID:
        assert re.search(rf"^## {heading}\b", text, re.MULTILINE), heading
    named = set(re.findall(r"`([\w-]+)(?:=[^`]*)?`", text))
    own = {each.name for each in fields(method_kinds()[name])} - EVERYBODYS
    assert not own - named, "options that the page does not name"


def test_every_page_is_a_methods() -> None:
    known = set(method_kinds()) | {"index", "table"}
    assert {page.stem for page in PAGES.glob("*.md")} <= known
