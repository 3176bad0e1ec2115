"""An index of items: the nearest ones by inner product, exactly or near enough, and its bytes.

Shapes: `I` items, `Q` questions, `D` the width.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bitfold.errors import BitfoldError
from bitfold.ranking.questions import blocks
from bitfold.retrieval.lowbit import LowBit

SCORES = 1 << 23  # scores that are held at once
LINKS = 32  # of an item in a layer of HNSW
BUILD = 200  # how many candidates HNSW looks at while it is built
LEAST_CELL = 39  # items that faiss wants for each cell of an inverted file


def faiss() -> Any:
    """The library of approximate search.

    Raises:
        BitfoldError: it is not installed.
    """
    try:
        import faiss as found
    except ModuleNotFoundError as error:
        raise BitfoldError(
            "approximate search needs faiss",
            got="no package faiss",
            expected="faiss-cpu",
            fix="pip install 'bitfold[retrieval]', or say --index exact",
        ) from error
    return found


class Exact:
    """Every item for every question, read from rows of few bits.

    Args:
        rows: the items.

    Example:
        >>> index = Exact(LowBit.of(torch.eye(3), 8))
        >>> index.search(torch.tensor([[0.0, 2.0, 1.0]]), 2)[1].tolist()
        [[1, 2]]
    """

    def __init__(self, rows: LowBit) -> None:
        self.rows = rows

    @property
    def bytes(self) -> int:
        """Of the rows."""
        return self.rows.bytes

    def search(self, questions: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Scores and places `[Q, min(k, I)]` of the items nearest to questions `[Q, D]`."""
        count = len(self.rows.codes)
        items = self.rows.read()
        scores, places = [], []
        for start, stop in blocks(len(questions), max(SCORES // max(count, 1), 1)):
            found = (questions[start:stop] @ items.T).topk(min(k, count), dim=1)
            scores.append(found.values)
            places.append(found.indices)
        if not scores:
            return torch.zeros(0, min(k, count)), torch.zeros(0, min(k, count), dtype=torch.int64)
        return torch.cat(scores), torch.cat(places)


class Approximate:
    """An index of faiss: `hnsw`, a graph, or `ivf`, cells of neighbours.

    Args:
        index: faiss's own.
        effort: how far it looks: candidates of HNSW, cells of an inverted file.
    """

    def __init__(self, index: Any, effort: int) -> None:
        self.index = index
        self.effort = min(effort, max(1, index.ntotal))  # faiss takes memory for each candidate
        if hasattr(index, "hnsw"):
            index.hnsw.efSearch = self.effort
        else:
            index.nprobe = min(effort, index.nlist)

    @classmethod
    def build(cls, vectors: Tensor, kind: str, bits: int, effort: int) -> "Approximate":
        """Build it of items `[I, D]`, by one thread: the same items give the same index.

        Raises:
            BitfoldError: faiss is not installed.
        """
        library = faiss()
        count, width = vectors.shape
        metric = library.METRIC_INNER_PRODUCT
        code = {8: library.ScalarQuantizer.QT_8bit, 4: library.ScalarQuantizer.QT_4bit}.get(bits)
        if kind == "hnsw":
            made = (
                library.IndexHNSWFlat(width, LINKS, metric)
                if code is None
                else library.IndexHNSWSQ(width, code, LINKS, metric)
            )
            made.hnsw.efConstruction = BUILD
        else:
            cells = max(1, min(int(4 * count**0.5), count // LEAST_CELL))
            coarse = library.IndexFlatIP(width)
            made = (
                library.IndexIVFFlat(coarse, width, cells, metric)
                if code is None
                else library.IndexIVFScalarQuantizer(coarse, width, cells, code, metric)
            )
            made.cp.min_points_per_centroid = 1  # faiss warns of a single cell with fewer items
        rows: Any = np.ascontiguousarray(vectors.detach().float().numpy())
        with _one_thread(library):
            made.train(rows)
            made.add(rows)
        return cls(made, effort)

    @classmethod
    def load(cls, content: "np.ndarray[Any, Any]", effort: int) -> "Approximate":
        """Read what `content` wrote."""
        return cls(faiss().deserialize_index(content), effort)

    @property
    def content(self) -> "np.ndarray[Any, Any]":
        """The index as bytes, uint8."""
        found: np.ndarray[Any, Any] = faiss().serialize_index(self.index)
        return found

    @property
    def bytes(self) -> int:
        """Of the whole index, its links and cells too."""
        return len(self.content)

    def search(self, questions: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Scores and places `[Q, min(k, I)]`; -inf and -1 where fewer were found."""
        rows: Any = np.ascontiguousarray(questions.detach().float().numpy())
        if hasattr(self.index, "hnsw"):
            self.index.hnsw.efSearch = max(self.effort, min(k, self.index.ntotal))
        with _one_thread(faiss()):
            scores, places = self.index.search(rows, min(k, self.index.ntotal))
        scores[places < 0] = -np.inf
        return torch.from_numpy(scores), torch.from_numpy(places)


Index = Exact | Approximate


def build_index(vectors: Tensor, kind: str, bits: int, effort: int) -> Index:
    """The index of items `[I, D]`.

    Args:
        vectors: the items.
        kind: `exact`, `hnsw` or `ivf`.
        bits: of a number: 32, 8 or 4.
        effort: how far an approximate one looks.
    """
    if kind == "exact":
        return Exact(LowBit.of(vectors, bits))
    return Approximate.build(vectors, kind, bits, effort)


@contextlib.contextmanager
def _one_thread(library: Any) -> Iterator[None]:
    """While the block runs, faiss works in one thread."""
    before = library.omp_get_max_threads()
    library.omp_set_num_threads(1)
    try:
        yield
    finally:
        library.omp_set_num_threads(before)
