"""A plain DLRM on MovieLens-1M, within a byte budget: sparse bags, Adagrad, no framework.

    python examples/frameworks/plain_dlrm.py --data ../shared/data --budget 10x

As in DLRM (Naumov et al., 2019): a bag a field, a bottom MLP on what is dense (here the
rank of the film's year by its ratings), products of all pairs, a top MLP. Gradients of tables are
sparse.
"""

import torch
from ml1m import (
    FIELDS,
    HIDDEN,
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


class DLRM(nn.Module):
    """Bags of width `WIDTH`, their products, MLPs below and above."""

    def __init__(self, sizes: dict[str, int]) -> None:
        super().__init__()
        self.tables = nn.ModuleList(
            nn.EmbeddingBag(sizes[name], WIDTH, mode="sum", sparse=True) for name in FIELDS
        )
        for table in self.tables:
            bound = table.num_embeddings**-0.5
            nn.init.uniform_(table.weight, -bound, bound)
        self.bottom = nn.Sequential(nn.Linear(1, WIDTH), nn.ReLU())
        pairs = (len(FIELDS) + 1) * len(FIELDS) // 2
        self.top = nn.Sequential(
            nn.Linear(pairs + WIDTH, HIDDEN[0]), nn.ReLU(),
            nn.Linear(HIDDEN[0], HIDDEN[1]), nn.ReLU(), nn.Linear(HIDDEN[1], 1),
        )  # fmt: skip
        self.register_buffer("pairs", torch.tril_indices(len(FIELDS) + 1, len(FIELDS) + 1, -1))

    def forward(self, dense: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Logits `[B]` of dense features `[B, 1]` and ids `[B, F]`."""
        below, starts = self.bottom(dense), torch.arange(len(ids))
        columns = zip(self.tables, ids.unbind(1), strict=True)
        vectors = [table(column, starts) for table, column in columns]
        every = torch.stack([below, *vectors], 1)
        products = (every @ every.transpose(1, 2))[:, self.pairs[0], self.pairs[1]]
        return self.top(torch.cat([below, products], 1)).squeeze(1)


def main() -> None:
    args = arguments(epochs=10)
    log = read(args.data, args.rows)
    model = DLRM(log.sizes)
    size = table_bytes(model)
    if args.budget:
        report = bitfold.fold(model, args.budget)
        print(report)
        size = report.bytes
    year = FIELDS.index("year")
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.02)
    told = Told(size)

    def logits(ids: torch.Tensor) -> torch.Tensor:
        return model(ids[:, year : year + 1].float().log1p(), ids)

    fit(model, logits, optimizer, log, args)
    told.tell(scores(model, logits, log.test), log)


if __name__ == "__main__":
    main()
