"""Folding: the tables of somebody's model, within one budget, in place.

    find (`finding.py`) -> plan under one budget -> build the joint tables -> exchange -> report

Nothing of the model is changed before all that can be refused is decided.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from bitfold.errors import BitfoldError
from bitfold.folded.beside import set_beside
from bitfold.folded.faces import folded_from
from bitfold.folded.finding import (
    FoundTable,
    Patterns,
    by_table,
    check_patterns,
    check_words,
    find_tables,
    listed,
    matches,
)
from bitfold.folded.inputs import show_inputs
from bitfold.folded.joint import Joint
from bitfold.folded.plans import Group, Overrides, counted, grouped, joint_of, planned, total_of
from bitfold.folded.references import (
    check_optimizers,
    exchange_in_optimizers,
    optimizers_of,
    take_out_of_lists,
)
from bitfold.folded.report import FoldReport

MIN_ROWS = 100
"""Tables of fewer rows are left whole: there is little to win."""
Counts = Mapping[str, Any]


def fold(
    model: nn.Module,
    budget: int | str,
    *,
    method: str | None = None,
    include: Patterns = None,
    exclude: Patterns = None,
    min_rows: int = MIN_ROWS,
    overrides: Overrides | None = None,
    counts: Counts | None = None,
    fit: bool = False,
    seed: int | None = None,
    inplace: bool = True,
    **options: Any,
) -> FoldReport:
    """Fold the tables of a PyTorch model into a byte budget.

    Every `nn.Embedding` and `nn.EmbeddingBag` in the model's tree, those of TorchRec's collections
    too, is planned under one budget and exchanged in place: whoever holds the module still does,
    with its hooks and flags. The model trains, saves, loads, compiles and serves as before.

    Tables of fewer than `min_rows` rows stay whole and count in the budget. A weight that is also
    another parameter (a tied output layer), frozen tables (but for `fit`) and subclasses are left
    alone and do not count. The report says which and why. Fresh rows have the deviation of those
    that they replace.

    Optimizers that hold a folded weight get what took its place, without its old state. Lists of
    parameters that modules keep (penalties) lose it; the report says so.

    Args:
        model: any module; a table itself too.
        budget: bytes of all its tables, `"64MiB"`, or a ratio to their bytes now, `"10x"`.
        method: one of `bitfold.methods()`; `auto` if None.
        include: patterns (`"tables.*"`) of the tables that may be folded; all if None.
        exclude: patterns of tables that stay, and do not count in the budget.
        min_rows: tables of fewer rows are left whole.
        overrides: by pattern, `method`, `budget` or other options for some of the tables.
        counts: by table, how often each id occurs, `[V]`.
        fit: start from the rows that the tables have, those of a trained model: the new numbers are
            those that come nearest to them, frequent ids first where there are counts. Otherwise
            fresh ones are drawn.
        seed: what hashes are salted and fresh weights drawn from; None as for `Embedding`.
        inplace: False folds a copy, whose tables are never copied.
        options: the method's own.

    Returns:
        What was done, with the folded model as `.model`.

    Raises:
        BudgetTooSmall: nothing fits; `.minimum` says the least bytes.
        BitfoldError: no table can be folded, or one needs a row for each id (`max_norm`,
            `scale_grad_by_freq`); it names table and keyword.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Embedding(50_000, 16), nn.Flatten(), nn.Linear(16, 1))
        >>> report = fold(model, "50x", seed=0)
        >>> model(torch.tensor([[7], [49_999]])).shape, report.bytes <= 64_000
        (torch.Size([2, 1]), True)
    """
    tables = _chosen(find_tables(model), listed(include), listed(exclude), min_rows, fit)
    named = by_table(counts or {}, tables)
    work = [n for n, table in enumerate(tables) if not table.left]
    if not work:
        raise BitfoldError(
            "there is no table to fold in this model",
            got="; ".join(f"{each.name}: {each.left}" for each in tables) or "no nn.Embedding",
            expected=f"nn.Embedding or nn.EmbeddingBag of {min_rows} rows or more",
        )
    for n in work:
        check_words(tables[n])
    total = total_of(budget, [table for table in tables if table.counts])
    said = {"method": method or "auto", **options}
    groups = grouped(tables, work, dict(overrides or {}), said)
    stats = {n: counted(tables[n], found) for n, found in named.items()}
    plans = planned(tables, groups, stats, total, seed)
    joints = [
        joint_of(tables, group, number, plan, stats, seed, fit)
        for number, (group, plan) in enumerate(zip(groups, plans, strict=True))
    ]
    for group, joint in zip(groups, joints, strict=True):
        if joint is None:
            for n in group.tables:
                tables[n].left = "the budget has room for it as it is"
    if not inplace:
        model, tables = _copied(model, tables)
    return _exchanged(model, tables, groups, joints, total, held=inplace)


def _chosen(
    tables: list[FoundTable], include: list[str], exclude: list[str], min_rows: int, fit: bool
) -> list[FoundTable]:
    """The tables, with a reason at those that stay."""
    check_patterns("include", include, tables)
    check_patterns("exclude", exclude, tables)
    for table in tables:
        within = not include or any(matches(name, include) for name in table.modules)
        if not within or any(matches(name, exclude) for name in table.modules):
            table.left = "excluded"
        elif not table.left and not table.weight.requires_grad and not fit:
            table.left = "frozen"
        elif not table.left and table.rows < min_rows:
            table.left, table.counts = f"fewer than {min_rows} rows", True
        elif not table.left:
            table.counts = True
    return tables


def _put(
    tables: Sequence[FoundTable], groups: Sequence[Group], joints: Sequence[Joint | None]
) -> tuple[dict[int, list[Tensor]], dict[int, str]]:
    """What each weight is folded into, by its `id`; and which of that has dense gradients though
    the table's were sparse, with a table's name."""
    removed: dict[int, list[Tensor]] = {}
    dense: dict[int, str] = {}
    for group, joint in zip(groups, joints, strict=True):
        if joint is None:
            continue
        own: list[Tensor] = list(joint.parameters())
        sparse = {id(table.weight) for table in joint.embedder.tables()}
        for n in group.tables:
            removed[id(tables[n].weight)] = own
            if tables[n].first.sparse:
                dense |= {id(p): tables[n].name for p in own if id(p) not in sparse | dense.keys()}
    return removed, dense


def put_beside(whole: Sequence[FoundTable], joints: Sequence[Joint]) -> None:
    """Have tables that stay whole be read with folded ones of their width."""
    small = [each for each in whole if len(each.modules) == 1]
    for joint in joints:
        mine = [table for table in small if table.width == joint.embedder.plan.embedding_dim]
        set_beside([table.first for table in mine], joint)
        small = [table for table in small if table not in mine]


def _copied(model: nn.Module, tables: Sequence[FoundTable]) -> tuple[nn.Module, list[FoundTable]]:
    """A copy of the model whose folded tables have no memory, and its tables."""
    memo: dict[int, Any] = {
        id(table.weight): nn.Parameter(table.weight.detach().to("meta"))
        for table in tables
        if not table.left
    }
    twin = copy.deepcopy(model, memo)
    places = dict(twin.named_modules())
    made = []
    for table in tables:
        modules = {name: places[name if name in places else ""] for name in table.modules}
        weight = next(iter(modules.values())).weight
        made.append(FoundTable(table.name, weight, modules, table.left, table.counts))
    return twin, made


def _exchanged(
    model: nn.Module,
    tables: Sequence[FoundTable],
    groups: Sequence[Group],
    joints: Sequence[Joint | None],
    total: int,
    *,
    held: bool,
) -> FoldReport:
    """Put the joint tables in place, and tell; `held`: optimizers may hold the weights."""
    removed, dense = _put(tables, groups, joints)
    optimizers = optimizers_of(removed) if held else []
    check_optimizers(optimizers, removed, dense)
    for group, joint in zip(groups, joints, strict=True):
        if joint is None:
            continue
        owner = True
        for field, n in enumerate(group.tables):
            for module in tables[n].modules.values():
                folded_from(module, joint, field, owner=owner)
                owner = False
    made = [joint for joint in joints if joint is not None]
    put_beside([table for table in tables if table.left and table.counts], made)
    show_inputs(model, made)
    notes = []
    if dense:
        names = dict.fromkeys(dense.values())
        notes.append(
            f"{', '.join(names)}: rows have sparse gradients, their heads dense ones, which "
            "torch.optim.SparseAdam refuses"
        )
    exchange_in_optimizers(optimizers, removed)
    if optimizers:
        count = len(optimizers)
        notes.append(f"{count} optimizer(s) held folded weights: they have the new ones now")
    lists = take_out_of_lists(model, removed)
    notes += [f"{name} held folded weights: they were taken out" for name in lists]
    return FoldReport.of(model, tables, groups, joints, total, notes)
