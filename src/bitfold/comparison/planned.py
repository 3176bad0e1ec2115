"""Which cells of a comparison can be built within their budgets, before any is trained."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from bitfold.comparison.config import (
    FULL,
    HASH,
    Cell,
    CompareConfig,
    Variant,
    cells,
)
from bitfold.comparison.opponents import Key, opponents
from bitfold.data.vocabulary import Vocabulary
from bitfold.errors import BudgetTooSmall
from bitfold.method.registry import method_kind
from bitfold.method.sets import plan_sets
from bitfold.planning.statistics import Promised
from bitfold.training.rows import needs_map

if TYPE_CHECKING:
    from bitfold.data.prepared import PreparedLog
    from bitfold.planning.field import Field
    from bitfold.training import TrainConfig


@dataclass(frozen=True)
class Planned:
    """What a comparison comes to.

    Args:
        cells: those that can be built, seed after seed.
        refused: a row for each method and budget that cannot.
        facing: the line of the hash trick that weighs as much as each other line.
    """

    cells: list[Cell]
    refused: list[dict[str, Any]]
    facing: dict[Key, Key]


def option_names(method: str) -> tuple[str, ...]:
    """The options that a method has; an unknown method raises and names the nearest."""
    return tuple(field.name for field in fields(method_kind(method)))


def plan_cells(
    config: CompareConfig,
    train: "TrainConfig",
    options: Mapping[str, Mapping[str, Any]],
    log: "PreparedLog",
) -> Planned:
    """Plan every method at every budget, and the lines of the hash trick that face them."""
    embedded = _fields(config, log, options)
    refused: dict[Key, dict[str, Any]] = {}
    sizes: dict[Key, int] = {}

    def weigh(variant: Variant, budget: str) -> int | None:
        """Serving bytes; None, and a row in `refused`, where nothing fits."""
        key = (variant.name, budget)
        if key in sizes or key in refused:
            return sizes.get(key)
        try:
            sizes[key] = plan_sets(
                embedded[variant.name],
                train.vector_width,
                train.embedding_sets,
                method=variant.method,
                budget=budget,
                stats=Promised(log.rows["train"]),
                **options[variant.name],
            ).bytes
        except BudgetTooSmall as error:
            refused[key] = {
                "method": variant.name,
                "budget": budget,
                "minimum": error.minimum,
                "reason": f"needs {error.minimum:,} bytes or more",
            }
        return sizes.get(key)

    wanted = cells(config, train.seed)
    possible = [
        cell
        for cell in wanted
        if cell.variant.method == FULL or weigh(cell.variant, cell.budget) is not None
    ]
    hashed = next((variant for variant in config.variants if variant.method == HASH), None)
    facing: dict[Key, Key] = {}
    if hashed is not None:
        facing, more = opponents(
            dict(sizes), hashed.name, config.equal_within, lambda budget: weigh(hashed, budget)
        )
        possible += [
            Cell(hashed, budget, train.seed + step)
            for step in range(config.seeds)
            for budget in more
        ]
    possible.sort(key=lambda cell: cell.seed)
    return Planned(possible, list(refused.values()), facing)


def _fields(
    config: CompareConfig, log: "PreparedLog", options: Mapping[str, Mapping[str, str]]
) -> "dict[str, list[Field]]":
    """What each entry of a budget embeds: through a map to dense ids where it needs one."""
    fields = log.schema.embedding_fields()
    entries = {each.name: each.method for each in config.variants if each.method != FULL}
    mapped = {
        name for name, method in entries.items() if needs_map(method, fields, options.get(name))
    }
    if not mapped:
        return dict.fromkeys(entries, fields)
    dense = Vocabulary.fit(log, log.schema.config.min_count).fields(fields)
    return {name: dense if name in mapped else fields for name in entries}
