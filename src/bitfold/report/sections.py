"""The sections of the page: each has words, a chart where there is one to draw, and its table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bitfold.comparison.board import FULL_BUDGET, ranking_columns
from bitfold.report import charts, parts, sentences
from bitfold.report.look import Look, Spec
from bitfold.report.numbers import (
    auc_text,
    byte_count,
    difference_text,
    share_text,
    size,
    times,
)
from bitfold.report.reading import Board, text_of


@dataclass(frozen=True)
class Table:
    """A table of texts; the first `left` columns are words, the others numbers."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1


@dataclass(frozen=True)
class Chart:
    """A chart of a section.

    Args:
        name: of its PNG.
        title: what a slide calls it.
        about: what it shows, for those who do not see it.
        draw: makes its specification.
        keyed: whether the key of methods belongs above it.
    """

    name: str
    title: str
    about: str
    draw: Callable[[Look], Spec]
    keyed: bool = True


@dataclass(frozen=True)
class Part:
    """A chart, if there is one to draw, and the table of its figures.

    Args:
        table: the figures.
        chart: what is drawn of them.
        open: whether the table is shown at once.
        said: what has to be known to read the table.
    """

    table: Table
    chart: Chart | None = None
    open: bool = False
    said: str = ""


@dataclass(frozen=True)
class Section:
    """A section: a title, sentences, and its parts."""

    id: str
    title: str
    said: Sequence[str]
    parts: Sequence[Part] = field(default=())


def sections(board: Board) -> list[Section]:
    """All sections that this comparison has figures for.

    One that its figures do not suffice for is left out, and named in `board.left_out`: the page
    must not fail at figures that nobody thought of.
    """
    makers = {
        "quality": quality, "differences": real, "ids": ids, "sizes": sizes,
        "collapse": collapse, "training": training, "speed": speed, "grid": grid,
    }  # fmt: skip
    made = (board.attempt(f"the section {name}", maker, board) for name, maker in makers.items())
    return [section for section in made if section is not None]


def _chart(
    board: Board, draw: Callable[[Board, Look], Spec | None], name: str, title: str, about: str,
    keyed: bool = True,
) -> Chart | None:  # fmt: skip
    """The chart, or None where there is nothing to draw."""
    if draw(board, Look(740)) is None:
        return None

    def drawn(look: Look) -> Spec:
        spec = draw(board, look)
        assert spec is not None
        return spec

    return Chart(name, title, about, drawn, keyed)


def quality(board: Board) -> Section:
    """Quality against bytes."""
    rows = []
    ranked = ranking_columns(board.lines)
    for line in sorted(board.lines, key=lambda line: -line.means["bytes"]):
        spread = line.spreads.get("auc")
        lost = board.full.means["auc"] - line.means["auc"] if board.full else None
        rows.append(
            [
                line.method,
                line.budget,
                byte_count(line.means["bytes"]),
                byte_count(parts.whole_bytes(board, line)),
                times(line.means.get("ratio")),
                auc_text(line.means["auc"]),
                "-" if spread is None else f"{spread:.4f}",
                share_text(line.kept),
                share_text(line.lift),
                "-" if lost is None else difference_text(-lost),
                auc_text(line.means.get("logloss")),
                auc_text(line.means.get("gauc")),
                *(auc_text(line.means.get(name)) for name in ranked),
                str(line.seeds),
            ]
        )
    empty = ["-"] * (9 + len(ranked))
    rows += [
        [row["method"], row["budget"], f"needs {row['minimum']:,}", *empty, "0"]
        for row in board.refused
    ]
    columns = (
        "method", "budget", "bytes", "whole model", "times smaller", "AUC", "± over seeds",
        "of full's AUC", "of its lift", "against full", "log loss", "GAUC", *ranked.values(),
        "seeds",
    )  # fmt: skip
    said = [
        "Each point is a method at a budget: its test AUC at the epoch that validates best. "
        + (
            "Bars show one standard deviation over the seeds."
            if board.seeds > 1
            else "One seed: there are no error bars."
        ),
    ]
    if board.seeds > 1:
        said.append("A step smaller than the bars may be chance.")
    if board.refused:
        said.append(
            "Too small a budget: "
            + sentences.listed(
                [
                    f"{r['method']} {r['budget']} (needs {r['minimum']:,} bytes)"
                    for r in board.refused
                ]
            )
            + "."
        )
    chart = _chart(
        board, charts.quality, "quality", "Quality against bytes",
        "Line chart of test AUC against the bytes of the embeddings on a logarithmic axis. "
        + " ".join(sentences.found(board, budget) for budget in board.budgets),
    )  # fmt: skip
    made = [
        Part(_frontier(board), open=True),
        Part(Table("Quality at every budget", columns, rows, left=2), chart),
    ]
    if board.more.get("references"):
        made.append(Part(_references(board), open=True, said=FLOORS))
    return Section("quality", "Quality against bytes", said, made)


FLOORS = (
    "Floors are what any model has to beat. Popularity scores a row by the click rate of one "
    "field's id, and nothing is trained for it. Logistic regression has one weight for each id, "
    "and nothing crossed. Bayes is the hidden truth of a synthetic log, which no model can pass."
)


def _frontier(board: Board) -> Table:
    rows = [
        [
            size(line.means["bytes"]), line.method, line.budget,
            auc_text(line.means["auc"]), byte_count(line.means["bytes"]),
        ]
        for line in sentences.frontier(board)
    ]  # fmt: skip
    columns = ("from", "take", "budget", "AUC", "bytes")
    return Table("Which method for my bytes?", columns, rows, left=3)


def _references(board: Board) -> Table:
    rows = [
        [str(name), auc_text(figures.get("auc")), auc_text(figures.get("logloss"))]
        for name, figures in board.more["references"].items()
        if isinstance(figures, dict)
    ]
    return Table("Floors and ceilings", ("what", "AUC", "log loss"), rows)


def real(board: Board) -> Section | None:
    """Whether the differences are real."""
    found = board.more.get("differences")
    if not found:
        return None
    rows = [
        [
            str(row["method"]), str(row["budget"]),
            f"{row['against']} {row.get('against_budget', row['budget'])}", str(row["metric"]),
            difference_text(row["mean"]), _end(row.get("low")), _end(row.get("high")),
            text_of(row.get("seeds")), sentences.verdict(row),
        ]
        for row in found
    ]  # fmt: skip
    columns = (
        "method", "budget", "against", "measure", "difference", "from", "to", "seeds", "real?",
    )  # fmt: skip
    said = [
        sentences.is_real(board),
        "A difference is real when its interval leaves out zero: filled points. Pairs are of the "
        "same seed, so that what both runs share does not count.",
    ]
    chart = _chart(
        board, charts.differences, "differences", "Is the difference real?",
        "Interval chart of the differences in AUC. "
        + " ".join(sentences.difference_words(row) for row in found if row["metric"] == "auc"),
        keyed=False,
    )  # fmt: skip
    made = [Part(Table("Differences over paired seeds", columns, rows, left=4), chart)]
    return Section("differences", "Is the difference real?", said, made)


def _end(value: float | None) -> str:
    return "-" if value is None else difference_text(value)


def ids(board: Board) -> Section | None:
    """Which ids suffer."""
    rows = charts.frequency_rows(board)
    fresh = parts.unseen_rows(board)
    if not rows and not fresh:
        return None
    said = [
        *sentences.who_suffers(board, charts.telling(rows)),
        "What is drawn is the difference from the full table, where there is one. "
        "Test rows are grouped by how often their id was met in training, in tenths of the rows "
        "from rare to frequent; ids never met stand apart. Groups are AUCs of their own: compare "
        "methods within a group, not groups with each other. Groups of fewer than "
        f"{charts.FEWEST_ROWS} rows are in the table alone.",
    ]
    chart = _chart(
        board, charts.by_frequency, "ids", "Which ids suffer",
        "Line charts of test AUC by how often an id was met in training. " + said[0],
    )  # fmt: skip
    table = Table(
        "AUC by how often the id was met in training",
        ("field", "met", "method", "budget", "AUC", "rows"),
        [
            [
                row["field"], row["met"], row["method"], row["budget"], auc_text(row["auc"]),
                f"{row['rows']:,}",
            ]
            for row in sorted(rows, key=lambda row: (row["field"], row["group"]))
        ],
        left=4,
    )  # fmt: skip
    made = [Part(table, chart)] if rows else []
    if fresh:
        told = [[row["field"], share_text(row["share"])] for row in fresh]
        bars = _chart(
            board, parts.unseen, "unseen", "Ids that training never met",
            "Bar chart of the share of test ids that are new, by field.", keyed=False,
        )  # fmt: skip
        made.append(Part(Table("Test ids never met in training", ("field", "share"), told), bars))
    return Section("ids", "Which ids suffer", said, made)


def sizes(board: Board) -> Section:
    """Where the bytes are."""
    lines = board.lines
    fields = [(line, row) for line in lines for row in parts.field_rows(board, line)]
    made = []
    if fields:
        table = Table(
            "Bytes by field",
            ("method", "budget", "field", "ids", "bytes", "share"),
            [
                [
                    line.method, line.budget, row["field"], f"{row['ids']:,}",
                    byte_count(row["bytes"]), share_text(row["share"]),
                ]
                for line, row in fields
            ],
            left=3,
        )  # fmt: skip
        chart = _chart(
            board, parts.bytes_by_field, "fields", "Bytes by field",
            f"Bar charts of each field's share of the bytes. {sentences.eaters(board)}",
            keyed=False,
        )  # fmt: skip
        made.append(Part(table, chart))
    kinds = sorted(
        {kind for row in board.rows for kind in row.get("by_kind") or {}},
        key=lambda kind: (kind != "weights", kind),
    )
    rows = [
        [
            line.method,
            line.budget,
            *(byte_count(board.mean(line, _kind(kind))) for kind in kinds),
            *(byte_count(board.mean(line, figure)) for _, figure in parts.KINDS.values()),
            byte_count(parts.whole_bytes(board, line)),
        ]
        for line in lines
    ]
    columns = ("method", "budget", *kinds, *(f"{name}, all" for name in ("embeddings",)))
    columns = (*columns, "id map", "network", "in training", "whole model")
    about = (
        "Dot plot of the bytes of the embeddings, the map from values to ids, the network, and the "
        "embeddings in training."
    )
    chart = _chart(board, parts.bytes_by_kind, "kinds", "Bytes by kind", about, keyed=False)
    made.append(Part(Table("Bytes by kind", columns, rows, left=2), chart))
    alike = [board.title(line) for line in parts.by_field(board) if parts.shared_alike(board, line)]
    said = [
        *([sentences.eaters(board)] if fields else []),
        *(
            [f"One pool serves all fields alike, so there are no bars: {sentences.listed(alike)}."]
            if alike
            else []
        ),
        "Rows that fields share count in each by its share of the lookups. The id map turns raw "
        "values into rows; methods on hashed ids need none. The whole model is the embeddings, "
        "the map and the network. In training each weight has its gradient and the optimizer's "
        "state beside it.",
    ]
    return Section("bytes", "Where the bytes are", said, made)


def _kind(name: str) -> Callable[[Any], Any]:
    return lambda row: (row.get("by_kind") or {}).get(name)


def collapse(board: Board) -> Section | None:
    """Information abundance."""
    rows = [
        [line.method, line.budget, row["field"], f"{row['abundance']:.2f}", f"{row['ids']:,}"]
        for line in board.lines
        for row in parts.field_rows(board, line)
        if row["abundance"] is not None
    ]
    if not rows:
        return None
    width = board.rows[0].get("width")
    said = [
        "Information abundance is the sum of the singular values of a field's vectors over the "
        f"largest: 1 means that all vectors lie on one line, {width} (the width) that all "
        "directions are used alike. It is taken over up to 4,096 ids met in training, each counted "
        "once, however often it was met."
    ]
    chart = _chart(
        board, parts.collapse, "collapse", "Directions the vectors use",
        "Dot plots of information abundance by field and method.",
    )  # fmt: skip
    columns = ("method", "budget", "field", "information abundance", "ids")
    table = Table("Information abundance by field", columns, rows, left=3)
    return Section("collapse", "Do the vectors collapse?", said, [Part(table, chart)])


def training(board: Board) -> Section | None:
    """Training curves."""
    rows = [
        [
            str(run["method"]), str(run["budget"]), str(run["seed"]), str(epoch["epoch"]),
            auc_text(epoch.get("valid_auc")), auc_text(epoch.get("valid_logloss")),
            auc_text(epoch.get("loss")), f"{epoch['rows_per_second']:,.0f}",
        ]
        for run in board.rows
        for epoch in run.get("curve") or []
    ]  # fmt: skip
    if not rows:
        return None
    chart = _chart(
        board, charts.training, "training", "Training curves",
        "Line charts of validation AUC after each epoch.",
    )  # fmt: skip
    said = [
        "Validation AUC after each epoch; thin lines are seeds, thick ones their mean. A run is "
        "judged at its best epoch."
        if chart
        else "Every run had one epoch, so there is no curve to draw; the table has its figures."
    ]
    columns = (
        "method", "budget", "seed", "epoch", "validation AUC", "validation log loss",
        "training loss", "rows/s",
    )  # fmt: skip
    table = Table("Every epoch of every run", columns, rows, left=2)
    return Section("training", "Training curves", said, [Part(table, chart)])


def speed(board: Board) -> Section | None:
    """Rows trained a second."""
    rows = []
    for line in board.lines:
        if "rows_per_second" in line.means:
            spread = line.spreads.get("rows_per_second")
            seconds = board.mean(line, lambda row: row.get("seconds"))
            epochs = board.mean(line, lambda row: row.get("epochs"))
            rows.append(
                [
                    line.method, line.budget, f"{line.means['rows_per_second']:,.0f}",
                    "-" if spread is None else f"{spread:,.0f}",
                    "-" if seconds is None else f"{seconds:,.1f}",
                    "-" if epochs is None else f"{epochs:.1f}",
                ]
            )  # fmt: skip
    if not rows:
        return None
    chart = _chart(
        board, parts.speed, "speed", "Rows trained a second",
        "Bar chart of the rows trained a second.",
    )  # fmt: skip
    said = [
        "Rows trained a second; validation and the first steps, which compile the kernels, are "
        "left out. Whatever else the machine was doing is in "
        "these figures too; measure speed on a quiet one."
    ]
    columns = ("method", "budget", "rows/s", "± over seeds", "seconds in all", "epochs")
    return Section("speed", "Speed", said, [Part(Table("Speed", columns, rows, left=2), chart)])


def grid(board: Board) -> Section | None:
    """The learning rates and weight decays that were tried."""
    found = parts.grid_rows(board)
    if not found:
        return None
    chart = _chart(
        board, parts.grid, "grid", "Learning rates and weight decays",
        "Line charts of validation AUC by learning rate.",
    )  # fmt: skip
    said = [
        "What was tried for each method and budget, so that each runs at its own best. A point is "
        "the best of the weight decays at its learning rate."
    ]
    chosen = parts.grid_choices(board)
    edges = [f"{row['method']} {row['budget']}" for row in chosen if row.get("edge")]
    if edges:
        where = sentences.listed(edges)
        said.append(f"Chosen at an end of what was tried, so better may lie beyond: {where}.")
    made = [Part(_any_table("Chosen", chosen), open=True)] if chosen else []
    made.append(Part(_any_table("Everything tried", found), chart))
    return Section("grid", "Learning rates and weight decays", said, made)


def _any_table(caption: str, found: Sequence[dict[str, Any]]) -> Table:
    """A table of rows whose names are not known beforehand."""
    columns = list(dict.fromkeys(name for row in found for name in row))
    rows = [[_cell(row.get(name)) for name in columns] for row in found]
    return Table(caption, [name.replace("_", " ") for name in columns], rows, left=2)


def _cell(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else text_of(value)


__all__ = ["FULL_BUDGET", "Chart", "Part", "Section", "Table", "sections"]
