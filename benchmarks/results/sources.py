"""The raw logs of the boards: files of `--data`, and what is made of them under OUT."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bitfold.data.prepare import prepare_or_open
from bitfold.data.synth.log import synthesize
from bitfold.errors import BitfoldError
from bitfold.files import atomic

from .boards import Board
from .locks import claimed

if TYPE_CHECKING:
    from bitfold.data.prepared import PreparedLog

NEGATIVE_SEED = 0


class SetMissing(BitfoldError):
    """A public data set that is not under `--data`."""


def log_of(board: Board, data: Path, out: Path) -> "PreparedLog":
    """The prepared log of a board; made once, under `out`.

    Raises:
        SetMissing: its file is not under `data`.
    """
    shared = board.reference or board.name  # both kinds of ids read the same rows
    with claimed(out / "locks" / f"raw-{shared}", wait=True):
        raw = _raw(board, shared, data, out)
    folder = out / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    return prepare_or_open([raw], folder / board.name, board.data)


def _raw(board: Board, shared: str, data: Path, out: Path) -> Path:
    made = out / "raw"
    made.mkdir(parents=True, exist_ok=True)
    if board.file is None:
        path = made / f"{shared}.parquet"
        # The report is written last: without it the log is a part of one.
        if board.synth is not None and not Path(f"{path}.json").is_file():
            synthesize(board.synth, path, force=True)
        return path
    raw = data / board.file
    if not raw.is_file():
        raise SetMissing(
            f"the data set of {board.name} is missing",
            got=f"no file {raw}",
            expected=f"{board.file} in the folder of public sets",
            fix="say where it is with --data",
        )
    if not (board.negatives or board.decided):
        return raw
    path = made / f"{shared}.parquet"
    if not path.is_file():
        (with_negatives if board.negatives else without_middle)(raw, path)
    return path


def without_middle(raw: Path, out: Path) -> None:
    """Write the rows whose rating is not the middle one of five, all else as it stands.

    A middle rating is `label_ge3` without `label_ge4`; what is left is 1 and 2 against 4 and 5.
    """
    import polars as pl

    frame = pl.read_csv(raw, infer_schema=False)  # ids stay text: zip codes begin with zeros
    with atomic(out) as part:
        frame.filter(pl.col("label_ge3") == pl.col("label_ge4")).write_parquet(part)


def with_negatives(raw: Path, out: Path) -> None:
    """Write positives (columns user, item, split) with one negative each, in the same part.

    A negative is a uniform item that the user has in no part: what is asked is which of two items
    the user chose. The seed is fixed.
    """
    import polars as pl

    frame = pl.read_csv(raw)
    user, item = (frame[name].to_numpy().astype(np.int64) for name in ("user", "item"))
    drawn = unseen_items(user, item, np.random.default_rng(NEGATIVE_SEED))
    rows = pl.concat(
        [
            frame.select("user", "item", "split", label=pl.lit(1, pl.Int8)),
            frame.select("user", pl.Series("item", drawn), "split", label=pl.lit(0, pl.Int8)),
        ],
        how="vertical_relaxed",
    )
    with atomic(out) as part:
        rows.write_parquet(part)


def unseen_items(
    user: npt.NDArray[np.int64], item: npt.NDArray[np.int64], random: np.random.Generator
) -> npt.NDArray[np.int64]:
    """One item a row that the row's user never has, uniform over the items that appear.

    Args:
        user: `[R]`, 0 or more.
        item: `[R]`, 0 or more.
        random: what draws.
    """
    items = np.unique(item)
    span = int(items[-1]) + 1
    taken = np.unique(user * span + item)
    if np.bincount(np.unique(taken) // span).max() == len(items):
        raise BitfoldError("a user has every item, so that no negative can be drawn", got="none")
    drawn = np.empty_like(item)
    left = np.arange(len(user))
    while len(left):
        drawn[left] = random.choice(items, len(left))
        keys = user[left] * span + drawn[left]
        found = np.minimum(np.searchsorted(taken, keys), len(taken) - 1)
        left = left[taken[found] == keys]
    return drawn
