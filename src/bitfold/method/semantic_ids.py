"""Semantic ids: a code whose digits say what an id is like, learned by residual quantization.

Sources: Rajput, Mehta, Singh, Keshavan, Vu, Heldt, Hong, Tay, Tran, Samost, Kula, Chi,
Sathiamoorthy, "Recommender Systems with Generative Retrieval", NeurIPS 2023, arXiv 2305.05065,
whose items are digits of a residual quantization with one more digit that tells apart what shares
all others; Singh et al., "Better Generalization with Semantic IDs", RecSys 2024, arXiv 2306.08121,
who read embeddings by them. Here the digits are those of a binary code: each picks a row, and the
rows are fused.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from bitfold.config import option
from bitfold.embedder.buckets import Buckets
from bitfold.embedder.semantic import SemanticCodes
from bitfold.method.base import Forms, check_options
from bitfold.method.learned_map import LearnedMap
from bitfold.planning.plan import Plan


@dataclass(frozen=True)
class SemanticIds(LearnedMap):
    """Rows of `M` digits an id, the first shared with ids that are roughly alike, and so on."""

    digits: int = option(3, help="M, digits of a code, each with rows of its own in each field")
    tell: bool = option(
        True, help="the last digit tells apart ids that share all others, most frequent ones first"
    )
    fusion: str = option(
        "sum", help="how the rows become one vector", choices=("sum", "mean", "product")
    )

    name: ClassVar[str] = "semantic-ids"
    summary: ClassVar[str] = "codes whose digits are shared by ids that a small table found alike"
    when: ClassVar[str] = "rare and new ids that are like others; a code an id can be afforded"
    forms: ClassVar[Forms] = (
        {},
        {"digits": 2, "tell": False, "fusion": "product", "small": "code"},
        {"dims": 2, "bits": 4},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(self.name, vars(self), digits=2)

    @property
    def terms(self) -> int:
        """Digits of a stored code."""
        return self.digits

    @property
    def fused(self) -> str:
        """How the rows of digits become one vector."""
        return self.fusion

    def buckets(self, plan: Plan, **how: Any) -> Buckets:
        """Rows of digits."""
        return SemanticCodes(plan, tell=self.tell, **how)
