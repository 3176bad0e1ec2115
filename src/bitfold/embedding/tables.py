"""Tables of different widths and poolings, each read by one feature or by several.

What TorchRec's `EmbeddingBagConfig` and `EmbeddingBagCollection` describe, within one budget.
Shapes: `B` rows of a batch, `C` features (columns), `T` ids in bags.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bitfold.embedder.contract import Embedder
from bitfold.embedding.building import built
from bitfold.embedding.tracing import as_leaf
from bitfold.errors import BitfoldError
from bitfold.fuse.bags import check_offsets, check_pooling
from bitfold.method.shares import shared_out
from bitfold.planning.field import Field, check_columns
from bitfold.planning.plan import Plan


@dataclass(frozen=True)
class Table:
    """One table: how wide it is, how its bags are pooled, and which features read it.

    Args:
        name: unique among the tables.
        embedding_dim: numbers in a vector.
        num_embeddings: how many ids there are, or None for hashed ids.
        features: the features that read the table, in order; the table's own name if empty.
        mode: how bags are pooled: `sum`, `mean` or `max`.
        distinct: for hashed ids, about how many there are.

    Example:
        >>> Table("item", 16, 5000, features=("clicked", "shown")).features
        ('clicked', 'shown')
    """

    name: str
    embedding_dim: int
    num_embeddings: int | None = None
    features: tuple[str, ...] = ()
    mode: str = "sum"
    distinct: int | None = None

    def __post_init__(self) -> None:
        features: Any = self.features
        if isinstance(features, str):
            raise BitfoldError(
                f"features of table {self.name!r} are names, in a tuple",
                got=repr(self.features),
                expected=f"({self.features!r},)",
            )
        object.__setattr__(self, "features", tuple(self.features) or (self.name,))
        check_pooling(self.mode, None)

    @property
    def field(self) -> Field:
        """What a plan knows of it."""
        return Field(self.name, self.num_embeddings, self.distinct)


class TableCollection(nn.Module):
    """Vectors of features, side by side, from tables within one budget.

    Tables of one width share a plan. The budget is shared out by the sizes of the full tables;
    a width whose share is too small gets the least that will do, of the others' shares.

    Args:
        tables: what is embedded, and by which features it is read.
        method: one of `bitfold.methods()`.
        budget: serving bytes of all tables, `"64MiB"`, or a ratio to the full tables, `"100x"`.
        seed: what hashes are salted and fresh weights drawn from; None as for `Embedding`.
        sparse: whether gradients are sparse tensors.
        device: where the weights live.
        dtype: their type; torch's default if None.
        options: the method's own.

    Raises:
        BudgetTooSmall: if nothing fits; `.minimum` says the least bytes.
        BitfoldError: for tables or features of one name, or words that make no sense.

    Example:
        >>> tables = [Table("item", 4, 100, features=("clicked", "shown")), Table("day", 2, 7)]
        >>> collection = TableCollection(tables, budget="2x")
        >>> collection.features, collection.widths
        (('clicked', 'shown', 'day'), (4, 4, 2))
        >>> collection(torch.tensor([[99, 3, 6], [5, 5, 0]])).shape
        torch.Size([2, 10])
        >>> sorted(collection.by_feature(collection(torch.tensor([[99, 3, 6]]))))
        ['clicked', 'day', 'shown']
    """

    def __init__(
        self,
        tables: Sequence[Table],
        *,
        method: str = "auto",
        budget: int | str | None = None,
        seed: int | None = None,
        sparse: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if not tables:
            raise BitfoldError("there are no tables", got="an empty list", expected="one or more")
        self.tables = tuple(tables)
        self.features = tuple(name for table in tables for name in table.features)
        self.widths = tuple(table.embedding_dim for table in tables for _ in table.features)
        for what, names in (("tables", [t.name for t in tables]), ("features", self.features)):
            twice = sorted({name for name in names if list(names).count(name) > 1})
            if twice:
                raise BitfoldError(
                    f"{what} share a name", got=", ".join(twice), expected="one name each"
                )
        self._groups = [
            [t for t, table in enumerate(tables) if table.embedding_dim == width]
            for width in dict.fromkeys(table.embedding_dim for table in tables)
        ]
        self._columns: list[list[int]] = []  # of each table: the numbers of its features
        for table in tables:
            start = sum(len(each) for each in self._columns)
            self._columns.append(list(range(start, start + len(table.features))))
        said = {"method": method, "seed": seed or 0, "dtype": dtype, **options}
        parts: list[tuple[list[Field], int, dict[str, Any]]] = [
            ([self.tables[t].field for t in group], self.tables[group[0]].embedding_dim, {})
            for group in self._groups
        ]
        plans = shared_out(parts, budget, **said)
        self.embedders: Any = nn.ModuleList(
            built(plan, None if seed is None else seed + number, device, sparse)
            for number, plan in enumerate(plans)
        )

    @property
    def plans(self) -> tuple[Plan, ...]:
        """Where every number lies, a plan for each width."""
        return tuple(embedder.plan for embedder in self.embedders)

    def forward(
        self, ids: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None
    ) -> Tensor:
        """Vectors of a batch.

        Args:
            ids: int64 `[B, C]`, a column a feature; or, with offsets, `[T]`.
            offsets: int64 `[C * B + 1]`, feature by feature: bag `c * B + b`.
            per_sample_weights: `[T]`, where every table is summed.

        Returns:
            `[B, sum of widths]`, the features in order; see `by_feature`.

        Raises:
            IdOutOfRange: for a dense id that its table does not have; it names the table.
        """
        if type(ids) is not Tensor:  # something traces
            node: Any = as_leaf(self, ids, offsets, per_sample_weights)
            if node is not None:
                return node  # type: ignore[no-any-return]
        count = len(self.features)
        if offsets is None:
            check_columns(ids.shape, count, "feature")
            rows = ids.shape[0]
            ids = ids.T.reshape(-1)  # bags of one id each, which any pooling leaves as they are
            offsets = torch.arange(count * rows + 1, device=ids.device)
            modes = dict.fromkeys(range(len(self.tables)), "sum")
        else:
            if ids.dim() != 1 or offsets.dim() != 1 or offsets.shape[0] % count != 1 % count:
                raise BitfoldError(
                    "bags of the wrong shape",
                    got=f"ids {list(ids.shape)}, offsets {list(offsets.shape)}",
                    expected=f"ids [T], offsets [{count} * B + 1], feature by feature",
                )
            check_offsets(offsets, ids.shape[0])
            rows = (offsets.shape[0] - 1) // count
            modes = {t: table.mode for t, table in enumerate(self.tables)}
        found: dict[int, Tensor] = {}
        for embedder, group in zip(self.embedders, self._groups, strict=True):
            for mode in dict.fromkeys(modes[t] for t in group):
                read = [t for t in group if modes[t] == mode]
                found |= self._read(
                    embedder, group, read, mode, rows, ids, offsets, per_sample_weights
                )
        return torch.cat([found[c] for c in range(count)], 1)

    def _read(
        self,
        embedder: Embedder,
        group: list[int],
        read: list[int],
        mode: str,
        rows: int,
        ids: Tensor,
        offsets: Tensor,
        weights: Tensor | None,
    ) -> dict[int, Tensor]:
        """Vectors `[B, D]` by feature, of the tables of a group that are pooled alike.

        An embedder wants as many bags of every field: features of one table follow each other as
        further rows, and bags that are not asked for are empty.
        """
        counts = offsets.diff().reshape(len(self.features), rows)
        most = max(len(self._columns[t]) for t in read)
        nothing = counts.new_zeros(rows)
        lengths, chosen = [], []
        for t in group:
            own = self._columns[t] if t in read else []
            chosen += own
            lengths += [counts[c] for c in own] + [nothing] * (most - len(own))
        if len(chosen) < len(self.features):
            edges = offsets[::rows].tolist() if rows else [0] * (len(self.features) + 1)
            parts = [slice(edges[c], edges[c + 1]) for c in chosen]
            ids = torch.cat([ids[part] for part in parts])
            weights = None if weights is None else torch.cat([weights[part] for part in parts])
        starts = torch.cat([offsets.new_zeros(1), torch.cat(lengths).cumsum(0)])
        vectors = embedder.forward_bags(ids, starts, weights, mode)
        vectors = vectors.reshape(most, rows, len(group), vectors.shape[-1])
        return {
            c: vectors[number, :, place]
            for place, t in enumerate(group)
            if t in read
            for number, c in enumerate(self._columns[t])
        }

    def by_feature(self, vectors: Tensor) -> dict[str, Tensor]:
        """The vectors of each feature `[B, width]`, of what a call returned."""
        parts = torch.split(vectors, list(self.widths), -1)
        return dict(zip(self.features, parts, strict=True))

    def bytes(self, phase: str = "serving") -> dict[str, int]:
        """Bytes by kind; `phase` is `"serving"` or `"training"` (without an optimizer's state)."""
        total: dict[str, int] = {}
        for embedder in self.embedders:
            for kind, size in embedder.bytes(phase).items():
                total[kind] = total.get(kind, 0) + size
        return total

    def reset_parameters(self) -> None:
        """Draw fresh weights, as after `to_empty`: from the seed, or anew where none was said."""
        for embedder in self.embedders:
            embedder.reset_parameters()

    def extra_repr(self) -> str:
        """Method, tables, features and bytes."""
        size = sum(plan.bytes for plan in self.plans)
        tables, features = len(self.tables), len(self.features)
        return f"{self.plans[0].method}, tables={tables}, features={features}, bytes={size}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"
