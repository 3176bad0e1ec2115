"""What `bitfold.inspect` returns: the figures of a log, as a mapping and as a table."""

from typing import Any

from bitfold.showing import Figures

_COLUMNS = ("name", "kind", "distinct", "missing", "full_bytes", "share", "head_share", "once")


class Inspection(Figures):
    """The figures of a log, by name: what `bitfold inspect --json` prints.

    `to_frame()` has a row a field.
    """

    def records(self) -> list[dict[str, Any]]:
        """One row a field: its ids, bytes, skew, missing and unseen values."""
        rows = []
        for field in self.figures["fields"]:
            row = {name: field.get(name) for name in _COLUMNS}
            row |= {f"unseen_{part}": share for part, share in field.get("unseen", {}).items()}
            rows.append(row)
        return rows

    def _title(self) -> str:
        rows = ", ".join(f"{part} {count:,}" for part, count in self.figures["rows"].items())
        return f"Inspection of {self.figures['log']}: {rows}"
