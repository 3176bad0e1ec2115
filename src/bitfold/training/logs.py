"""The log of a training: a CSV file, and TensorBoard events or a run of MLflow beside it."""

import csv
import importlib.util
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from bitfold.errors import BitfoldError

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


class Board(Protocol):
    """Where figures are drawn besides the CSV file."""

    def scalars(self, figures: Mapping[str, float], step: int) -> None:
        """Add figures of a step."""

    def result(self, options: Mapping[str, Any], figures: Mapping[str, float]) -> None:
        """Add the options of the run, and what it came to."""

    def close(self, ended: bool) -> None:
        """Write everything; `ended` unless the training was stopped."""


class TensorBoard:
    """Events for TensorBoard in a folder; it drops those after `step` that an earlier one wrote."""

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=step + 1 if step else None)

    def scalars(self, figures: Mapping[str, float], step: int) -> None:
        """Add figures of a step."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def result(self, options: Mapping[str, Any], figures: Mapping[str, float]) -> None:
        """A line of TensorBoard's table of hyperparameters."""
        from torch.utils.tensorboard.summary import hparams

        named = {f"result/{name}": value for name, value in figures.items()}
        writer = self._writer._get_file_writer()  # type: ignore[no-untyped-call]
        for summary in hparams(dict(options), named):  # type: ignore[no-untyped-call]
            writer.add_summary(summary)
        self.scalars(named, 0)

    def close(self, ended: bool) -> None:
        """Write everything."""
        self._writer.close()


class MLflow:
    """A run of MLflow, where its own settings say (`MLFLOW_TRACKING_URI` and others)."""

    def __init__(self, name: str) -> None:
        self._mlflow = importlib.import_module("mlflow")
        self._mlflow.start_run(run_name=name, nested=True)

    def scalars(self, figures: Mapping[str, float], step: int) -> None:
        """Add figures of a step."""
        self._mlflow.log_metrics(dict(figures), step=step)

    def result(self, options: Mapping[str, Any], figures: Mapping[str, float]) -> None:
        """The run's parameters, and its figures."""
        self._mlflow.log_params(dict(options))
        self._mlflow.log_metrics({f"result_{name}": value for name, value in figures.items()})

    def close(self, ended: bool) -> None:
        """End the run."""
        self._mlflow.end_run("FINISHED" if ended else "KILLED")


def check_board(kind: str) -> None:
    """Raise unless the package that draws is there.

    Raises:
        BitfoldError: it is not.
    """
    package = {"mlflow": "mlflow", "tensorboard": "tensorboard"}.get(kind)
    if package is not None and importlib.util.find_spec(package) is None:
        raise BitfoldError(
            f"--log {kind} needs a package that is not here",
            got=f"no {package}",
            expected=f"the package {package}",
            fix=f"pip install {package}, or say --log none",
        )


class TrainingLog:
    """Lines of figures in `folder/training.csv`, and the same for TensorBoard or MLflow.

    Args:
        folder: where; made if need be.
        size: bytes of the CSV file that a checkpoint vouches for; what a killed process wrote
            after that is cut off.
        step: the step to go on from; TensorBoard drops later events.
        kind: tensorboard, mlflow, or none for the CSV file alone.
        name: of the run, for MLflow.
    """

    def __init__(
        self, folder: Path, size: int, step: int, *, kind: str = "tensorboard", name: str = "run"
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "training.csv"
        path.touch()
        self._file = path.open("r+b")
        self._file.truncate(size)
        self._file.seek(0, io.SEEK_END)
        self._board: Board | None = None
        if kind == "tensorboard":
            self._board = TensorBoard(folder, step)
        elif kind == "mlflow":
            self._board = MLflow(name)
        self._ended = False
        if size == 0:
            self._write(COLUMNS)

    def write(self, step: int, **figures: Any) -> None:
        """Add a line; figures that are not given, or are no numbers, stay empty."""
        figures = {name: value for name, value in figures.items() if _is_number(value)}
        line = {"step": step} | figures
        self._write([_text(line.get(name)) for name in COLUMNS])
        if self._board is not None:
            shown = {n: v for n, v in figures.items() if n not in ("epoch", "rows", "seconds")}
            self._board.scalars(shown, step)

    def result(self, options: Mapping[str, Any], figures: Mapping[str, Any]) -> None:
        """Add the options of the run and its last figures; lists and mappings as text."""
        self._ended = True
        if self._board is None:
            return
        said = {
            name: value if isinstance(value, bool | int | float | str) else _joined(value)
            for name, value in options.items()
            if value is not None
        }
        self._board.result(said, {n: float(v) for n, v in figures.items() if _is_number(v)})

    def _write(self, cells: Any) -> None:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(cells)
        self._file.write(line.getvalue().encode())

    def size(self) -> int:
        """Bytes of the CSV file, all of them handed to the system."""
        self._file.flush()
        return self._file.tell()

    def close(self) -> None:
        """Close all."""
        self._file.close()
        if self._board is not None:
            self._board.close(self._ended)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _joined(value: Any) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{name}={item}" for name, item in value.items())
    return ",".join(map(str, value))


def _text(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
