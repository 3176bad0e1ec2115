"""Deep hash embedding: no table; a network decodes many hashes of an id into its vector.

Source: Kang, Cheng, Yao, Yi, Chen, Hong, Chi, "Learning to Embed Categorical Features without
Embedding Tables for Recommendation", KDD 2021, arXiv 2010.10784. Even hashes in [-1, 1] and mish,
as there; without batch normalization, whose part fresh weights play by their scale. One decoder
serves all fields, which salt their hashes: a small budget cannot buy one for each.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar

import torch

from bitfold.address.mixing import derive_salt
from bitfold.config import option, to_json
from bitfold.embedder.contract import Embedder
from bitfold.embedder.decoder import Decoder
from bitfold.errors import BitfoldError
from bitfold.method.allocation import check_minimum, largest
from bitfold.method.base import Forms, Method, Traits, check_options
from bitfold.method.hash import field_sizes
from bitfold.planning.ask import Ask
from bitfold.planning.plan import Plan
from bitfold.planning.spec import FINGERPRINT_BYTES, OWN, Group, dtype_size

MOST_HASHES = 1024


@dataclass(frozen=True)
class DHE(Method):
    """`k` hashes of an id, and layers whose widths follow from the budget."""

    hashes: int | None = option(
        None, help="k, hashes of an id; about as many as a layer is wide, up to 1024, if not said"
    )
    layers: int = option(2, help="hidden layers; more of them for budgets of megabytes")
    width: int | None = option(None, help="of hidden layers; what the budget buys when not said")
    salt: int | None = option(None, help="what hashes are salted from; the seed when not said")

    name: ClassVar[str] = "dhe"
    summary: ClassVar[str] = "no table: a network decodes many hashes of an id"
    when: ClassVar[str] = "to compare with; lookups take a network's time, and small budgets little"
    traits: ClassVar[Traits] = Traits(
        narrow=False,
        why_wide="it has no rows; an id reads its whole decoder, whose rounding errors would add "
        "up in every vector (dtype=bfloat16 halves it)",
    )
    forms: ClassVar[Forms] = ({}, {"hashes": 9, "layers": 1})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(self.name, vars(self), hashes=1, layers=1, width=1, salt=0)

    def plan(self, ask: Ask) -> Group:
        """The widest layers, then the most hashes, that the budget buys."""
        field_sizes(self.name, ask.fields, ask.budget)
        assert ask.budget is not None
        number = dtype_size(ask.dtype)
        numbers = (ask.budget - FINGERPRINT_BYTES) // number
        least = self._sizes(self.hashes or 1, self.width or 1, ask.dim)
        check_minimum(self.name, count(least) * number + FINGERPRINT_BYTES, ask.budget)
        known = [field.size for field in ask.fields]
        if None not in known:  # more than a table of all ids would be of no use
            numbers = min(numbers, max(count(least), sum(filter(None, known)) * ask.dim))

        def fits(hashes: int, width: int) -> bool:
            return count(self._sizes(hashes, width, ask.dim)) <= numbers

        def even(width: int) -> int:
            return self.hashes or min(MOST_HASHES, width)

        width = self.width or largest(lambda w: fits(even(w), w))
        hashes = self.hashes or min(MOST_HASHES, largest(lambda k: fits(k, width)))
        salt = derive_salt(ask.seed) >> 1 if self.salt is None else self.salt
        made = replace(self, hashes=hashes, width=width, salt=salt)
        return Group(
            fields=tuple(range(len(ask.fields))),
            method=self.name,
            version=self.version,
            options=to_json(made),
            program=None,
            pools=(),
            fusion=OWN,
            width=ask.dim,
            dtype=ask.dtype,
            own={
                "decoder": count(self._sizes(hashes, width, ask.dim)) * number,
                "fingerprint": FINGERPRINT_BYTES,
            },
        )

    def build(
        self, plan: Plan, *, seed: int | None, device: torch.device | str | None, sparse: bool
    ) -> Embedder:
        """The decoder."""
        sizes = self._sizes(self.hashes or 1, self.width or 1, plan.embedding_dim)
        needed = count(sizes) * dtype_size(plan.dtype)
        if plan.group.own.get("decoder") != needed or self.salt is None:
            raise BitfoldError(
                "this plan's decoder is not the one that its options tell of",
                got=f"{plan.group.own.get('decoder')} bytes, salt {self.salt}",
                expected=f"{needed} bytes and a salt",
                fix="plan it again",
            )
        more: dict[str, Any] = {"std": self.std, "seed": seed, "device": device, "sparse": sparse}
        return Decoder(plan, salt=self.salt, sizes=sizes, **more)

    def _sizes(self, hashes: int, width: int, dim: int) -> tuple[int, ...]:
        return (hashes, *(width,) * self.layers, dim)


def count(sizes: tuple[int, ...]) -> int:
    """Numbers of a network of layers of these sizes.

    Example:
        >>> count((3, 2, 1))  # 3 x 2 + 2 and 2 x 1 + 1
        11
    """
    return sum((width + 1) * out for width, out in pairwise(sizes))
