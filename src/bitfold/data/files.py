"""Which files a log is made of, and how each is written."""

import glob
import os
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bitfold.data.config import DataConfig
from bitfold.data.formats import LAYOUTS, Layout
from bitfold.data.lines import BLOCK_BYTES
from bitfold.data.logfile import LogFile
from bitfold.data.sources import (
    STDIN,
    first_text,
    forbidden,
    packing_of,
    peek,
    spooled,
    zip_member,
)
from bitfold.errors import BitfoldError, unknown_name

_PACKED = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd", ".zip": "zip"}
_KINDS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_SEPARATORS = {"csv": ",", "tsv": "\t"}


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
    try:
        names = [name for path in paths for name in _expand(path, config)]
        found = [_describe(name, config) for name in names]
    except PermissionError as error:
        raise forbidden(Path(os.fsdecode(error.filename or paths[0]))) from error
    full = [file for file in found if file.size]
    if not full:
        raise BitfoldError(
            f"the file {found[0].path} is empty"
            if len(found) == 1
            else f"all {len(found)} files are empty, such as {found[0].path}",
            got="0 bytes",
            expected="a log with at least one row",
        )
    # Spark writes a file of 0 bytes for a part without rows.
    return full if len(found) == 1 else [replace(file, alone=False) for file in full]


def _expand(name: str | Path, config: DataConfig) -> list[Path]:
    path, text = Path(name), str(name)
    if text == STDIN or path.is_file() or path.is_fifo() or path.is_char_device():
        return [path]
    if path.is_dir():
        said = config.format not in ("auto", "parquet")
        inside = sorted(
            file
            for file in path.iterdir()
            if file.is_file() and _is_part(file) and (said or _suffixes(file)[0] in _KINDS)
        )
        if inside:
            return inside
        raise BitfoldError(
            f"the folder {text} holds no log",
            got="no .csv, .tsv or .parquet file in it",
            expected="files, a pattern, or a folder of such files",
            fix="say --format if its files have no such names",
        )
    if glob.has_magic(text):
        matched = [Path(each) for each in sorted(glob.glob(text, recursive=True))]  # noqa: PTH207
        matched = [each for each in matched if each.is_file()]
        # `logs/*` means the parts of a log, not what Spark leaves beside them.
        matched = [each for each in matched if _is_part(each)] or matched
        if matched:
            return matched
        raise BitfoldError(
            f"no file matches {text}",
            got="nothing",
            expected="one or more files",
            fix="check the pattern, and quote it if the shell should not expand it",
        )
    raise missing_file(path)


def _is_part(path: Path) -> bool:
    """Whether a file in a folder is part of its log: no `_SUCCESS`, `.crc` or hidden file."""
    return not path.name.startswith((".", "_")) and path.suffix != ".crc"


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
    spool = spooled(path)
    size = (spool or path).stat().st_size
    suffix, packing = _suffixes(path)
    by_name = _KINDS.get(suffix)
    if packing == "zip" and by_name is None and size:
        by_name = _kind_in_zip(path)
    if spool is not None and by_name is None and size:
        # A pipe has no name that tells: its first bytes do.
        packing = packing_of(spool)
        by_name, packing = ("parquet", None) if packing == "parquet" else ("csv", packing)
    named = config.format in LAYOUTS
    if (by_name == "parquet" and (named or config.format == "auto")) or config.format == "parquet":
        if packing is not None:
            raise BitfoldError(
                f"{path} is a packed Parquet file",
                got=path.name,
                expected="Parquet as it is: it is compressed inside",
                fix="unpack it first",
            )
        return LogFile(path, "parquet", None, "", size, spool)
    kind = "sequences" if config.format == "sequences" else "csv"
    file = LogFile(path, kind, packing, "", size, spool)
    separator = config.separator
    if separator is None and config.format in _SEPARATORS:
        separator = _SEPARATORS[config.format]
    elif separator is None and (named or (spool is not None and by_name == "csv")):
        separator = _likely_separator(file, LAYOUTS[config.format] if named else None)
    elif separator is None and by_name is not None and by_name != "parquet":
        separator = _SEPARATORS[by_name]
    if separator is None and size:
        raise BitfoldError(
            f"the name of {path} does not tell its format",
            got=path.name,
            expected="a name that ends in .csv, .tsv or .parquet (.gz, .zst or .zip after it)",
            fix="say --format csv, tsv, parquet, criteo, avazu, movielens or sequences",
        )
    return replace(file, separator=_separator(separator or ","))


def _kind_in_zip(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            return _KINDS.get(Path(zip_member(archive, path).filename).suffix.lower())
    except zipfile.BadZipFile:
        return None  # reading says what is wrong with it


def _likely_separator(file: LogFile, layout: Layout | None) -> str:
    """The separator of a known log or a pipe: public ones came with several over the years."""
    if layout is not None and layout.separator != ",":
        return layout.separator
    line = first_text(peek(file, BLOCK_BYTES)) if file.size else ""
    for separator in ("::", "\t") if layout is not None else ("\t",):
        if separator in line and "," not in line:
            return separator
    return ","


def _separator(text: str) -> str:
    named = {"tab": "\t", "\\t": "\t", "comma": ",", "space": " "}
    text = named.get(text, text)
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
