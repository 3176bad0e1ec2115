"""The figures that are kept: `docs/results/BOARD-STAGE.json`, a line a cell.

A file has the words of training and of reading, and the log's rows, so that figures of other words
or of another log are never added to it. Its cells are the figures of OUT's `cells/*.json`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitfold.config import to_json
from bitfold.errors import BitfoldError
from bitfold.files import atomic, read_json, without_nan
from bitfold.runs.scoring import EVALUATION_ROWS

from .boards import Board

if TYPE_CHECKING:
    from bitfold.data.prepared import PreparedLog

FORMAT = 1
Row = dict[str, Any]
KEPT = (
    *("method", "budget", "seed", "auc", "logloss", "gauc", "bytes", "ratio", "training_bytes"),
    *("map_bytes", "network_bytes", "rows_per_second", "epochs", "best_epoch", "seconds", "part"),
    *("rows", "versions", "finished", "embedding", "options", "width", "network", "lr"),
    *("embedding_decay", "clicks", "took"),
)
LISTS = ("cells", "refused")


@dataclass
class Record:
    """The figures of one stage of a board.

    Args:
        path: the file.
        words: what they were measured with; None before the first figure.
        cells: the figures.
        refused: the methods and budgets that cannot be built.
        references: floors and ceilings.
    """

    path: Path
    words: Row | None = None
    cells: list[Row] = field(default_factory=list)
    refused: list[Row] = field(default_factory=list)
    references: Row = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path, board: str, stage: str) -> "Record":
        """The record of a stage; an empty one if there is no file."""
        path = folder / f"{board}-{stage}.json"
        if not path.is_file():
            return cls(path)
        kept = read_json(path)
        if kept.get("format") != FORMAT:
            raise BitfoldError(
                f"{path} is of another format", got=kept.get("format"), expected=FORMAT,
                fix="remove it to measure anew",
            )  # fmt: skip
        return cls(path, kept["words"], kept["cells"], kept["refused"], kept["references"])

    def check(self, words: Row) -> None:
        """Refuse figures of other words, or of another log."""
        for section, mine in (self.words or {}).items():
            now = words[section]
            for name, value in mine.items():
                if name in now and now[name] != value:
                    raise BitfoldError(
                        f"{self.path} was measured with another {section}: {name}",
                        got=now[name], expected=value,
                        fix="put the word back, or remove the file to measure anew",
                    )  # fmt: skip

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take in figures of cells that are not there yet."""
        known = {key(row) for row in self.cells}
        self.cells += [kept for kept in map(small, rows) if key(kept) not in known]

    def write(self) -> None:
        """Write the file, a line a cell."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        board = {"format": FORMAT, "words": self.words, "references": self.references}
        parts = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in board.items()]
        for name in LISTS:
            rows = sorted(getattr(self, name), key=key)
            inside = ",\n ".join(json.dumps(without_nan(row)) for row in rows)
            parts.append(f"{json.dumps(name)}: [" + (f"\n {inside}\n" if rows else "") + "]")
        with atomic(self.path) as part:
            part.write_text("{" + ",\n".join(parts) + "}\n", encoding="utf-8")


def words_of(board: Board, log: "PreparedLog") -> Row:
    """What figures were measured with, as JSON has it."""
    said = {
        "train": to_json(board.train),
        "data": to_json(log.schema.config),
        "rows": dict(log.rows),
    }
    found: Row = json.loads(json.dumps(said))
    return found


def small(row: Mapping[str, Any]) -> Row:
    """The figures of a cell that are kept."""
    kept: Row = {name: row[name] for name in KEPT if name in row}
    kept["valid"] = {name: row["valid"][name] for name in ("auc", "logloss")}
    return kept


def clicks_of(log: "PreparedLog") -> int:
    """The positive rows of the test part, which the error of an AUC follows from."""
    batches = log.batches("test", EVALUATION_ROWS)
    return sum(int((batch.labels > 0.5).sum()) for batch in batches if batch.labels is not None)


def key(row: Mapping[str, Any]) -> tuple[str, str, int]:
    """What tells a cell from another; a refused one has no seed."""
    return row["method"], row["budget"], row.get("seed", 0)


def known_cells(records: Sequence[Record]) -> dict[tuple[str, str, int], Row]:
    """All figures of some stages of one board."""
    return {key(row): row for record in records for row in record.cells}
