"""The sections of what was found: quality against bytes, and whether differences are real."""

from bitfold.comparison.board import ranking_columns
from bitfold.report import differences, quality, sentences, sizes
from bitfold.report.layout import Part, Section, Table, chart_of
from bitfold.report.numbers import (
    auc_text,
    byte_count,
    difference_text,
    share_text,
    size,
    times,
)
from bitfold.report.reading import Board, text_of


def found(board: Board) -> Section:
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
                byte_count(sizes.whole_bytes(board, line)),
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
    chart = chart_of(
        board, quality.quality, "quality", "Quality against bytes",
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
    chart = chart_of(
        board, differences.differences, "differences", "Is the difference real?",
        "Interval chart of the differences in AUC. "
        + " ".join(sentences.difference_words(row) for row in found if row["metric"] == "auc"),
        keyed=False,
    )  # fmt: skip
    made = [Part(Table("Differences over paired seeds", columns, rows, left=4), chart)]
    return Section("differences", "Is the difference real?", said, made)


def _end(value: float | None) -> str:
    return "-" if value is None else difference_text(value)
