"""Compare methods at equal bytes: one log, one split, one network, one set of training options.

Each cell of the comparison (a method, a budget, a seed) is one run of `bitfold.training.train`
with the same options. Its figures are written as it ends, so an interrupted comparison goes on
where it stopped. `full` has no budget: it appears once, as `1x`, at its best epoch.

    OUT/compare.json    the options; `--config OUT/compare.json` says them again
    OUT/log/            the prepared log (when DATA was raw)
    OUT/cells/          the figures of each finished cell, with every point of a grid tried
    OUT/logs/           the training log of each cell, for TensorBoard
    OUT/runs/           the run of the cell at work; all of them with `keep_runs`
    OUT/floors.json     the floors and ceilings that need no training
    OUT/results.json    all figures, with results.csv beside it
    OUT/board.html      the page, if the caller gives what draws it

What makes it fair is in files of its own: `grid` (the same search for everybody), `opponents`
(equal bytes), `differences` (over seeds), `floors` (what the figures lie between).
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from bitfold.comparison.board import Line, lines, write_results
from bitfold.comparison.config import (
    FULL,
    FULL_BUDGET,
    Cell,
    CompareConfig,
    cell_options,
)
from bitfold.comparison.differences import differences
from bitfold.comparison.floors import logistic_cell, reference_lines, references
from bitfold.comparison.folder import CELLS, OPTIONS_FILE, RUNS, claim, said_options
from bitfold.comparison.grid import Grid
from bitfold.comparison.records import OPTIONS, read_results, save
from bitfold.data.config import DataConfig
from bitfold.data.formats import with_defaults
from bitfold.data.memory_log import MemoryLog
from bitfold.errors import BitfoldError
from bitfold.notes import note, once
from bitfold.progress import Progress, reading, silent
from bitfold.ranking.config import RankConfig, check_rank
from bitfold.showing import Shown
from bitfold.training.parts import check_parts
from bitfold.training.processes import only_one
from bitfold.training.unseen import unseen_shares

if TYPE_CHECKING:
    from bitfold.comparison.survey import Survey
    from bitfold.data.prepared import PreparedLog
    from bitfold.training import TrainConfig

from bitfold.comparison.cells import kept, survey_of, trained_cell
from bitfold.comparison.planned import Planned, option_names, plan_cells

PageOf: TypeAlias = Callable[[Path, Path], Path | None]
"""Draws the page of a comparison in one folder, which will be called as the other; its path, or
None where it cannot be drawn."""


@dataclass(frozen=True, repr=False)
class Comparison(Shown):
    """What a comparison found; `to_frame()` has a row for each method and budget.

    `results` has a row of figures for each cell, `refused` a row for each method and budget that
    cannot be built, with the least bytes it needs; `more` the other parts of `results.json`. `page`
    is the page, None without the packages that draw it, or where `page_problem` says why.
    """

    out: Path
    results: tuple[Mapping[str, Any], ...]
    refused: tuple[Mapping[str, Any], ...]
    more: Mapping[str, Any]
    page: Path | None = None
    page_problem: str | None = None

    def records(self) -> list[dict[str, Any]]:
        """A row for each method and budget: means over the seeds, and the spread of the AUC."""
        rows = []
        for line in self.lines:
            row: dict[str, Any] = {"method": line.method, "budget": line.budget}
            row |= {"seeds": line.seeds, "auc": None, "auc_spread": line.spreads.get("auc")}
            row |= {"auc_of_full": line.kept, "lift_of_full": line.lift} | dict(line.means)
            rows.append(row | {"least_bytes": line.minimum})
        names = list(dict.fromkeys(name for row in rows for name in row))
        return [{name: row.get(name) for name in names} for row in rows]

    def _title(self) -> str:
        return f"Comparison in {self.out}: {len(self.results)} cells"

    @property
    def lines(self) -> list[Line]:
        """Means and spreads over the seeds, a method and budget a line; the references last."""
        found = lines(self.results, self.refused)
        whole = [line.means.get("auc") for line in found if line.budget == FULL_BUDGET]
        return found + reference_lines(self.more["references"], whole[0] if whole else None)


def compare(
    paths: Sequence[str | Path] | MemoryLog,
    data: DataConfig,
    train: "TrainConfig",
    config: CompareConfig,
    out: str | Path,
    *,
    resume: bool = False,
    force: bool = False,
    progress: Progress | None = None,
    page: PageOf | None = None,
) -> Comparison:
    """Train every method at every budget and seed on one log, and write the board.

    Args:
        paths: a prepared log, raw files, or rows in memory.
        data: how raw files are read.
        train: the options of training, the same for every cell. Their `set` may hold
            `option=value` (for each method that has it) and `method.option=value`; their
            `method`, `budget` and `seed` are the cell's.
        config: which methods, budgets and seeds.
        out: the directory to write; its layout stands at the top of this file.
        resume: keep the cells that `out` already has. Methods, budgets and seeds may be added;
            the log, the options of training and the grid must be the same.
        force: replace a comparison that exists, when the new one is whole. Until then the new
            one is in a hidden folder beside it, and `resume` goes on with it.
        progress: the stage `"cells"` counts finished cells, the others are training's.
        page: what draws the page, such as `bitfold.report.page_of`; None draws none.

    Raises:
        BitfoldError: unknown methods or options, an `out` that exists, changed options; whatever
            preparing and training raise.
    """
    only_one("`bitfold compare`", train.devices)
    tell = progress or silent
    out = Path(out)
    known = {variant.method: option_names(variant.method) for variant in config.variants}
    options = {variant.name: cell_options(variant, train.set, known) for variant in config.variants}
    said = said_options(paths, data, train, config)
    with once(), claim(out, paths, said, resume=resume, force=force) as work:
        try:
            log = _log(paths, data, work.folder, tell, train.ranking)
            if train.ranking is not None:
                check_rank(log.schema.config, train.ranking)
            for text in check_parts(log):
                note(text)
            grid = Grid.of(config, train)
            grid.check(log)
            planned = plan_cells(config, train, options, log)
        except Exception:
            if work.fresh:
                work.discard()
            raise
        save(work.folder / OPTIONS_FILE, OPTIONS, said)
        (work.folder / CELLS).mkdir(exist_ok=True)
        made = _compare(config, train, options, log, grid, planned, work.folder, out, tell, page)
    return replace(made, out=out, page=made.page and out / made.page.name)


def _compare(
    config: CompareConfig,
    train: "TrainConfig",
    options: Mapping[str, dict[str, str]],
    log: "PreparedLog",
    grid: Grid,
    planned: Planned,
    out: Path,
    name: Path,
    tell: Progress,
    draw: PageOf | None,
) -> Comparison:
    """Every cell of a comparison in `out`, which will be called `name`."""
    results: list[Mapping[str, Any]] = []
    floor, floor_training = logistic_cell(train)
    total, done = grid.trainings([*planned.cells, *[floor] * config.floors]), 0
    between: dict[str, Any] = {}
    surveyed: Survey | None = None

    def trained(cell: Cell, mine: "TrainConfig") -> dict[str, Any]:
        nonlocal done, surveyed
        row = kept(out, cell, mine)
        if row is None:
            tell("cells", done, total, now=cell.title)
            if config.diagnosis:
                surveyed = surveyed or survey_of(log, tell)
            row = trained_cell(cell, log, surveyed, mine, out, tell, keep=config.keep_runs)
        done += 1
        return row

    there = _rows_there(out)

    def found(*, whole: bool = False) -> Comparison:
        more = {
            "grid": grid.to_json(),
            "differences": differences(results, planned.facing),
            "references": between,
            "unseen": unseen_shares(log),
        }
        if whole or len(results) >= there:  # resumed: what is there says more, until all is read
            write_results(out, results, planned.refused, more)
        return Comparison(out, tuple(results), tuple(planned.refused), more)

    found()
    try:
        for cell in planned.cells:
            mine = replace(
                train,
                method=cell.variant.method,
                budget=None if cell.variant.method == FULL else cell.budget,
                seed=cell.seed,
                set=options[cell.variant.name],
            )
            results.append(grid.best(cell, mine, trained))
            found()
        if config.floors:
            best = grid.best(floor, floor_training, trained)
            between |= references(log, out, best, tell, train.ranking)
    except BaseException:
        _page(draw, out, results, name)
        raise
    tell("cells", total, total)
    if not config.keep_runs:
        shutil.rmtree(out / RUNS, ignore_errors=True)
    made = found(whole=True)
    page, problem = _page(draw, out, results, name)
    return replace(made, page=page, page_problem=problem)


def _rows_there(out: Path) -> int:
    """How many cells the results that are there already show."""
    try:
        return len(read_results(out / "results.json")["results"])
    except BitfoldError:
        return 0


def _log(
    paths: Sequence[str | Path] | MemoryLog,
    data: DataConfig,
    out: Path,
    tell: Progress,
    ranking: RankConfig | None = None,
) -> "PreparedLog":
    """The prepared log that every cell trains on."""
    from bitfold.data.folder import looks_prepared
    from bitfold.data.prepare import prepare_or_open
    from bitfold.data.prepared import PreparedLog

    if not isinstance(paths, MemoryLog) and len(paths) == 1 and looks_prepared(Path(paths[0])):
        return PreparedLog(paths[0])
    if ranking is not None:  # before the log is read
        check_rank(with_defaults(data), ranking)
    return prepare_or_open(paths, out / "log", data, progress=reading(tell))


def _page(
    draw: PageOf | None, out: Path, results: Sequence[Mapping[str, Any]], name: Path
) -> tuple[Path | None, str | None]:
    """Write the page of what is there; or why there is none.

    The results are written before, and no page is worth them: whatever fails is told.
    """
    if draw is None or all(row.get("auc") is None for row in results):
        return None, None
    try:
        return draw(out, name), None
    except Exception as error:  # of any kind: the trainings are done
        problem = getattr(error, "problem", None) or f"{type(error).__name__}: {error}"
        return None, f"{problem} ({error.got})" if isinstance(error, BitfoldError) else problem
