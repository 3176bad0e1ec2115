"""Which figures of results.json can be drawn: those of the right type, finite, and not too many.

The page is drawn from these alone. What is left out is named, and the page says so.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from bitfold.errors import BitfoldError

MOST_ROWS = 5000
MOST_LINES = 200
MOST_TEXT = 2000
"""Runs, lines (a method at a budget) and letters of a text that are drawn."""

Row = Mapping[str, Any]
_Name = Annotated[str, Meta(min_length=1, max_length=MOST_TEXT)]
_Whole = Annotated[int, Meta(ge=0, le=2**53)]
_Bytes = Annotated[int, Meta(ge=1, le=2**53)]
_Share = Annotated[float, Meta(ge=0, le=1)]
_Positive = Annotated[float, Meta(ge=0, le=1e15)]
_Number = Annotated[float, Meta(ge=-1e15, le=1e15)]


class _Run(msgspec.Struct):
    method: _Name
    budget: _Name
    seed: Annotated[int, Meta(ge=-(2**53), le=2**53)]
    bytes: _Bytes
    auc: _Share | None


class _Epoch(msgspec.Struct):
    epoch: Annotated[int, Meta(ge=1, le=10_000)]
    loss: _Number | None = None
    valid_auc: _Share | None = None
    valid_logloss: _Positive | None = None
    seconds: _Positive | None = None
    rows_per_second: _Positive | None = None


class _Field(msgspec.Struct):
    field: _Name
    ids: _Whole
    bytes: _Whole
    abundance: _Positive | None = None
    sampled: _Whole | None = None
    abundance_by_set: Annotated[list[_Positive | None], Meta(max_length=10_000)] | None = None


class _Group(msgspec.Struct):
    group: Annotated[int, Meta(ge=0, le=1000)]
    least: _Whole
    most: _Whole
    rows: _Whole
    auc: _Share | None
    clicks: _Whole | None = None
    logloss: _Positive | None = None


class _Frequency(msgspec.Struct):
    field: _Name
    groups: Annotated[list[_Group], Meta(max_length=1000)]


PARTS: dict[str, Any] = {
    "logloss": _Positive | None,
    "gauc": _Share | None,
    "ranking": dict[str, str | _Positive | None] | None,
    "calibration": _Positive | None,
    "ece": _Positive | None,
    "ratio": _Positive | None,
    "training_bytes": _Whole | None,
    "map_bytes": _Whole | None,
    "network_bytes": _Whole | None,
    "rows_per_second": _Positive | None,
    "epochs": _Whole,
    "best_epoch": _Whole,
    "seconds": _Positive,
    "part": str | None,
    "rows": dict[str, _Whole],
    "versions": dict[str, str],
    "finished": str | None,
    "embedding": str,
    "options": dict[str, Any],
    "width": _Whole,
    "embedding_sets": _Whole,
    "network": str,
    "lr": _Positive,
    "embedding_decay": _Positive,
    "data": dict[str, Any],
    "curve": Annotated[list[_Epoch], Meta(max_length=10_000)],
    "by_kind": dict[str, _Whole],
    "by_field": Annotated[list[_Field], Meta(max_length=10_000)],
    "by_frequency": Annotated[list[_Frequency], Meta(max_length=100)],
    "environment": dict[str, str | int | float | None],
}
"""The type of each figure of a run; one that is not here is not checked beyond being finite."""


class _Refused(msgspec.Struct):
    method: _Name
    budget: _Name
    minimum: _Whole


class _Difference(msgspec.Struct):
    method: _Name
    budget: _Name
    against: _Name
    metric: _Name
    mean: _Number
    low: _Number | None
    high: _Number | None
    against_budget: _Name | None = None
    seeds: _Whole | None = None


class _Reference(msgspec.Struct):
    auc: _Share | None = None
    logloss: _Positive | None = None
    bytes: _Whole | None = None
    field: str | None = None
    ranking: dict[str, str | _Positive | None] | None = None


class _Tried(msgspec.Struct):
    method: _Name
    budget: _Name
    lr: _Positive
    embedding_decay: _Positive
    valid_auc: _Share | None


class _Chosen(_Tried):
    edge: list[str] = []


class _Grid(msgspec.Struct):
    searched: bool
    cells: Annotated[list[_Tried], Meta(max_length=MOST_ROWS)]
    choices: Annotated[list[_Chosen], Meta(max_length=MOST_ROWS)]


class _Unseen(msgspec.Struct):
    field: _Name
    share: _Share | None = None
    valid: _Share | None = None
    test: _Share | None = None


@dataclass
class Figures:
    """What can be drawn of a comparison, and what was left out of it."""

    rows: tuple[Row, ...] = ()
    refused: tuple[Row, ...] = ()
    more: dict[str, Any] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def leave_out(self, what: str, why: object) -> None:
        """Name what is not drawn, once."""
        text = f"{what}: {why}"[:300]
        if text not in self.left_out:
            self.left_out.append(text)


def drawable(values: Row) -> Figures:
    """Those figures of results.json that can be drawn.

    Raises:
        BitfoldError: no run is among them.
    """
    found, seen = Figures(), set[tuple[str, str]]()
    rows: list[Row] = []
    for number, each in enumerate(values["results"], 1):
        row = plain(each)
        why = _wrong(row, _Run)
        line = (str(row.get("method")), str(row.get("budget")))
        if why is None and (len(rows) >= MOST_ROWS or len(seen | {line}) > MOST_LINES):
            why = f"more than {MOST_ROWS:,} runs, or {MOST_LINES} lines"
            found.leave_out("more runs", why)
            break
        if why is not None:
            found.leave_out(f"run {number}", why)
            continue
        seen.add(line)
        rows.append(_run(row, found))
    if not rows:
        raise BitfoldError(
            "nothing of this comparison can be drawn",
            got="; ".join(found.left_out[:3]),
            expected="runs with a method, a budget, a seed, bytes, and an AUC from 0 to 1",
            fix="`bitfold compare ... --resume` writes the results again",
        )
    found.rows = tuple(rows)
    found.refused = tuple(_those(values.get("refused") or [], _Refused, "what was refused", found))
    for name, value in values.items():
        if name not in ("results", "refused"):
            _more(name, plain(value), found)
    return found


def _run(row: Row, found: Figures) -> Row:
    out = dict(row)
    for name, kind in PARTS.items():
        if name in out:
            why = _wrong(out[name], kind)
            if why is not None:
                found.leave_out(f"{name} of {row['method']} {row['budget']}", why)
                del out[name]
    return out


def _more(name: str, value: Any, found: Figures) -> None:
    if name == "differences":
        found.more[name] = _those(value, _Difference, "differences", found)
    elif name == "unseen":
        found.more[name] = _those(value, _Unseen, "unseen ids", found)
    elif name == "references":
        kept = {}
        for key, each in value.items() if isinstance(value, dict) else ():
            why = _wrong(each, _Reference)
            if why is None:
                kept[key] = each
            else:
                found.leave_out(f"the reference {key}", why)
        found.more[name] = kept
    elif name == "grid" and (why := _wrong(value, _Grid)) is not None:
        found.leave_out("the grid", why)
    else:
        found.more[name] = value


def _those(values: Any, kind: Any, what: str, found: Figures) -> list[Row]:
    out = []
    for value in values if isinstance(values, list) else ():
        each = plain(value)
        why = _wrong(each, kind)
        if why is None:
            out.append(each)
        else:
            found.leave_out(what, why)
    return out[:MOST_ROWS]


def _wrong(value: Any, kind: Any) -> str | None:
    """Why a value is not of a kind; None if it is."""
    try:
        msgspec.convert(value, type=kind)
    except (msgspec.ValidationError, RecursionError) as error:
        return str(error)
    return None


_UNSHOWN = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\ufffe\uffff]")


def plain(value: Any) -> Any:
    """A JSON value whose texts can be shown: no control characters, none empty as a key, none
    longer than a page is wide; numbers that are not finite are None.

    Example:
        >>> plain({"user\\x01": [float("nan"), "a\\nb"]})
        {'user�': [None, 'a�b']}
    """
    if isinstance(value, str):
        return text(value)
    if isinstance(value, Mapping):
        return {text(str(key)) or "(empty)": plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def text(value: str) -> str:
    """A text that a browser and the chart library can show."""
    shown = _UNSHOWN.sub("\ufffd", value)
    return shown if len(shown) <= MOST_TEXT else shown[: MOST_TEXT - 1] + "…"


def listed(left_out: Iterable[str], most: int = 8) -> list[str]:
    """The first few of what was left out, and how many more there are."""
    every = list(left_out)
    return every[:most] + ([f"{len(every) - most} more"] if len(every) > most else [])
