"""The faces of `nn.Embedding` and `nn.EmbeddingBag`, and collections of fields.

All hold `Embedder`s. Shapes: `B` rows of a batch, `F` fields, `T` ids in bags, `D` the width,
`V` ids of a field.
"""

from bitfold.embedding.bag import EmbeddingBag
from bitfold.embedding.collection import EmbeddingCollection
from bitfold.embedding.computed import ComputedWeight
from bitfold.embedding.table import Embedding
from bitfold.embedding.tables import Table, TableCollection

__all__ = [
    "ComputedWeight",
    "Embedding",
    "EmbeddingBag",
    "EmbeddingCollection",
    "Table",
    "TableCollection",
]
