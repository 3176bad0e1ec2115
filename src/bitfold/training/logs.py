"""The log of a training: a CSV file, and TensorBoard events beside it."""

import csv
import io
from pathlib import Path
from typing import Any

COLUMNS = (
    "step",
    "epoch",
    "rows",
    "seconds",
    "loss",
    "rows_per_second",
    "valid_auc",
    "valid_logloss",
    "valid_gauc",
)


class TrainingLog:
    """Lines of figures in `folder/training.csv`, and the same for TensorBoard.

    Args:
        folder: where; made if need be.
        size: bytes of the CSV file that a checkpoint vouches for; what a killed process wrote
            after that is cut off.
        step: the step to go on from; TensorBoard drops later events.
    """

    def __init__(self, folder: Path, size: int, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "training.csv"
        path.touch()
        self._file = path.open("r+b")
        self._file.truncate(size)
        self._file.seek(0, io.SEEK_END)
        self._board = SummaryWriter(str(folder), purge_step=step + 1 if step else None)
        if size == 0:
            self._write(COLUMNS)

    def write(self, step: int, **figures: Any) -> None:
        """Add a line; figures that are not given stay empty."""
        line = {"step": step} | figures
        self._write([_text(line.get(name)) for name in COLUMNS])
        for name, value in figures.items():
            if isinstance(value, int | float) and name not in ("epoch", "rows", "seconds"):
                self._board.add_scalar(name, value, step)

    def _write(self, cells: Any) -> None:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(cells)
        self._file.write(line.getvalue().encode())

    def size(self) -> int:
        """Bytes of the CSV file, all of them handed to the system."""
        self._file.flush()
        return self._file.tell()

    def close(self) -> None:
        """Close both."""
        self._file.close()
        self._board.close()


def _text(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
