"""Quotes: what each method makes of each budget, before any training."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bitfold.comparison.config import FULL, FULL_BUDGET, CompareConfig, cell_options
from bitfold.comparison.planned import option_names
from bitfold.data.field_map import FIRST
from bitfold.data.vocabulary import KEY_BYTES
from bitfold.errors import BudgetTooSmall
from bitfold.method.sets import plan_sets
from bitfold.optim import OPTIMIZERS
from bitfold.planning.budget import parse_budget
from bitfold.planning.field import Field
from bitfold.planning.plan import Plan
from bitfold.planning.spec import dtype_size
from bitfold.planning.statistics import Promised
from bitfold.training.rows import needs_map


@dataclass(frozen=True)
class Quote:
    """What a method makes of a budget.

    Args:
        method: the entry of `--methods`, options included.
        budget: as it was said; `1x` for the full table, which has none.
        budget_bytes: the budget in bytes, or None.
        plan: how the bytes are spent, or None where nothing fits.
        minimum: where nothing fits, the least number of bytes that does.
        map_bytes: bytes of the map from values to dense ids, where the method needs one.
    """

    method: str
    budget: str
    budget_bytes: int | None = None
    plan: Plan | None = None
    minimum: int | None = None
    map_bytes: int = 0

    @property
    def used(self) -> float | None:
        """The share of the budget that the plan takes."""
        if self.plan is None or self.budget_bytes is None:
            return None
        return self.plan.bytes / self.budget_bytes

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        out: dict[str, Any] = {
            "method": self.method,
            "budget": self.budget,
            "budget_bytes": self.budget_bytes,
        }
        if self.plan is None:
            return out | {"minimum": self.minimum}
        rows = self.plan.rows()
        return out | {
            "bytes": self.plan.bytes,
            "by_kind": dict(self.plan.by_kind),
            "map_bytes": self.map_bytes,
            "used": self.used,
            "ratio": self.plan.ratio,
            "rows": self.plan.rows_kept,
            "lookups_per_vector": self.plan.lookups / len(rows),
            "training_bytes": training_bytes(self.plan),
            "options": dict(self.plan.options),
            "fusion": "+".join(dict.fromkeys(each.fusion for each in self.plan.groups)),
            "fields": rows,
        }


def quotes(
    fields: Sequence[Field],
    dim: int,
    config: CompareConfig,
    settings: Mapping[str, str],
    *,
    sets: int = 1,
    seed: int = 0,
    missing: Collection[str] = (),
    rows: int | None = None,
) -> list[Quote]:
    """A quote for every method and budget of a comparison, budget after budget.

    Args:
        fields: what is embedded.
        dim: `D`, numbers per vector.
        config: the methods and the budgets; `full` appears once, as `1x`.
        settings: options as `compare` takes them: `option=value`, `method.option=value`.
        sets: M, embedding sets; budgets are those of all of them.
        seed: what the hashes are salted from.
        missing: the fields one of whose distinct ids is that of missing values.
        rows: of the training part, if there is one.

    Raises:
        UnknownName: for a method or option that does not exist.
        BitfoldError: for a malformed budget, or a ratio over fields of unknown size.
    """
    known = {variant.method: option_names(variant.method) for variant in config.variants}
    options = {variant.name: cell_options(variant, settings, known) for variant in config.variants}
    for budget in config.budgets:
        parse_budget(budget, fields, dim)
    dense, map_bytes = with_vocabulary(fields, missing)
    wanted = [(variant, FULL_BUDGET) for variant in config.variants if variant.method == FULL]
    wanted += [
        (variant, budget)
        for budget in config.budgets
        for variant in config.variants
        if variant.method != FULL
    ]
    out = []
    for variant, budget in wanted:
        mapped = needs_map(variant.method, fields, options[variant.name])
        given = dense if mapped else fields
        size = None if variant.method == FULL else parse_budget(budget, given, dim)
        quote = Quote(variant.name, budget, size, map_bytes=map_bytes if mapped else 0)
        try:
            made = plan_sets(
                given,
                dim,
                sets,
                method=variant.method,
                budget=size,
                seed=seed,
                stats=Promised(rows),
                **dict[str, Any](options[variant.name]),
            )
            out.append(replace(quote, plan=made))
        except BudgetTooSmall as error:
            out.append(replace(quote, minimum=error.minimum))
    return out


def with_vocabulary(
    fields: Sequence[Field], missing: Collection[str] = ()
) -> tuple[list[Field], int]:
    """The fields as a map to dense ids makes them, and the bytes of the map.

    Two ids more are of unseen and missing values. Hashed fields of unknown size stay hashed.

    Example:
        >>> with_vocabulary([Field("user", 6040), Field("query", distinct=1000)])
        ([Field(name='user', num_embeddings=6040, distinct=None), \
Field(name='query', num_embeddings=1002, distinct=1000)], 12000)
    """
    out, keys = [], 0
    for field in fields:
        if not field.hashed or field.distinct is None:
            out.append(field)
            continue
        values = field.distinct - (field.name in missing)
        out.append(replace(field, num_embeddings=values + FIRST))
        keys += values
    return out, keys * KEY_BYTES


def training_bytes(made: Plan) -> dict[str, int]:
    """Bytes to train a plan with each optimizer of `bitfold.optim`: weights, gradient, state.

    The gradient is a dense one, as large as the weights; a sparse one holds the batch's rows. In
    low precision weights are codes, and no gradient is counted: it is that of the batch's rows.

    Example:
        >>> training_bytes(plan_sets([Field("user", 1000)], 16, method="full"))
        {'sgd': 128000, 'adagrad': 192000, 'rowwise-adagrad': 132000, 'lazy-adam': 256000}
    """
    sizes = dict.fromkeys(OPTIMIZERS, 0)
    for group in made.groups:
        number = dtype_size(group.dtype)
        shapes = [(1, pool.rows) if pool.step else (pool.rows, pool.width) for pool in group.pools]
        if group.fusion == "weighted" and group.program is not None:
            shapes.append((group.program.lookups, 1))
        if group.width != made.embedding_dim:
            shapes.append((len(group.fields) * group.width, made.embedding_dim))
        own = [size for kind, size in group.own.items() if kind != "fingerprint"]
        shapes += [(1, size // number) for size in own]
        if group.options.get("low_precision") and group.pools[0].packed:
            kept = sum(pool.bytes for pool in group.pools)
        else:
            kept = sum(2 * rows * width * number for rows, width in shapes)
        for name, kind in OPTIMIZERS.items():
            sizes[name] += kept + sum(rows * kind.bytes_per_row(width) for rows, width in shapes)
    return sizes
