"""A field of a billion ids within 64 MiB: built, and trained for a thousand steps.

`python -m benchmarks.billion` prints what it took: bytes to serve, the resident memory at its
highest, steps a second. The budget buys rows of few bits, which are codes while they are trained,
too; beside them there is one number a row, of row-wise Adagrad. `--masters` keeps float32 rows in
training, to compare.
"""

import argparse
import resource
import time

import torch

import bitfold
from bitfold.optim import RowWiseAdagrad


def main() -> None:
    """Build, train, tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ids", type=int, default=1_000_000_000)
    parser.add_argument("--budget", default="64MiB")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--masters", action="store_true")
    said = parser.parse_args()
    fields = [bitfold.Field("user", said.ids), bitfold.Field("item", said.ids // 1000)]
    began = time.perf_counter()
    tables = bitfold.EmbeddingCollection(
        fields, 16, budget=said.budget, seed=0, low_precision=not said.masters
    )
    head = torch.nn.Linear(32, 1)
    optimizer = RowWiseAdagrad(tables.parameters(), lr=0.05)
    optimizer.into_backward(tables)
    network = torch.optim.SGD(head.parameters(), lr=0.05)
    built = time.perf_counter() - began
    draw = torch.Generator().manual_seed(0)
    sizes = torch.tensor([field.num_embeddings for field in fields])
    began = time.perf_counter()
    for _ in range(said.steps):
        ids = (torch.rand(said.batch, 2, generator=draw, dtype=torch.float64) ** 3 * sizes).long()
        clicked = (ids.sum(1) % 2).float()
        logits = head(tables(ids).flatten(1)).squeeze(1)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, clicked)
        network.zero_grad()
        loss.backward()
        optimizer.step()
        network.step()
    took = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(tables.plan)
    print(f"ids {sum(field.num_embeddings or 0 for field in fields):,}")
    print(f"bytes to serve {tables.plan.bytes:,} of {tables.plan.budget:,}")
    print(f"built in {built:.1f} s; {said.steps} steps of {said.batch} rows in {took:.1f} s")
    print(f"resident at most {peak / 1024:,.0f} MiB; last loss {loss.item():.4f}")


if __name__ == "__main__":
    main()
