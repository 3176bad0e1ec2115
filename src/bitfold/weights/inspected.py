"""What `bitfold.inspect` returns for a checkpoint: its figures, as a mapping and as tables."""

from typing import Any

from bitfold.planning.budget import format_bytes
from bitfold.showing import Figures, html_table, plain_table

_COLUMNS = ("name", "rows", "width", "dtype", "bytes", "share", "zero_rows", "nonfinite_rows")
_USED = ("field", "reads", "rows_read", "never", "hot", "once")


class CheckpointInspection(Figures):
    """The figures of a checkpoint, by name: what `bitfold inspect CHECKPOINT --json` prints.

    `to_frame()` has a row a table. In a prompt and a notebook the ratios follow.
    """

    def records(self) -> list[dict[str, Any]]:
        """One row a table: its size, its share of all bytes, and how a log reads it."""
        return [
            {name: table.get(name) for name in _COLUMNS}
            | {name: table.get("usage", {}).get(name) for name in _USED}
            for table in self.figures["tables"]
        ]

    def costs(self) -> list[dict[str, Any]]:
        """One row a ratio: its budget, and what `auto` would keep."""
        return [
            {
                "ratio": f"{each['ratio']}x",
                "budget": each["budget"],
                "bytes": each["bytes"],
                "bits": each.get("bits"),
                "widths": each.get("widths"),
                "own_rows": each.get("own"),
                "least": each.get("least"),
            }
            for each in self.figures["costs"]
        ]

    def __repr__(self) -> str:
        return f"{super().__repr__()}\n{plain_table(self.costs())}\n{self._advice()}"

    def _repr_html_(self) -> str:
        costs = html_table(self.costs(), caption="What a ratio keeps")
        return super()._repr_html_() + html_table([{"suggested": self._advice()}], "") + costs

    def _title(self) -> str:
        size, share = self.figures["table_bytes"], 1 - self.figures["others"]["share"]
        return f"Tables of {self.figures['checkpoint']}: {format_bytes(size)}, {share:.1%} of all"

    def _advice(self) -> str:
        found = self.figures["suggestion"]
        return "no budget: the tables are too small" if found is None else str(found["code"])
