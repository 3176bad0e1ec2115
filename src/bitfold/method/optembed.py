"""OptEmbed: ids whose rows stay below a learned threshold have none, and fields differ in width.

Source: Lyu, Tang, Zhu, Guo, Zhang, Tang, Liu, "OptEmbed: Learning Optimal Embedding Table for
Click-through Rate Prediction", CIKM 2022, arXiv 2208.04482. In the paper a penalty decides how many
rows are left; here the budget does, and the ids that lie highest above their thresholds have them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from bitfold.config import option, to_json
from bitfold.embedder.contract import Embedder
from bitfold.embedder.kept_rows import FIELD, ROWS, RowPools
from bitfold.embedder.prefixes import REST
from bitfold.embedder.row_search import RowSearch
from bitfold.errors import BitfoldError
from bitfold.method.allocation import check_minimum, largest
from bitfold.method.base import Forms, Method, Phase, Traits, check_options, dense_only
from bitfold.method.hash import field_sizes
from bitfold.planning.ask import Ask
from bitfold.planning.kept import index_of
from bitfold.planning.plan import Plan
from bitfold.planning.spec import FINGERPRINT_BYTES, OWN, Group, PoolSpec, StoredSpec


@dataclass(frozen=True)
class OptEmbed(Method):
    """Some ids have a row, the others none; which ones is learned. Needs dense ids."""

    rest: str = option(
        "shared",
        help="what ids without a row read: one that those of a field share, or `zeros`, as in the "
        "paper",
        choices=("shared", "zeros"),
    )
    threshold: str = option(
        "field", help="what has a threshold of its own", choices=("field", "id")
    )
    alpha: float = option(
        3e-4, help="of the penalty that raises thresholds; 3e-4 in the authors' code"
    )
    rank: str = option(
        "use",
        help="which ids have the rows that the budget buys: those highest above their thresholds "
        "(`margin`), or by `use`, the margin times how often they occur",
        choices=("use", "margin"),
    )
    widths: str = option(
        "one",
        help="rows of `one` width, the model's; `search`: fields are trained at widths drawn at "
        "random, and an evolution among widths picks the best on validation rows, as in the paper",
        choices=("one", "search"),
    )
    candidates: int = option(
        30, help="with widths=search: how many are tried, each by scoring validation rows"
    )
    search: float = option(0.5, help="the share of the epochs that the search takes")

    name: ClassVar[str] = "optembed"
    summary: ClassVar[str] = "a row for the ids that deserve one, by learned thresholds"
    when: ClassVar[str] = "many ids say nothing; training can hold the full table"
    traits: ClassVar[Traits] = Traits(hashed_ids=False)
    forms: ClassVar[Forms] = (
        {},
        {"rest": "zeros", "threshold": "id", "rank": "margin"},
        {"widths": "search", "candidates": 5, "bits": 4},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(self.name, vars(self), candidates=1)
        if not 0 < self.search < 1:
            raise BitfoldError("search is out of range", got=self.search, expected="0 to 1, apart")
        if not 0 <= self.alpha <= 100:
            raise BitfoldError("alpha is out of range", got=self.alpha, expected="0 to 100")
        self.refuse_map("an index of dense ids")

    def plan(self, ask: Ask) -> Group:
        """As many rows as the budget buys beside the index of whose they are."""
        sizes = field_sizes(self.name, ask.fields, ask.budget)
        dense_only(self.name, ask.fields)
        budget, ids = ask.budget, sum(sizes)
        assert budget is not None, "it was asked for"
        whole = self.whole(ask)
        if whole is not None and whole.bytes(ask.dim) <= budget:
            return whole
        spec = PoolSpec(
            "kept_rows", 1, ask.dim, ask.numbers, slices=(0,) if ask.packed else (),
            scale=ask.scale if ask.packed else "slice",
        )  # fmt: skip

        def made(rows: int) -> Group:
            return self._group(len(sizes), ids, ask.dim, ask.dtype, [replace(spec, rows=rows)])

        least = made(1).bytes(ask.dim)
        least = least if whole is None else min(least, whole.bytes(ask.dim))
        check_minimum(self.name, least, budget)
        return made(largest(lambda rows: rows <= ids and made(rows).bytes(ask.dim) <= budget))

    def build(
        self, plan: Plan, *, seed: int | None, device: torch.device | str | None, sparse: bool
    ) -> Embedder:
        """A whole table, the search, or the rows that it has found."""
        if plan.group.fusion != OWN:
            return super().build(plan, seed=seed, device=device, sparse=sparse)
        more: dict[str, Any] = {"std": self.std, "seed": seed, "device": device, "sparse": sparse}
        if plan.phase:
            return RowPools(plan, **more)
        return RowSearch(
            plan, threshold=self.threshold, alpha=self.alpha, rank=self.rank,
            candidates=self.candidates if self.widths == "search" else 0, **more,
        )  # fmt: skip

    def phases(self, group: Group) -> Sequence[Phase]:
        """A search, and the training of what it found from the same initial values."""
        if group.fusion != OWN:
            return ()
        return Phase("search", self.search), Phase("retrain", 1 - self.search, start="fresh")

    def advance(self, group: Group, embedder: Embedder, phase: Phase) -> Group:
        """As many rows of each field as were found, as wide as was found, within the same bytes."""
        if not isinstance(embedder, RowSearch):
            return group
        found = embedder.ending()
        spec = next(each for each in group.pools if each.name != REST)
        if embedder.chosen == (group.width,) * len(group.fields):
            pools = [replace(spec, rows=int((found > 0).sum()))]
        else:
            kept = [int((part > 0).sum()) for part in torch.split(found, embedder.sizes)]
            pools = [
                replace(spec, name=f"{FIELD}{field}", rows=rows, width=width)
                for field, (rows, width) in enumerate(zip(kept, embedder.chosen, strict=True))
                if rows
            ]
        return self._group(len(group.fields), len(found), group.width, group.dtype, pools)

    def _group(
        self, fields: int, ids: int, dim: int, dtype: str, pools: Sequence[PoolSpec]
    ) -> Group:
        """Pools of rows, the index of who has one, and the rows that fields share."""
        index = index_of(ids, sum(spec.rows for spec in pools))
        shared = [replace(pools[0], name=REST, rows=fields, width=dim)] * (self.rest == "shared")
        return Group(
            fields=tuple(range(fields)),
            method=self.name,
            version=self.version,
            options=to_json(self),
            program=None,
            pools=(*pools, *shared),
            stored=(StoredSpec(ROWS, index.bytes, 8, "mask"),),
            fusion=OWN,
            width=dim,
            dtype=dtype,
            own={"fingerprint": FINGERPRINT_BYTES},
        )
