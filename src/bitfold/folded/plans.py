"""Plans for the tables of a model: which are joint, what each group gets, what holds them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bitfold.embedder.draws import part_seed
from bitfold.embedder.group import GroupEmbedder
from bitfold.embedding.building import built
from bitfold.errors import BitfoldError, BudgetTooSmall
from bitfold.fitting import fit as fit_tables
from bitfold.folded.finding import DRAWN, TO, FoundTable, check_patterns, matches
from bitfold.folded.joint import Joint
from bitfold.method.registry import method_kind
from bitfold.method.shares import shared_out
from bitfold.planning.budget import parse_budget
from bitfold.planning.field import Field
from bitfold.planning.plan import Plan
from bitfold.planning.statistics import Counted

SAMPLE = 4096
"""Rows that are looked at for the deviation of a table's numbers."""
LEAST_STD = 1e-4
"""The deviation of fresh rows in place of a table of zeros."""

Overrides = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Group:
    """Tables that are joint: of one width, type, device, kind of gradient, and method."""

    tables: tuple[int, ...]
    said: dict[str, Any]
    budget: int | str | None


def total_of(budget: int | str, tables: Sequence[FoundTable]) -> int:
    """The budget in bytes, of a ratio to the bytes that there are."""
    if not str(budget).strip().lower().endswith("x"):
        return parse_budget(budget, [], 1)
    ratio = 4 * 10**15 / parse_budget(budget, [Field("all", 10**15)], 1)  # checks what was said
    return int(sum(table.bytes for table in tables) / ratio)


def grouped(
    tables: Sequence[FoundTable], work: Sequence[int], overrides: Overrides, said: dict[str, Any]
) -> list[Group]:
    """Which tables are joint."""
    check_patterns("overrides", list(overrides), tables)
    found: dict[Any, list[int]] = {}
    for n in work:
        table = tables[n]
        pattern = next((p for p in overrides if any(matches(m, [p]) for m in table.modules)), None)
        weight, sparse = table.weight, table.first.sparse
        key = pattern, table.width, weight.dtype, weight.device, sparse, weight.requires_grad
        found.setdefault(key, []).append(n)
    made = []
    for (pattern, *_), numbers in found.items():
        own = dict(overrides[pattern]) if pattern is not None else {}
        budget = own.pop("budget", None)
        # Another method has other options.
        base = {} if "method" in own else said
        made.append(Group(tuple(numbers), {**base, **own}, budget))
    return made


def counted(table: FoundTable, counts: Any) -> Any:
    """How often each id of a table occurs, int64 `[V]`."""
    found = np.asarray(counts.detach().cpu() if isinstance(counts, Tensor) else counts)
    if found.shape != (table.rows,) or found.dtype.kind not in "iu" or (found < 0).any():
        raise BitfoldError(
            f"counts of table {table.name!r} cannot be",
            got=f"{found.dtype} {list(found.shape)}",
            expected=f"a whole number, 0 or more, for each of {table.rows} rows",
        )
    return found.astype(np.int64)


def planned(
    tables: Sequence[FoundTable],
    groups: Sequence[Group],
    stats: Mapping[int, Any],
    total: int,
    seed: int | None,
) -> list[Plan]:
    """A plan for each group, all of them and the tables that stay whole within the budget."""
    whole = sum(table.bytes for table in tables if table.left and table.counts)
    parts = [_part(tables, group, stats, seed) for group in groups]
    plans: dict[int, Plan] = {}
    for number, group in enumerate(groups):
        if group.budget is not None:
            own = total_of(group.budget, [tables[n] for n in group.tables])
            (plans[number],) = shared_out([parts[number]], own)
    fixed = whole + sum(plan.bytes for plan in plans.values())
    others = [number for number in range(len(groups)) if number not in plans]
    try:
        rest = max(total - fixed, 1)
        found = shared_out([parts[number] for number in others], rest) if others else []
    except BudgetTooSmall as error:
        raise _too_small(total, fixed, error.minimum) from None
    if fixed + bool(others) > total:
        raise _too_small(total, fixed, sum(plan.bytes for plan in found))
    plans |= dict(zip(others, found, strict=True))
    return [plans[number] for number in range(len(groups))]


def _too_small(total: int, fixed: int, least: int) -> BudgetTooSmall:
    return BudgetTooSmall(
        "these tables cannot be folded so far",
        got=f"{total} bytes, {fixed} of them for tables that stay whole or have a budget",
        minimum=fixed + least,
    )


def _part(
    tables: Sequence[FoundTable], group: Group, stats: Mapping[int, Any], seed: int | None
) -> tuple[list[Field], int, dict[str, Any]]:
    """What a plan of the group is asked for."""
    first = tables[group.tables[0]]
    fields = [Field(tables[n].name, tables[n].rows) for n in group.tables]
    counted = _statistics(tables, group, stats)
    own = {"seed": seed or 0, "dtype": first.weight.dtype, "stats": counted}
    return fields, first.width, {"method": "auto"} | group.said | own


def _statistics(
    tables: Sequence[FoundTable], group: Group, stats: Mapping[int, Any]
) -> Counted | None:
    """Counts of a group's tables, if all of them have some."""
    if not all(n in stats for n in group.tables):
        return None
    return Counted({tables[n].name: (np.arange(tables[n].rows), stats[n]) for n in group.tables})


def _is_whole(plan: Plan) -> bool:
    """Whether every id has the row of floats that it had."""
    return all(
        method_kind(group.method).traits.uncompressed and not any(p.packed for p in group.pools)
        for group in plan.groups
    )


def joint_of(
    tables: Sequence[FoundTable],
    group: Group,
    number: int,
    plan: Plan,
    stats: Mapping[int, Any],
    seed: int | None,
    fit: bool,
) -> Joint | None:
    """The joint tables of a plan; None where it keeps them as they are."""
    if _is_whole(plan):
        return None
    first = tables[group.tables[0]]
    device = getattr(first.first, TO, first.weight.device)
    embedder = built(plan, part_seed(seed, number), device, first.first.sparse)
    counted = _statistics(tables, group, stats)
    if counted is not None:
        embedder.prepare(counted)
    deviations = [_deviation(tables[n]) for n in group.tables]
    std = max(float(np.sqrt(np.mean(np.square(deviations)))), LEAST_STD)
    for part in embedder.modules():
        if isinstance(part, GroupEmbedder):
            part.std = std
    embedder.reset_parameters()
    joint = Joint(embedder)
    if fit:
        joint.fitted = fit_tables(
            embedder,
            [tables[n].weight.detach() for n in group.tables],
            [stats.get(n) for n in group.tables],
            padding=[tables[n].first.padding_idx for n in group.tables],
            seed=seed or 0,
        )
    return joint.requires_grad_(first.weight.requires_grad)


@torch.no_grad()
def _deviation(table: FoundTable) -> float:
    """The deviation of a table's numbers from zero, of a sample of its rows."""
    known = getattr(table.first, DRAWN, None)
    if known is not None:
        return float(known)
    if table.weight.is_meta:
        return 1.0  # as `nn.Embedding` draws
    every = max(table.rows // SAMPLE, 1)
    return float(table.weight[::every].float().square().mean().sqrt())
