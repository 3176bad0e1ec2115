"""The cells of distillation: `auto`, taught by a full table of its seed."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bitfold.comparison.config import FULL, Cell
from bitfold.config import from_json
from bitfold.runs.teaching import TeacherConfig

from .boards import Board
from .record import Record, clicks_of

if TYPE_CHECKING:
    from bitfold.data.prepared import PreparedLog

    from .sitting import Sitting

OPTIONS: dict[str, Any] = {"teacher_share": float, "teacher_meta": "true".__eq__}
"""How the options of a cell's name are read."""


def teach(
    sitting: "Sitting", board: Board, log: "PreparedLog", record: Record, cells: Sequence[Cell]
) -> None:
    """Train the cells that have no figures yet; the teachers are kept under OUT."""
    from bitfold import training

    folder = sitting.out / "boards" / board.name / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    known = {(row["method"], row["budget"], row["seed"]) for row in record.cells}
    clicks = clicks_of(log)
    for cell in cells:
        if (cell.variant.name, cell.budget, cell.seed) in known:
            continue
        sitting.check_time()
        sitting.say(f"{board.name}: {cell.title}")
        mine, begun = replace(board.train, seed=cell.seed), time.process_time()
        said = [log.path], log.schema.config
        teacher = folder / f"{FULL}-{cell.seed}"
        full = replace(mine, method=FULL, budget=None)
        training.train(*said, full, teacher, resume=True, floors=False)
        options = {name: OPTIONS[name](text) for name, text in cell.variant.options.items()}
        taught = from_json(TeacherConfig, {"teacher": str(teacher), **options})
        run, words = folder / cell.slug, replace(mine, method="auto", budget=cell.budget)
        found = training.train(*said, words, run, resume=True, taught=taught, floors=False)
        row: dict[str, Any] = {
            "method": cell.variant.name, "budget": cell.budget, "seed": cell.seed,
            **found.metrics, "embedding": words.method, "options": cell.variant.options,
            "width": words.width, "network": words.network, "lr": words.lr,
            "embedding_decay": words.embedding_decay, "clicks": clicks,
            "took": round(time.process_time() - begun, 1),
        }  # fmt: skip
        record.add([row])
        record.write()
        shutil.rmtree(run)
