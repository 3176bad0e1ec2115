"""A small log of what users took, for the tests of retrieval: users of five tastes."""

import numpy as np

from bitfold.data.config import DataConfig
from bitfold.retrieval.options import RetrieveConfig

READING = DataConfig(
    fields=("user", "item", "kind"),
    group="user",
    item="item",
    item_fields=("kind",),
    split="last:1,1",
    negatives=1,
)
TINY = RetrieveConfig(
    method="full",
    width=8,
    batch_size=64,
    epochs=2,
    lr=0.05,
    valid_users=0,
)


def taken(users=60, items=50, each=8, seed=0):
    """Raw columns: user u takes items of kind u % 5."""
    rng = np.random.default_rng(seed)
    rows = [
        (f"u{user}", f"i{item}", f"k{item % 5}")
        for user in range(users)
        for item in rng.choice(np.arange(user % 5, items, 5), each, replace=False)
    ]
    return dict(zip(("user", "item", "kind"), map(list, zip(*rows, strict=True)), strict=True))
