"""Nothing that a log, a file name or a command line holds is obeyed by the terminal."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitfold.cli.tables import show, table
from bitfold.errors import BitfoldError, unknown_name
from bitfold.notes import note
from bitfold.terminal import printable, unsafe_letter
from command import bitfold

EVIL = [
    "\x1b[31mred",
    "\x1b]0;title\x07",
    "\x9b2J",
    "a\rb",
    "\x08\x08ok",
    "\u202egnp",
    "\x7f",
    "\x00",
]
OBEYED = {*map(chr, [*range(9), 11, 12, 13, *range(14, 32), *range(127, 160)]), "\u202e", "\u2066"}


def harmless(text: str) -> bool:
    text.encode()
    return not OBEYED & set(text)


@given(st.text())
def test_whatever_is_printable_is_harmless_and_stays_what_it_was(text):
    found = printable(text)
    assert harmless(found)
    assert "\n" not in found
    assert harmless(printable(text, lines=True))
    if text.isprintable():
        assert found == text
    assert (unsafe_letter(text) is None) == (found == text)


@pytest.mark.parametrize("evil", EVIL)
def test_errors_notes_and_tables(evil, capsys, caplog):
    assert harmless(str(BitfoldError(evil, got=evil, expected=[evil], fix=evil)))
    assert harmless(str(unknown_name("column", evil, [evil])))
    made = table(evil, (evil, "share"))
    made.add_row(evil, "1")
    show(made, evil)
    note(evil)
    assert harmless(capsys.readouterr().out)
    assert harmless(caplog.text)


@pytest.mark.parametrize("evil", EVIL)
def test_commands_over_a_log_that_holds_it(tmp_path, evil):
    words: Any = ("--label", "click", "--fields", "user,item")
    quoted = evil.replace('"', '""')
    lines = [f'{i % 2},"{quoted}",i{i % 5}' for i in range(60)]
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff" + evil.replace("\0", "").encode()))
    folder.mkdir()
    log = folder / "log.csv"
    log.write_text("\n".join(["click,user,item", *lines]) + "\n", newline="")
    out = tmp_path / f"out{evil}".replace("\0", "")
    calls = [
        ("prepare", log, *words, "--out", out),
        ("prepare", log, *words, "--out", out),
        ("inspect", out),
        ("inspect", out, "--json"),
        ("prepare", log, "--label", "user", "--fields", "item", "--out", folder / "other"),
        ("prepare", log, "--label", evil.replace("\0", "") + "x", "--fields", "user", "--out", out),
        ("prepare", folder / "none.csv", *words, "--out", folder / "other"),
        ("train", log, *words, "--method", evil.replace("\0", "") + "y", "--out", folder / "run"),
        (evil.replace("\0", "") + "z",),
        ("prepare", log, *words, "--out", folder / "out"),
    ]
    codes = []
    for call in calls:
        done = bitfold(*call)
        codes.append(done.code)
        assert harmless(done.out), call
        assert harmless(done.err), call
        assert "Traceback" not in done.err
    assert codes == [0, 2, 0, 0, 2, 2, 2, 2, 2, 2]
