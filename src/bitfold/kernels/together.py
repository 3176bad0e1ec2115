"""Lookups of several pools, their heads and whole tables beside them, in one call each way.

Where tables are small, a step is the calls: each costs more than the rows that it reads. What
kernels need to know of weights is held against them once and written into a frame of memory; a
batch fills in its ids and where its vectors go. It is for batches that one thread reads at once.
"""

import ctypes
import threading
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bitfold.errors import IdOutOfRange
from bitfold.kernels import backward as walks
from bitfold.kernels import jobs, ops, tables, touched
from bitfold.kernels.call import (
    CENTRES,
    IDS,
    POOL,
    ROWS,
    SPACE,
    STEPS,
    VECTORS,
)
from bitfold.kernels.held import check_tensor, refused
from bitfold.kernels.kept import marks_of, scratch
from bitfold.kernels.lookup import needs_values
from bitfold.kernels.part import Part, Source, Table
from bitfold.kernels.reading import Reading
from bitfold.kernels.ready import Given, as_kind, kernel_of
from bitfold.kernels.vectors import lanes_of

MOST_NUMBERS = 1 << 19
"""Numbers of a batch's vectors up to which one thread reads them at once."""


class Frame:
    """A list of jobs in memory, as `jobs.run_all` takes it; `words[at[n]:]` is what job n is told."""

    def __init__(self, listed: Sequence[tuple[int, Sequence[int]]]) -> None:
        sizes = [1 + 2 * len(listed), *(len(words) for _, words in listed)]
        starts = list(accumulate(sizes))
        self.words: Any = (ctypes.c_int64 * starts[-1])()
        self.at, base = starts[:-1], ctypes.addressof(self.words)
        self.words[0] = len(listed)
        for n, ((kernel, words), start) in enumerate(zip(listed, self.at, strict=True)):
            self.words[1 + 2 * n], self.words[2 + 2 * n] = kernel, base + 8 * start
            self.words[start : start + len(words)] = words
        self.run, self.base = jobs.run_all().call, base


class _Held(NamedTuple):
    """A part that was held against its program."""

    part: Part
    given: Given
    common: tuple[int, ...]
    values: bool
    narrow: int  # its width before the head
    first: int  # of its fields, in the order of parts


class Together:
    """Parts and tables that are read together, held once.

    Args:
        parts: lookups, of vectors of float32.
        beside: whole tables of the same width.

    Raises:
        BitfoldError: for a tensor whose memory is not what the kernels read.
    """

    def __init__(self, parts: Sequence[Part], beside: Sequence[Table]) -> None:
        self.parts, self.beside = tuple(parts), tuple(beside)
        firsts = [0, *accumulate(part.fields for part in parts)]
        self.held = [_hold(part, first) for part, first in zip(parts, firsts, strict=False)]
        self.fields = firsts[-1]
        self.columns = self.fields + len(beside)
        head = parts[0].head
        self.dim = int(parts[0].words[5] if head is None else head.shape[2])
        self.narrow = sum(each.part.fields * each.narrow for each in self.held)
        for part in parts:
            width = part.words[5] if part.head is None else part.head.shape[2]
            if part.head is not None:
                shape = (part.fields, int(part.words[5]), self.dim)
                check_tensor("the head", part.head, shape, torch.float32)
            if width != self.dim or not (part.head is None or part.head.is_contiguous()):
                raise refused("the head", width, f"contiguous, to {self.dim} columns")
        for table in beside:
            shape = table.weight.shape[0], self.dim
            check_tensor("the weight", table.weight, shape, torch.float32)
            if not table.weight.is_contiguous():
                raise refused("the weight", f"strides {table.weight.stride()}", "a contiguous one")
        # What may be put elsewhere: weights by `.data`, scales by a checkpoint.
        self.told = [(t, t.data_ptr()) for t in self._tensors()]
        self.weights = [part.weight for part in parts]
        self.weights += [part.head for part in parts if part.head is not None]
        self.weights += [table.weight for table in beside]
        self.frames: dict[int, tuple[Frame, Any]] = {}

    def _tensors(self) -> list[Tensor]:
        found: list[Tensor] = []
        for part in self.parts:
            scales = part.words[8], part.words[9]
            found += [t for t in (part.weight, part.head, *scales, *part.tables) if t is not None]
        return found + [table.weight for table in self.beside]

    def fits(self, parts: Sequence[Part], beside: Sequence[Table]) -> bool:
        """Whether these are still the parts and tables, where they were."""
        if len(parts) != len(self.parts) or len(beside) != len(self.beside):
            return False
        for mine, part in zip(self.parts, parts, strict=True):
            if (
                mine.weight is not part.weight
                or mine.head is not part.head
                or mine.sparse is not part.sparse
                or any(a is not b for a, b in zip(mine.words, part.words, strict=True))
                or any(a is not b for a, b in zip(mine.tables, part.tables, strict=True))
            ):
                return False
        for known, table in zip(self.beside, beside, strict=True):
            if known.weight is not table.weight or known[1:] != table[1:]:
                return False
        return all(tensor.data_ptr() == address for tensor, address in self.told)

    def read(
        self, rows: int, sources: Sequence[Source], apart: bool
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Vectors `[B, D]` of all fields of the parts, then of the tables.

        Args:
            rows: `B`.
            sources: where ids are, of each column.
            apart: whether each column is a tensor of its own, or all are one.

        Returns:
            The vectors; the ids, flat, those of a part as `[B, f]` and then those of each table;
            vectors before heads, flat.

        Raises:
            IdOutOfRange: for an id that has no row.
        """
        frame, flags = self._frame()
        words, at, dim = frame.words, frame.at, self.dim
        kept = torch.empty(rows * self.columns, dtype=torch.int64)
        like = self.held[0].given.ready.like
        narrow = like.new_empty(rows * self.narrow)
        if apart:
            found = [like.new_empty(rows, dim) for _ in range(self.columns)]
        else:
            found = list(like.new_empty(self.columns, rows, dim).unbind(0))
        at_ids, at_narrow = kept.data_ptr(), narrow.data_ptr()
        place = at[0]
        words[place] = rows
        place += 2
        for n, source in enumerate(sources):
            field, held = n - self.fields, None if n >= self.fields else self._whose[n]
            if held is None:
                words[place + 1] = at_ids + 8 * rows * n
            else:
                field = n - held.first
                words[place + 1] = at_ids + 8 * (rows * held.first + field)
            words[place], words[place + 2] = source.address, source.apart
            place += 4
        number, offset = 1, 0
        for held in self.held:
            place, fields = at[number], held.part.fields
            words[place + ROWS] = rows
            words[place + IDS] = at_ids + 8 * rows * held.first
            here = at_narrow + 4 * rows * offset
            if held.part.head is None and fields == 1:
                words[place + VECTORS] = found[held.first].data_ptr()
                number += 1
            else:
                words[place + VECTORS] = here
                place = at[number + 1]
                words[place + jobs.ROWS], words[place + jobs.NARROW] = rows, here
                for field in range(fields):
                    words[place + jobs.COLUMNS + field] = found[held.first + field].data_ptr()
                number += 2
            offset += fields * held.narrow
        if self.beside:
            place = at[number]
            words[place + tables.ROWS] = rows
            words[place + tables.IDS] = at_ids + 8 * rows * self.fields
            place += tables.HEAD
            for n in range(len(self.beside)):
                words[place + tables.COLUMN] = n * rows
                words[place + tables.FOUND] = found[self.fields + n].data_ptr()
                place += tables.COLUMNS
            words[at[number] + tables.BAD] = 0
        frame.run(frame.base, 0)
        if any(flag.item(0) >= 0 for flag in flags) or (
            self.beside and words[at[number] + tables.BAD]
        ):
            raise IdOutOfRange(
                "an id is outside of one of the tables that are read together",
                got=f"{rows} rows of {self.columns} columns",
                expected="ids from 0 to the last row",
            )
        return found, kept, narrow

    def ids_of(self, kept: Tensor, rows: int, number: int) -> Tensor:
        """The ids `[B]` of a column, of those that `read` kept."""
        if number >= self.fields:
            return kept[rows * number : rows * (number + 1)]
        held = self._whose[number]
        fields, begin = held.part.fields, rows * held.first
        return kept[begin + number - held.first : begin + rows * fields : fields]

    @property
    def _whose(self) -> list[_Held]:
        found: list[_Held] | None = self.__dict__.get("_found")
        if found is None:
            found = [each for each in self.held for _ in range(each.part.fields)]
            self.__dict__["_found"] = found
        return found

    def _frame(self) -> tuple[Frame, Any]:
        """This thread's list of jobs, and the words that say whether an id was out of range."""
        me = threading.get_ident()
        found = self.frames.get(me)
        if found is not None:
            return found
        gather = [0, self.columns]
        for n in range(self.columns):
            stride = 1 if n >= self.fields else self._whose[n].part.fields
            gather += [0, 0, 0, stride]
        listed: list[tuple[int, Sequence[int]]] = [(jobs.gather().address, gather)]
        flags = []
        for held in self.held:
            words = [*held.common, 0]
            space = np.full(held.given.reading.room + held.given.ready.spare, -1, np.int64)
            flags.append(space)
            words[SPACE] = space.ctypes.data
            listed.append((kernel_of(held.given.ready, False).address, words))
            part, lanes = held.part, lanes_of(self.dim)
            if part.head is not None or part.fields > 1:
                kernel = jobs.split(lanes) if part.head is None else jobs.lift(lanes)
                listed.append((kernel.address, self._moving(held)))
        if self.beside:
            words = [0, self.dim, len(self.beside), 0, 1, 0]
            for table in self.beside:
                words += [table.weight.data_ptr(), table.weight.shape[0], 0, -1, 0, 0]
            listed.append((tables.forward(lanes_of(self.dim)).address, words))
        if len(self.frames) >= KEPT_FRAMES:
            self.frames.clear()
        found = self.frames[me] = Frame(listed), flags
        return found

    def _moving(self, held: _Held) -> list[int]:
        """What the jobs between lookups and vectors are told."""
        head = 0 if held.part.head is None else held.part.head.data_ptr()
        fields = held.part.fields
        return [0, fields, held.narrow, self.dim, 0, head, 0, 0, *[0] * fields]


KEPT_FRAMES = 16
"""Threads whose lists are kept."""


def _hold(part: Part, first: int) -> _Held:
    fields = part.fields
    ids = torch.zeros((1, fields), dtype=torch.int64)  # any: a batch's own come later
    reading = Reading._make((part.weight, None, ids, None, None, *part.words, list(part.tables)))
    if reading.dtype is not torch.float32 or not part.weight.is_contiguous():
        raise refused(
            "the weight", f"{part.weight.dtype}", "contiguous numbers of float32, or codes"
        )
    given = Given.of(reading)
    values = needs_values(reading.packed, reading.fusion)
    common = given.told(0, None, given.ready.like)
    return _Held(part, given, common, values, reading.dim, first)


def together(made: Together, rows: int, sources: Sequence[Source]) -> tuple[list[Tensor], Tensor]:
    """Vectors `[B, D]` of each column, with gradients where they are enabled; and the ids.

    Raises:
        IdOutOfRange: for an id that has no row.
    """
    if torch.is_grad_enabled() and any(weight.requires_grad for weight in made.weights):
        apply: Any = _Together.apply
        holder: list[Tensor] = []
        found = apply((made, rows, sources, holder), *made.weights)
        return list(found), holder[0]
    columns, kept, _ = made.read(rows, sources, apart=torch.is_grad_enabled())
    return columns, kept


class _Together(torch.autograd.Function):
    """Vectors of parts and tables; the weights are arguments so that autograd sees them."""

    @staticmethod
    def forward(ctx: Any, given: Any, *weights: Tensor) -> tuple[Tensor, ...]:
        """Vectors, and what their gradient needs."""
        made, rows, sources, holder = given
        columns, kept, narrow = made.read(rows, sources, apart=True)
        holder.append(kept)
        ctx.set_materialize_grads(False)
        ctx.made, ctx.rows, ctx.scales = made, rows, []
        pools: list[Tensor] = []
        for held in made.held:
            centres, steps = held.part.words[8], held.part.words[9]
            if held.values:  # a refresh between a forward and its backward writes into them
                centres = None if centres is None else centres.clone()
                steps = None if steps is None else steps.clone()
                pools.append(held.part.weight)
            ctx.scales.append((centres, steps))
        heads = (held.part.head for held in made.held if held.part.head is not None)
        ctx.save_for_backward(kept, narrow, *heads, *pools)
        return tuple(columns)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gradients of the weights, in their order; None of what no vector was needed of."""
        with torch.no_grad():
            found = _differentiated(ctx, grads)
        if (
            torch.is_grad_enabled()
        ):  # a graph of the gradient is wanted, and refused once it is used
            sources = [each for each in grads if each is not None and each.requires_grad]
            once: Any = ops.Once.apply
            rest = iter(once(len(sources), *sources, *(v for _, v, _ in found if v is not None)))
            found = [(r, v if v is None else next(rest), t) for r, v, t in found]
        return None, *(
            values if rows is None or values is None else ops.of_rows(rows, values, table)
            for rows, values, table in found
        )


Found = tuple[Tensor | None, Tensor | None, Tensor]
"""The rows of a gradient that has some alone, its values, and of what it is."""


def _differentiated(ctx: Any, grads: Sequence[Tensor | None]) -> list[Found]:
    made: Together = ctx.made
    rows, dim = ctx.rows, made.dim
    kept, narrow, *others = ctx.saved_tensors
    rest = iter(others)
    heads = {held.first: next(rest) for held in made.held if held.part.head is not None}
    pools = {held.first: next(rest) for held in made.held if held.values}
    given: list[Tensor | None] = []
    for each in grads:
        if each is not None:
            check_tensor("grad", each, (rows, dim))
            each = as_kind(each, torch.float32)
        given.append(each)
    like = made.held[0].given.ready.like
    narrow_grads = like.new_empty(narrow.numel())
    at_ids, listed = kept.data_ptr(), list[tuple[int, Sequence[int]]]()
    found_pools: list[Any] = []
    found_heads: list[Found] = []
    alive: list[Any] = [given]
    offset, lanes = 0, lanes_of(dim)
    for held, (centres, steps) in zip(made.held, ctx.scales, strict=True):
        part, fields = held.part, held.part.fields
        own = given[held.first : held.first + fields]
        addresses = [0 if each is None else each.data_ptr() for each in own]
        weight = pools.get(held.first, part.weight)
        here, size = rows * offset, rows * fields * held.narrow
        offset += fields * held.narrow
        if not any(addresses):
            found_pools.append((None, None, weight))
            if part.head is not None:
                found_heads.append((None, None, part.head))
            continue
        vectors = narrow_grads.data_ptr() + 4 * here
        moving = [rows, fields, held.narrow, dim, vectors, 0, 0, 0, *addresses]
        if part.head is not None:
            head = heads[held.first]
            narrow_grads[here : here + size].copy_(narrow[here : here + size])
            sums, turned = torch.empty_like(head), like.new_empty(head.shape[1] * dim)
            alive.append(turned)
            moving[jobs.HEADS] = head.data_ptr()
            moving[jobs.HEAD_GRADS], moving[jobs.TURNED] = sums.data_ptr(), turned.data_ptr()
            listed.append((jobs.lower(lanes, lanes_of(held.narrow)).address, moving))
            found_heads.append((None, sums, part.head))
        elif fields > 1:
            listed.append((jobs.join(lanes).address, moving))
        else:
            vectors = addresses[0]
        common = list(held.common)
        common[ROWS], common[IDS] = rows, at_ids + 8 * rows * held.first
        common[VECTORS], common[POOL] = vectors, weight.data_ptr()
        room = held.given.reading.room + held.given.ready.spare
        common[SPACE] = scratch(room)
        common[CENTRES] = 0 if centres is None else centres.data_ptr()
        common[STEPS] = 0 if steps is None else steps.data_ptr()
        shape = part.weight.shape
        if not part.sparse:
            sums = like.new_empty(shape)
            words = [*common, sums.data_ptr(), 0, sums.numel(), 0, 0, 0, 0, 0, 0]
            listed.append((walks.backward(*held.given.ready.kind, False, False).address, words))
            found_pools.append((None, sums, weight))
        else:
            _list_touched(held, common, rows, found_pools, listed, alive)
    if made.beside:
        tail, found_tables = _tables(made, rows, given[made.fields :], at_ids)
        listed += tail
    else:
        found_tables = []
    frame = Frame(listed)
    if listed:
        frame.run(frame.base, 0)
    closed = [each() if callable(each) else each for each in (*found_pools, *found_tables)]
    count = len(found_pools)
    return [*closed[:count], *found_heads, *closed[count:]]


def _list_touched(
    held: _Held, common: list[int], rows: int, found: list[Any],
    listed: list[tuple[int, Sequence[int]]], alive: list[Any],
) -> None:  # fmt: skip
    """The jobs of a gradient of the rows that are read alone."""
    pool, width = held.part.weight, held.given.ready.width
    most = min(pool.shape[0], rows * held.given.ready.facts.lookups)
    marks, places = marks_of(pool.shape[0])
    counts = np.zeros(2, np.int64)
    numbers = torch.empty(most, dtype=torch.int64)
    sums = held.given.ready.like.new_zeros(most, width)
    alive.append(counts)
    marked = [marks.ctypes.data, len(marks) // 8, places.ctypes.data]
    at = counts.ctypes.data
    mark = [*common, *marked, at + 8, 0]
    number = [*common, *marked, at, numbers.data_ptr()]
    add_up = [*common, sums.data_ptr(), 0, 0, 0, 0, places.ctypes.data, 0, 0, 0]
    listed += [
        (touched.mark().address, mark),
        (touched.count().address, mark),
        (touched.number().address, number),
        (walks.backward(*held.given.ready.kind, False, True).address, add_up),
    ]

    def closed() -> Found:
        count = int(counts[1])
        return numbers[:count], sums[:count], pool

    found.append(closed)


def _tables(
    made: Together, rows: int, grads: Sequence[Tensor | None], at_ids: int
) -> tuple[list[tuple[int, Sequence[int]]], list[Any]]:
    """The job of the whole tables' gradients, and what it will have found."""
    words = [rows, made.dim, 0, at_ids + 8 * rows * made.fields, 1, 0]
    found: list[Any] = []
    for n, (table, grad) in enumerate(zip(made.beside, grads, strict=True)):
        weight = table.weight
        if grad is None:
            found.append((None, None, weight))
            continue
        sums = weight.new_empty(weight.shape)
        met = torch.empty(weight.shape[0] + 1, dtype=torch.int64) if table.sparse else None
        words[tables.TABLES] += 1
        words += [
            grad.data_ptr(), weight.shape[0], n * rows,
            -1 if table.padding is None else table.padding, sums.data_ptr(),
            0 if met is None else met.data_ptr(),
        ]  # fmt: skip
        found.append((None, sums, weight) if met is None else _Met(met, sums, weight))
    if not words[tables.TABLES]:
        return [], found
    return [(tables.backward(lanes_of(made.dim)).address, words)], found


class _Met(NamedTuple):
    """A whole table's gradient of the rows that were met, once they are known."""

    met: Tensor
    sums: Tensor
    weight: Tensor

    def __call__(self) -> Found:
        count = int(self.met[-1])
        return self.met[:count], self.sums[:count], self.weight
