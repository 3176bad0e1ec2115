"""The first pass: raw rows are encoded once, and dealt at random to files on the disk."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bitfold.data.columns import Encoder
from bitfold.data.memory_log import MemoryLog
from bitfold.data.reading import Progress, count_rows, read_chunks, total_bytes
from bitfold.data.rows import Rows
from bitfold.data.spill import append_frame
from bitfold.data.splits import (
    LastSplit,
    Parts,
    bins_of,
    column_parts,
    marks,
    random_parts,
    time_bounds,
)
from bitfold.data.statistics import Sample
from bitfold.errors import BitfoldError

if TYPE_CHECKING:
    import polars as pl

    from bitfold.data.interactions import Interactions

BIN_BYTES = 64 << 20
"""About how many bytes of encoded rows one shard holds."""

HELD_BYTES = 64 << 20
"""Encoded rows that are held in memory before they are dealt to the files."""

_TIME_SALT = 0x71E


@dataclass(frozen=True)
class Dealt:
    """What the first pass leaves behind.

    Args:
        paths: one file of rows a shard.
        rows: rows of the log.
        bounds: for a split by time, the first times of valid and test.
        parts: for a split by the last rows of users, the part of each row of the log.
        texts: for each raw column, the values of some ids (the frequent ones are among them).
        negatives: what is said of drawn negatives, where there are any.
    """

    paths: list[Path]
    rows: int
    bounds: npt.NDArray[np.float64] | None
    parts: Parts | None
    texts: dict[str, dict[int, Any]]
    negatives: dict[str, Any] | None = None


class Dealer:
    """Holds encoded rows up to `HELD_BYTES`, then deals them to one file a shard."""

    def __init__(self, folder: Path, bins: int) -> None:
        self._folder, self.bins = folder, bins
        self._held: list[pl.DataFrame] = []
        self._bytes = 0.0

    def add(self, frame: "pl.DataFrame") -> None:
        """Take in encoded rows, with the file each is dealt to in `bin`."""
        self._held.append(frame)
        self._bytes += frame.estimated_size()
        if self._bytes >= HELD_BYTES:
            self.flush()

    def flush(self) -> None:
        """Deal what is held."""
        import polars as pl

        if not self._held:
            return
        frame = pl.concat(self._held, rechunk=True)
        self._held, self._bytes = [], 0.0
        chosen = frame["bin"].to_numpy()
        frame = frame.drop("bin")
        if self.bins > 1:
            frame = frame[np.argsort(chosen, kind="stable")]
        ends = np.cumsum(np.bincount(chosen, minlength=self.bins))
        start = 0
        for index, end in enumerate(ends.tolist()):
            if end > start:
                append_frame(self._folder / f"{index:05d}.arrow", frame[start:end])
            start = end


def deal(
    paths: Sequence[str | Path] | MemoryLog,
    encoder: Encoder,
    folder: Path,
    progress: Progress | None = None,
    positives: "Interactions | None" = None,
) -> Dealt:
    """Read the whole log once and deal its rows to files under `folder`.

    With `positives`, which is told of all rows, only those that it takes are dealt.
    """
    import polars as pl

    config = encoder.config
    split = config.split_rule
    seed = config.split_seed
    total = total_bytes(paths, config)
    expected = count_rows(paths, config)
    spill = folder / "rows"
    spill.mkdir()
    dealer: Dealer | None = None
    last: LastSplit | None = None
    times = Sample()
    needs_row = split.kind == "last" or config.transform.kind == "buckets" or config.negatives > 0
    done = dealt = 0
    for rows in read_chunks(paths, config, encoder.required):
        frame = encoder.encode(rows)
        if dealer is None:
            width = max(frame.estimated_size() / frame.height, 8.0)
            width *= 1 + config.negatives
            bins = min(max(round(expected * width / BIN_BYTES), 1), 65_535)
            dealer = Dealer(spill, bins)
            last = LastSplit(folder / "users", bins) if split.kind == "last" else None
        numbers = np.arange(done, done + frame.height)
        frame = frame.with_columns(pl.Series("row", numbers))
        if split.kind == "last" and "time" not in frame.columns:
            frame = frame.with_columns(pl.col("row").cast(pl.Float64).alias("time"))
        done += frame.height
        if split.kind in ("random", "column"):
            parts = _streaming_parts(frame, numbers, rows, encoder)
            frame = frame.with_columns(pl.Series("part", parts))
        if positives is not None:
            frame = positives.take(frame)
            numbers = frame["row"].to_numpy()
        dealt += frame.height
        if last is not None:
            last.add(frame)
            frame = frame.drop("time")
        if split.kind == "time":
            times.add(frame["time"].to_numpy(), marks(numbers, seed, _TIME_SALT))
        frame = frame.with_columns(pl.Series("bin", bins_of(numbers, seed, dealer.bins)))
        dealer.add(frame if needs_row else frame.drop("row"))
        if progress is not None:
            progress("reading", done, rows.done, total)
    if dealt == 0 and done:
        raise BitfoldError(
            "the log has no positives",
            got=f"{done:,} rows, all with label 0",
            expected="rows with label 1, for which negatives are drawn",
            fix="check the label and its comparison",
        )
    if dealer is None:
        raise BitfoldError("the log has no rows", got="no rows", expected="at least one row")
    dealer.flush()
    return Dealt(
        sorted(spill.iterdir()),
        dealt,
        time_bounds(times.sorted(), split.fractions) if split.kind == "time" else None,
        last.parts(done, split.last) if last is not None else None,
        encoder.texts,
    )


def _streaming_parts(
    frame: "pl.DataFrame", numbers: npt.NDArray[np.int64], rows: Rows, encoder: Encoder
) -> Parts:
    split = encoder.config.split_rule
    if split.kind == "random":
        return random_parts(numbers, split.fractions, encoder.config.split_seed)
    return column_parts(frame["part"], rows, split.column or "")
