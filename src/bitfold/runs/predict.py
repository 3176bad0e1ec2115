"""Raw rows in, a file of scores out, in the input's order."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bitfold.data.asked import reading_config
from bitfold.data.forks import need_polars
from bitfold.data.frames import Data, in_memory, paths_of
from bitfold.errors import BitfoldError
from bitfold.outputs import new_file
from bitfold.progress import Progress, silent
from bitfold.runs.folder import load
from bitfold.runs.run import Run
from bitfold.runs.scores import STDOUT, Encoding, Scored, write_csv, writer_of
from bitfold.runs.scoring import EVALUATION_ROWS, ahead, predict_batch, scores


def predict(
    run: Run | str | Path,
    data: Data,
    out: str | Path,
    *,
    keep: Sequence[str] = (),
    force: bool = False,
    batch_size: int = EVALUATION_ROWS,
    progress: Progress | None = None,
    **reading: Any,
) -> int:
    """Score raw rows into a file.

    Values that training never saw work: they have ids like any other. The file appears when it is
    whole.

    Args:
        run: a run, or its folder.
        data: raw files, read as the run's log was, or rows in memory; only the fields are needed.
        out: `.parquet`, `.csv` or `.csv.gz`: a column `score`, a row for each input row; `-` is
            CSV on stdout.
        keep: columns of the data to carry along, as they are, before the score.
        force: replace `out` if it exists.
        batch_size: rows that are scored at once.
        progress: told of the rows done.
        reading: how files are read, if not as the run's log was: `format`, `separator`, `header`,
            `columns`, `missing`, `quote`.

    Returns:
        How many rows were scored.

    Raises:
        BitfoldError: a bad run, bad rows, or a file that exists.
    """
    loaded: Run
    tell = progress or silent
    done = 0

    def counted() -> Iterator[Scored]:
        nonlocal done
        for part in scored(loaded, data, keep, batch_size, **reading):
            yield part
            done += len(part.scores)
            tell("scoring", done)
        tell("scoring", done, done)

    if str(out) == STDOUT:
        loaded = load(run) if isinstance(run, str | Path) else run
        sys.stdout.flush()
        write_csv(getattr(sys.stdout, "buffer", None) or Encoding(sys.stdout), counted())
        sys.stdout.flush()
        return done
    out = Path(out)
    write = writer_of(out)
    inputs = [*paths_of(data), run if isinstance(run, str | Path) else run.path]
    if not out.parent.is_dir():
        raise BitfoldError(f"the folder {out.parent} does not exist", fix="make it first")
    with new_file(out, force=force, inputs=inputs) as path:
        loaded = load(run) if isinstance(run, str | Path) else run
        write(path, counted())
    return done


def scored(
    run: Run,
    data: Data,
    keep: Sequence[str] = (),
    batch_size: int = EVALUATION_ROWS,
    **reading: Any,
) -> Iterator[Scored]:
    """Scores part by part, each with the columns that are carried along."""
    if not keep:
        yield from (Scored(part, None) for part in scores(run, data, batch_size, **reading))
        return
    from bitfold.data.raw import read_tables

    if "score" in keep:
        raise BitfoldError(
            "a column to keep has the name of the scores",
            got="score",
            expected="another name",
            fix="leave it out of --keep, or rename it",
        )
    need_polars("carrying columns along")
    config = reading_config(run.schema.config, reading)
    source: Any = in_memory(data) or data
    source = [source] if isinstance(source, str | Path) else source
    tables = read_tables(source, run.schema, config, fields_only=True, keep=list(keep))
    for table, kept in ahead(tables):
        parts = []
        for start in range(0, table.rows, batch_size):
            batch = table.cut(start, min(start + batch_size, table.rows)).batch()
            batch = batch if run.dense is None else run.dense.apply(batch)
            parts.append(predict_batch(run.model, batch.to(run.device), run.negative_rate))
        yield Scored(np.concatenate(parts), kept)
