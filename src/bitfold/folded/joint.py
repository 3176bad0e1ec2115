"""Joint tables: what several tables of a model are folded into, and how they are read one by one.

A model calls its tables one after another. A call costs more than a row's lookup, so the first
table of a forward reads for all of them, where the memory around its ids, or what the model is
called with, tells what the others will be asked for (`guesses.py`). That is a guess: every table
compares the ids that it is given with those that were read, and reads for itself where they differ.
Small tables that stay whole are read with them where gradients are wanted (`beside.py`).
"""

import threading
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from bitfold.embedder.column import column
from bitfold.embedder.contract import Embedder
from bitfold.embedder.together import Reader
from bitfold.embedder.watching import watch
from bitfold.errors import IdOutOfRange
from bitfold.fitting import Fitted
from bitfold.folded.guesses import Candidates, Guess, InMemory, OfInputs, Seen
from bitfold.folded.ones import FEW
from bitfold.folded.record import PLAN, check_record, recorded
from bitfold.kernels.choice import DIRECT, torchs_own, way_of
from bitfold.pool import PackedPool

PATIENCE = 8
"""Guesses that may be wrong, one after another, before there are no more."""


class _Ahead(NamedTuple):
    """What was read ahead: the ids, vectors `[B, D]` by table, and what they depend on.

    Vectors that were given out are gone. Ids are `[N][B]`, of tables in the order of `at`; `few`
    says that they are Python's, and flat.
    """

    few: bool
    ids: Any
    at: dict[int, int]
    vectors: dict[int, Tensor]
    versions: list[int]
    beside: dict[int, tuple[int, int]]


class _State(threading.local):
    """Of each thread: what is ahead, what was seen of this forward, and the guess."""

    def __init__(self) -> None:
        self.ahead: _Ahead | None = None
        self.seen: dict[int, Seen] = {}
        self.guess: Guess | None = None
        self.inputs: Any = None  # what the model was called with
        self.candidates = Candidates()
        self.reader: Reader | None = None
        self.wrong = 0

    def forget(self) -> None:
        """The guess was wrong."""
        self.ahead = self.guess = self.reader = None
        self.wrong += 1

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
        self.states = _State(), _State()  # without gradients, and with them
        self.beside = 0  # whole tables that may be read with these; their numbers come after
        self.fitted: tuple[Fitted, ...] = ()
        # Where the numbers are that vectors are made of, as "weight": modules' dictionaries.
        self.slots: tuple[dict[str, Any], ...] = tuple(
            place
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
        made = type(self)(embedder).train(self.training)
        made.beside = self.beside
        return made

    def ahead(
        self, number: int, ids: Tensor, padding_idx: int | None, table: Any = None
    ) -> Tensor | None:
        """Vectors `[..., D]` of a table's ids, if they were read with those of the first table.

        Args:
            number: the table; from the number of fields on, those that are whole.
            ids: int64 `[B]` or `[B, 1]`.
            padding_idx: an id of the table whose vector is zero.
            table: the module, of a whole table.

        Returns:
            None if the table has to read for itself.
        """
        state = self.states[torch.is_grad_enabled()]
        shape = ids.shape
        if len(shape) != 1 and (len(shape) != 2 or shape[1] != 1):
            return None
        guess = state.guess
        if guess is None:
            if state.wrong >= PATIENCE:
                return None
            guess = self._see(state, number, ids, table)
            if guess is None:
                return None
        if number == guess.first:
            before = state.ahead
            if before is not None and before.vectors:
                # Not all tables are read in a forward: what is read in vain would be trained.
                state.forget()
                return None
            state.ahead = self._read(state, guess, ids)
        there = state.ahead
        if there is None:
            return None
        vectors = there.vectors.pop(number, None)
        if vectors is None:
            return None
        if table is None:
            if there.versions != self._versions():
                return None
        else:
            weight = table._parameters.get("weight")
            if weight is None or there.beside[number] != (id(weight), weight._version):
                return None
        if there.few:
            listed = ids.tolist() if len(shape) == 1 else ids.reshape(-1).tolist()
            begin = there.at[number] * shape[0]
            right = listed == there.ids[begin : begin + shape[0]]
            pads = padding_idx is not None and padding_idx in listed
        else:
            right = torch.equal(ids.reshape(-1), there.ids[there.at[number]])
            pads = padding_idx is not None
        if not right:
            state.forget()
            return None
        if state.wrong:
            state.wrong = 0
        if pads and padding_idx is not None:
            zero = ids.reshape(-1).eq(padding_idx).unsqueeze(-1)
            vectors = vectors.masked_fill(zero, 0.0)
        return vectors if len(shape) == 1 else vectors.unsqueeze(1)

    def train(self, mode: bool = True) -> Self:
        """Set the flag; how batches lie in memory is learned anew."""
        self.states = _State(), _State()
        return super().train(mode)

    def _versions(self) -> list[int]:
        """How often each weight was written to."""
        return [place["weight"]._version for place in self.slots]

    def called(self, inputs: Any) -> bool:
        """A forward of the model begins; returns whether what it is called with may be of use.

        Args:
            inputs: that.
        """
        state = self.states[torch.is_grad_enabled()]
        if state.guess is None and state.wrong < PATIENCE and state.seen:
            state.guess = self._guessed(state)
            state.seen.clear()
        wanted = state.wrong < PATIENCE and not isinstance(state.guess, InMemory)
        state.inputs = inputs if wanted else None
        return wanted

    def _see(self, state: _State, number: int, ids: Tensor, table: Any) -> Guess | None:
        """Take down a table's ids; a guess is made when the next forward begins."""
        seen = state.seen
        if number in seen:
            state.guess = self._guessed(state)
            seen.clear()
            if state.guess is not None:
                return state.guess
        if ids.dtype is torch.int64 and ids.is_cpu:
            seen[number] = Seen(ids, table)
        else:
            seen.clear()
        return None

    def _guessed(self, state: _State) -> Guess | None:
        """Where the next forward's ids will be, if there is an order in the one that was seen."""
        fields, inputs = len(self.columns), state.inputs
        if fields + self.beside < 2 or any(field not in state.seen for field in range(fields)):
            return None
        guess: Guess | None = InMemory.of(state.seen, fields)
        if guess is None and inputs is not None:
            guess = state.candidates.guess(state.seen, fields, inputs)
            if guess is None and not state.candidates.lost:
                return None
        if guess is None:
            state.wrong += 1
        if guess is None or isinstance(guess, OfInputs):
            state.candidates = Candidates()
        return guess

    def _read(self, state: _State, guess: Guess, ids: Tensor) -> _Ahead | None:
        """Read for all tables, if their ids may lie where the guess says."""
        rows = ids.shape[0]
        if (
            not rows
            or ids.dtype is not torch.int64
            or not ids.is_cpu
            or torch.is_autocast_enabled("cpu")
        ):
            return None
        embedder, grads, fields = self.embedder, torch.is_grad_enabled(), len(self.columns)
        reader = state.reader
        if not torchs_own() or reader is None or not reader.holds():
            weights = [place["weight"] for place in self.slots]
            if not weights or any(each is None or each.is_inference() for each in weights):
                return None
            if way_of(weights[0]) != DIRECT:
                return None
            reader = None
            if not embedder.observes:
                whole = guess.beside if grads else {}
                reader = Reader.of(embedder, [*range(fields), *whole], [*whole.values()])
            state.reader = reader
        try:  # what lies beyond the memory is refused by torch
            placed = guess.places(ids, state.inputs)
            if placed is None:
                return None
            places, kept = placed
            versions = self._versions()
            if reader is not None and reader.fits(rows):
                at, tables, ends = reader.at, reader.tables, 1  # all are of one node
                found, known = reader.read(rows, places[: 2 * len(at)])
            else:
                at, tables, ends = {field: field for field in range(fields)}, (), fields
                found, known = _apart(embedder, _stacked(places[: 2 * fields], kept, rows))
        except (IdOutOfRange, RuntimeError):  # what lies there are no ids
            state.forget()
            return None
        if grads:
            nodes: Any = {each.grad_fn for each in found[:ends] if each.requires_grad}
            for node in nodes:  # of many columns each
                node.register_prehook(partial(_forget, state))
        few, count, beside = rows <= FEW, len(found), {}
        listed: Any = known.tolist() if few else known.as_strided((count, rows), (rows, 1))
        if tables:
            for number, table in guess.beside.items():
                weight = table._parameters["weight"]
                beside[number] = id(weight), weight._version
        return _Ahead(few, listed, at, dict(zip(at, found, strict=True)), versions, beside)

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


def _stacked(places: Sequence[int], kept: Any, rows: int) -> Tensor:
    """Ids `[B, F]`, a column for each place in memory that `kept` keeps."""
    found = []
    for n, (address, apart) in enumerate(zip(places[::2], places[1::2], strict=True)):
        own: Tensor = kept if isinstance(kept, Tensor) else kept[n]
        offset = int(own.storage_offset()) + (address - own.data_ptr()) // 8
        found.append(own.as_strided((rows,), (apart,), offset))
    return torch.stack(found, 1)


_own: Any = torch.unbind_copy  # views of one tensor could not be written to


def _apart(embedder: Embedder, ids: Tensor) -> tuple[Sequence[Tensor], Tensor]:
    """The vectors of ids `[B, F]`, read by the embedder itself; and the ids `[F, B]`, flat."""
    vectors = embedder(ids)
    if embedder.observes:
        watch(embedder, ids, None, vectors)
    return _own(vectors, 1), ids.t().reshape(-1)


def _forget(state: _State, grads: Any) -> None:
    """What is ahead is of a graph that is gone."""
    state.ahead = None
