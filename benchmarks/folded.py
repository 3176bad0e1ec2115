"""Folded models: what one row costs beside the unfolded model, and a model that never fitted.

`python -m benchmarks.folded row` builds a DLRM with 8 tables, once as it is and once folded at each
budget, and measures one row through both in alternating turns, forms of tables and of batches as
people have them. `python -m benchmarks.folded giant` builds a model of 26 tables and 1e9 ids under
`bitfold.folding`, trains it, and says what it took. `python -m benchmarks.folded heads` holds the
kernels that lift narrow rows, and their gradient, against torch's products of matrices.
"""

import argparse
import copy
import ctypes
import resource
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

import bitfold
from bitfold.optim import RowWiseAdagrad

WIDTH, NUMBERS = 16, 13


class DLRM(nn.Module):
    """A DLRM as people write it: tables in a list, called one by one.

    Args:
        sizes: ids of each table.
        bags: `nn.EmbeddingBag` in place of `nn.Embedding`.
        apart: ids come as a list of tensors, one a table, in place of columns of one.
    """

    def __init__(self, sizes: Sequence[int], bags: bool, apart: bool) -> None:
        super().__init__()
        self.bags, self.apart = bags, apart
        self.tables = nn.ModuleList(
            nn.EmbeddingBag(size, WIDTH, mode="sum") if bags else nn.Embedding(size, WIDTH)
            for size in sizes
        )
        self.bottom = nn.Sequential(
            nn.Linear(NUMBERS, 64), nn.ReLU(), nn.Linear(64, WIDTH), nn.ReLU()
        )
        pairs = (len(sizes) + 1) * len(sizes) // 2
        self.top = nn.Sequential(nn.Linear(WIDTH + pairs, 64), nn.ReLU(), nn.Linear(64, 1))
        below = torch.tril_indices(len(sizes) + 1, len(sizes) + 1, -1)
        self.register_buffer("below", below)

    def forward(self, numbers: Tensor, ids: Tensor | Sequence[Tensor]) -> Tensor:
        """Logits `[B, 1]`."""
        dense = self.bottom(numbers)
        columns = ids if self.apart else [ids[:, f] for f in range(len(self.tables))]
        if self.bags:
            starts = torch.arange(len(numbers))
            found = [table(c, starts) for table, c in zip(self.tables, columns, strict=True)]
        else:
            found = [table(c) for table, c in zip(self.tables, columns, strict=True)]
        every = torch.stack([dense, *found], 1)
        products = torch.bmm(every, every.transpose(1, 2))
        return self.top(torch.cat([dense, products[:, self.below[0], self.below[1]]], 1))


def turns(calls: Sequence[Callable[[], object]], count: int) -> list[list[float]]:
    """Microseconds of each call, sorted, measured in alternating turns."""
    for call in calls:
        for _ in range(200):
            call()
    found: list[list[float]] = [[] for _ in calls]
    for _ in range(count):
        for times, call in zip(found, calls, strict=True):
            begun = time.perf_counter()
            call()
            times.append(1e6 * (time.perf_counter() - begun))
    return [sorted(times) for times in found]


def row(count: int) -> None:
    """One row of a DLRM, unfolded and folded."""
    torch.set_num_threads(1)
    sizes = [100_000] * 8
    print(f"one row, 8 tables of 100,000 x {WIDTH}, {count} turns; p50 and p95 in us")
    print("tables     ids      budget   unfolded        folded, packed  ratio of p50")
    for bags in (True, False):
        for apart in (False, True):
            model = DLRM(sizes, bags, apart).eval()
            budgets = ("10x", "50x", "100x", "1000x")
            folded = [
                bitfold.serving(bitfold.fold(copy.deepcopy(model), each, seed=0).model)
                for each in budgets
            ]
            numbers, ids = torch.rand(1, NUMBERS), torch.randint(0, 100_000, (1, 8))
            given = [ids[:, f].clone() for f in range(8)] if apart else ids
            with torch.no_grad():
                calls = [partial(each, numbers, given) for each in (model, *folded)]
                whole, *ours = turns(calls, count)
            form = f"{'bags' if bags else 'ids':10} {'apart' if apart else 'columns':8}"
            for budget, times in zip(budgets, ours, strict=True):
                p50, p95 = times[count // 2], times[count * 95 // 100]
                w50, w95 = whole[count // 2], whole[count * 95 // 100]
                print(
                    f"{form} {budget:8} {w50:6.1f} {w95:6.1f}   "
                    f"{p50:6.1f} {p95:6.1f}   {p50 / w50:.2f}"
                )


def giant(budget: str, steps: int, batch: int) -> None:
    """A model of 1e9 ids in 26 tables, built within a budget and trained."""
    sizes = [int(1e9 * 0.5**f) + 1000 for f in range(1, 26)] + [1000]
    begun = time.perf_counter()
    with bitfold.folding(budget, seed=0) as folded:
        model = DLRM(sizes, bags=True, apart=False)
    built = time.perf_counter() - begun
    tables = RowWiseAdagrad(model.tables.parameters(), lr=0.05)
    tables.into_backward(model)
    dense = [p for name, p in model.named_parameters() if not name.startswith("tables.")]
    network = torch.optim.Adam(dense, lr=1e-3)
    draw = torch.Generator().manual_seed(0)
    most = torch.tensor(sizes)
    begun = time.perf_counter()
    for _ in range(steps):
        skewed = torch.rand(batch, len(sizes), generator=draw, dtype=torch.float64) ** 3
        ids = (skewed * most).long()
        numbers = torch.rand(batch, NUMBERS, generator=draw)
        clicked = (ids[:, :1] % 2).float()
        loss = nn.functional.binary_cross_entropy_with_logits(model(numbers, ids), clicked)
        network.zero_grad()
        loss.backward()
        tables.step()
        network.step()
    took = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(folded.report)
    print(f"ids {sum(sizes):,}; bytes to serve {folded.report.bytes:,} of {folded.report.budget:,}")
    print(f"built in {built:.1f} s; {steps} steps of {batch} rows in {took:.1f} s")
    print(f"resident at most {peak / 1024:,.0f} MiB; last loss {loss.item():.4f}")


def heads(count: int) -> None:
    """Lifting `[B, f, w]` to `[B, 16]` of each field, and its gradient."""
    from bitfold.kernels import jobs
    from bitfold.kernels.vectors import lanes_of

    torch.set_num_threads(1)
    rows = 1024
    print(f"{rows} rows to {WIDTH} columns, {count} turns; p50 in us, ours and torch.bmm")
    print("fields  width   forward     ratio   backward    ratio")
    for fields, width in ((1, 10), (2, 12), (3, 12), (8, 8)):
        narrow, head = torch.randn(rows, fields, width), torch.randn(fields, width, WIDTH)
        out, grad = torch.empty(fields, rows, WIDTH), torch.randn(fields, rows, WIDTH)
        to_head, turned = torch.empty_like(head), torch.empty(WIDTH, width)
        given = narrow.clone()
        common = [rows, fields, width, WIDTH]
        addresses = [head.data_ptr(), to_head.data_ptr(), turned.data_ptr()]

        def told(vectors: Tensor, columns: Tensor, common=common, addresses=addresses) -> object:
            words = [
                *common,
                vectors.data_ptr(),
                *addresses,
                *(each.data_ptr() for each in columns),
            ]
            return (ctypes.c_int64 * len(words))(*words)

        lift, lower = jobs.lift(lanes_of(WIDTH)), jobs.lower(lanes_of(WIDTH), lanes_of(width))
        first, second = told(narrow, out), told(given, grad)
        by_field = narrow.transpose(0, 1)
        calls = [
            partial(lift.call, ctypes.addressof(first), 0),
            partial(torch.bmm, by_field, head),
            partial(lower.call, ctypes.addressof(second), 0),
            lambda by_field=by_field, grad=grad, head=head: (
                torch.bmm(by_field.transpose(1, 2), grad), torch.bmm(grad, head.transpose(1, 2)),
            ),
        ]  # fmt: skip
        ours, theirs, back, their_back = (each[count // 2] for each in turns(calls, count))
        print(
            f"{fields:6} {width:6}   {ours:5.1f} {theirs:5.1f}   {ours / theirs:.2f}   "
            f"{back:6.1f} {their_back:5.1f}   {back / their_back:.2f}"
        )


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("row", "giant", "heads"))
    parser.add_argument("--turns", type=int, default=3000)
    parser.add_argument("--budget", default="64MiB")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=2048)
    said = parser.parse_args()
    if said.what == "row":
        row(said.turns)
    elif said.what == "heads":
        heads(said.turns)
    else:
        giant(said.budget, said.steps, said.batch)


if __name__ == "__main__":
    main()
