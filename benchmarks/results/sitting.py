"""One sitting: train what is missing, keep every figure as it comes, stop when the time is up."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitfold.comparison.compare import CELLS, compare
from bitfold.comparison.config import Cell
from bitfold.comparison.floors import FILE as FLOORS_FILE
from bitfold.comparison.floors import LOGISTIC
from bitfold.comparison.folder import OPTIONS_FILE, said_options
from bitfold.files import read_json, write_json

from .boards import DISTILL, FINAL, GRID, Board
from .locks import claimed
from .record import Record, clicks_of, known_cells, words_of
from .sources import SetMissing, log_of
from .stages import Call, Key, best_forms, calls, gaps, guessed, key_of
from .taught import teach

if TYPE_CHECKING:
    from bitfold.data.prepared import PreparedLog


class TimeIsUp(Exception):
    """The sitting's minutes are over; everything finished is kept."""


@dataclass
class Sitting:
    """What a sitting knows.

    Args:
        boards: all boards by name.
        data: the folder of public sets.
        out: where logs, cells and pages go.
        kept: where the small records go, `docs/results`.
        minutes: how long to go on; None: to the end.
        say: where lines for people go.
        left_out: the boards whose data set is missing, filled in as they are met.
    """

    boards: dict[str, Board]
    data: Path
    out: Path
    kept: Path
    minutes: float | None = None
    say: Callable[[str], None] = print
    left_out: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        begun = time.monotonic()
        self._end = None if self.minutes is None else begun + 60 * self.minutes

    def record(self, board: Board, stage: str) -> Record:
        """The figures of a stage so far."""
        return Record.read(self.kept, board.name, stage)

    def best(self, board: Board) -> dict[str, list[str]] | None:
        """The forms that the grid chose; None while it has gaps."""
        grid = Record.read(self.kept, board.best_from or board.name, GRID)
        return best_forms(board, grid.cells, grid.refused)

    def missing(self, board: Board, stage: str) -> list[Key]:
        """The cells without figures; guessed forms stand for those not yet chosen."""
        best = (self.best(board) or guessed(board)) if stage == FINAL else {}
        records = [self.record(board, each) for each in board.stages]
        wanted = [cell for call in calls(board, stage, best) for cell in call.cells(board)]
        refused = [row for record in records for row in record.refused]
        return gaps(wanted, list(known_cells(records).values()), refused)

    def run(self, chosen: Sequence[Board], stages: Sequence[str]) -> bool:
        """Go through boards and stages; False when the time was up first.

        A board that another process is at work on is left to it.
        """
        try:
            for board in chosen:
                with claimed(self.out / "locks" / board.name) as mine:
                    if not mine:
                        self.say(f"{board.name}: another process is at work on it")
                        continue
                    for stage in stages:
                        if stage in board.stages:
                            self._stage(board, stage)
        except TimeIsUp:
            return False
        return True

    def check_time(self) -> None:
        """Raise when the minutes are over."""
        if self._end is not None and time.monotonic() >= self._end:
            raise TimeIsUp

    def _stage(self, board: Board, stage: str) -> None:
        best = self.best(board) if stage == FINAL else {}
        if best is None:
            self.say(
                f"{board.name} {stage}: waits for the grid of {board.best_from or board.name}, "
                "which has gaps"
            )
            return
        planned = calls(board, stage, best)
        record = self.record(board, stage)
        if record.cells and not self._wanting(board, record, planned):
            return
        self.check_time()
        try:
            log = log_of(board, self.data, self.out)
        except SetMissing as error:
            self.left_out.append(board.name)
            self.say(f"LEFT OUT: {board.name} {stage}: {error}")
            return
        words = words_of(board, log)
        siblings = [self.record(board, each) for each in board.stages]
        for each in siblings:
            each.check(words)
        record.words = words
        for call in planned:
            if stage == DISTILL:
                teach(self, board, log, record, call.cells(board))
                continue
            self._call(board, call, log, record, siblings)

    def _wanting(self, board: Board, record: Record, planned: Sequence[Call]) -> bool:
        wanted = [cell for call in planned for cell in call.cells(board)]
        return bool(gaps(wanted, record.cells, record.refused))

    def _call(
        self,
        board: Board,
        call: Call,
        log: "PreparedLog",
        record: Record,
        siblings: Sequence[Record],
    ) -> None:
        """One comparison in a folder of its own, with all figures that are known put in first."""
        folder = self.out / "boards" / board.name / call.name
        said = said_options([log.path], log.schema.config, board.train, call.words)
        if not (folder / OPTIONS_FILE).is_file():
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / OPTIONS_FILE, said)
        (folder / CELLS).mkdir(exist_ok=True)
        wanted = call.cells(board)
        known = known_cells([*siblings, record])
        for cell in wanted:
            path = folder / CELLS / f"{cell.slug}.json"
            if key_of(cell) in known and not path.is_file():
                write_json(path, known[key_of(cell)])
        references = next((each.references for each in (*siblings, record) if each.references), {})
        floors = {name: value for name, value in references.items() if name != LOGISTIC.name}
        if floors and not (folder / FLOORS_FILE).is_file():
            write_json(folder / FLOORS_FILE, floors)
        watch = _Watch(self, record, folder, wanted, clicks_of(log))
        try:
            compare(
                [log.path], log.schema.config, board.train, call.words, folder,
                resume=True, progress=watch,
            )  # fmt: skip
        finally:
            watch.keep()


@dataclass
class _Watch:
    """Listens to a comparison: after each cell its figures are kept, and the time is looked at."""

    sitting: Sitting
    record: Record
    folder: Path
    wanted: Sequence[Cell]
    clicks: int
    begun: float | None = None
    at_work: str = ""

    def __call__(self, stage: str, done: int, total: int | None = None, **facts: object) -> None:
        if stage != "cells":
            return
        self.keep()
        if "now" not in facts:
            return
        self.sitting.check_time()
        self.at_work = str(facts["now"])
        self.begun = time.process_time()
        self.sitting.say(f"{self.folder.parent.name} {done}/{total}: {self.at_work}")

    def keep(self) -> None:
        """Put the figures of finished cells into the record."""
        found: list[dict[str, Any]] = []
        for cell in self.wanted:
            path = self.folder / CELLS / f"{cell.slug}.json"
            if not path.is_file():
                continue
            row = read_json(path)
            if cell.title == self.at_work and self.begun is not None and "took" not in row:
                # With reading and evaluation: what the estimate of the time left needs. Of the
                # process, not of the clock: other work on the machine does not count.
                row["took"] = round(time.process_time() - self.begun, 1)
            found.append(row | {"clicks": self.clicks})
        self.begun = None
        self.record.add(found)
        results = self.folder / "results.json"
        if results.is_file():
            board = read_json(results)
            keys = {(row["method"], row["budget"]) for row in self.record.refused}
            self.record.refused += [
                row for row in board["refused"] if (row["method"], row["budget"]) not in keys
            ]
            self.record.references |= board["references"]
        if self.record.cells or self.record.refused:
            self.record.write()


def estimate(sitting: Sitting, chosen: Sequence[Board], stages: Sequence[str]) -> list[str]:
    """A line a board and stage: what is missing, and how long it will take by what is finished."""
    lines, total, unknown = [], 0.0, 0
    for board in chosen:
        reference = sitting.boards.get(board.reference or "", board)  # the same rows
        for like in (board, reference):
            done = [row for stage in like.stages for row in sitting.record(like, stage).cells]
            if done:
                break
        took = [float(row["took" if "took" in row else "seconds"]) for row in done]
        for stage in stages:
            missing = len(sitting.missing(board, stage)) if stage in board.stages else 0
            if not missing:
                continue
            if took:
                seconds = missing * sum(took) / len(took)
                total += seconds
                lines.append(f"{board.name} {stage}: {missing} cells, about {seconds / 60:.0f} min")
            else:
                unknown += missing
                lines.append(f"{board.name} {stage}: {missing} cells; none finished to go by")
    more = f", and {unknown} cells of boards that nothing is known of" if unknown else ""
    left = f"time left: about {total / 3600:.1f} h of one core{more}"
    lines.append(left if lines else "nothing is missing")
    return lines
