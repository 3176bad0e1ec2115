"""From fields, a width, a method and a budget to a plan."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from bitfold.config import to_json
from bitfold.errors import BitfoldError, BudgetTooSmall
from bitfold.method.base import Method
from bitfold.method.mapping import map_bytes, mapped, with_places
from bitfold.method.registry import recipe_meant
from bitfold.planning.ask import Ask
from bitfold.planning.budget import full_bytes, parse_budget
from bitfold.planning.field import Field
from bitfold.planning.plan import Plan
from bitfold.planning.spec import FINGERPRINT_BYTES, Group, dtype_size
from bitfold.planning.statistics import Statistics
from bitfold.pool.dtypes import dtype_name

FEW = 4  # ids whose full table weighs less than any code of them


def plan(
    fields: Sequence[Field],
    embedding_dim: int,
    *,
    method: str = "auto",
    budget: int | str | None = None,
    seed: int = 0,
    dtype: torch.dtype | str | None = None,
    stats: Statistics | None = None,
    **options: Any,
) -> Plan:
    """How a method would store these fields' vectors within a budget.

    Args:
        fields: what is embedded.
        embedding_dim: `D`, numbers per vector.
        method: one of `bitfold.methods()`; `auto` with options of binary-code is binary-code.
        budget: serving bytes: a number, `"64MiB"`, or a ratio to the full float32 table, `"100x"`.
            Without one a method that has a size of its own takes that, but never more than a full
            table of the same type, where the fields' sizes are known.
        seed: what the hashes are salted from.
        dtype: the numbers' type; torch's default dtype if None.
        stats: how often ids occur, for methods that deal bytes by it.
        options: the method's own.

    Raises:
        BudgetTooSmall: if nothing fits; `.minimum` is the least number of bytes that does.
        UnknownName: for a method or option that does not exist.
        BitfoldError: for a width, field or budget that makes no sense.

    Example:
        >>> made = plan([Field("user", 6040), Field("movie", 3706)], 16, budget="10x")
        >>> made.bytes <= 62374
        True
    """
    if not fields:
        raise BitfoldError("there are no fields", got="an empty list", expected="one or more")
    names = [field.name for field in fields]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BitfoldError("fields share a name", got=", ".join(twice), expected="one name each")
    if isinstance(embedding_dim, bool) or not isinstance(embedding_dim, int) or embedding_dim < 1:
        raise BitfoldError(
            "the embedding's width is too small", got=embedding_dim, expected="1 or more numbers"
        )
    size = None if budget is None else parse_budget(budget, fields, embedding_dim)
    recipe = recipe_meant(method, options)
    name = dtype_name(dtype)
    ask = Ask(
        tuple(fields),
        embedding_dim,
        size,
        dtype=name,
        numbers=name if recipe.bits is None else f"q{recipe.bits}",
        scale=recipe.scale,
        seed=seed,
        stats=stats,
    )
    made = _made(recipe, ask)
    if size is None and not recipe.oversize and all(field.size is not None for field in fields):
        whole = full_bytes(fields, embedding_dim) * dtype_size(name) // 4
        if made.bytes > whole:
            try:
                less = _made(recipe, replace(ask, budget=whole))
            except BudgetTooSmall as error:
                if sum(field.size or 0 for field in fields) > FEW:
                    raise  # the options say a larger size
                less = _made(recipe, replace(ask, budget=error.minimum))
            made = replace(less, budget=None)
    return made


def _made(recipe: Method, ask: Ask) -> Plan:
    """A method's plan, held against the budget."""
    numbers = [i for i, field in enumerate(ask.fields) if field.hashed] if recipe.map else []
    groups = _behind_maps(recipe, ask, numbers) if numbers else recipe.groups(ask)
    alone = len(groups) == 1 and groups[0].method == recipe.name
    made = Plan(
        fields=ask.fields,
        embedding_dim=ask.dim,
        budget=ask.budget,
        method=recipe.name,
        options=groups[0].options if alone else to_json(recipe),
        groups=groups,
        why=recipe.reasons(ask, groups),
    )
    if ask.budget is not None and made.bytes > ask.budget:
        raise AssertionError(f"a plan of {recipe.name} exceeds its budget: {made.bytes} bytes")
    return made


def _behind_maps(recipe: Method, ask: Ask, numbers: Sequence[int]) -> tuple[Group, ...]:
    """A method's groups, where some fields have maps within the budget.

    Raises:
        BudgetTooSmall: it counts the maps, too.
    """
    places, maps = with_places(ask, numbers), map_bytes(ask, numbers)

    def within(budget: int | None) -> tuple[Group, ...]:
        task = replace(places, budget=None if budget is None else budget - maps)
        return tuple(mapped(group, ask, numbers) for group in recipe.groups(task))

    def settled(budget: int | None) -> tuple[Group, ...]:
        groups = within(budget)
        if budget is not None and sum(group.bytes(ask.dim) for group in groups) > budget:
            groups = within(budget - FINGERPRINT_BYTES * len(groups))  # a map's address has one
        return groups

    try:
        return settled(ask.budget)
    except BudgetTooSmall as error:
        least = error.minimum + maps
        try:
            groups = within(least)
        except BitfoldError:  # what is smaller than whole tables has no map
            room = full_bytes(places.fields, ask.dim) + FINGERPRINT_BYTES * len(ask.fields)
            least = sum(group.bytes(ask.dim) for group in settled(maps + room))
        else:
            try:
                settled(least)
            except BudgetTooSmall:
                least += FINGERPRINT_BYTES * len(groups)
        raise BudgetTooSmall(
            error.problem,
            minimum=least,
            got=f"{ask.budget:,} bytes, of which maps take {maps:,}",
        ) from None
