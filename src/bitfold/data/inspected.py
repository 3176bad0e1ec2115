"""What `bitfold.inspect` returns: the figures of a log, as a mapping and as a table."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bitfold.showing import Shown

_COLUMNS = ("name", "kind", "distinct", "missing", "full_bytes", "share", "head_share", "once")


@dataclass(frozen=True, repr=False)
class Inspection(Shown, Mapping[str, Any]):
    """The figures of a log, by name: what `bitfold inspect --json` prints.

    `to_frame()` has a row a field.

    Args:
        figures: plain JSON values.
    """

    figures: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.figures[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.figures)

    def __len__(self) -> int:
        return len(self.figures)

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
