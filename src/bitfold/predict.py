"""Raw rows in, scores out, in the input's order."""

import csv
from collections.abc import Iterator, Mapping, Sized
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from bitfold.data.frames import Data, paths_of
from bitfold.data.single import FEW
from bitfold.errors import BitfoldError
from bitfold.evaluate import EVALUATION_ROWS, predict_batch
from bitfold.outputs import new_file
from bitfold.progress import Progress, silent

if TYPE_CHECKING:
    from bitfold.run import Run

T = TypeVar("T")
Scores = npt.NDArray[np.float32]


def scores(run: "Run", data: Data, batch_size: int = EVALUATION_ROWS) -> Iterator[Scores]:
    """Probabilities of raw rows, batch by batch, in the input's order.

    While the model scores a batch, a thread reads the next; a few rows need no thread.
    """
    batches = run.batches(data, batch_size, fields_only=True)
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
    force: bool = False,
    batch_size: int = EVALUATION_ROWS,
    progress: Progress | None = None,
) -> int:
    """Score raw rows into a file.

    Values that training never saw work: they have ids like any other. The file appears when it is
    whole.

    Args:
        run: a run, or its folder.
        data: raw files, read as the run's log was, or rows in memory; only the fields are needed.
        out: `.parquet`, `.csv` or `.csv.gz`: a column `score`, a row for each input row.
        force: replace `out` if it exists.
        batch_size: rows that are scored at once.
        progress: told of the rows done.

    Returns:
        How many rows were scored.

    Raises:
        BitfoldError: a bad run, bad rows, or a file that exists.
    """
    from bitfold.run import load

    out = Path(out)
    write = _writer(out)
    inputs = [*paths_of(data), run if isinstance(run, str | Path) else run.path]
    if not out.parent.is_dir():
        raise BitfoldError(f"the folder {out.parent} does not exist", fix="make it first")
    tell = progress or silent
    done = 0

    def counted() -> Iterator[Scores]:
        nonlocal done
        for part in scores(loaded, data, batch_size):
            yield part
            done += len(part)
            tell("scoring", done)
        tell("scoring", done, done)

    with new_file(out, force=force, inputs=inputs) as part:
        loaded = load(run) if isinstance(run, str | Path) else run
        write(part, counted())
    return done


def _writer(out: Path) -> Any:
    name = out.name.lower()
    if name.endswith((".parquet", ".pq")):
        return _write_parquet
    if name.endswith((".csv", ".csv.gz")):
        return _write_csv_gz if name.endswith(".gz") else _write_csv
    raise BitfoldError(
        f"the name of {out} does not tell its format",
        got=out.name,
        expected="a name that ends in .parquet, .csv or .csv.gz",
    )


def _write_parquet(path: Path, parts: Iterator[Scores]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("score", pa.float32())])
    with pq.ParquetWriter(path, schema) as writer:
        for part in parts:
            writer.write_table(pa.table({"score": pa.array(part)}, schema=schema))


def _write_csv(path: Path, parts: Iterator[Scores]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        _write_lines(file, parts)


def _write_csv_gz(path: Path, parts: Iterator[Scores]) -> None:
    import gzip

    with gzip.open(path, "wt", newline="", encoding="utf-8") as file:
        _write_lines(file, parts)


def _write_lines(file: Any, parts: Iterator[Scores]) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["score"])
    for part in parts:
        # Nine digits bring back every float32.
        writer.writerows([f"{score:.9g}"] for score in part.tolist())
