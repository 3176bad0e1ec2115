"""What runs, comparisons, plans and inspections look like in a prompt and a notebook."""

import subprocess
import sys

import polars as pl
import pytest

import bitfold
from bitfold.showing import figure_text, html_table, plain_table

TINY = {"width": 4, "hidden": [8], "epochs": 1, "device": "cpu"}
SAFE = {"user": list(range(30)) * 10, "clicked": [0, 1, 1] * 100}


@pytest.fixture(scope="module")
def shown():
    words = {"label": "clicked", "fields": "user"} | TINY
    plan = bitfold.plan([bitfold.Field("<b>user", 30)], 4, method="hash", budget="2x")
    run = bitfold.train(SAFE, method="hash", budget="2x", **words)
    found = bitfold.compare(
        SAFE, methods="full,hash", budgets="2x,900x", seeds=2, diagnosis=False, **words
    )
    seen = bitfold.inspect(SAFE, label="clicked", fields="user")
    return {"plan": plan, "run": run, "comparison": found, "inspection": seen}


@pytest.mark.parametrize("name", ["plan", "run", "comparison", "inspection"])
def test_a_short_text_a_table_and_a_frame(shown, name):
    thing = shown[name]
    assert len(repr(thing).splitlines()) <= 12
    html = thing._repr_html_()
    assert html.startswith("<table><caption>")
    assert "<b>" not in html
    frame = thing.to_frame()
    assert isinstance(frame, pl.DataFrame)
    assert frame.height == len(thing.records()) > 0


def test_frames_hold_what_is_told(shown):
    run = shown["run"]
    assert run.to_frame()["auc"].item() == run.metrics["auc"]
    assert repr(run) == (
        f"<Run {run.path}: hash, {run.metrics['bytes']:,} bytes, deepfm, "
        f"AUC {run.metrics['auc']:.4f}>"
    )
    board = shown["comparison"].to_frame()
    assert board.filter(method="full", budget="1x")["seeds"].item() == 2
    assert board.filter(method="hash", budget="900x")["least_bytes"].item() > 0
    assert shown["plan"].to_frame()["bytes"].sum() <= shown["plan"].bytes
    assert shown["inspection"].to_frame()["distinct"].item() == 30


def test_nothing_reaches_the_terminal_or_the_page_as_a_command():
    rows = [{"name\x1b[31m": "<script>\x1b[0m\n"}]
    assert "\x1b" not in plain_table(rows)
    assert len(plain_table(rows).splitlines()) == 2
    assert "<script>" not in html_table(rows, caption="<script>")


def test_figures():
    texts = [figure_text(value) for value in (None, float("nan"), 0.5, 12.0, 1234.5, True, [1, 2])]
    assert texts == ["-", "-", "0.5000", "12", "1,234", "True", "1, 2"]


def test_a_plan_is_shown_without_the_packages_of_data():
    code = (
        "import sys; sys.modules['polars'] = sys.modules['pandas'] = None;"
        "import bitfold; plan = bitfold.plan([bitfold.Field('a', 9)], 4, method='full');"
        "assert 'Plan: full' in repr(plan);\n"
        "try: plan.to_frame()\n"
        "except bitfold.BitfoldError as error: assert 'pip install' in str(error)\n"
        "else: raise SystemExit(1)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
