"""stream.json: what a stream found, a line a window.

A record holds `courses`: a method at a budget over the same windows. One call makes one course;
records of several calls over one log can be shown together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

import bitfold
from bitfold.files import without_nan, write_json
from bitfold.records import Count, Form, Name, checked, record, sealed
from bitfold.runs.manifest import STREAM
from bitfold.streaming.seen import NEW_IN

FILE, PAGE = STREAM, "stream.html"
FORM = Form("bitfold stream", 1, sealed_from=1, fix="put the file back, or begin anew with --force")

Figure = Annotated[float, Meta(ge=-1e300, le=1e300)] | None
Share = Annotated[float, Meta(ge=0, le=1)] | None
BESIDE = ("network_bytes", "copy_bytes", "row_bytes", "counted_bytes")


class Line(msgspec.Struct, forbid_unknown_fields=True):
    """A window of a course.

    Args:
        window: its name.
        rows: how many rows it has; without any, all other figures are None.
        scored: whether its rows were scored: not those of the first window.
        start: its first moment in seconds, where windows are of time; `end` the first after it.
        auc: of its rows, scored before any of them was trained on; None of one class alone. The
            same holds for the figures from `logloss` to `constant_logloss`, the log loss of who
            knows the share of clicks and nothing else.
        new_rows: the share of its rows with an id that no window before had; `new_values` of its
            values, `new_ids` how many ids, and `new_in` the share of values by field.
        churn: the share of owned rows that have another owner than at the window's beginning.
        bytes: to serve the embeddings at its end; `used_bytes` but for reserved rows that nobody
            owns yet; `training_bytes` of their weights as they are trained, with the optimizers'
            state.
        loss: the mean over its rows as they were trained on.
        steps: that the stream has made.
        network_bytes: of the network, `copy_bytes` of the places for copies of its last layers,
            `row_bytes` of stored rows; `counted_bytes` are those that the budget bounds.
    """

    window: Name
    rows: Count
    scored: bool = False
    start: Figure = None
    end: Figure = None
    auc: Share = None
    logloss: Figure = None
    gauc: Share = None
    calibration: Figure = None
    ece: Figure = None
    constant_logloss: Figure = None
    new_rows: Share = None
    new_values: Share = None
    new_ids: Count | None = None
    new_in: dict[str, Share] = {}
    churn: Share = None
    bytes: Count | None = None
    used_bytes: Count | None = None
    training_bytes: Count | None = None
    network_bytes: Count | None = None
    copy_bytes: Count | None = None
    row_bytes: Count | None = None
    counted_bytes: Count | None = None
    loss: Figure = None
    steps: Count | None = None
    rows_per_second: Figure = None
    scoring_seconds: Figure = None

    @property
    def counted(self) -> int | None:
        """Bytes of what the budget bounds."""
        return self.bytes if self.counted_bytes is None else self.counted_bytes

    @classmethod
    def of(cls, name: str, figures: Mapping[str, float | None]) -> "Line":
        """A line out of a checkpoint's figures, which are numbers alone."""
        plain = {key: value for key, value in figures.items() if not key.startswith(NEW_IN)}
        for key in ("rows", "new_ids", "bytes", "used_bytes", "training_bytes", "steps"):
            value = plain.get(key)
            if value is not None:
                plain[key] = int(value)
        plain |= {key: int(plain[key] or 0) for key in BESIDE if key in plain}
        fields = {key[len(NEW_IN) :]: value for key, value in figures.items() if key not in plain}
        values: dict[str, Any] = plain | {"scored": bool(plain.get("scored")), "new_in": fields}
        return record(values | {"window": name}, cls, FILE)


class Course(msgspec.Struct, forbid_unknown_fields=True):
    """A method at a budget on a stream.

    Args:
        budget: as it was said; `budget_bytes` in bytes. Without one the method chose its size.
        options: of the method.
        network_bytes: of the network above the embeddings.
        strategy: what the stream does beside training on each window.
        memory: what the budget bounds: `model`, the embeddings, or `aligned`, all that is kept.
        lines: the windows that are over.
    """

    method: Name
    budget: Name | None
    budget_bytes: Count | None
    seed: int
    options: dict[str, str | int | float | bool | None] = {}
    network_bytes: Count | None = None
    strategy: Name = "finetune"
    memory: Name = "model"
    lines: list[Line] = []

    @property
    def title(self) -> str:
        """What tells it from others."""
        name = self.method if self.budget is None else f"{self.method} {self.budget}"
        told = self.strategy != "finetune" or self.memory == "aligned"
        return f"{name}, {self.strategy}" if told else name

    @property
    def scored(self) -> list[Line]:
        """The windows with an AUC."""
        return [line for line in self.lines if line.auc is not None]

    @property
    def auc(self) -> float | None:
        """The mean AUC of the windows that have one, each counted once."""
        aucs = [line.auc for line in self.lines if line.auc is not None]
        return sum(aucs) / len(aucs) if aucs else None

    @property
    def logloss(self) -> float | None:
        """The mean log loss of all rows that were scored."""
        pairs = [(line.rows, line.logloss) for line in self.lines if line.logloss is not None]
        rows = sum(count for count, _ in pairs)
        return sum(count * loss for count, loss in pairs) / rows if rows else None

    @property
    def most_bytes(self) -> int | None:
        """The most bytes of what the budget bounds at the end of a window."""
        return max((line.counted for line in self.lines if line.counted is not None), default=None)


class _Record(msgspec.Struct, forbid_unknown_fields=True):
    kind: str
    format: int
    bitfold: str
    window: str
    passes: Count
    time: str | None
    paths: list[str]
    inputs: list[list[Any]]
    finished: bool
    courses: list[Course]
    beside: dict[str, str | int | float] = {}


@dataclass
class Record:
    """What stream.json holds.

    Args:
        window: how the log was cut, and `time` the column that said so.
        passes: how often a window was trained on.
        paths: the log.
        inputs: name, size and time of each of its files.
        finished: whether the stream has ended.
        courses: methods, a line a window each.
        beside: the options of the strategy, and of what the budget bounds.
    """

    window: str
    passes: int
    time: str | None
    paths: Sequence[str]
    inputs: Sequence[Sequence[Any]]
    finished: bool = False
    courses: list[Course] = field(default_factory=list)
    beside: Mapping[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write stream.json, whole or not at all."""
        value: dict[str, Any] = FORM.head() | {"bitfold": bitfold.__version__}
        value |= msgspec.to_builtins(self)
        write_json(folder / FILE, sealed(without_nan(value)))


def read(folder: Path) -> Record:
    """What the stream.json of a folder holds.

    Raises:
        BitfoldError: it is missing, damaged, was changed, or is of a newer format.
    """
    path = folder / FILE
    found = record(checked(path, FORM), _Record, path, fix=FORM.fix)
    return Record(
        found.window, found.passes, found.time, found.paths, found.inputs, found.finished,
        found.courses, found.beside,
    )  # fmt: skip
