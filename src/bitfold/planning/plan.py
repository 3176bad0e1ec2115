"""Plans: everything that decides where an id's numbers lie, as data."""

import math
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import msgspec
import torch
from msgspec import Meta

from bitfold.address.program import Program
from bitfold.errors import BitfoldError
from bitfold.planning.budget import full_bytes
from bitfold.planning.field import Field
from bitfold.records import Count, Name, build, record
from bitfold.showing import Shown

PLAN_VERSION = 1

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def dtype_name(dtype: torch.dtype | str | None) -> str:
    """The name of a floating dtype; None means torch's default."""
    found = torch.get_default_dtype() if dtype is None else dtype
    name = str(found).removeprefix("torch.")
    if name not in DTYPES:
        raise BitfoldError(
            "an embedding holds floating numbers", got=name, expected=" or ".join(DTYPES)
        )
    return name


def dtype_size(name: str) -> int:
    """Bytes of one number."""
    return DTYPES[name].itemsize


@dataclass(frozen=True, repr=False)
class Plan(Shown):
    """How a method stores the vectors of some fields within a budget.

    In a prompt and a notebook it shows a row a field; `to_frame()` gives them.

    Args:
        method: the method's name, and `method_version` its version.
        options: the method's options, all of them.
        fields: what is embedded.
        embedding_dim: `D`.
        budget: the bytes allowed, or None.
        dtype: the name of the numbers' type.
        program: the address, for a method of the corridor.
        fusion: the fusion's name, for a method of the corridor.
        by_kind: serving bytes by kind.
    """

    method: str
    method_version: int
    options: dict[str, Any]
    fields: tuple[Field, ...]
    embedding_dim: int
    budget: int | None
    dtype: str
    program: Program
    fusion: str
    by_kind: dict[str, int]

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise BitfoldError("unknown dtype", got=self.dtype, expected=" or ".join(DTYPES))
        if self.embedding_dim < 1 or self.embedding_dim % self.program.chunks:
            raise BitfoldError(
                "the plan's width does not fit its chunks",
                got=f"width {self.embedding_dim}, {self.program.chunks} chunks",
                expected="a positive multiple of the chunks",
            )
        if len(self.fields) != len(self.program.fields):
            raise BitfoldError(
                "the plan's address is of other fields",
                got=f"{len(self.program.fields)} fields in the address",
                expected=f"{len(self.fields)}, as in the plan",
            )

    @property
    def bytes(self) -> int:
        """Serving bytes, of every kind."""
        return sum(self.by_kind.values())

    @property
    def ratio(self) -> float | None:
        """Bytes of the full float32 table over the plan's; None if a field's size is unknown."""
        if any(field.size is None for field in self.fields):
            return None
        return full_bytes(self.fields, self.embedding_dim) / self.bytes

    def records(self) -> list[dict[str, Any]]:
        """One row a field: those of `rows`."""
        return self.rows()

    def _title(self) -> str:
        ratio = "" if self.ratio is None else f" (full tables: {self.ratio:,.1f}x)"
        return f"Plan: {self.method}, width {self.embedding_dim}, {self.bytes:,} bytes{ratio}"

    def rows(self) -> list[dict[str, Any]]:
        """One row a field, for tables: name, ids, rows, lookups, bytes, radices, and two more.

        `ids_per_row` is how many ids read a row, on average over the field's rows, ids of other
        fields that share them included; None if a size is unknown. `vectors` is how many vectors
        the digits can tell apart at most. Rows that fields share count in each of them.
        """
        width = self.embedding_dim // self.program.chunks
        reads = self._reads()
        out = []
        for field, lookups in zip(self.fields, self.program.fields, strict=True):
            slices = {(lookup.base, lookup.span) for lookup in lookups}
            rows = sum(span for _, span in slices)
            readers = [reads[each] for each in slices]
            digits = {(each.source, each.divisor, each.radix) for each in lookups}
            out.append(
                {
                    "field": field.name,
                    "ids": field.size,
                    "hashed": field.hashed,
                    "rows": rows,
                    "lookups": len(lookups),
                    "radices": [lookup.radix for lookup in lookups],
                    "bytes": rows * width * dtype_size(self.dtype),
                    "ids_per_row": None if None in readers else sum(filter(None, readers)) / rows,
                    "vectors": math.prod(radix for _, _, radix in digits),
                }
            )
        return out

    def _reads(self) -> dict[tuple[int, int], int | None]:
        """How many ids read each slice of rows, an id once for each of its lookups there."""
        reads: dict[tuple[int, int], int | None] = {}
        for field, lookups in zip(self.fields, self.program.fields, strict=True):
            for lookup in lookups:
                place = (lookup.base, lookup.span)
                before = reads.get(place, 0)
                known = before is not None and field.size is not None
                reads[place] = (before or 0) + (field.size or 0) if known else None
        return reads

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "plan_version": PLAN_VERSION,
            "method": self.method,
            "method_version": self.method_version,
            "options": dict(self.options),
            "fields": [asdict(field) for field in self.fields],
            "embedding_dim": self.embedding_dim,
            "budget": self.budget,
            "dtype": self.dtype,
            "program": self.program.to_json(),
            "fusion": self.fusion,
            "by_kind": dict(self.by_kind),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any], where: object = "this plan") -> "Plan":
        """The plan that `to_json` wrote; `where` is what an error calls it.

        Raises:
            BitfoldError: if it was written by a newer bitfold, lacks a part, or has one that
                cannot be.
        """
        version = values.get("plan_version") if isinstance(values, dict) else None
        if isinstance(version, bool) or not isinstance(version, int) or version > PLAN_VERSION:
            raise BitfoldError(
                "this plan has a format that is not known here",
                got=f"plan_version {version!r}"[:80],
                expected=f"{PLAN_VERSION} or older",
                fix="install the bitfold that wrote it, or a newer one",
            )
        fix = "plan it again"
        found = record(values, _Record, where, fix=fix)
        return cls(
            method=found.method,
            method_version=found.method_version,
            options=found.options,
            fields=tuple(build(each, Field, where, fix=fix) for each in found.fields),
            embedding_dim=found.embedding_dim,
            budget=found.budget,
            dtype=found.dtype,
            program=Program.from_json(found.program, where),
            fusion=found.fusion,
            by_kind=found.by_kind,
        )


class _Record(msgspec.Struct, forbid_unknown_fields=True):
    """What a plan's JSON holds; fields and the program are read one by one."""

    plan_version: int
    method: Name
    method_version: Count
    options: dict[str, Any]
    fields: list[dict[str, Any]]
    embedding_dim: Annotated[int, Meta(ge=1, le=2**31)]
    budget: Count | None
    dtype: Name
    program: dict[str, Any]
    fusion: Name
    by_kind: dict[str, Count]
