"""A raw log to a prepared one: read once, in bounded memory, all or nothing."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bitfold.data.columns import Encoder
from bitfold.data.config import DataConfig
from bitfold.data.dealing import deal
from bitfold.data.files import find_files
from bitfold.data.fitting import fit
from bitfold.data.folder import PREPARED
from bitfold.data.forks import need_polars
from bitfold.data.formats import with_defaults
from bitfold.data.frames import paths_of
from bitfold.data.interactions import Interactions
from bitfold.data.memory_log import MemoryLog
from bitfold.data.negatives import add_negatives
from bitfold.data.newness import Watch
from bitfold.data.prepared import PreparedLog, is_prepared
from bitfold.data.reading import Progress
from bitfold.data.schema import Schema
from bitfold.data.synth.report import report_of
from bitfold.data.writing import write_log
from bitfold.errors import BitfoldError
from bitfold.outputs import new_folder
from bitfold.terminal import printable


def prepare(
    paths: str | Path | Sequence[str | Path] | MemoryLog,
    out: str | Path,
    config: DataConfig,
    *,
    force: bool = False,
    progress: Progress | None = None,
    schema: Schema | None = None,
    window: bool = False,
) -> PreparedLog:
    """Read a raw log and write it prepared: hashed, split, shuffled, in shards, with statistics.

    The log is read once, in chunks: memory does not grow with its length (but for `last` splits,
    one byte a row, vocabularies, 24 bytes an id, and drawn negatives, 8 bytes a row). Everything
    is written into a hidden folder beside `out`, which is renamed when it is whole.

    Args:
        paths: files, patterns such as `"logs/*.csv.gz"`, or folders; or rows in memory
            (`bitfold.data.frames.in_memory`).
        out: the folder to write.
        config: how the log is read.
        force: replace a prepared log that is there already.
        progress: is told how far the work is.
        schema: that of an earlier log, to give the same values the same ids and numbers;
            `config` may then say otherwise only how the files are read and split.
        window: whether this is one window of a stream, whose rows may all be of one class; with a
            schema a column may also be missing in all of them, and all may weigh nothing.

    Raises:
        BitfoldError: for whatever is wrong with the options, the input or the output.
    """
    if isinstance(paths, str | Path):
        paths = [paths]
    out = Path(out)
    config = with_defaults(config)
    if config.label is None and not config.negatives:
        raise BitfoldError(
            "no label is named",
            got="no label",
            expected="the column to predict, or a comparison",
            fix="say --label clicked, or --label 'rating>=4'; for a log of positives --negatives 4",
        )
    if schema is not None:
        check_same_ids(schema.config, config)
    need_polars("prepare")
    encoder = Encoder(config)
    if schema is not None:
        # What is new today is what a stream is about.
        watch = None if window else Watch(schema)
        encoder = Encoder(config, types=schema.types, watch=watch)
    inputs = describe_inputs(paths, config)
    with new_folder(out, PREPARED, force=force, inputs=paths_of(paths)) as folder:
        work = folder / "work"
        work.mkdir()
        positives = Interactions(encoder) if config.negatives else None
        dealt = deal(paths, encoder, work, progress, positives)
        if positives is not None:
            dealt = add_negatives(dealt, positives, work, progress)
        fitted = fit(config, encoder.specs, dealt, progress, window=window, fresh=schema is None)
        fitted = replace(fitted, schema=replace(fitted.schema, types=encoder.types))
        if encoder.watch is not None:
            encoder.watch.tell()
        if schema is not None:
            fitted = replace(fitted, schema=replace(schema, config=config))
        report = None if isinstance(paths, MemoryLog) else report_of(paths)
        write_log(folder, dealt, fitted, inputs, progress, report)
        shutil.rmtree(work)
    return PreparedLog(out)


def prepare_or_open(
    paths: str | Path | Sequence[str | Path] | MemoryLog,
    out: str | Path,
    config: DataConfig,
    *,
    progress: Progress | None = None,
) -> PreparedLog:
    """Open a prepared log, or prepare a raw one into `out`.

    - One path that is a prepared log: it is opened, and `out` and `config` are not used.
    - Raw files that were prepared into `out` before, with the same options, and that have not
      changed since (by name, size and time): `out` is opened.
    - Otherwise the files are prepared into `out`.
    """
    if isinstance(paths, str | Path):
        paths = [paths]
    if not isinstance(paths, MemoryLog) and len(paths) == 1 and is_prepared(paths[0]):
        return PreparedLog(paths[0])
    config = with_defaults(config)
    if is_prepared(out):
        log = PreparedLog(out)
        if log.schema.config == config and log.inputs == describe_inputs(paths, config):
            return log
    return prepare(paths, out, config, force=True, progress=progress)


def describe_inputs(paths: Sequence[str | Path] | MemoryLog, config: DataConfig) -> list[list[Any]]:
    """Name, size and time of each file (a digest of rows in memory), to know of changes."""
    if isinstance(paths, MemoryLog):
        return [[paths.fingerprint(config), paths.rows, 0]]
    return [
        [printable(file.path.name), file.size, file.real.stat().st_mtime_ns]
        for file in find_files(paths, config)
    ]


def check_same_ids(old: DataConfig, new: DataConfig) -> None:
    """Raise unless two configurations give the same value the same id and number."""
    for name in ("fields", "multi", "cross", "numeric", "numeric_transform", "ids", "hash_seed"):
        was, now = getattr(old, name), getattr(new, name)
        if was != now:
            raise BitfoldError(
                f"{name} differs from that of the earlier log",
                got=repr(now),
                expected=repr(was),
                fix=f"leave {name} as it was, or train anew",
            )


def negatives_told(log: PreparedLog) -> list[str]:
    """What there is to say of drawn negatives: how many, of what, and which are lacking."""
    found = log.stats.get("negatives")
    if found is None:
        return []
    config = log.schema.config
    how = "evenly" if found["by"] == "uniform" else "by popularity"
    lines = [
        f"negatives: {found['drawn']:,} for {found['positives']:,} positives, drawn {how} from "
        f"{found['items']:,} of {config.item}, seed {config.negatives_seed}"
    ]
    if found["dropped"]:
        lines.append(
            f"{found['dropped']:,} rows that {config.label} calls negative were left out; their "
            f"{config.item} is not drawn for their {config.group} either"
        )
    if found["lacking"]:
        lines.append(
            f"{found['lacking']:,} negatives are lacking: {found['full_users']:,} of "
            f"{config.group} have every {config.item} there is to draw"
        )
    return lines


def summary(log: PreparedLog) -> str:
    """What `bitfold prepare` prints at its end: rows of the parts and the fields' sizes."""
    lines = [", ".join(f"{part} {rows:,}" for part, rows in log.rows.items())]
    lines += negatives_told(log)
    for info in log.schema.fields:
        about = "" if info.exact else "about "
        lines.append(f"{info.name}: {about}{info.distinct:,} distinct ids")
    return "\n".join(lines)
