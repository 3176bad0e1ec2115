"""The folder of a comparison: its options, claimed or gone on with."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitfold import outputs
from bitfold.comparison.config import CompareConfig
from bitfold.comparison.grid import GRID_WORDS
from bitfold.comparison.records import OPTIONS, read_options, save
from bitfold.config import renamed, to_json
from bitfold.data.config import DataConfig
from bitfold.data.frames import paths_of
from bitfold.data.memory_log import MemoryLog
from bitfold.errors import BitfoldError
from bitfold.files import remove_parts

if TYPE_CHECKING:
    from bitfold.training import TrainConfig

OPTIONS_FILE = "compare.json"
CELLS, RUNS, LOGS = "cells", "runs", "logs"
UNSAID = {"embedding_sets": 1}
"""Options that comparisons of before do not say, with the values that they had."""


def said_options(
    paths: Sequence[str | Path] | MemoryLog,
    data: DataConfig,
    train: "TrainConfig",
    config: CompareConfig,
) -> dict[str, Any]:
    """Everything that decides the board, as it is saved."""
    return {
        "paths": [{"path": paths.fingerprint(data)}]
        if isinstance(paths, MemoryLog)
        else [_fingerprint(Path(path)) for path in paths],
        "data": to_json(data),
        "train": to_json(train),
        "compare": to_json(config),
    }


def _fingerprint(path: Path) -> dict[str, Any]:
    """A path and what tells its content from a changed one without reading it all."""
    known = path / "schema.json" if path.is_dir() else path
    with contextlib.suppress(OSError):
        stat = known.stat()
        return {"path": str(path), "bytes": stat.st_size, "changed": stat.st_mtime_ns}
    return {"path": str(path)}  # a pattern, or missing: whoever reads it will say so


@contextlib.contextmanager
def claim(
    out: Path,
    paths: Sequence[str | Path] | MemoryLog,
    said: dict[str, Any],
    *,
    resume: bool,
    force: bool,
) -> Iterator[outputs.Work]:
    """Hold `out` for a comparison: begun, or gone on with.

    Raises:
        BitfoldError: there is something else; a comparison, and neither `resume` nor `force`; one
            of other options or another log; or the log lies in `out`, or `out` in the log.
    """
    outputs.refuse_overlap(out, paths_of(paths))

    def begin(folder: Path) -> None:
        save(folder / OPTIONS_FILE, OPTIONS, said)

    with outputs.work(out, comparison(), begin, resume=resume, force=force) as work:
        if not work.fresh:
            _check_same(work.folder / OPTIONS_FILE, said)
            for folder in (work.folder, work.folder / CELLS):
                remove_parts(folder)
        yield work
        if not work.discarded:
            for folder in (work.folder, work.folder / RUNS):
                outputs.sweep(folder)
            work.finish()


def comparison() -> outputs.Kind:
    """What a comparison's folder holds."""
    from bitfold.data.folder import PREPARED
    from bitfold.runs.manifest import RUN

    return outputs.Kind(
        "comparison",
        (
            *(OPTIONS_FILE, "floors.json", "results.json", "results.csv"),
            *("board.html", "board-*.png", f"{CELLS}/*.json"),
            *PREPARED.within("log"),
            *(f"{LOGS}/*/training.csv", f"{LOGS}/*/events.out.tfevents.*"),
            *RUN.within(f"{RUNS}/*"),
        ),
        lambda folder: (folder / OPTIONS_FILE).is_file(),
    )


def _check_same(file: Path, said: Mapping[str, Any]) -> None:
    """Refuse to go on with a comparison of other options."""
    from bitfold.training.folder import FREE

    old = read_options(file)
    new = json.loads(json.dumps(said))
    if old["paths"] != new["paths"]:
        raise BitfoldError(
            "the log is not the one that the comparison began with",
            got=", ".join(path["path"] for path in new["paths"]),
            expected=", ".join(path["path"] for path in old["paths"]) + ", unchanged",
            fix="begin anew with --force, or name another --out",
        )
    fixed = {"data": new["data"], "train": new["train"], "compare": GRID_WORDS}
    for section, names in fixed.items():
        began = renamed(old[section])
        for name in names:
            if name in FREE:
                continue
            if began.get(name, UNSAID.get(name)) != new[section][name]:
                raise BitfoldError(
                    f"--{name.replace('_', '-')} is not what the comparison began with",
                    got=new[section][name],
                    expected=began.get(name, UNSAID.get(name)),
                    fix="only --methods, --budgets and --seeds may change; or begin with --force",
                )
