"""What folding did: bytes before and after, a row a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from bitfold.folded.finding import FoundTable
from bitfold.folded.joint import Joint
from bitfold.planning.budget import format_bytes
from bitfold.planning.plan import Plan
from bitfold.showing import Shown


@dataclass(frozen=True, repr=False)
class FoldReport(Shown):
    """What `bitfold.fold` did; in a prompt and a notebook it shows a row a table.

    Args:
        model: the folded model.
        budget: the bytes that were allowed to tables that are folded or stay whole.
        plans: of the joint tables, in the order in which they stand in the model.
        tables: a row a table: `table`, `rows`, `width`, `numbers` (what they are kept in), `kept`
            (rows that its ids read, those shared with other tables too), `before` and `after` in
            bytes (shared ones dealt to those that share them), `how` (a method, or why not), and
            `error`, the relative error of rows that were fitted to those before.
        notes: what else was changed.
    """

    model: nn.Module
    budget: int
    plans: tuple[Plan, ...]
    tables: tuple[dict[str, Any], ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        model: nn.Module,
        tables: Sequence[FoundTable],
        groups: Sequence[Any],
        joints: Sequence[Joint | None],
        budget: int,
        notes: Sequence[str],
    ) -> "FoldReport":
        """The report of what was exchanged."""
        rows: dict[int, dict[str, Any]] = {}
        plans = []
        for group, joint in zip(groups, joints, strict=True):
            if joint is None:
                continue
            plan = joint.embedder.plan
            plans.append(plan)
            own = _rows(plan)
            for row, fitted in zip(own, joint.fitted, strict=False):
                row["error"] = fitted.error
            rows |= dict(zip(group.tables, own, strict=True))
        shown = []
        for n, table in enumerate(tables):
            before = table.rows * table.width * table.weight.element_size()
            row = {"table": table.name, "rows": table.rows, "width": table.width}
            dtype = str(table.weight.dtype).removeprefix("torch.")
            left = {"numbers": dtype, "kept": table.rows, "after": before, "how": table.left}
            shown.append(row | {"before": before} | rows.get(n, left) | {"counts": table.counts})
        return cls(model, budget, tuple(plans), tuple(shown), tuple(notes))

    @property
    def before(self) -> int:
        """Bytes before of the tables that the budget is for."""
        return sum(row["before"] for row in self.tables if row["counts"])

    @property
    def bytes(self) -> int:
        """Bytes of them now, as they are served."""
        return sum(row["after"] for row in self.tables if row["counts"])

    @property
    def ratio(self) -> float:
        """Bytes before over bytes now."""
        return self.before / max(self.bytes, 1)

    def records(self) -> list[dict[str, Any]]:
        """One row a table."""
        return [{k: v for k, v in row.items() if k != "counts"} for row in self.tables]

    def _title(self) -> str:
        methods = {group.method for plan in self.plans for group in plan.groups}
        folded = sum(row["how"] in methods for row in self.tables)
        text = (
            f"Folded {folded} of {len(self.tables)} tables: {format_bytes(self.before)} -> "
            f"{format_bytes(self.bytes)} ({self.ratio:,.1f}x), budget {format_bytes(self.budget)}"
        )
        return "; ".join([text, *self.notes])

    def __rich__(self) -> Any:
        """The same as a Rich table."""
        from rich.table import Table

        records = self.records()
        shown = Table(title=self._title())
        for name in records[0] if records else ():
            shown.add_column(name, justify="left" if name in ("table", "how") else "right")
        for row in records:
            shown.add_row(*(f"{v:,}" if isinstance(v, int) else str(v) for v in row.values()))
        return shown


def _rows(plan: Plan) -> list[dict[str, Any]]:
    """What a plan keeps of each of its tables; the bytes add up to the plan's."""
    rows = plan.rows()
    sizes = [row["bytes"] for row in rows]
    total, claimed = plan.bytes, sum(sizes) or 1
    ends = [total * sum(sizes[: n + 1]) // claimed for n in range(len(sizes))]
    return [
        {
            "numbers": row["numbers"],
            "kept": row["rows"],
            "after": end - start,
            "how": row["method"],
        }
        for row, start, end in zip(rows, [0, *ends], ends, strict=False)
    ]
