"""The report that `bitfold synth` writes beside its log, as others read it."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from bitfold.data.synth.log import FORMAT_VERSION
from bitfold.errors import BitfoldError
from bitfold.outputs import settle
from bitfold.records import Count, read_object, record


class Report(msgspec.Struct):
    """What is needed of a report of `bitfold synth`."""

    format_version: int
    rows: Count
    bayes_auc: Annotated[float, Meta(ge=0, le=1)]
    config: dict[str, Any]


def report_of(paths: Sequence[str | Path]) -> dict[str, Any] | None:
    """The report that `bitfold synth` wrote beside a raw log; None if this is no such log."""
    if len(paths) != 1:
        return None
    path = Path(paths[0])
    settle(path)  # a log whose writer was killed may have a report that is not in its place yet
    places = (path, Path(os.path.realpath(path)))
    files = [place.with_name(place.name + ".json") for place in places]
    file = next((file for file in files if file.is_file()), None)
    if not path.exists() or file is None:
        return None
    try:
        report = read_object(file)
        known = record(report, Report, file).format_version == FORMAT_VERSION
    except BitfoldError:
        return None  # another's file: its name is no promise
    return report if known else None
