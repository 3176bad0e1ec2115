"""Two towers on MovieLens-1M, within a byte budget: a vector of the user, one of the film.

    python examples/frameworks/two_tower.py --data ../shared/data --budget 10x

The score is the product of both, so that films can be kept in an index.
"""

import torch
from ml1m import (
    FIELDS,
    HIDDEN,
    ITEM,
    USER,
    WIDTH,
    Told,
    arguments,
    fit,
    read,
    scores,
    table_bytes,
)  # fmt: skip
from torch import nn

import bitfold


class Tower(nn.Module):
    """Tables of some fields and an MLP."""

    def __init__(self, sizes: dict[str, int], names: tuple[str, ...]) -> None:
        super().__init__()
        self.places = [FIELDS.index(name) for name in names]
        self.tables = nn.ModuleList(nn.Embedding(sizes[name], WIDTH) for name in names)
        for table in self.tables:
            nn.init.normal_(table.weight, std=0.1)
        self.mlp = nn.Sequential(
            nn.Linear(len(names) * WIDTH, HIDDEN[0]), nn.ReLU(), nn.Linear(HIDDEN[0], HIDDEN[1])
        )

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Vectors `[B, HIDDEN[1]]` of ids `[B, F]`."""
        found = [table(ids[:, at]) for table, at in zip(self.tables, self.places, strict=True)]
        return self.mlp(torch.cat(found, 1))


class TwoTower(nn.Module):
    """A tower for users and one for films."""

    def __init__(self, sizes: dict[str, int]) -> None:
        super().__init__()
        self.user, self.item = Tower(sizes, USER), Tower(sizes, ITEM)
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits `[B]` of ids `[B, F]`."""
        return (self.user(ids) * self.item(ids)).sum(1) + self.bias


def main() -> None:
    args = arguments(epochs=10)
    log = read(args.data, args.rows)
    model = TwoTower(log.sizes)
    size = table_bytes(model)
    if args.budget:
        report = bitfold.fold(model, args.budget)
        print(report)
        size = report.bytes
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    told = Told(size)
    fit(model, model, optimizer, log, args)
    told.tell(scores(model, model, log.test), log)


if __name__ == "__main__":
    main()
