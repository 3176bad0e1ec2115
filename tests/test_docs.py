"""The reference has every public name; the site itself is built by `make docs`."""

import re
from pathlib import Path

import bitfold
from bitfold import extending, optim

DOCS = Path(__file__).resolve().parents[1] / "docs"
SHOWN = re.compile(r"^\.\. auto\w+:: (\S+)$", re.MULTILINE)


def test_the_reference_has_every_public_name() -> None:
    pages = (DOCS / "reference").glob("*.md")
    shown = {name for page in pages for name in SHOWN.findall(page.read_text(encoding="utf-8"))}
    public = {f"bitfold.{name}" for name in bitfold.__all__}
    public |= {f"bitfold.optim.{kind.__name__}" for kind in optim.OPTIMIZERS.values()}

    assert not public - shown


def test_the_reference_has_all_that_methods_are_written_with() -> None:
    page = (DOCS / "reference" / "extending.md").read_text(encoding="utf-8")
    shown = {name.removeprefix("bitfold.extending.") for name in SHOWN.findall(page)}
    assert set(extending.__all__) == (shown - {"bitfold.extending"}) | (
        set(extending.__all__) & set(bitfold.__all__)
    )
    named = set(re.findall(r"`(\w+)`", extending.__doc__ or ""))
    assert set(extending.__all__) == named
    for name in extending.__all__:
        assert (getattr(extending, name).__doc__ or "").strip(), name


def test_every_public_name_has_a_docstring() -> None:
    for name in bitfold.__all__:
        assert (getattr(bitfold, name).__doc__ or "").strip(), name


def test_every_page_is_in_a_table_of_contents() -> None:
    tables = [DOCS / "index.md", DOCS / "reference" / "index.md"]
    listed = {
        (table.parent / name).with_suffix(".md")
        for table in tables
        for block in re.findall(r"```\{toctree\}\n(.*?)```", table.read_text(), re.DOTALL)
        for name in block.splitlines()
        if name and not name.startswith(":")
    }
    pages = {page for page in DOCS.glob("**/*.md") if "_build" not in page.parts}

    left = pages - listed - set(tables) - {DOCS / "results-notes.md"}
    assert not {page for page in left if page.parent.name not in ("results", "methods")}
