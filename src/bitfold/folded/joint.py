"""Joint tables: what several tables of a model are folded into, and how they are read one by one.

A model calls its tables one after another, often on the columns of one batch. A call costs more
than a row's lookup, so the first table of a forward reads for all of them, where the memory around
its ids tells what the others will be asked for. That is a guess: every table compares the ids that
it is given with those that were read, and reads for itself where they differ.
"""

import threading
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from bitfold.embedder.column import column
from bitfold.embedder.contract import Embedder
from bitfold.embedder.watching import watch
from bitfold.errors import IdOutOfRange
from bitfold.fitting import Fitted
from bitfold.folded.record import PLAN, check_record, recorded
from bitfold.kernels.choice import DIRECT, way_of
from bitfold.pool import PackedPool

FEW = 64
"""Ids of a column up to which they are compared as Python's integers, which is quicker."""
PATIENCE = 8
"""Guesses that may be wrong, one after another, before there are no more."""
MOST = 16
"""Columns that may lie in one memory for each of the tables'."""


class _Guess(NamedTuple):
    """How the ids of all tables lie in memory around those of the table that is read first.

    Args:
        first: that table.
        before: how far the lowest ids lie before its own: in ids, or in columns where `whole`.
        span: how far it is from the lowest ids to the highest, and one more.
        columns: where each table's ids are in that span, `[F]`; None where they fill it in order.
        whole: whether a table's ids follow each other: columns are a batch apart.
        dims: of the ids of a table.
    """

    first: int
    before: int
    span: int
    columns: Tensor | None
    whole: bool
    dims: int


class _Ahead(NamedTuple):
    """What was read ahead: the ids, vectors `[B, D]` by field, and what they depend on.

    Vectors that were given out are None; `few` says that ids are Python's, by field.
    """

    few: bool
    ids: Any
    vectors: list[Tensor | None]
    grad: bool
    versions: list[int]


class _State(threading.local):
    """Of each thread: what is ahead, what was seen of this forward, and the guess."""

    def __init__(self) -> None:
        self.ahead: _Ahead | None = None
        self.seen: dict[int, tuple[int, Any, torch.Size, tuple[int, ...]]] = {}
        self.guess: _Guess | None = None
        self.wrong = 0

    def __reduce__(self) -> Any:
        return _State, ()

    def __deepcopy__(self, memo: Any) -> "_State":
        return _State()


class Joint(nn.Module):
    """An embedder of `F` tables, and a column for each.

    It is a submodule of the first of its tables; the others refer to it, so that its parameters and
    its state are there once.

    Args:
        embedder: of all tables, a field each, named by their places in the model.

    `fitted` says how near the tables came to those of a trained model, if they were fitted.
    """

    def __init__(self, embedder: Embedder) -> None:
        super().__init__()
        self.embedder = embedder
        self.columns = tuple(column(embedder, f) for f in range(len(embedder.plan.fields)))
        self.state = _State()
        self.fitted: tuple[Fitted, ...] = ()
        # Where the numbers are that vectors are made of: modules' dictionaries and keys.
        self.slots = tuple(
            (place, "weight")
            for part in embedder.modules()
            for place in (part._parameters, part._buffers)
            if place.get("weight") is not None
        )

    @property
    def names(self) -> list[str]:
        """The tables' places in the model."""
        return [field.name for field in self.embedder.plan.fields]

    @property
    def packed(self) -> bool:
        """Whether some of its pools are packed: it serves, and is not trained."""
        return any(isinstance(part, PackedPool) for part in self.embedder.modules())

    def around(self, embedder: Embedder) -> Self:
        """The same of another embedder."""
        return type(self)(embedder).train(self.training)

    def ahead(self, field: int, ids: Tensor, padding_idx: int | None) -> Tensor | None:
        """Vectors `[..., D]` of a table's ids, if they were read with those of the first table.

        Args:
            field: the table.
            ids: int64 `[B]` or `[B, 1]`.
            padding_idx: an id of the table whose vector is zero.

        Returns:
            None if the table has to read for itself.
        """
        state = self.state
        guess, shape = state.guess, ids.shape
        if guess is None or len(shape) > 2 or (len(shape) == 2 and shape[1] != 1):
            if guess is None and state.wrong < PATIENCE:
                self._see(field, ids)
            return None
        if field == guess.first:
            before = state.ahead
            if before is not None and before.vectors.count(None) < len(before.vectors):
                # Not all tables are read in a forward: what is read in vain would be trained.
                state.ahead = state.guess = None
                state.wrong += 1
                return None
            state.ahead = self._read(guess, ids)
        there = state.ahead
        if there is None or there.grad is not torch.is_grad_enabled():
            return None
        vectors: Any = there.vectors[field]
        there.vectors[field] = None
        if vectors is None or there.versions != self._versions():
            return None
        if there.few:
            listed = ids.tolist() if len(shape) == 1 else ids.reshape(-1).tolist()
            right = tuple(listed) == there.ids[field]
            pads = padding_idx is not None and padding_idx in listed
        else:
            right = torch.equal(ids.reshape(-1), there.ids[:, field])
            pads = padding_idx is not None
        if not right:
            state.ahead = state.guess = None
            state.wrong += 1
            return None
        if state.wrong:
            state.wrong = 0
        if pads and padding_idx is not None:
            zero = ids.reshape(-1).eq(padding_idx).unsqueeze(-1)
            vectors = vectors.masked_fill(zero, 0.0)
        found: Tensor = vectors if len(shape) == 1 else vectors.unsqueeze(1)
        return found

    def train(self, mode: bool = True) -> Self:
        """Set the flag; how batches lie in memory is learned anew."""
        self.state = _State()
        return super().train(mode)

    def _versions(self) -> list[int]:
        """How often each weight was written to."""
        if len(self.slots) == 1:  # most often; a row's lookup is a microsecond, too
            ((place, name),) = self.slots
            return [place[name]._version]  # type: ignore[union-attr]
        return [place[name]._version for place, name in self.slots]  # type: ignore[union-attr]

    def _see(self, field: int, ids: Tensor) -> None:
        """Take down where a table's ids lie; a guess is made when all tables were seen once."""
        state, count = self.state, len(self.columns)
        seen = state.seen
        if field in seen or ids.dtype is not torch.int64 or not ids.is_cpu:
            seen.clear()
        storage = ids.untyped_storage().data_ptr()
        seen[field] = storage, ids.storage_offset(), ids.shape, ids.stride()
        if len(seen) < count or count < 2:
            return
        first, places = next(iter(seen)), [seen[f] for f in range(count)]
        seen.clear()
        if len({(where, shape, stride) for where, _, shape, stride in places}) > 1:
            state.wrong += 1
            return
        _, _, shape, stride = places[0]
        offsets = [offset for _, offset, _, _ in places]
        low, rows = min(offsets), shape[0]
        # Columns of rows keep their distance whatever the batch; rows of ids are a batch apart.
        whole = stride[0] == 1 and rows > 0 and all((each - low) % rows == 0 for each in offsets)
        unit = rows if whole else 1
        columns = [(each - low) // unit for each in offsets]
        in_order = columns == list(range(count))
        if max(columns) < MOST * count:
            state.guess = _Guess(
                first, columns[first], max(columns) + 1,
                None if in_order else torch.tensor(columns), whole, len(shape),
            )  # fmt: skip
        else:
            state.wrong += 1

    def _read(self, guess: _Guess, ids: Tensor) -> _Ahead | None:
        """Read for all tables, if their ids may lie where the guess says."""
        if (
            ids.dim() != guess.dims
            or ids.dtype is not torch.int64
            or not ids.is_cpu
            or ids.requires_grad
            or torch.is_autocast_enabled("cpu")
        ):
            return None
        rows, stride = ids.shape[0], ids.stride()[0]
        unit = rows if guess.whole else 1
        start = ids.storage_offset() - guess.before * unit
        if not rows or start < 0 or (guess.whole and stride != 1):
            return None
        weights = [place[name] for place, name in self.slots]
        if not weights or any(each is None or each.is_inference() for each in weights):
            return None
        if way_of(weights[0]) != DIRECT:  # type: ignore[arg-type]
            return None
        few = rows <= FEW
        try:  # what lies beyond the memory is refused by torch
            every = ids.as_strided((rows, guess.span), (stride, unit), start)
            if guess.columns is not None:
                every = every.index_select(1, guess.columns)
            elif not few:
                every = every.clone()  # to compare with, whatever is written there meanwhile
            versions = self._versions()
            if self.embedder.observes:
                vectors = self.embedder(every)
                watch(self.embedder, every.clone(), None, vectors)
                found = list(vectors.unbind(1))
            else:
                found = self.embedder.apart(every)
        except (IdOutOfRange, RuntimeError):  # what lies there are no ids
            self.state.guess = None
            self.state.wrong += 1
            return None
        nodes: Any = {vectors.grad_fn for vectors in found if vectors.requires_grad}
        for node in nodes:  # of many columns each
            node.register_prehook(self._forget)
        listed: Any = [*zip(*every.tolist(), strict=True)] if few else every
        return _Ahead(few, listed, found, torch.is_grad_enabled(), versions)

    def _forget(self, grads: Any) -> None:
        """What is ahead is of a graph that is gone."""
        self.state.ahead = None

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}{PLAN}"] = recorded(self.embedder.plan, self.packed)

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local: Any, strict: bool, *rest: Any
    ) -> None:
        found = state_dict.pop(f"{prefix}{PLAN}", None)  # of torch's own copy of the dictionary
        if found is not None:
            check_record(found, self.embedder.plan, self.packed)
        super()._load_from_state_dict(state_dict, prefix, local, strict, *rest)
