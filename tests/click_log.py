"""A small click log for the tests of training: two parts taste, one part noise."""

from pathlib import Path

import numpy as np

from bitfold.data.config import DataConfig
from bitfold.training import TrainConfig

DATA = DataConfig(
    label="rating>=4",
    fields=("user", "item", "city"),
    numeric=("price",),
    group="user",
    split="random:0.7,0.15,0.15",
)
TINY = TrainConfig(
    method="hash",
    budget="2x",
    width=4,
    hidden=(8,),
    epochs=2,
    batch_size=256,
    lr=0.01,
    device="cpu",
)


def columns(rows=2000, seed=0):
    """Raw columns by name; users and items have a hidden taste."""
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, 60, rows), rng.integers(0, 40, rows)
    price = rng.lognormal(size=rows)
    taste = np.sin(user * 1.7) + np.cos(item * 2.3) + 0.3 * np.log(price)
    clicked = taste + rng.normal(size=rows) > 0
    return {
        "user": [f"u{value}" for value in user],
        "item": [f"i{value}" for value in item],
        "city": [f"c{value}" for value in rng.integers(0, 5, rows)],
        "tags": ["|".join(f"t{k}" for k in range(value % 4)) for value in item],
        "price": [f"{value:.4f}" for value in price],
        "weight": [f"{value:.3f}" for value in rng.uniform(0.5, 2, rows)],
        "part": [("train", "valid", "test")[value] for value in rng.integers(0, 3, rows)],
        "rating": [str(value) for value in np.where(clicked, 5, 2)],
    }


def write(path: Path, table):
    """Write columns as a CSV file."""
    lines = [",".join(table), *(",".join(row) for row in zip(*table.values(), strict=True))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
