"""How near smaller embeddings come to a trained table, and the seconds of a fit on one core.

    python benchmarks/fitting.py

A synthetic table: vectors whose directions count less and less, and noise; ids occur by a power
law. Each method is built at a ratio to the full table and fitted to it, ids counting as often as
they occur. The error is relative, `sqrt(sum c |x - y|^2 / sum c |x|^2)`: 0 for equal vectors, 1 for
zeros. Beside it stands the error of a fit and a measure in which all ids count alike.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from report import Row, machine, table, write
from rich.console import Console
from torch import Tensor

from bitfold import BitfoldError, EmbeddingCollection, Field
from bitfold.fitting import fit
from bitfold.planning.statistics import Counted

RATIOS = ("10x", "100x")
METHODS: dict[str, dict[str, Any]] = {
    "auto": {"method": "auto"},
    "hash": {"method": "hash"},
    "hash, 4 bits": {"method": "hash", "bits": 4},
    "multi-hash": {"method": "multi-hash"},
    "quotient-remainder": {"method": "quotient-remainder"},
    "binary-code, product": {"method": "binary-code"},
    "binary-code, sum": {"method": "binary-code", "fusion": "sum"},
    "binary-code, 4 bits": {"method": "binary-code", "bits": 4},
    "hash-embeddings": {"method": "hash-embeddings"},
    "hot-cold": {"method": "hot-cold"},
    "hot-cold, 4 bits": {"method": "hot-cold", "bits": 4},
    "low-rank, 4 bits": {"method": "low-rank", "bits": 4},
    "cce": {"method": "cce"},
    "robe": {"method": "robe"},
    "pep": {"method": "pep"},
    "tensor-train": {"method": "tensor-train"},
    "dhe": {"method": "dhe"},
}


def trained(ids: int, dim: int, noise: float = 0.2) -> tuple[Tensor, Tensor]:
    """A table `[ids, dim]` and how often each id occurs: about 1 / rank."""
    generator = torch.Generator().manual_seed(0)
    strength = 1 / (1 + torch.arange(dim)).float()
    turned = torch.linalg.qr(torch.randn(dim, dim, generator=generator))[0]
    vectors = (torch.randn(ids, dim, generator=generator) * strength) @ turned
    vectors += noise * strength.mean() * torch.randn(ids, dim, generator=generator)
    return vectors, (ids / (1 + torch.arange(ids)).double()).ceil()


def measured(name: str, ratio: str, vectors: Tensor, counts: Tensor) -> Row | str:
    """The figures of one method at one ratio, or why there are none."""
    ids, dim = vectors.shape
    stats = Counted({"ids": (torch.arange(ids).numpy(), counts.numpy())})
    found: Row = {"method": name, "ratio": ratio}
    try:
        for which, often in (("", [counts]), ("_alike", None)):
            words: dict[str, Any] = {"budget": ratio, "seed": 0, "stats": stats, **METHODS[name]}
            made = EmbeddingCollection([Field("ids", ids)], dim, **words)
            start = time.process_time()
            (fitted,) = fit(made.embedder, [vectors], often)
            seconds = time.process_time() - start
            found |= {f"error{which}": fitted.error, f"seconds{which}": seconds}
            found |= {"how": fitted.how, "bytes": made.plan.bytes}
    except BitfoldError as error:
        return error.problem
    return found


def main() -> None:
    """Measure, print, write `fitting.json`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("bench-out"), help="where to write")
    parser.add_argument("--ids", type=int, default=200_000, help="rows of the table")
    parser.add_argument("--dim", type=int, default=16, help="their width")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    words = parser.parse_args()
    torch.set_num_threads(words.threads)
    vectors, counts = trained(words.ids, words.dim)
    console, results = Console(width=150), []
    for ratio in RATIOS:
        shown = table(
            f"{words.ids:,} ids, width {words.dim}, {ratio}",
            ["method", "bytes", "error", "all alike", "CPU s", "how"],
        )
        for name in words.methods:
            found = measured(name, ratio, vectors, counts)
            if isinstance(found, str):
                console.print(f"{name} at {ratio}: {found}")
                continue
            results.append(found)
            figures = [f"{found[key]:.3f}" for key in ("error", "error_alike")]
            shown.add_row(
                name, f"{found['bytes']:,}", *figures, f"{found['seconds']:.1f}", found["how"]
            )
        console.print(shown)
    figures = {"machine": machine(ids=words.ids, dim=words.dim), "results": results}
    write(words.out, "fitting", figures, console)


if __name__ == "__main__":
    main()
