"""The commands and snippets of README.md and docs/ run as they stand, in their order."""

import gzip
import random
import re
import shlex
from pathlib import Path

import pytest

from command import bitfold, write_ratings

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    "README.md",
    "docs/getting-started.md",
    "docs/command-line.md",
    "docs/folding.md",
    "docs/cookbook.md",
    "docs/implicit.md",
    "docs/retrieval.md",
    "docs/page.md",
    "docs/streaming.md",
)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def write_clicks(folder: Path) -> None:
    raw = write_ratings(folder / "raw.csv", rows=6000, users=2000, items=800)
    with gzip.open(folder / "clicks.csv.gz", "wb") as file:
        file.write(raw.read_bytes())
    raw.unlink()
    write_positives(folder)


def write_positives(folder: Path) -> None:
    """The same likes as a file of sequences, and as a table with a column of the item."""
    draw = random.Random(0)
    likes = {user: draw.sample(range(60), 8) for user in range(80)}
    lines = [f"u{user} {' '.join(f'i{item}' for item in items)}" for user, items in likes.items()]
    (folder / "train.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows = ["user,item,genre,hour"]
    rows += [
        f"u{user},i{item},g{item % 5},{draw.randrange(24)}"
        for user, items in likes.items()
        for item in items
    ]
    (folder / "positives.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_the_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clicks(tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "readme"}
    ran = 0
    for language, body in BLOCK.findall((ROOT / page).read_text(encoding="utf-8")):
        if language == "python":
            exec(compile(body, page, "exec"), names)
            ran += 1
        elif language == "bash":
            for line in body.replace("\\\n", "").splitlines():
                command, *words = shlex.split(line)
                assert command == "bitfold", line
                got = bitfold(*words)
                assert got.code == 0, f"{line}\n{got.err}"
                ran += 1
        else:
            pytest.fail(f"{page} has a block of {language!r}, which nobody runs")
    assert ran > 3


def test_commands_of_the_readme_fit_80_columns() -> None:
    for language, body in BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8")):
        if language == "bash":
            assert max(map(len, body.splitlines())) <= 80


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text)

    for link in links:
        if not link.startswith("http"):
            assert (ROOT / page).parent.joinpath(link).exists(), link


def test_make_targets_that_the_pages_name_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in (*PAGES, "CONTRIBUTING.md"):
        for named in re.findall(r"(?:`|    )make ([a-z-]+)", (ROOT / page).read_text()):
            assert named in targets, f"{page}: make {named}"
