"""The sections of the page: sentences, a chart where there is one to draw, and its table."""

from collections.abc import Callable
from typing import Any

from bitfold.comparison.config import FULL_BUDGET
from bitfold.report import curves, frequencies, parts, sentences, sizes
from bitfold.report.findings import found, real
from bitfold.report.layout import Chart, Part, Section, Table, chart_of, table_of
from bitfold.report.numbers import (
    auc_text,
    byte_count,
    share_text,
)
from bitfold.report.reading import Board


def sections(board: Board) -> list[Section]:
    """All sections that this comparison has figures for.

    One that its figures do not suffice for is left out, and named in `board.left_out`: the page
    must not fail at figures that nobody thought of.
    """
    makers = {
        "quality": found, "differences": real, "ids": ids, "sizes": weight,
        "collapse": collapse, "training": training, "speed": speed, "grid": grid,
    }  # fmt: skip
    made = (board.attempt(f"the section {name}", maker, board) for name, maker in makers.items())
    return [section for section in made if section is not None]


def ids(board: Board) -> Section | None:
    """Which ids suffer."""
    rows = frequencies.frequency_rows(board)
    fresh = frequencies.unseen_rows(board)
    if not rows and not fresh:
        return None
    said = [
        *sentences.who_suffers(board, frequencies.telling(rows)),
        "What is drawn is the difference from the full table, where there is one. "
        "Test rows are grouped by how often their id was met in training, in tenths of the rows "
        "from rare to frequent; ids never met stand apart. Groups are AUCs of their own: compare "
        "methods within a group, not groups with each other. Groups of fewer than "
        f"{frequencies.FEWEST_ROWS} rows are in the table alone.",
    ]
    chart = chart_of(
        board, frequencies.by_frequency, "ids", "Which ids suffer",
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
        bars = chart_of(
            board, frequencies.unseen, "unseen", "Ids that training never met",
            "Bar chart of the share of test ids that are new, by field.", keyed=False,
        )  # fmt: skip
        made.append(Part(Table("Test ids never met in training", ("field", "share"), told), bars))
    return Section("ids", "Which ids suffer", said, made)


def weight(board: Board) -> Section:
    """Where the bytes are."""
    lines = board.lines
    fields = [(line, row) for line in lines for row in sizes.field_rows(board, line)]
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
        chart = chart_of(
            board, sizes.bytes_by_field, "fields", "Bytes by field",
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
            *(byte_count(board.mean(line, figure)) for _, figure in sizes.KINDS.values()),
            byte_count(sizes.whole_bytes(board, line)),
        ]
        for line in lines
    ]
    columns = ("method", "budget", *kinds, *(f"{name}, all" for name in ("embeddings",)))
    columns = (*columns, "id map", "network", "in training", "whole model")
    about = (
        "Dot plot of the bytes of the embeddings, the map from values to ids, the network, and the "
        "embeddings in training."
    )
    chart = chart_of(board, sizes.bytes_by_kind, "kinds", "Bytes by kind", about, keyed=False)
    made.append(Part(Table("Bytes by kind", columns, rows, left=2), chart))
    alike = [board.title(line) for line in sizes.by_field(board) if sizes.shared_alike(board, line)]
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
    """Information abundance; with several embedding sets of each, too."""
    sets = board.rows[0].get("embedding_sets") or 1
    rows = [
        [
            line.method, line.budget, row["field"], f"{row['abundance']:.2f}",
            *([", ".join(f"{value:.2f}" for value in row["by_set"])] if sets > 1 else []),
            f"{row['ids']:,}",
        ]
        for line in board.lines
        for row in sizes.field_rows(board, line)
        if row["abundance"] is not None
    ]  # fmt: skip
    if not rows:
        return None
    width = board.rows[0].get("width")
    most = f"{width} (the width)"
    if sets > 1 and width is not None:
        most = (
            f"{sets * width} ({sets} sets of width {width} side by side; {width} for a set alone)"
        )
    said = [
        "Information abundance is the sum of the singular values of a field's vectors over the "
        f"largest: 1 means that all vectors lie on one line, {most} that all "
        "directions are used alike. It is taken over up to 4,096 ids met in training, each counted "
        "once, however often it was met."
    ]
    chart = chart_of(
        board, parts.collapse, "collapse", "Directions the vectors use",
        "Dot plots of information abundance by field and method.",
    )  # fmt: skip
    by_set = ["of each set"] * (sets > 1)
    columns = ("method", "budget", "field", "information abundance", *by_set, "ids")
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
    chart = chart_of(
        board, curves.training, "training", "Training curves",
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
    chart = chart_of(
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
    chart = chart_of(
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
    made = [Part(table_of("Chosen", chosen), open=True)] if chosen else []
    made.append(Part(table_of("Everything tried", found), chart))
    return Section("grid", "Learning rates and weight decays", said, made)


__all__ = ["FULL_BUDGET", "Chart", "Part", "Section", "Table", "sections"]
