"""How the rows to score are read: as the run's log was, but for the options said."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from bitfold.data.config import DataConfig
from bitfold.data.formats import LAYOUTS
from bitfold.errors import BitfoldError, unknown_name
from bitfold.settings import options_of, parse

WANTED = ("format", "separator", "header", "columns", "missing", "quote")
OPTIONS = tuple(field.name for field in fields(DataConfig) if field.name in WANTED)
"""The options of reading that may be said when rows are scored: none changes an id or a number."""


def reading_config(config: DataConfig, options: Mapping[str, Any]) -> DataConfig:
    """The configuration of a run's log with the options that were said for other files.

    What depends on an option goes with it: another format brings its own header, columns and
    separator, and a header line brings the names that `columns` gave.

    Args:
        config: that of the run.
        options: from `OPTIONS`; None is not said.

    Raises:
        UnknownName: an option that is none of reading.

    Example:
        >>> config = DataConfig(fields=("a",), columns=("a", "b"))
        >>> reading_config(config, {"header": "yes"}).columns
        ()
    """
    known = options_of(DataConfig)
    said: dict[str, Any] = {}
    for name, value in options.items():
        if name not in OPTIONS:
            raise unknown_name("option of reading", name, OPTIONS)
        if value is not None:
            said[name] = parse(known[name], list(value) if isinstance(value, set) else value)
    if not said:
        return config
    reset: dict[str, Any] = {}
    if said.get("format", config.format) != config.format:
        layout = LAYOUTS.get(said["format"])
        reset = {"columns": (), "header": "auto", "separator": None}
        if "quote" in OPTIONS:
            reset["quote"] = "auto"
        if layout is not None:
            reset |= {"columns": layout.columns, "header": layout.header}
            reset |= {"missing": layout.missing or config.missing}
    elif said.get("header") == "yes":
        reset = {"columns": ()}
    elif "columns" in said:
        reset = {"header": "auto"}
    if said.get("missing") == ("none",):
        said["missing"] = ()
    return replace(config, **(reset | said))


def check_settled(data: Sequence[str | Path], said: Mapping[str, Any]) -> None:
    """Refuse options of reading that a prepared log has settled otherwise.

    Args:
        data: what is read.
        said: the options that were said, with their values.

    Raises:
        BitfoldError: `data` is a prepared log that was made with another value.
    """
    from bitfold.data.folder import looks_prepared
    from bitfold.data.prepared import PreparedLog

    if not said or len(data) != 1 or not looks_prepared(Path(data[0])):
        return
    settled = PreparedLog(data[0]).schema.config
    for name, value in said.items():
        if getattr(settled, name) != value:
            raise BitfoldError(
                f"{data[0]} was prepared with another --{name.replace('_', '-')}",
                got=value,
                expected=getattr(settled, name),
                fix="leave the option out, or prepare the log again with it",
            )
