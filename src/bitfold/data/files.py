"""Which files a log is made of, and how each is written."""

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bitfold.data.config import DataConfig
from bitfold.data.formats import LAYOUTS
from bitfold.errors import BitfoldError, unknown_name

_PACKED = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}
_KINDS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
}


@dataclass(frozen=True)
class LogFile:
    """One file of a log.

    Args:
        kind: `csv` (any text file with separators), `sequences` or `parquet`.
        packing: `gzip`, `zstd` or None.
        separator: what parts its columns; empty for Parquet.
        size: bytes on the disk.
    """

    path: Path
    kind: str
    packing: str | None
    separator: str
    size: int


def find_files(paths: Sequence[str | Path], config: DataConfig) -> list[LogFile]:
    """The files that paths and patterns name: each pattern's in sorted order.

    Raises:
        BitfoldError: for a file that is missing or empty, a pattern that meets nothing, or a
            name that does not tell how the file is written.
    """
    if isinstance(paths, str | Path):
        paths = [paths]
    if not paths:
        raise BitfoldError("no input is named", expected="one or more files or patterns")
    found: list[LogFile] = []
    for path in paths:
        found.extend(_describe(name, config) for name in _expand(str(path)))
    return found


def _expand(text: str) -> list[Path]:
    path = Path(text)
    if path.is_file():
        return [path]
    if path.is_dir():
        inside = sorted(
            file
            for file in path.iterdir()
            if file.is_file() and _suffixes(file)[0] in _KINDS and not file.name.startswith(".")
        )
        if inside:
            return inside
        raise BitfoldError(
            f"the folder {text} holds no log",
            got="no .csv, .tsv or .parquet file in it",
            expected="files, a pattern, or a folder of such files",
        )
    if glob.has_magic(text):
        matched = [Path(name) for name in sorted(glob.glob(text, recursive=True))]  # noqa: PTH207
        matched = [name for name in matched if name.is_file()]
        if matched:
            return matched
        raise BitfoldError(
            f"no file matches {text}",
            got="nothing",
            expected="one or more files",
            fix="check the pattern, and quote it if the shell should not expand it",
        )
    raise missing_file(path)


def missing_file(path: Path) -> BitfoldError:
    """The error for a file or folder that does not exist; it names the nearest one that does."""
    folder = path.parent
    names = [file.name for file in folder.iterdir()] if folder.is_dir() else []
    if not names:
        return BitfoldError(
            f"the file {path} does not exist",
            got="no such file" if folder.is_dir() else f"no folder {folder}",
            expected="a file that exists",
            fix="check the path",
        )
    import difflib

    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    return BitfoldError(
        f"the file {path} does not exist",
        got="no such file",
        expected="a file that exists",
        fix=f"did you mean {folder / near[0]}?" if near else "check the path",
    )


def _suffixes(path: Path) -> tuple[str, str | None]:
    """The suffix that says the kind, and the packing."""
    suffix = path.suffix.lower()
    if suffix in _PACKED:
        return Path(path.stem).suffix.lower(), _PACKED[suffix]
    return suffix, None


def _describe(path: Path, config: DataConfig) -> LogFile:
    size = path.stat().st_size
    if size == 0:
        raise BitfoldError(
            f"the file {path} is empty", got="0 bytes", expected="a log with at least one row"
        )
    suffix, packing = _suffixes(path)
    layout = LAYOUTS.get(config.format)
    by_name = _KINDS.get(suffix)
    if by_name == "parquet" and config.format in ("auto", "parquet", *LAYOUTS):
        if packing is not None:
            raise BitfoldError(
                f"{path} is a packed Parquet file",
                got=path.name,
                expected="Parquet as it is: it is compressed inside",
                fix="unpack it first",
            )
        return LogFile(path, "parquet", None, "", size)
    if config.format == "parquet":
        return LogFile(path, "parquet", None, "", size)
    if layout is not None:
        separator = "::" if suffix == ".dat" else layout.separator
    elif config.format in ("csv", "tsv"):
        separator = "," if config.format == "csv" else "\t"
    elif by_name is not None:
        separator = "," if by_name == "csv" else "\t"
    elif config.separator is not None:
        separator = config.separator
    else:
        raise BitfoldError(
            f"the name of {path} does not tell its format",
            got=path.name,
            expected="a name that ends in .csv, .tsv or .parquet (.gz or .zst after it)",
            fix="say --format csv, tsv, parquet, criteo, avazu, movielens or sequences",
        )
    if config.separator is not None:
        separator = config.separator
    kind = "sequences" if config.format == "sequences" else "csv"
    return LogFile(path, kind, packing, _separator(separator), size)


def _separator(text: str) -> str:
    named = {"tab": "\t", "\\t": "\t", "comma": ",", "space": " "}
    text = named.get(text, text)
    # A doubled separator is read as the single one with an unnamed empty column in between.
    if len(text) == 1 or (len(text) == 2 and text[0] == text[1]):
        if text[0] in '\r\n"' or ord(text[0]) > 127:
            raise BitfoldError(
                "the separator cannot part columns", got=repr(text), expected="an ASCII character"
            )
        return text
    raise BitfoldError(
        "the separator cannot be used",
        got=repr(text),
        expected="one character, 'tab', or one character doubled such as '::'",
    )


def pick(names: Sequence[str], wanted: Sequence[str], path: Path) -> None:
    """Raise `UnknownName`, with the nearest name, unless every wanted column is there."""
    for name in wanted:
        if name not in names:
            error = unknown_name("column", name, names)
            raise type(error)(
                f"{path} has no column {name!r}",
                got=error.got,
                expected=error.expected,
                fix=error.fix,
            )
        if list(names).count(name) > 1:
            raise BitfoldError(
                f"{path} has the column {name!r} more than once",
                got=", ".join(names),
                expected="each name once",
                fix="rename one of them",
            )
