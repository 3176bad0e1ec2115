"""What lies beside the shards of a prepared log, for people: `stats.json` and `synth.json`."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from bitfold.data.schema import Schema
from bitfold.records import Count, Form, Number, broken, checked, record

AGAIN = "prepare the log again"
STATS = Form("bitfold.stats", 1, "format", "version", fix=AGAIN)
STATS_FILE = "stats.json"
REPORT_FILE = "synth.json"
"""The report of `bitfold synth`, kept in a log that was prepared from a synthetic one."""

Share = Annotated[float, Meta(ge=0, le=1)]


class _Head(msgspec.Struct):
    id: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
    count: Count
    value: str | None = None


class _Field(msgspec.Struct):
    kind: str
    distinct: Count
    exact: bool
    missing: Count
    standard_error: Count | None = None
    unseen: dict[str, Share] = {}
    head: list[_Head] = []


class _Numeric(msgspec.Struct):
    missing: Count
    mean: Number
    deviation: Number


class _Negatives(msgspec.Struct):
    per_positive: Count
    by: str
    positives: Count
    drawn: Count
    items: Count
    dropped: Count
    lacking: Count
    full_users: Count


class _Stats(msgspec.Struct):
    rows: Count
    train_rows: Annotated[int, Meta(ge=1, le=2**53)]
    train_positives: Count
    fields: dict[str, _Field]
    numeric: dict[str, _Numeric]
    negatives: _Negatives | None = None


def read_stats(path: Path, schema: Schema) -> dict[str, Any]:
    """The statistics of a log as plain values, checked; keys that are not known are left as is.

    Raises:
        BitfoldError: they are broken, or of other fields than the schema's.
    """
    value = checked(path, STATS)
    found = record(value, _Stats, path, fix=AGAIN)
    if list(found.fields) != schema.field_names or list(found.numeric) != schema.numeric_names:
        raise broken(path, "counts of other columns", "those of schema.json", AGAIN)
    return value
