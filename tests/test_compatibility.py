"""The table of docs/compatibility.md names tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_row_names_a_test_that_is_there():
    text = (ROOT / "docs" / "compatibility.md").read_text()
    folders = (ROOT / "tests", ROOT / "src" / "bitfold" / "testing")
    files = [path for folder in folders for path in folder.rglob("test_*.py")]
    there = "\n".join(path.read_text() for path in files)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if not row.startswith("| behaviour")]
    assert len(rows) > 50
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row)
        assert named, row
        for name in named:
            assert f"def {name}(" in there, name
