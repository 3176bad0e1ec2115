"""Compare methods at equal bytes: one log, one split, one network, one set of training words.

Each cell of the comparison (a method, a budget, a seed) is one run of `bitfold.training.train`
with the same words. Its figures are written as it ends, so an interrupted comparison goes on
where it stopped. `full` has no budget: it appears once, as `1x`, at its best epoch.

    OUT/compare.json    the words; `--config OUT/compare.json` says them again
    OUT/log/            the prepared log (when DATA was raw)
    OUT/cells/          the figures of each finished cell
    OUT/runs/           the run of the cell at work; all of them with `keep_runs`
    OUT/results.json    all figures, with results.csv beside it
    OUT/board.html      the page, if the packages of `bitfold[report]` are there
"""

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitfold.board import (
    FULL,
    Cell,
    CompareConfig,
    Line,
    cells,
    lines,
    options_of,
    write_results,
)
from bitfold.config import to_json
from bitfold.data.config import DataConfig
from bitfold.errors import BitfoldError, BudgetTooSmall
from bitfold.files import read_json, without_nan, write_json
from bitfold.progress import Progress, reading, silent

if TYPE_CHECKING:
    from bitfold.data.prepared import PreparedLog
    from bitfold.survey import Survey
    from bitfold.training import TrainConfig

FORMAT_VERSION = 1
WORDS_FILE = "compare.json"
CELLS = "cells"


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    `results` has a row of figures for each cell, `refused` a row for each method and budget that
    cannot be built, with the least bytes it needs. `page` is the page, None without the packages
    that draw it.
    """

    out: Path
    results: tuple[Mapping[str, Any], ...]
    refused: tuple[Mapping[str, Any], ...]
    page: Path | None = None

    @property
    def lines(self) -> list[Line]:
        """Means and spreads over the seeds, a method and budget a line."""
        return lines(self.results, self.refused)


def compare(
    paths: Sequence[str | Path],
    data: DataConfig,
    train: "TrainConfig",
    words: CompareConfig,
    out: str | Path,
    *,
    resume: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> Comparison:
    """Train every method at every budget and seed on one log, and write the board.

    Args:
        paths: a prepared log, or raw files.
        data: how raw files are read.
        train: the words of training, the same for every cell. Their `set` may hold
            `option=value` (for each method that has it) and `method.option=value`; their
            `embedding`, `budget` and `seed` are the cell's.
        words: which methods, budgets and seeds.
        out: the directory to write; its layout stands at the top of this file.
        resume: keep the cells that `out` already has. Methods, budgets and seeds may be added;
            the log and the words of training must be the same.
        force: write over a comparison that exists.
        progress: the stage `"cells"` counts finished cells, the others are training's.

    Raises:
        BitfoldError: unknown methods or options, an `out` that exists, changed words; whatever
            preparing and training raise.
    """
    tell = progress or silent
    out = Path(out)
    known = {variant.method: option_names(variant.method) for variant in words.variants}
    options = {variant.name: options_of(variant, train.set, known) for variant in words.variants}
    said = _said(paths, data, train, words)
    fresh = _open(out, said, resume=resume, force=force)
    try:
        log = _log(paths, data, out, tell)
        possible, refused = _planned(cells(words, train.seed), options, log, train.vector_width)
    except BaseException:
        if fresh:
            shutil.rmtree(out, ignore_errors=True)
        raise
    write_json(out / WORDS_FILE, said)
    (out / CELLS).mkdir(exist_ok=True)
    results: list[Mapping[str, Any]] = []
    surveyed: Survey | None = None
    write_results(out, results, refused)
    try:
        for number, cell in enumerate(possible):
            row = _kept(out, cell)
            if row is None:
                tell("cells", number, len(possible), now=cell.title)
                mine = replace(
                    train,
                    embedding=cell.variant.method,
                    budget=None if cell.variant.method == FULL else cell.budget,
                    seed=cell.seed,
                    set=options[cell.variant.name],
                )
                surveyed = surveyed or _survey(log, tell)
                row = _run(cell, log, surveyed, mine, out, tell, keep=words.keep_runs)
            results.append(row)
            write_results(out, results, refused)
    except BaseException:
        with contextlib.suppress(BitfoldError):  # why it stopped matters more
            _page(out, results)
        raise
    tell("cells", len(possible), len(possible))
    if not words.keep_runs:
        shutil.rmtree(out / "runs", ignore_errors=True)
    return Comparison(out, tuple(results), tuple(refused), _page(out, results))


def option_names(method: str) -> tuple[str, ...]:
    """The options that a method has; an unknown method raises and names the nearest."""
    from bitfold.method.registry import method_kind

    return tuple(field.name for field in dataclasses.fields(method_kind(method)))


def _said(
    paths: Sequence[str | Path], data: DataConfig, train: "TrainConfig", words: CompareConfig
) -> dict[str, Any]:
    """Everything that decides the board, as it is saved."""
    return {
        "format": FORMAT_VERSION,
        "paths": [_fingerprint(Path(path)) for path in paths],
        "data": to_json(data),
        "train": to_json(train),
        "compare": to_json(words),
    }


def _fingerprint(path: Path) -> dict[str, Any]:
    """A path and what tells its content from a changed one without reading it all."""
    known = path / "schema.json" if path.is_dir() else path
    with contextlib.suppress(OSError):
        stat = known.stat()
        return {"path": str(path), "bytes": stat.st_size, "changed": stat.st_mtime_ns}
    return {"path": str(path)}  # a pattern, or missing: whoever reads it will say so


def _open(out: Path, said: dict[str, Any], *, resume: bool, force: bool) -> bool:
    """Make `out` ready to be written; True when nothing of value stands in it."""
    file = out / WORDS_FILE
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        out.mkdir(parents=True, exist_ok=True)
        return True
    if not file.is_file():
        raise BitfoldError(
            f"{out} exists and is no comparison",
            got=f"a {'directory' if out.is_dir() else 'file'} without {WORDS_FILE}",
            expected="a new directory, or an earlier comparison",
            fix="name another --out",
        )
    if resume:
        _check_same(file, said)
        return False
    if not force:
        raise BitfoldError(
            f"{out} holds a comparison already",
            got=str(out),
            expected="a new directory",
            fix="--resume goes on with it, --force begins anew in its place",
        )
    shutil.rmtree(out)
    out.mkdir()
    return True


def _check_same(file: Path, said: Mapping[str, Any]) -> None:
    """Refuse to go on with a comparison of other words."""
    old = read_json(file)
    version = old.get("format")
    if version != FORMAT_VERSION:
        raise BitfoldError(
            f"{file} is of another format",
            got=version,
            expected=FORMAT_VERSION,
            fix="go on with the bitfold that wrote it, or begin anew with --force",
        )
    new = json.loads(json.dumps(said))
    if old["paths"] != new["paths"]:
        raise BitfoldError(
            "the log is not the one that the comparison began with",
            got=", ".join(path["path"] for path in new["paths"]),
            expected=", ".join(path["path"] for path in old["paths"]) + ", unchanged",
            fix="begin anew with --force, or name another --out",
        )
    for section in ("data", "train"):
        for name, value in new[section].items():
            if old[section].get(name) != value:
                raise BitfoldError(
                    f"--{name.replace('_', '-')} is not what the comparison began with",
                    got=value,
                    expected=old[section].get(name),
                    fix="only --methods, --budgets and --seeds may change; or begin with --force",
                )


def _log(paths: Sequence[str | Path], data: DataConfig, out: Path, tell: Progress) -> "PreparedLog":
    """The prepared log that every cell trains on."""
    from bitfold.data.prepare import prepare_or_open
    from bitfold.data.prepared import PreparedLog, looks_prepared

    if len(paths) == 1 and looks_prepared(Path(paths[0])):
        return PreparedLog(paths[0])
    return prepare_or_open(paths, out / "log", data, progress=reading(tell))


def _planned(
    wanted: Sequence[Cell],
    options: Mapping[str, Mapping[str, Any]],
    log: "PreparedLog",
    width: int,
) -> tuple[list[Cell], list[dict[str, Any]]]:
    """The cells that can be built, and a row for each method and budget that cannot."""
    import bitfold

    fields = log.schema.embedding_fields()
    refused: dict[tuple[str, str], dict[str, Any]] = {}
    fine: set[tuple[str, str]] = set()
    possible = []
    for cell in wanted:
        variant, budget = cell.variant, cell.budget
        key = (variant.name, budget)
        if variant.method != FULL and key not in refused and key not in fine:
            try:
                bitfold.plan(
                    fields, width, method=variant.method, budget=budget, **options[variant.name]
                )
            except BudgetTooSmall as error:
                refused[key] = {
                    "method": variant.name,
                    "budget": budget,
                    "minimum": error.minimum,
                    "reason": f"needs {error.minimum:,} bytes or more",
                }
            fine.add(key)
        if key not in refused:
            possible.append(cell)
    return possible, list(refused.values())


def _kept(out: Path, cell: Cell) -> dict[str, Any] | None:
    """The figures of a finished cell."""
    path = out / CELLS / f"{cell.slug}.json"
    return read_json(path) if path.is_file() else None


def _page(out: Path, results: Sequence[Mapping[str, Any]]) -> Path | None:
    """Write the page of what is there; None without the packages, or without an AUC to show."""
    from bitfold.report import missing, write_page

    shown = any(row.get("auc") is not None for row in results)
    return write_page(out) if shown and missing() is None else None


def _survey(log: "PreparedLog", tell: Progress) -> "Survey":
    """What the diagnosis of every cell needs of the log."""
    from bitfold.survey import survey

    tell("reading ids", 0)
    return survey(log)


def _run(
    cell: Cell,
    log: "PreparedLog",
    known: "Survey",
    words: "TrainConfig",
    out: Path,
    tell: Progress,
    *,
    keep: bool,
) -> dict[str, Any]:
    """Train one cell and write its figures."""
    from bitfold.diagnosis import diagnose
    from bitfold.training import train

    def inside(stage: str, done: int, total: int | None = None, **facts: object) -> None:
        tell(f"{cell.title}: {stage}", done, total, **facts)

    run = out / "runs" / cell.slug
    run.parent.mkdir(exist_ok=True)
    result = train([log.path], log.schema.config, words, run, resume=run.exists(), progress=inside)
    row = {
        "method": cell.variant.name,
        "budget": cell.budget,
        "seed": cell.seed,
        **without_nan(result.metrics),
        "embedding": cell.variant.method,
        "options": dict(words.set),
        "width": words.vector_width,
        "network": words.network,
        "data": to_json(log.schema.config),
        **diagnose(run, log, known, inside),
    }
    write_json(out / CELLS / f"{cell.slug}.json", row)
    if not keep:
        shutil.rmtree(run)
    return row
