"""The page of a comparison: whole, by itself, and true to its figures."""

import builtins
import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from bitfold import report
from bitfold.report import write_page, write_pictures
from bitfold.report.again import command
from bitfold.report.decision import commands, decision
from bitfold.report.look import DARK, LIGHT, WIDE, spread_out
from bitfold.report.reading import Board, read_board
from bitfold.report.sections import sections
from bitfold.report.sentences import frontier, is_real, lost, verdicts
from boards import HOSTILE, METHODS, WORDS, more, renamed, results, write_board
from command import READING, TRAINING, bitfold, refused, write_ratings

VOID = {"meta", "br", "img", "input", "link", "hr", "path", "line", "rect", "circle"}
LIMIT = 6_000_000


class Page(HTMLParser):
    """What a page holds, and whether its elements are closed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.text = text
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def shown(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))


def page_of(out: Path, board: dict[str, Any], words: dict[str, Any] | None = WORDS) -> Page:
    return Page(write_page(write_board(out, board, words)).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return page_of(tmp_path_factory.mktemp("whole"), results() | more())


def check_alone(page: Page) -> None:
    """Nothing to fetch, nothing to run, not too large, every element closed."""
    assert len(page.text.encode()) < LIMIT
    assert not re.search(r"https?:|url\(|@import|\bsrc=|javascript:", strip_texts(page))
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object", "use"}
    assert all(str(a.get("href", "#")).startswith("#") for a in page.all("a"))
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert page.open == []


def strip_texts(page: Page) -> str:
    """The tags of a page with their attributes, without escaped texts."""
    return re.sub(r"&[a-z#0-9]+;[^<]*", "", re.sub(r'(aria-label|content)="[^"]*"', "", page.text))


def test_the_page_is_one_file_that_needs_nothing(whole: Page) -> None:
    check_alone(whole)
    policy = [a["content"] for a in whole.all("meta") if "http-equiv" in a]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_every_chart_has_words_a_table_and_both_layouts(whole: Page) -> None:
    figures = whole.text.count("<figure>")
    drawings = [a for a in whole.all("svg") if a.get("role") == "img"]
    assert figures == 10
    assert len(drawings) == 2 * figures
    assert all(len(a["aria-label"] or "") > 20 for a in drawings)
    for part in whole.text.split("<figure>")[1:]:
        after = part.split("</figure>")[1].split("<figure>")[0]
        assert "<details>" in after
        assert "<table>" in after


def test_every_section_of_results_is_on_the_page(whole: Page) -> None:
    ids = [a["id"] for a in whole.all("section")]
    assert ids == [
        "found", "quality", "differences", "ids", "bytes", "collapse", "training", "speed",
        "grid", "again", "settings",
    ]  # fmt: skip
    assert len(whole.all("h1")) == 1
    assert len(whole.all("h2")) == len(ids) + 1
    contents = {str(a["href"])[1:] for a in whole.all("a")}
    assert contents >= set(ids) - {"found"}


def test_every_link_leads_to_a_section(whole: Page) -> None:
    ids = {attrs["id"] for _, attrs in whole.tags if "id" in attrs}
    assert {str(a["href"])[1:] for a in whole.all("a")} <= ids


def test_figures_of_the_page_are_those_of_the_results(whole: Page) -> None:
    for text in ("0.7705", "99,900", "12.0 %", "0.7650", "my data/clicks.csv", "a processor"):
        assert text in whole.shown, text
    assert "Take binary-code at 10x (97.6 KiB): it keeps 96.7 % of the full" in whole.shown
    assert "binary-code is better than hash at 10x" in whole.shown
    assert "binary-code does not differ significantly from hash at 100x" in whole.shown
    assert "Too small a budget: hash 1000x (needs 2,000 bytes) and binary-code" in whole.shown


def test_references_within_reach_are_lines_and_far_ones_are_said(whole: Page) -> None:
    assert "logistic regression 0.7650" in whole.shown
    assert "beyond the chart: popularity 0.5500" in whole.shown


def test_without_the_other_keys(tmp_path: Path) -> None:
    page = page_of(tmp_path, results())
    check_alone(page)
    ids = {a["id"] for a in page.all("section")}
    assert not ids & {"differences", "grid"}
    assert "Runs that differ in the seed alone" in page.shown


def test_results_of_an_older_version_give_what_they_have(tmp_path: Path) -> None:
    board = results()
    for row in board["results"]:
        for name in ("curve", "by_kind", "by_field", "by_frequency", "environment", "data"):
            del row[name]
    page = page_of(tmp_path, board, None)
    check_alone(page)
    ids = {a["id"] for a in page.all("section")}
    assert {"quality", "bytes", "speed"} <= ids
    assert not ids & {"training", "ids", "collapse"}
    assert "no compare.json" in page.shown


def test_one_epoch_and_one_seed(tmp_path: Path) -> None:
    board = results(epochs=1)
    board["results"] = [row for row in board["results"] if row["seed"] == 0]
    page = page_of(tmp_path, board, None)
    check_alone(page)
    assert "no curve to draw" in page.shown
    assert "One seed cannot tell" in page.shown


def test_an_unfinished_comparison_says_so(tmp_path: Path) -> None:
    board = results()
    board["results"] = board["results"][:4]
    page = page_of(tmp_path, board)
    assert "4 of 10 runs have ended" in page.shown
    assert "Not finished" not in page_of(tmp_path / "all", results()).shown


def test_a_full_table_alone(tmp_path: Path) -> None:
    board = {"results": [row for row in results()["results"] if row["method"] == "full"]}
    check_alone(page_of(tmp_path, board, None))


def test_hostile_names_are_texts(tmp_path: Path) -> None:
    board, words = results() | more(), dict(WORDS)
    for name in ("binary-code", "user", "10x", "deepfm", "a processor", "my data/clicks.csv"):
        board = renamed(board, name, f"{HOSTILE} {name}")
        words = renamed(words, name, f"{HOSTILE} {name}")
    board["references"] = {HOSTILE: {"auc": 0.78}, "floor": {"auc": 0.1}}
    page = page_of(tmp_path, board, words)
    check_alone(page)
    assert "<script>" in page.shown


def test_many_methods_and_fields(tmp_path: Path) -> None:
    board = results()
    rows = [row for row in board["results"] if row["method"] == "hash"]
    for number in range(8):
        name = f"binary-code:blocks={number},fusion=sum"
        board["results"] += [row | {"method": name, "auc": row["auc"] - 0.001} for row in rows]
    for row in board["results"]:
        row["by_field"] = [
            {"field": f"field {n}", "ids": n + 1, "bytes": 100 * n, "abundance": None, "sampled": 0}
            for n in range(40)
        ]
    page = page_of(tmp_path, board, None)
    check_alone(page)
    assert "all others" in page.shown
    assert "binary-code:blocks=7,fusion=sum" in page.shown


def test_pictures_for_slides(tmp_path: Path) -> None:
    paths = write_pictures(write_board(tmp_path, results() | more(), WORDS))
    assert {path.name for path in paths} >= {"board-quality.png", "board-differences.png"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    assert len(paths) == 10


def test_the_command_that_makes_it_again() -> None:
    assert command(WORDS, "out dir") == (
        "bitfold compare 'my data/clicks.csv' --budgets 10x,100x,1000x --seeds 2 --keep-runs "
        "--hidden 64 --epochs 2 --label 'rating>=4' --fields user,item,day --multi 'tags=|' "
        "--out 'out dir'"
    )


def board_of(board: dict[str, Any]) -> Board:
    made = Board(tuple(board["results"]), tuple(board.get("refused", ())))
    return Board(made.rows, made.refused, {k: v for k, v in board.items() if k in more()}, WORDS)


def test_words_follow_the_figures() -> None:
    board = board_of(results())
    first, notes = decision(board)
    assert first == (
        "Take binary-code at 10x (97.6 KiB): it keeps 96.7 % of the full table's lift over chance "
        "(98.8 % of its AUC)."
    )
    assert notes[0] == "No budget that was tried keeps 98% of the full table's lift."
    assert lost(board) == "At 100x: 0.0300 of AUC with binary-code, which keeps 96.3 %."
    assert [line.method for line in frontier(board)] == ["binary-code", "binary-code", "full"]
    assert "ahead by more than twice that at 10x and at 100x" in is_real(board)


def test_the_tightest_budget_that_keeps_the_lift_is_taken() -> None:
    board = results() | {"references": {"popularity": {"auc": 0.7, "field": "user"}}}
    for row in board["results"]:
        if (row["method"], row["budget"]) == ("hash", "100x"):
            row["auc"] = 0.797 + 0.001 * row["seed"]
    made = board_of(board)
    assert decision(made)[0] == (
        "Take hash at 100x (9.7 KiB): it keeps 99.0 % of the full table's lift over chance "
        "(99.6 % of its AUC), above popularity of user (0.7000)."
    )
    assert made.at("100x")[0].lift == pytest.approx(0.297 / 0.3, abs=2e-3)


@pytest.mark.parametrize(
    ("references", "auc", "said", "note"),
    [
        ({"popularity": {"auc": 0.81, "field": "item"}}, None,
         "Nothing compressed beats popularity of item (0.8100) here", "binary-code 10x"),
        ({"logistic regression": {"auc": 0.79}, "popularity": {"auc": 0.6}}, 0.78,
         "Nothing compressed beats logistic regression (0.7900) here", "No budget"),
        ({}, 0.45, "Take none: the best, hash at 10x (97.6 KiB), ranks worse than chance",
         "AUC below .5"),
        ({"popularity": None, "bayes": {"auc": 0.95}}, None, "Take binary-code", "No budget"),
    ],
    ids=["popularity", "logistic", "below chance", "no floors"],
)  # fmt: skip
def test_what_lies_below_the_floors_is_not_recommended(
    references: dict[str, Any], auc: float | None, said: str, note: str
) -> None:
    board = results() | {"references": references}
    if auc is not None:
        for row in board["results"]:
            if row["budget"] != "1x":
                row["auc"] = auc
    first, notes = decision(board_of(board))
    assert first.startswith(said)
    assert any(note in text for text in notes)


def test_the_whole_model_stands_beside_the_embeddings(whole: Page) -> None:
    assert "whole model" in whole.shown
    assert "1,189,900" in whole.shown  # 999,900 of embeddings, 60,000 of map, 130,000 of network


def test_fields_that_share_one_pool_alike_have_no_bars(tmp_path: Path) -> None:
    board = results()
    for row in board["results"]:
        for field in row["by_field"]:
            field["bytes"] = 1000 if row["budget"] == "10x" else field["bytes"]
    page = page_of(tmp_path, board)
    assert "One pool serves all fields alike, so there are no bars: hash 10x and bin" in page.shown
    assert not re.search(r"hash 10x, user: [^<]* of the bytes", page.text)
    assert re.search(r"hash 100x, user: [^<]* of the bytes", page.text)


def test_a_colour_of_a_method_is_the_methods_alone() -> None:
    board = Board(tuple(results()["results"]), (), more())
    drawn = [part.chart for section in sections(board) for part in section.parts if part.chart]
    free = {chart.name: json.dumps(chart.draw(WIDE)) for chart in drawn}
    for name in ("kinds", "unseen", "differences"):  # charts without a key of methods
        assert not re.search(r"var\(--s[1-9]\)", free[name]), name


def test_a_method_that_gains_nothing_is_not_on_the_frontier() -> None:
    board = results()
    for row in board["results"]:
        if row["budget"] == "10x":
            row["auc"] = 0.75
    made = board_of(board)
    assert [(line.method, line.budget) for line in frontier(made)] == [
        ("binary-code", "100x"),
        ("full", "1x"),
    ]


def test_added_lines_of_equal_bytes_have_no_panel() -> None:
    board = results()
    extra = next(row for row in board["results"] if row["method"] == "hash")
    board["results"].append(extra | {"budget": "77,000 B", "bytes": 77_000})
    made = board_of(board)
    assert made.budgets == ["10x", "100x"]
    assert len(made.lines) == 6
    assert not made.unfinished


def test_groups_of_a_few_rows_are_told_in_the_table_alone(tmp_path: Path) -> None:
    board = results()
    for row in board["results"]:
        for field in row["by_frequency"]:
            rare = {"group": 0, "least": 0, "most": 0, "rows": 15, "clicks": 7, "logloss": 0.6}
            field["groups"] = [rare | {"auc": 0.9876 - row["auc"] / 10}, *field["groups"]]
            for group in field["groups"][1:]:
                group["rows"] = 5000
    page = page_of(tmp_path, board)
    chart, table = page.text.split('id="ids"')[1].split("</figure>")[:2]
    assert "never" not in chart.split("<figure>")[1]
    assert "never" in table
    for row in board["results"]:
        for field in row["by_frequency"]:
            field["groups"] = field["groups"][:1]
    page = page_of(tmp_path / "few", board)
    assert "never" in page.text.split('id="ids"')[1].split("</figure>")[0].split("<figure>")[1]


def test_axes_count_in_plain_numbers(tmp_path: Path) -> None:
    board = results()
    for row in board["results"]:
        for field in row["by_field"]:
            field["abundance"] *= 4
    page = page_of(tmp_path, board)
    assert "directions used" in page.shown
    assert ">10</text>" in page.text
    assert not re.search(r">[\d.]+e[+−-]?\d+<", page.text)


def test_labels_keep_their_distance() -> None:
    places = spread_out([10, 11, 12, 90], 14, 0, 100)
    gaps = [b - a for a, b in zip(sorted(places), sorted(places)[1:], strict=False)]
    assert min(gaps) >= 14
    assert places == sorted(places)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [LIGHT, DARK])
def test_every_colour_of_text_has_contrast_aa(scheme: dict[str, str]) -> None:
    assert LIGHT.keys() == DARK.keys()
    ground = luminance(scheme["ground"])
    for name, colour in scheme.items():
        if name not in ("ground", "faint"):
            high, low = sorted([ground, luminance(colour)], reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 4.5, name


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "holds no comparison"),
        ('{"results": []}', "no finished run yet"),
        ('{"results": [{"method": "hash"}]}', "can be drawn"),
        ("{", "is damaged"),
    ],
)
def test_mistakes(tmp_path: Path, content: str | None, text: str) -> None:
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    refused(bitfold("report", tmp_path), text)
    assert not (tmp_path / "board.html").exists()


def test_without_the_packages_report_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_board(tmp_path, results(), WORDS)
    monkeypatch.setattr("bitfold.report.drawing.PACKAGES", ("a_package_that_is_not_there",))
    refused(bitfold("report", tmp_path), "pip install 'bitfold[report]'")


CELLS = ("--methods", "full,hash", "--budgets", "1KiB", "--seeds", 1)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("compare")
    ratings = write_ratings(folder / "ratings.csv")
    got = bitfold("compare", ratings, *READING, *TRAINING, *CELLS, "--out", folder / "board")
    assert got.code == 0, got.err
    return folder / "board", got.out


def test_compare_writes_the_page_and_report_writes_the_same(done: tuple[Path, str]) -> None:
    out, told = done
    page = out / "board.html"
    assert f"page: {page}" in told
    before = page.read_bytes()
    page.unlink()
    got = bitfold("report", out)
    assert (got.code, got.out.strip()) == (0, f"page: {page}")
    assert page.read_bytes() == before
    read = Page(before.decode())
    check_alone(read)
    ids = {a["id"] for a in read.all("section")}
    assert {"quality", "ids", "bytes", "collapse", "training", "speed"} <= ids


def test_the_commands_of_the_page_train_the_runs_that_it_shows(
    done: tuple[Path, str], tmp_path: Path
) -> None:
    board = read_board(done[0])
    ((_, command),) = commands(board)
    assert command in Page((done[0] / "board.html").read_text(encoding="utf-8")).shown
    words = shlex.split(command)
    assert words[:2] == ["bitfold", "train"]
    assert words[-2:] == ["--out", "RUN"]
    got = bitfold(*words[1:-1], tmp_path / "RUN")
    assert got.code == 0, got.err
    metrics = json.loads((tmp_path / "RUN" / "metrics.json").read_text())
    assert metrics["auc"] == board.at("1KiB")[0].means["auc"]


def test_report_makes_pictures(done: tuple[Path, str]) -> None:
    got = bitfold("report", done[0], "--format", "png")
    assert got.code == 0, got.err
    assert f"picture: {done[0] / 'board-quality.png'}" in got.out


def test_all_charts_of_a_real_comparison_are_drawn(done: tuple[Path, str]) -> None:
    drawn = {
        part.chart.name
        for section in sections(read_board(done[0]))
        for part in section.parts
        if part.chart
    }
    expected = {"quality", "ids", "fields", "kinds", "collapse", "training", "speed", "unseen"}
    assert drawn == expected


def test_rows_have_what_the_page_needs(done: tuple[Path, str]) -> None:
    for row in json.loads((done[0] / "results.json").read_text())["results"]:
        assert {"curve", "by_kind", "by_field", "by_frequency", "environment", "data"} <= row.keys()
    assert "by_field" not in (done[0] / "results.csv").read_text()


def test_compare_without_the_packages_ends_and_says_how_to_get_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bitfold.report.drawing.PACKAGES", ("a_package_that_is_not_there",))
    ratings = write_ratings(tmp_path / "ratings.csv")
    got = bitfold("compare", ratings, *READING, *TRAINING, *CELLS, "--out", tmp_path / "board")
    assert got.code == 0, got.err
    assert "pip install 'bitfold[report]', then bitfold report" in got.out
    assert not (tmp_path / "board" / "board.html").exists()


def test_an_interrupted_comparison_leaves_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bitfold import training

    real, begun = training.train, []

    def train(*args: Any, **words: Any) -> Any:
        begun.append(args[3])
        if len(begun) == 2:
            raise KeyboardInterrupt
        return real(*args, **words)

    monkeypatch.setattr(training, "train", train, raising=False)
    ratings = write_ratings(tmp_path / "ratings.csv")
    got = bitfold("compare", ratings, *READING, *TRAINING, *CELLS, "--out", tmp_path / "board")
    assert got.code == 130
    page = Page((tmp_path / "board" / "board.html").read_text(encoding="utf-8"))
    assert "1 of 2 runs have ended" in page.shown


def test_nothing_of_the_page_is_imported_before_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def watched(name: str, *args: Any, **words: Any) -> Any:
        assert name.partition(".")[0] not in ("vl_convert", "jinja2"), name
        return real(name, *args, **words)

    monkeypatch.setattr(builtins, "__import__", watched)
    assert bitfold("compare", "--help").code == 0
    assert report.missing() is None


def test_every_method_of_the_tests_is_drawn() -> None:
    assert set(METHODS) == {row["method"] for row in results()["results"]}


def test_one_seed_tells_nothing_and_says_so() -> None:
    pair = {"method": "a", "against": "hash", "budget": "10x", "mean": 0.01, "low": None}
    said = verdicts([pair, pair | {"budget": "100x"}], "full")
    assert said.startswith("There is one seed")
    assert "--seeds 3" in said
