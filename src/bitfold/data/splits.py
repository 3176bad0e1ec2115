"""Which part each row belongs to: 0 train, 1 valid, 2 test."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bitfold.data.hashing import mix
from bitfold.data.rows import Rows
from bitfold.data.spill import append_frame, read_frames

if TYPE_CHECKING:
    import polars as pl

Parts = npt.NDArray[np.uint8]

_PART_SALT = 0x5917
_BIN_SALT = 0xB195
_NAMES = {"train": 0, "valid": 1, "val": 1, "validation": 1, "test": 2}


def marks(rows: npt.NDArray[np.int64], seed: int, salt: int) -> npt.NDArray[np.uint64]:
    """A uniform 64-bit mark for each row number, decided by the seed and the salt."""
    return mix(rows, salt=(seed << 16) + salt)


def bins_of(rows: npt.NDArray[np.int64], seed: int, bins: int) -> npt.NDArray[np.uint16]:
    """The shard each row is dealt to."""
    return (marks(rows, seed, _BIN_SALT) % np.uint64(bins)).astype(np.uint16)


def random_parts(
    rows: npt.NDArray[np.int64], fractions: tuple[float, float, float], seed: int
) -> Parts:
    """Parts by a hash of the row's number: a row's part does not depend on the log's length.

    Example:
        >>> parts = random_parts(np.arange(10_000), (0.8, 0.1, 0.1), seed=0)
        >>> bool(abs((parts == 0).mean() - 0.8) < 0.02)
        True
    """
    place = (marks(rows, seed, _PART_SALT) >> np.uint64(11)) * 2.0**-53
    bounds = np.cumsum(fractions)[:2]
    # The last bound of a fraction of 0 is never met, however the sum was rounded.
    if fractions[2] == 0:
        bounds[1] = 2.0
    if fractions[1] == 0:
        bounds[0] = bounds[1]
    return np.searchsorted(bounds, place, side="right").astype(np.uint8)


def time_bounds(
    times: npt.NDArray[np.float64], fractions: tuple[float, float, float]
) -> npt.NDArray[np.float64]:
    """The first times of valid and of test, from sorted times (all of them or a sample)."""
    bounds = []
    for share in np.cumsum(fractions)[:2]:
        index = int(np.floor(share * len(times) + 1e-9))
        bounds.append(times[index] if index < len(times) else np.inf)
    return np.array(bounds)


def time_parts(times: npt.NDArray[np.float64], bounds: npt.NDArray[np.float64]) -> Parts:
    """Parts by time: rows of one moment stay together.

    Example:
        >>> times = np.arange(10.0)
        >>> time_parts(times, time_bounds(times, (0.8, 0.1, 0.1)))
        array([0, 0, 0, 0, 0, 0, 0, 0, 1, 2], dtype=uint8)
    """
    return np.searchsorted(bounds, times, side="right").astype(np.uint8)


def column_parts(values: "pl.Series", rows: Rows, name: str) -> Parts:
    """Parts by a column of names.

    Raises:
        BitfoldError: for a value that names no part, with its row.
    """
    import polars as pl

    text = values.str.strip_chars().str.to_lowercase()
    known = text.replace_strict(_NAMES, default=None, return_dtype=pl.UInt8)
    rows.refuse(
        known.is_null(), name, "the split column names no part", "train, valid (or val), or test"
    )
    return known.to_numpy()


def last_parts(
    groups: npt.NDArray[np.int64],
    times: npt.NDArray[np.float64],
    rows: npt.NDArray[np.int64],
    last: tuple[int, int],
) -> Parts:
    """Parts by each group's own order: its last rows are test, those before valid.

    Rows of one time keep the order of the log. A group with `valid + test` rows or fewer gives
    its first rows away too, and then trains on nothing of its own.

    Example:
        >>> groups, times = np.array([1, 1, 1, 2]), np.array([3.0, 1.0, 2.0, 0.0])
        >>> last_parts(groups, times, np.arange(4), (1, 1))
        array([2, 0, 1, 2], dtype=uint8)
    """
    order = np.lexsort((rows, times, groups))
    ends = np.flatnonzero(np.append(np.diff(groups[order]) != 0, True))
    sizes = np.diff(np.concatenate([[-1], ends]))
    from_end = np.repeat(ends, sizes) - np.arange(len(order))
    valid, test = last
    parts = np.empty(len(order), np.uint8)
    parts[order] = np.where(from_end < test, 2, np.where(from_end < test + valid, 1, 0))
    return parts


class LastSplit:
    """The `last` split of a log in bounded memory: groups are dealt to files, then ranked.

    Memory: one byte a row of the log, and one file of `(group, time, row)` at a time.
    """

    def __init__(self, folder: Path, files: int) -> None:
        self._folder = folder
        self._files = files
        folder.mkdir()

    def add(self, frame: "pl.DataFrame") -> None:
        """Take in rows with `group`, `time` and `row`."""
        import polars as pl

        chosen = marks(frame["group"].to_numpy(), 0, _PART_SALT) % np.uint64(self._files)
        frame = frame.select("group", "time", "row").with_columns(pl.Series("file", chosen))
        for (index,), part in frame.partition_by("file", as_dict=True).items():
            append_frame(self._folder / f"{index:05d}.arrow", part.drop("file"))

    def parts(self, total: int, last: tuple[int, int]) -> Parts:
        """The part of each of the log's `total` rows."""
        out = np.zeros(total, np.uint8)
        for path in sorted(self._folder.iterdir()):
            frame = read_frames(path)
            rows = frame["row"].to_numpy()
            out[rows] = last_parts(frame["group"].to_numpy(), frame["time"].to_numpy(), rows, last)
            path.unlink()
        return out
