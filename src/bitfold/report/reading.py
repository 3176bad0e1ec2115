"""A comparison as the page needs it: what results.json and compare.json say, put in order."""

import json
import re
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from bitfold.comparison.board import Line, lines
from bitfold.comparison.config import FULL, FULL_BUDGET, CompareConfig, cells
from bitfold.comparison.records import read_options, read_results
from bitfold.config import from_json
from bitfold.errors import BitfoldError
from bitfold.report.figures import drawable, plain

Row = Mapping[str, Any]
T = TypeVar("T")
LONGEST_LABEL = 16  # letters of a method's name that fit beside its line


@dataclass(frozen=True)
class Series:
    """A method as it is drawn.

    Args:
        name: as it stands in the results.
        label: what stands beside its line: the name, or a letter that the key explains.
        place: which colour and shape it has; 0 is the full table's.
    """

    name: str
    label: str
    place: int

    @property
    def whole(self) -> bool:
        """Whether this is a full table."""
        return self.place == 0


@dataclass(frozen=True)
class Board:
    """What a page is made of.

    Args:
        rows: the figures of each finished cell.
        refused: the methods and budgets that cannot be built.
        more: what else results.json holds: differences, references, grid, unseen.
        said: the options of the comparison (compare.json); empty if they are not there.
        name: what the log is called.
        left_out: what results.json holds and cannot be drawn.
    """

    rows: tuple[Row, ...]
    refused: tuple[Row, ...] = ()
    more: Row = field(default_factory=dict)
    said: Row = field(default_factory=dict)
    name: str = "log"
    left_out: list[str] = field(default_factory=list)

    def attempt(self, what: str, make: Callable[..., T], *args: Any) -> T | None:
        """What `make` makes; None, and a note in `left_out`, where it fails."""
        try:
            return make(*args)
        except Exception as error:  # figures of any kind: none may cost the page
            text = f"{what}: {getattr(error, 'got', None) or error or type(error).__name__}"[:300]
            if text not in self.left_out:
                self.left_out.append(text)
            return None

    @cached_property
    def lines(self) -> list[Line]:
        """Means and spreads of each method and budget that has an AUC."""
        return [line for line in lines(self.rows) if "auc" in line.means]

    @cached_property
    def series(self) -> dict[str, Series]:
        """The methods by name, full tables first."""
        names = list(dict.fromkeys(line.method for line in self.lines))
        whole = [name for name in names if self._is_full(name)]
        others = [name for name in names if name not in whole]
        letters = any(len(name) > LONGEST_LABEL for name in names)
        out = {}
        for number, name in enumerate([*whole, *others]):
            place = 0 if name in whole else number - len(whole) + 1
            out[name] = Series(name, letter(number) if letters else name, place)
        return out

    def _is_full(self, name: str) -> bool:
        return any(line.method == name and line.budget == FULL_BUDGET for line in self.lines)

    @cached_property
    def budgets(self) -> list[str]:
        """The budgets apart from the full table's, the largest first."""
        sizes: dict[str, list[float]] = {}
        said = set((self.said.get("compare") or {}).get("budgets") or ())
        for line in self.lines:
            # A comparison may add lines of its own, to face a method that leaves bytes over; they
            # have one method, so they stand in the charts against bytes and in the tables only.
            asked = not said or line.budget in said or not line.budget.endswith(" B")
            if line.budget != FULL_BUDGET and asked:
                sizes.setdefault(line.budget, []).append(line.means["bytes"])
        return sorted(sizes, key=lambda budget: -max(sizes[budget]))

    @property
    def panels(self) -> list[str]:
        """The budgets that get a panel each; the full table's, if there is nothing else."""
        return self.budgets or [FULL_BUDGET]

    @cached_property
    def full(self) -> Line | None:
        """The full table's line: the best, if there are several."""
        whole = [line for line in self.lines if line.budget == FULL_BUDGET]
        return max(whole, key=lambda line: line.means["auc"], default=None)

    def at(self, budget: str) -> list[Line]:
        """The lines at a budget, the best first."""
        found = [line for line in self.lines if line.budget == budget]
        return sorted(found, key=lambda line: -line.means["auc"])

    def shown(self, budget: str) -> list[Line]:
        """The lines of a budget's panel: full tables, for comparison, then the others."""
        whole = [line for line in self.lines if line.budget == FULL_BUDGET]
        return whole if budget == FULL_BUDGET else [*whole, *self.at(budget)]

    def runs(self, line: Line) -> list[Row]:
        """The rows that a line adds up."""
        return [r for r in self.rows if (r["method"], r["budget"]) == (line.method, line.budget)]

    def mean(self, line: Line, value: Callable[[Row], Any]) -> float | None:
        """The mean of a figure over a line's runs; None if no run has it."""
        found = [value(row) for row in self.runs(line)]
        numbers = [number for number in found if isinstance(number, int | float)]
        return statistics.fmean(numbers) if numbers else None

    @cached_property
    def seeds(self) -> int:
        """The most seeds that a line has."""
        return max((line.seeds for line in self.lines), default=0)

    @cached_property
    def wanted(self) -> int | None:
        """How many runs there should be; None if compare.json does not say."""
        try:
            config = from_json(CompareConfig, self.said["compare"])
        except (KeyError, BitfoldError, TypeError):
            return None
        out = {(row["method"], row["budget"]) for row in self.refused}
        asked = sum((cell.variant.name, cell.budget) not in out for cell in cells(config, 0))
        return max(asked, len(self.rows))  # lines that the comparison added come on top

    @property
    def unfinished(self) -> bool:
        """Whether runs are still to come."""
        return self.wanted is not None and len(self.rows) < self.wanted

    def title(self, line: Line) -> str:
        """A line in a word or two, for panels."""
        label = self.series[line.method].label
        return label if line.budget == FULL_BUDGET else f"{label} {line.budget}"


def letter(number: int) -> str:
    """A, B, ..., Z, AA.

    Example:
        >>> letter(0), letter(26)
        ('A', 'AA')
    """
    text = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        text = chr(ord("A") + rest) + text
    return text


def is_ratio(budget: str) -> bool:
    """Whether a budget is a ratio to the full table, such as 100x."""
    return re.fullmatch(r"[\d._,]+\s*[xX]", budget.strip()) is not None


def read_board(out: Path) -> Board:
    """Read a comparison's folder.

    Raises:
        BitfoldError: there is no comparison, it is damaged, or no run of it has ended.
    """
    file = out / "results.json"
    if not file.is_file():
        raise BitfoldError(
            f"{out} holds no comparison",
            got="no results.json",
            expected="a folder that `bitfold compare` wrote",
            fix="check the path",
        )
    values = read_results(file)
    if not values["results"]:
        raise BitfoldError(
            f"{out} has no finished run yet",
            got="an empty comparison",
            fix="let it go on with `bitfold compare ... --resume`",
        )
    figures = drawable(values)
    config, said, left_out = out / "compare.json", {}, list(figures.left_out)
    if config.is_file():
        try:
            said = plain(read_options(config))
        except BitfoldError as error:
            left_out.append(f"the options of the comparison: {error.problem}")
    board = Board(
        figures.rows,
        figures.refused,
        figures.more,
        said,
        log_name(said, out),
        left_out,
    )
    if not board.lines:
        raise BitfoldError(
            f"{out} has nothing to show",
            got="no run with an AUC",
            expected="a log whose test part holds clicked and unclicked rows",
        )
    return board


def log_name(said: Row, out: Path) -> str:
    """What the log of a comparison is called: its file or folder.

    Example:
        >>> log_name({"paths": [{"path": "/data/clicks.csv"}, {"path": "demo-out/log"}]}, Path())
        'clicks.csv, demo-out/log'
    """
    places = [Path(str(path.get("path", ""))) for path in said.get("paths", [])]
    # Many a prepared log is called "log"; the folder above says which it is.
    names = ["/".join(place.parts[-2:]) if place.name == "log" else place.name for place in places]
    return ", ".join(name for name in names if name) or out.name


def text_of(value: object) -> str:
    """A setting for people.

    Example:
        >>> text_of([128, 64]), text_of(None), text_of({"blocks": "3"})
        ('128, 64', '-', 'blocks=3')
    """
    if value is None or value == [] or value == {} or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(text_of, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={text_of(item)}" for key, item in value.items())
    return value if isinstance(value, str) else json.dumps(value)


__all__ = ["FULL", "FULL_BUDGET", "Board", "Row", "Series", "is_ratio", "read_board", "text_of"]
