"""The JSON files of a comparison as checked records: cells, floors, options and results.

Each has a digest over its own content; those of older versions have none, and are read without.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from bitfold.errors import BitfoldError
from bitfold.files import without_nan, write_json
from bitfold.records import Count, Form, Name, broken, checked, record, sealed

AGAIN = "remove it, and go on with --resume"
CELL = Form("bitfold cell", 2, sealed_from=2, bare=True, fix=AGAIN)
FLOORS = Form("bitfold floors", 2, sealed_from=2, bare=True, fix=AGAIN)
OPTIONS = Form("bitfold comparison", 2, sealed_from=2, bare=True, fix="begin anew with --force")
RESULTS = Form(
    "bitfold results", 2, sealed_from=2, bare=True, fix="`bitfold compare ... --resume` writes it"
)

Figure = Annotated[float, Meta(ge=-1e300, le=1e300)] | None
Ranking = dict[str, str | int | float | None] | None
Share = Annotated[float, Meta(ge=0, le=1)] | None


class _Valid(msgspec.Struct):
    auc: Share = None
    logloss: Figure = None


class _Cell(msgspec.Struct):
    method: Name
    budget: Name
    seed: int
    auc: Share
    logloss: Figure
    bytes: Count
    part: str | None
    lr: Annotated[float, Meta(gt=0, le=1e300)]
    embedding_decay: Annotated[float, Meta(ge=0, le=1e300)]
    embedding: Name
    valid: _Valid | None = None
    gauc: Share = None
    map_bytes: Count | None = None
    training_bytes: Count | None = None
    rows_per_second: Figure = None
    ratio: Figure = None
    ranking: Ranking = None


class _Floor(msgspec.Struct):
    auc: Share = None
    logloss: Figure = None
    field: str | None = None
    ranking: Ranking = None


class _Place(msgspec.Struct):
    path: str
    bytes: Count | None = None
    changed: int | None = None


class _Options(msgspec.Struct):
    paths: list[_Place]
    data: dict[str, Any]
    train: dict[str, Any]
    compare: dict[str, Any]


def save(path: Path, form: Form, value: Mapping[str, Any]) -> None:
    """Write a file of a comparison, with its kind, its version and its digest."""
    write_json(path, sealed(without_nan(form.head() | dict(value))))


def read_cell(path: Path, expected: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a finished cell.

    Args:
        path: the cell's file.
        expected: what tells this cell from others: its method, budget, seed and rates.

    Raises:
        BitfoldError: it is damaged, was changed, or is of another cell.
    """
    value = _without_head(checked(path, CELL), CELL)
    record(value, _Cell, path, fix=AGAIN)
    for name, wanted in expected.items():
        if value[name] != wanted:
            raise BitfoldError(
                f"{path} holds the figures of another cell",
                got=f"{name} {value[name]}",
                expected=f"{name} {wanted}",
                fix=AGAIN,
            )
    return value


def read_floors(path: Path) -> dict[str, Any]:
    """The lines of a comparison that need no training, by name.

    Raises:
        BitfoldError: they are damaged, or were changed.
    """
    value = _without_head(checked(path, FLOORS), FLOORS)
    record(value, dict[str, _Floor], path, fix=AGAIN)
    return value


def read_options(path: Path) -> dict[str, Any]:
    """The options that a comparison was begun with: paths, data, train and compare.

    Raises:
        BitfoldError: they are damaged, were changed, or are of a newer format.
    """
    value = checked(path, OPTIONS)
    record(value, _Options, path, fix=OPTIONS.fix)
    return _without_head(value, OPTIONS)


def read_results(path: Path) -> dict[str, Any]:
    """What results.json holds; its rows are objects, and not checked further.

    Raises:
        BitfoldError: it is damaged, was changed, or is of a newer format.
    """
    value = _without_head(checked(path, RESULTS), RESULTS)
    rows = value.get("results")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise broken(path, "no list of results", "a row for each run", RESULTS.fix)
    return value


def _without_head(value: dict[str, Any], form: Form) -> dict[str, Any]:
    return {key: item for key, item in value.items() if key not in form.head()}
