"""Learned hash functions: ids that a small table found alike share a row, by a pointer an id.

Source: Ghaemmaghami, Ozdal, Komuravelli, Korchev, Mudigere, Nair, Naumov, "Learning to Collide:
Recommendation System Model Compression with Learned Hash Functions", 2022, arXiv 2203.15837. A
small table is trained first, its ids are clustered by their vectors and by how often they occur,
and the model is trained anew over the clusters. Pointers are counted: ceil(log2 rows) bits an id.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from bitfold.config import option
from bitfold.embedder.buckets import Buckets
from bitfold.errors import BitfoldError
from bitfold.method.base import Forms
from bitfold.method.learned_map import LearnedMap
from bitfold.planning.plan import Plan


@dataclass(frozen=True)
class LearnedHash(LearnedMap):
    """One row an id, shared with the ids of its cluster; the clusters are learned beforehand."""

    frequency: float = option(
        0.5,
        help="what an id's frequency counts for beside its vector; higher: frequent ids share "
        "with fewer, rare ones with more",
    )
    own: float = option(
        0.0,
        help="the share of a field's rows that its most frequent ids own; 0: clusters alone, as "
        "in the paper",
    )

    name: ClassVar[str] = "learned-hash"
    summary: ClassVar[str] = "ids that a small table found alike share a row"
    when: ClassVar[str] = "many rare ids that are alike; a pointer an id can be afforded"
    forms: ClassVar[Forms] = (
        {},
        {"small": "code", "own": 0.5, "frequency": 0.0},
        {"dims": 2, "bits": 4},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.own <= 1:
            raise BitfoldError("own is out of range", got=self.own, expected="0 to 1")
        if not 0 <= self.frequency <= 100:
            raise BitfoldError("frequency is out of range", got=self.frequency, expected="0 to 100")

    def buckets(self, plan: Plan, **how: Any) -> Buckets:
        """Rows of clusters."""
        return Buckets(plan, own=self.own, frequency=self.frequency, **how)
