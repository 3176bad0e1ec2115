"""A plan's JSON, read as a checked record; version 1 is a plan of one group."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from bitfold.address.program import Program
from bitfold.errors import BitfoldError
from bitfold.planning.field import Field
from bitfold.planning.spec import Group, PoolSpec, StoredSpec
from bitfold.records import Count, Name, build, record

VERSION = 2
_FIX = "plan it again"
_Width = Annotated[int, Meta(ge=1, le=2**31)]
_Bits = Annotated[int, Meta(ge=1, le=64)]
_Size = Annotated[int, Meta(ge=0, le=2**63 - 1)]  # of rows that an int64 can number, and bytes


class _First(msgspec.Struct, forbid_unknown_fields=True):
    """What version 1 holds."""

    plan_version: int
    method: Name
    method_version: Count
    options: dict[str, Any]
    fields: list[dict[str, Any]]
    embedding_dim: _Width
    budget: _Size | None
    dtype: Name
    program: dict[str, Any]
    fusion: Name
    by_kind: dict[str, _Size]


class _Pool(msgspec.Struct, forbid_unknown_fields=True):
    name: Name
    rows: _Size
    width: _Width
    numbers: Name
    step: Count
    slices: list[_Size]
    scale: Name
    kept: Annotated[int, Meta(ge=1, le=2**62)] | None = None


class _Stored(msgspec.Struct, forbid_unknown_fields=True):
    name: Name
    length: _Size
    bits: _Bits
    kind: Name


class _Group(msgspec.Struct, forbid_unknown_fields=True):
    fields: list[Count]
    method: Name
    method_version: Count
    options: dict[str, Any]
    program: dict[str, Any] | None
    pools: list[_Pool]
    stored: list[_Stored]
    fusion: Name
    width: _Width
    dtype: Name
    own: dict[str, _Size]


class _Plan(msgspec.Struct, forbid_unknown_fields=True):
    plan_version: int
    fields: list[dict[str, Any]]
    embedding_dim: _Width
    budget: _Size | None
    method: Name
    options: dict[str, Any]
    groups: list[_Group]
    phase: str = ""
    why: list[str] = []
    sets: Annotated[int, Meta(ge=1, le=2**20)] = 1


def read_plan(values: dict[str, Any], where: object) -> dict[str, Any]:
    """A plan's arguments from its JSON values; `where` is what an error calls them.

    Raises:
        BitfoldError: a newer version, a part that is missing or cannot be.
    """
    version = values.get("plan_version") if isinstance(values, dict) else None
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= VERSION:
        raise BitfoldError(
            "this plan has a format that is not known here",
            got=f"plan_version {version!r}"[:80],
            expected=f"{VERSION} or older",
            fix="install the bitfold that wrote it, or a newer one",
        )
    if version == 1:
        return _first(record(values, _First, where, fix=_FIX), where)
    found = record(values, _Plan, where, fix=_FIX)
    return {
        "fields": _fields(found.fields, where),
        "embedding_dim": found.embedding_dim,
        "budget": found.budget,
        "method": found.method,
        "options": found.options,
        "groups": tuple(_group(each, where) for each in found.groups),
        "phase": found.phase,
        "why": tuple(found.why),
        "sets": found.sets,
    }


def _fields(found: list[dict[str, Any]], where: object) -> tuple[Field, ...]:
    return tuple(build(each, Field, where, fix=_FIX) for each in found)


def _group(found: _Group, where: object) -> Group:
    pools = (
        PoolSpec(each.name, each.rows, each.width, each.numbers, each.step, tuple(each.slices),
                 each.scale, each.kept)
        for each in found.pools
    )  # fmt: skip
    stored = (StoredSpec(each.name, each.length, each.bits, each.kind) for each in found.stored)
    return Group(
        fields=tuple(found.fields),
        method=found.method,
        version=found.method_version,
        options=found.options,
        program=None if found.program is None else Program.from_json(found.program, where),
        pools=tuple(pools),
        stored=tuple(stored),
        fusion=found.fusion,
        width=found.width,
        dtype=found.dtype,
        own=found.own,
    )


def _first(found: _First, where: object) -> dict[str, Any]:
    """Version 1: one method and one float pool for all fields."""
    program = Program.from_json(found.program, where)
    width = found.embedding_dim // program.chunks
    group = Group(
        fields=tuple(range(len(found.fields))),
        method=found.method,
        version=found.method_version,
        options=found.options,
        program=program,
        pools=(PoolSpec("pool", program.rows, max(width, 1), found.dtype),),
        fusion=found.fusion,
        width=found.embedding_dim,
        dtype=found.dtype,
    )
    return {
        "fields": _fields(found.fields, where),
        "embedding_dim": found.embedding_dim,
        "budget": found.budget,
        "method": found.method,
        "options": found.options,
        "groups": (group,),
    }
