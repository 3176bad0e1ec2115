"""Raw rows in, scores out, in the input's order."""

import sys
from collections.abc import Iterator, Mapping, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from bitfold.data.forks import need_polars
from bitfold.data.frames import Data, paths_of
from bitfold.data.single import FEW
from bitfold.errors import BitfoldError
from bitfold.outputs import new_file
from bitfold.progress import Progress, silent
from bitfold.runs.evaluate import EVALUATION_ROWS, predict_batch
from bitfold.runs.scores import STDOUT, Encoding, Scored, Scores, write_csv, writer_of

if TYPE_CHECKING:
    from bitfold.runs.run import Run

T = TypeVar("T")


def scores(
    run: "Run", data: Data, batch_size: int = EVALUATION_ROWS, **reading: Any
) -> Iterator[Scores]:
    """Probabilities of raw rows, batch by batch, in the input's order.

    While the model scores a batch, a thread reads the next; a few rows need no thread.
    """
    batches = run.batches(data, batch_size, fields_only=True, **reading)
    if not is_small(data):
        batches = ahead(batches)
    for batch in batches:
        yield predict_batch(run.model, batch.to(run.device), run.negative_rate)


def is_small(data: Data) -> bool:
    """Whether the data are a few rows at most, as far as a look at their length tells."""
    if isinstance(data, Mapping):
        return all(not hasattr(each, "__len__") or len(each) <= FEW for each in data.values())
    if isinstance(data, str | Path) or not isinstance(data, Sized):
        return False
    return len(data) <= FEW and not paths_of(data)


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, the next of which a thread makes while one is used."""
    end = object()
    with ThreadPoolExecutor(1, "bitfold-reading") as pool:
        following = pool.submit(next, items, end)
        while (item := following.result()) is not end:
            following = pool.submit(next, items, end)
            yield item  # type: ignore[misc]


def predict(
    run: "Run | str | Path",
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
    from bitfold.runs.run import load

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
    run: "Run",
    data: Data,
    keep: Sequence[str] = (),
    batch_size: int = EVALUATION_ROWS,
    **reading: Any,
) -> Iterator[Scored]:
    """Scores part by part, each with the columns that are carried along."""
    if not keep:
        yield from (Scored(part, None) for part in scores(run, data, batch_size, **reading))
        return
    from bitfold.data.asked import reading_config
    from bitfold.data.frames import in_memory
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
