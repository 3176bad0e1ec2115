"""AMTL: an id keeps the first numbers of its row; twins learn how many by how frequent it is.

Source: Yan et al., "Learning Effective and Efficient Embedding via an
Adaptively-Masked Twins-based Layer", CIKM 2021, arXiv 2108.11513. The paper masks a table and
stores what is left; here a budget says how many bytes that are, and rows of one length lie in a
pool of that width. Of each id a class is stored, which is the number of its pool; its place there
follows, since rows lie in the order of the ids.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar

import torch

from bitfold.config import option, to_json
from bitfold.embedder.contract import Embedder
from bitfold.embedder.prefixes import CLASSES, REST, Prefixes, row_cost
from bitfold.embedder.twins import PrefixSearch
from bitfold.errors import BitfoldError
from bitfold.method.allocation import check_minimum
from bitfold.method.base import Forms, Method, Phase, Traits, dense_only
from bitfold.method.hash import field_sizes
from bitfold.planning.ask import Ask
from bitfold.planning.plan import Plan
from bitfold.planning.spec import FINGERPRINT_BYTES, OWN, Group, PoolSpec, StoredSpec

HALVINGS = 100
EXACT = 1 << 16  # ranks that are added up one by one
EULER = 0.5772156649015329


@dataclass(frozen=True)
class Amtl(Method):
    """Rows of several lengths, the longer the more their ids have to say. Needs dense ids."""

    lengths: str = option(
        "halves",
        help="the lengths beside 0: `halves` are the width, its half and its quarter, a class of 2 "
        "bits an id; `every` from 1 to the width, as in the paper",
        choices=("halves", "every"),
    )
    rest: str = option(
        "shared",
        help="what ids of length 0 read: a row that those of a field share, or `zeros` as a mask "
        "of the paper's gives them",
        choices=("shared", "zeros"),
    )
    alpha: float = option(
        0.6, help="lengths start in proportion to an id's frequency to that power"
    )
    temperature: float = option(
        0.2, help="of the softmax that the twins' gradient flows through; smaller: sharper"
    )
    search: float = option(0.5, help="the share of the epochs in which lengths are learned")

    name: ClassVar[str] = "amtl"
    summary: ClassVar[str] = "rows of learned lengths, by how frequent an id is"
    when: ClassVar[str] = "frequencies differ a lot; a full table can be trained, and a row an id"
    traits: ClassVar[Traits] = Traits(hashed_ids=False)
    forms: ClassVar[Forms] = (
        {},
        {"lengths": "every", "rest": "zeros", "alpha": 1.0},
        {"bits": 4, "temperature": 1.0},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least, most in (("search", 0, 1), ("alpha", 0, 2), ("temperature", 1e-6, 100)):
            got = getattr(self, name)
            inside = least < got < most or (got == most and name != "search")
            if not inside:
                expected = f"above {least}, " + ("below" if name == "search" else "up to")
                raise BitfoldError(
                    f"{name} is out of range", got=got, expected=f"{expected} {most}"
                )
        self.refuse_map("a class for each dense id")

    def plan(self, ask: Ask) -> Group:
        """As many rows of each length as the budget buys, where ids are as frequent as Zipf says.

        The search learns other numbers of rows: see `advance`.
        """
        sizes = field_sizes(self.name, ask.fields, ask.budget)
        dense_only(self.name, ask.fields)
        assert ask.budget is not None
        whole = self.whole(ask)
        if whole is not None and whole.bytes(ask.dim) <= ask.budget:
            return whole
        widths = self.widths(ask.dim)[1:]
        template = PoolSpec(
            "pool", 1, ask.dim, ask.numbers, slices=(0,) if ask.packed else (),
            scale=ask.scale if ask.packed else "slice",
        )  # fmt: skip

        def made(rows: Sequence[int]) -> Group:
            return self._group(len(sizes), sum(sizes), ask.dim, ask.dtype, template, widths, rows)

        least = made([1] + [0] * (len(widths) - 1)).bytes(ask.dim)
        least = least if whole is None else min(least, whole.bytes(ask.dim))
        check_minimum(self.name, least, ask.budget)
        costs = [0, *(row_cost(template, width) for width in widths)]

        def fits(rows: Sequence[int]) -> bool:
            return made(rows).bytes(ask.dim) <= (ask.budget or 0)

        rows = _zipf_rows(sizes, [width / ask.dim for width in widths], self.alpha, fits)
        left = ask.budget - made(rows).bytes(ask.dim)
        return made(_lengthened([sum(sizes) - sum(rows), *rows], costs, left))

    def widths(self, dim: int) -> tuple[int, ...]:
        """The lengths that a row may have, ascending from 0.

        Example:
            >>> Amtl().widths(16), Amtl(lengths="every").widths(3)
            ((0, 4, 8, 16), (0, 1, 2, 3))
        """
        if self.lengths == "every":
            return tuple(range(dim + 1))
        return tuple(sorted({0, -(-dim // 4), -(-dim // 2), dim}))

    def build(
        self, plan: Plan, *, seed: int | None, device: torch.device | str | None, sparse: bool
    ) -> Embedder:
        """A whole table, the search, or rows of the lengths that it has found."""
        if plan.group.fusion != OWN:
            return super().build(plan, seed=seed, device=device, sparse=sparse)
        more: dict[str, Any] = {"std": self.std, "seed": seed, "device": device, "sparse": sparse}
        if plan.phase:
            return Prefixes(plan, **more)
        return PrefixSearch(
            plan, widths=self.widths(plan.embedding_dim), alpha=self.alpha,
            temperature=self.temperature, **more,
        )  # fmt: skip

    def phases(self, group: Group) -> Sequence[Phase]:
        """A search, and the training of rows at the lengths that it has found."""
        if group.fusion != OWN:
            return ()
        return Phase("search", self.search), Phase("train", 1 - self.search)

    def advance(self, group: Group, embedder: Embedder, phase: Phase) -> Group:
        """Pools of as many rows as ids were found to have each length, within the same bytes."""
        if not isinstance(embedder, PrefixSearch):
            return group
        widths = embedder.widths
        found = torch.bincount(embedder.ending(), minlength=len(widths)).tolist()
        template = next(each for each in group.pools if each.name != REST)
        return self._group(
            len(group.fields), embedder.total, group.width, group.dtype, template, widths[1:],
            found[1:],
        )  # fmt: skip

    def _group(
        self,
        fields: int,
        ids: int,
        dim: int,
        dtype: str,
        template: PoolSpec,
        widths: Sequence[int],
        rows: Sequence[int],
    ) -> Group:
        """Pools of so many rows of each width; a width without rows has none."""
        pools = [
            replace(template, name=f"length_{width}", rows=count, width=width)
            for width, count in zip(widths, rows, strict=True)
            if count
        ]
        stored = StoredSpec(CLASSES, ids, len(pools).bit_length(), "pointers")
        if self.rest == "shared":
            pools.append(replace(template, name=REST, rows=fields, width=dim))
        return Group(
            fields=tuple(range(fields)),
            method=self.name,
            version=self.version,
            options=to_json(self),
            program=None,
            pools=tuple(pools),
            stored=(stored,),
            fusion=OWN,
            width=dim,
            dtype=dtype,
            own={"fingerprint": FINGERPRINT_BYTES},
        )


def _harmonic(size: int) -> float:
    """`1 + 1/2 + ... + 1/size`."""
    if size <= EXACT:
        return sum(1 / rank for rank in range(1, size + 1))
    return math.log(size) + EULER + 1 / (2 * size)


def _zipf_rows(
    sizes: Sequence[int],
    parts: Sequence[float],
    alpha: float,
    fits: Callable[[Sequence[int]], bool],
) -> list[int]:
    """How many ids have each length, where ids of popularity `p` take what `p**alpha / price` buys.

    An id's value `v` is `p**(alpha / 2)`, of the most popular id's, and a part `x` of a row is
    worth `v sqrt(x)` to it. It takes the longer of two lengths, `x` and `y`, where `v` is at least
    the price times `sqrt(x) + sqrt(y)`.

    Args:
        sizes: ids of each field.
        parts: the lengths as parts of the width, ascending, without 0.
        alpha: the power.
        fits: whether so many rows of each length fit the budget; one of the shortest does.

    Returns:
        Rows of each length, one at least.
    """
    sums = [_harmonic(size) for size in sizes]
    steps = [math.sqrt(y) + math.sqrt(x) for x, y in pairwise([0.0, *parts])]

    def above(log_value: float) -> int:
        """Ids of at least that value."""
        found = 0
        for size, total in zip(sizes, sums, strict=True):
            rank = math.log(min(sums) / total) - log_value * 2 / alpha
            found += size if rank > math.log(size) else int(math.exp(rank))
        return found

    def at(log_price: float) -> list[int]:
        reach = [above(log_price + math.log(step)) for step in steps]
        reach[0] = max(reach[0], 1)
        return [more - less for more, less in pairwise([*reach, 0])]

    low, high = -2 * math.log(2 + max(sizes)) - 2, 2.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if fits(at(middle)) else (middle, high)
    return at(high)


def _lengthened(ids: Sequence[int], costs: Sequence[int], left: int) -> list[int]:
    """Rows of each length, where bytes that are left lengthen some by a step, short ones first.

    Args:
        ids: how many ids have each length, from 0 on.
        costs: bytes of a row of each.
        left: bytes.

    Example:
        >>> _lengthened([5, 2, 1], [0, 4, 8], 14)
        [5, 1]
    """
    found = list(ids)
    for number in range(1, len(found)):
        step = costs[number] - costs[number - 1]
        if found[number]:  # a length without rows would take bytes of its own
            moved = min(found[number - 1], left // step if step else found[number - 1])
            found[number - 1] -= moved
            found[number] += moved
            left -= moved * step
    return found[1:]
