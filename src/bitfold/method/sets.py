"""Several embedding sets within one budget: the same fields, planned once for each set."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bitfold.address.mixing import derive_salt
from bitfold.errors import BitfoldError, BudgetTooSmall
from bitfold.method.planner import plan
from bitfold.planning.budget import parse_budget
from bitfold.planning.field import Field
from bitfold.planning.plan import Plan


def plan_sets(
    fields: Sequence[Field],
    embedding_dim: int,
    sets: int = 1,
    *,
    budget: int | str | None = None,
    seed: int = 0,
    **asked: Any,
) -> Plan:
    """A plan of M embedding sets: each has its own tables over the same fields, in equal shares.

    Args:
        fields: what is embedded, F.
        embedding_dim: `D`, the width of each set.
        sets: M; of one set the plan is that of `bitfold.plan`.
        budget: the bytes of all sets together; a ratio is one to a single full table of width D.
            Without one each set has the size that the method gives it.
        seed: what the first set's hashes are salted from; those of the others follow from it.
        asked: as for `bitfold.plan`.

    Returns:
        A plan of M*F fields, set after set.

    Raises:
        BudgetTooSmall: `.minimum` is for all sets.
        BitfoldError: as for `bitfold.plan`.

    Example:
        >>> made = plan_sets([Field("user", 6040), Field("movie", 3706)], 16, 2, budget="10x")
        >>> made.sets, len(made.fields), made.bytes <= 62374
        (2, 4, True)
    """
    if isinstance(sets, bool) or not isinstance(sets, int) or sets < 1:
        raise BitfoldError("there are no embedding sets", got=repr(sets), expected="1 or more")
    if sets == 1:
        return plan(fields, embedding_dim, budget=budget, seed=seed, **asked)
    size = None if budget is None else parse_budget(budget, fields, embedding_dim)
    share = None if size is None else max(size // sets, 1)
    seeds = [seed, *(derive_salt(seed, number) >> 1 for number in range(1, sets))]
    try:
        made = [plan(fields, embedding_dim, budget=share, seed=each, **asked) for each in seeds]
    except BudgetTooSmall as error:
        raise BudgetTooSmall(
            f"each of {sets} embedding sets has {share:,} bytes: {error.problem}",
            minimum=sets * error.minimum,
            got=f"{size:,} bytes for all sets",
            fix=f"raise the budget to {sets * error.minimum} bytes, or take fewer sets",
        ) from None
    count = len(fields)
    groups = (
        replace(group, fields=tuple(field + number * count for field in group.fields))
        for number, each in enumerate(made)
        for group in each.groups
    )
    return replace(
        made[0],
        fields=made[0].fields * sets,
        budget=size,
        groups=tuple(groups),
        why=tuple(f"each set: {text}" for text in made[0].why),
        sets=sets,
    )
