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
    LISTED,
    MARKS,
    POOL,
    ROWS,
    SIZE,
    SLOTS,
    SPACE,
    STEPS,
    SUMS,
    VECTORS,
)
from bitfold.kernels.held import check_tensor, refused
from bitfold.kernels.kept import marks_of
from bitfold.kernels.lookup import needs_values
from bitfold.kernels.part import Part, Table
from bitfold.kernels.reading import Reading
from bitfold.kernels.ready import Given, as_kind, kernel_of
from bitfold.kernels.vectors import lanes_of

MOST_NUMBERS = 1 << 19
"""Numbers of a batch's vectors up to which one thread reads them at once."""


class Frame:
    """A list of jobs in memory, as `jobs.run_all` takes it; job n is told `words[at[n]:]`."""

    def __init__(self, listed: Sequence[tuple[int, Sequence[int]]]) -> None:
        starts = [*accumulate([1 + 2 * len(listed), *(len(words) for _, words in listed)])]
        self.words: Any = (ctypes.c_int64 * starts[-1])()
        self.at, base = starts[:-1], ctypes.addressof(self.words)
        self.words[0] = len(listed)
        for n, ((kernel, words), start) in enumerate(zip(listed, self.at, strict=True)):
            self.words[1 + 2 * n], self.words[2 + 2 * n] = kernel, base + 8 * start
            self.words[start : start + len(words)] = list(words)
        self.run, self.base = jobs.run_all().call, base


class _Held(NamedTuple):
    """A part that was held against its program.

    Args:
        part, given: as it was said, and as kernels take it.
        common: what every walk is told.
        values: whether gradients depend on the pool's numbers.
        narrow: the width before the head.
        numbers: of its fields, among all columns.
        first: where its ids begin, in columns: its own column, or a place for several of them.
        before: numbers of vectors before heads that a row has in the parts before.
        shape: of the weight.
    """

    part: Part
    given: Given
    common: tuple[int, ...]
    values: bool
    narrow: int
    numbers: tuple[int, ...]
    first: int
    before: int
    shape: torch.Size

    @property
    def direct(self) -> bool:
        """Whether its vectors are its only field's as they are read."""
        return self.part.head is None and len(self.numbers) == 1


class Together:
    """Parts and tables that are read together, held once.

    Args:
        parts: lookups, of vectors of float32.
        numbers: of each part's fields: 0, 1, ... in all.
        beside: whole tables of the same width, whose numbers come after.

    Raises:
        BitfoldError: for a tensor whose memory is not what the kernels read.
    """

    def __init__(
        self, parts: Sequence[Part], numbers: Sequence[tuple[int, ...]], beside: Sequence[Table]
    ) -> None:
        self.fields = sum(len(each) for each in numbers)
        self.columns, self.beside = self.fields + len(beside), tuple(beside)
        self.held: list[_Held] = []
        room, before = self.columns, 0
        for part, own in zip(parts, numbers, strict=True):
            several = len(own) > 1
            self.held.append(_hold(part, own, room if several else own[0], before))
            room += len(own) * several
            before += len(own) * self.held[-1].narrow
        self.room, self.narrow = room, before
        self.moves = any(not held.direct for held in self.held)
        head = parts[0].head
        self.dim = int(parts[0].words[5] if head is None else head.shape[2])
        for part in parts:
            width = part.words[5] if part.head is None else part.head.shape[2]
            if part.head is not None:
                lifts = part.fields, int(part.words[5]), self.dim
                check_tensor("the head", part.head, lifts, torch.float32)
            if width != self.dim or not (part.head is None or part.head.is_contiguous()):
                raise refused("the head", width, f"contiguous, to {self.dim} columns")
        for table in beside:
            shape = table.weight.shape[0], self.dim
            check_tensor("the weight", table.weight, shape, torch.float32)
            if not table.weight.is_contiguous():
                raise refused("the weight", f"strides {table.weight.stride()}", "a contiguous one")
        self.weights = [part.weight for part in parts]
        self.weights += [part.head for part in parts if part.head is not None]
        self.weights += [table.weight for table in beside]
        self.sizes = [table.weight.shape for table in beside]
        self.like = self.held[0].given.ready.like
        self.forwards: dict[int, Any] = {}
        self.backwards: dict[int, Any] = {}

    def read(
        self, rows: int, places: list[int], apart: bool
    ) -> tuple[Sequence[Tensor], Tensor, Tensor]:
        """Vectors `[B, D]` of all columns.

        Args:
            rows: `B`.
            places: of each column, the address of its ids, and how many numbers they are apart.
            apart: whether each column is a tensor of its own, or all are one.

        Returns:
            The vectors; the ids, `[N, B]` and then those of each part of several fields as
            `[B, f]`, flat; vectors before heads, flat.

        Raises:
            IdOutOfRange: for an id that has no row.
        """
        lists, dim, count = self.lists(backward=False), self.dim, self.columns
        frame = lists.frame
        words, at = frame.words, frame.at
        kept = torch.empty(rows * self.room, dtype=torch.int64)
        found: Sequence[Tensor]
        if apart:
            found = [self.like.new_empty(rows, dim) for _ in range(count)]
            vectors = [each.data_ptr() for each in found]
        else:
            every = self.like.new_empty(count, rows, dim)
            found, start, step = every.unbind(0), every.data_ptr(), 4 * rows * dim
            vectors = [start + step * n for n in range(count)]
        narrow = self.like.new_empty(rows * self.narrow) if self.moves else kept
        at_ids, at_narrow, place = kept.data_ptr(), narrow.data_ptr(), at[0]
        words[place], words[place + 2] = rows, at_ids
        words[lists.places : lists.places + 2 * count] = places
        job = 1
        for held in self.held:
            place = at[job]
            words[place + ROWS], words[place + IDS] = rows, at_ids + 8 * rows * held.first
            if held.direct:
                words[place + VECTORS] = vectors[held.numbers[0]]
                job += 1
                continue
            here = words[place + VECTORS] = at_narrow + 4 * rows * held.before
            place = at[job + 1]
            words[place + jobs.ROWS], words[place + jobs.NARROW] = rows, here
            place += jobs.COLUMNS
            for number in held.numbers:
                words[place] = vectors[number]
                place += 1
            job += 2
        if self.beside:
            place = at[job]
            words[place + tables.ROWS], words[place + tables.BAD] = rows, 0
            words[place + tables.IDS] = at_ids + 8 * rows * self.fields
            for n in range(len(self.beside)):
                own = place + tables.HEAD + n * tables.COLUMNS
                words[own + tables.COLUMN] = n * rows
                words[own + tables.FOUND] = vectors[self.fields + n]
        frame.run(frame.base, 0)
        for flag in lists.flags:
            if flag.item(0) >= 0:
                raise _out_of_range(rows, count)
        if self.beside and words[place + tables.BAD]:
            raise _out_of_range(rows, count)
        return found, kept, narrow

    def lists(self, backward: bool) -> Any:
        """This thread's list of jobs."""
        frames = self.backwards if backward else self.forwards
        me = threading.get_ident()
        found = frames.get(me)
        if found is None:
            if len(frames) >= KEPT_FRAMES:
                frames.clear()
            found = frames[me] = (_Backward if backward else _Forward)(self)
        return found

    def moving(self, held: _Held) -> list[int]:
        """What the jobs between lookups and vectors are told."""
        head = 0 if held.part.head is None else held.part.head.data_ptr()
        fields = len(held.numbers)
        return [0, fields, held.narrow, self.dim, 0, head, 0, 0, *[0] * fields]


KEPT_FRAMES = 16
"""Threads whose lists are kept."""


class _Forward:
    """One thread's list of jobs for vectors, and the words that tell of ids out of range."""

    def __init__(self, made: Together) -> None:
        lanes = lanes_of(made.dim)
        gather = [0, made.columns, 0]
        placed = {
            number: (held.first, n, len(held.numbers))
            for held in made.held
            if len(held.numbers) > 1
            for n, number in enumerate(held.numbers)
        }
        for number in range(made.columns):
            gather += placed.get(number, (0, 0, 0))
        listed: list[tuple[int, Sequence[int]]] = [
            (jobs.gather().address, [*gather, *[0] * (2 * made.columns)])
        ]
        self.flags = []
        for held in made.held:
            words = [*held.common, 0]
            space = np.full(held.given.reading.room + held.given.ready.spare, -1, np.int64)
            self.flags.append(space)
            words[SPACE] = space.ctypes.data
            listed.append((kernel_of(held.given.ready, False).address, words))
            if not held.direct:
                kernel = jobs.split if held.part.head is None else jobs.lift
                listed.append((kernel(lanes).address, made.moving(held)))
        if made.beside:
            words = [0, made.dim, len(made.beside), 0, 1, 0]
            for table in made.beside:
                words += [table.weight.data_ptr(), table.weight.shape[0], 0, -1, 0, 0]
            listed.append((tables.forward(lanes).address, words))
        self.frame = Frame(listed)
        self.places = self.frame.at[0] + len(gather)


def _hold(part: Part, numbers: tuple[int, ...], first: int, before: int) -> _Held:
    fields = part.fields
    ids = torch.zeros((1, fields), dtype=torch.int64)  # any: a batch's own come later
    reading = Reading._make((part.weight, None, ids, None, None, *part.words, list(part.tables)))
    if reading.dtype is not torch.float32 or not part.weight.is_contiguous():
        raise refused(
            "the weight", f"{part.weight.dtype}", "contiguous numbers of float32, or codes"
        )
    if fields != len(numbers):
        raise refused("numbers", len(numbers), fields)
    given = Given.of(reading)
    values = needs_values(reading.packed, reading.fusion)
    common = given.told(0, None, given.ready.like)
    shape = part.weight.shape
    return _Held(part, given, common, values, reading.dim, numbers, first, before, shape)


def _out_of_range(rows: int, columns: int) -> IdOutOfRange:
    return IdOutOfRange(
        "an id is outside of one of the tables that are read together",
        got=f"{rows} rows of {columns} columns",
        expected="ids from 0 to the last row",
    )


def together(
    made: Together, rows: int, places: list[int], grads: bool
) -> tuple[Sequence[Tensor], Tensor]:
    """Vectors `[B, D]` of each column, with gradients where they are enabled; and the ids.

    Raises:
        IdOutOfRange: for an id that has no row.
    """
    if grads:
        for weight in made.weights:
            if weight.requires_grad:
                apply: Any = _Together.apply
                holder: list[Tensor] = []
                return apply((made, rows, places, holder), *made.weights), holder[0]
    columns, kept, _ = made.read(rows, places, grads)
    return columns, kept


class _Together(torch.autograd.Function):
    """Vectors of parts and tables; the weights are arguments so that autograd sees them."""

    @staticmethod
    def forward(ctx: Any, given: Any, *weights: Tensor) -> tuple[Tensor, ...]:
        """Vectors, and what their gradient needs."""
        made, rows, places, holder = given
        columns, kept, narrow = made.read(rows, places, apart=True)
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
        ctx.save_for_backward(kept, narrow if made.moves else None, *heads, *pools)
        return tuple(columns)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gradients of the weights, in their order; None of what no vector was needed of."""
        with torch.no_grad():
            found = _differentiated(ctx, grads)
        if torch.is_grad_enabled():  # a graph of it is wanted, and refused once it is used
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


class _Backward:
    """One thread's list of jobs for gradients; a batch says where its own are, and what is left."""

    def __init__(self, made: Together) -> None:
        lanes, self.jobs = lanes_of(made.dim), list[list[int]]()  # of each part, of the tables
        listed: list[tuple[int, Sequence[int]]] = []
        self.spaces = []
        self.marked: dict[int, tuple[Any, list[int]]] = {}
        self.turned = torch.empty(made.dim * max(each.narrow for each in made.held))
        for held in made.held:
            first, part = len(listed), held.part
            if part.head is not None:
                kernel = jobs.lower(lanes, lanes_of(held.narrow))
                listed.append((kernel.address, made.moving(held)))
            elif not held.direct:
                listed.append((jobs.join(lanes).address, made.moving(held)))
            space = np.empty(held.given.reading.room + held.given.ready.spare, np.int64)
            self.spaces.append(space)
            common = [*held.common]
            common[SPACE] = space.ctypes.data
            kind = held.given.ready.kind
            if part.sparse:
                listed += [
                    (kernel.address, [*common, *[0] * 7])
                    for kernel in (touched.mark(), touched.count(), touched.number())
                ]
            words = [*common, *[0] * 9]
            listed.append((walks.backward(*kind, False, part.sparse).address, words))
            self.jobs.append([*range(first, len(listed))])
        if made.beside:
            words = [0, made.dim, 0, 0, 1, 0, *[0] * (tables.COLUMNS * len(made.beside))]
            self.jobs.append([len(listed)])
            listed.append((tables.backward(lanes).address, words))
        self.frame = Frame(listed)
        self.kernels = [kernel for kernel, _ in listed]

    def marks(self, part: int, rows: int) -> list[int]:
        """Addresses of marks and places for a pool of so many rows, and their size."""
        marks, places = marks_of(rows)
        known = self.marked.get(part)
        if known is None or known[0] is not marks:
            at = [marks.ctypes.data, len(marks) // 8, places.ctypes.data]
            known = self.marked[part] = marks, at
        return known[1]

    def leave(self, group: int, out: bool) -> None:
        """Whether a part's jobs, or those of the tables, are left out."""
        for job in self.jobs[group]:
            kernel = jobs.nothing().address if out else self.kernels[job]
            self.frame.words[1 + 2 * job] = kernel


def _differentiated(ctx: Any, grads: Sequence[Tensor | None]) -> list[Found]:
    made: Together = ctx.made
    rows, dim, float32 = ctx.rows, made.dim, torch.float32
    kept, narrow, *others = ctx.saved_tensors
    rest, shape = iter(others), (rows, dim)
    heads = [None if held.part.head is None else next(rest) for held in made.held]
    pools = [next(rest) if held.values else held.part.weight for held in made.held]
    # What autograd kept may have been elsewhere since, and weights may have moved.
    _check_same("kept ids", kept, torch.int64, (rows * made.room,))
    if made.moves:
        _check_same("kept vectors", narrow, float32, (rows * made.narrow,))
    for held, head, pool in zip(made.held, heads, pools, strict=True):
        _check_same("the weight", pool, held.part.weight.dtype, held.shape)
        if head is not None:
            _check_same("the head", head, float32, (len(held.numbers), held.narrow, dim))
    for table, size in zip(made.beside, made.sizes, strict=True):
        _check_same("the weight", table.weight, float32, size)
    given: list[Tensor | None] = []  # and kept while the jobs run
    for each in grads:
        if each is not None and (
            type(each) is not Tensor
            or each.dtype is not float32
            or each.shape != shape
            or not each.is_cpu
            or not each.is_contiguous()
            or each.is_neg()
        ):
            check_tensor("grad", each, shape)
            each = as_kind(each, float32)
        given.append(each)
    addresses = [0 if each is None else each.data_ptr() for each in given]
    like, lists = made.like, made.lists(backward=True)
    words, at = lists.frame.words, lists.frame.at
    narrow = narrow.clone() if made.moves else kept
    at_ids, at_narrow, at_turned = kept.data_ptr(), narrow.data_ptr(), lists.turned.data_ptr()
    found_pools: list[Found] = []
    found_heads: list[Found] = []
    # Gradients whose rows are known when the jobs have run, and which word says how many.
    later: list[tuple[int, Tensor, Tensor, int]] = []
    for n, (held, head, pool, (centres, steps)) in enumerate(
        zip(made.held, heads, pools, ctx.scales, strict=True)
    ):
        part, fields, mine = held.part, len(held.numbers), lists.jobs[n]
        own = [addresses[number] for number in held.numbers]
        missing = not any(own)
        lists.leave(n, missing)
        vectors = at_narrow + 4 * rows * held.before
        if missing:
            found_pools.append((None, None, part.weight))
            if part.head is not None:
                found_heads.append((None, None, part.head))
            continue
        if held.direct:
            vectors = own[0]
        else:
            place = at[mine[0]]
            words[place + jobs.ROWS], words[place + jobs.NARROW] = rows, vectors
            words[place + jobs.COLUMNS : place + jobs.COLUMNS + fields] = own
            if head is not None:
                sums = torch.empty_like(head)
                words[place + jobs.HEADS] = head.data_ptr()
                words[place + jobs.HEAD_GRADS], words[place + jobs.TURNED] = (
                    sums.data_ptr(), at_turned,
                )  # fmt: skip
                found_heads.append((None, sums, head))
        walks_of = mine[-4:] if part.sparse else mine[-1:]
        for job in walks_of:
            place = at[job]
            words[place + ROWS], words[place + IDS] = rows, at_ids + 8 * rows * held.first
            words[place + VECTORS], words[place + POOL] = vectors, pool.data_ptr()
            words[place + CENTRES] = 0 if centres is None else centres.data_ptr()
            words[place + STEPS] = 0 if steps is None else steps.data_ptr()
        place = at[mine[-1]]
        if not part.sparse:
            sums = like.new_empty(part.weight.shape[0], held.given.ready.width)
            words[place + SUMS], words[place + SIZE] = sums.data_ptr(), sums.numel()
            found_pools.append((None, sums, part.weight))
            continue
        most = min(part.weight.shape[0], rows * held.given.ready.facts.lookups)
        marked, numbers = lists.marks(n, part.weight.shape[0]), torch.empty(most, dtype=torch.int64)
        sums = like.new_zeros(most, held.given.ready.width)
        words[place + SUMS], words[place + SLOTS] = sums.data_ptr(), marked[2]
        # One word counts the rows, another says that none came before them.
        counts = lists.frame.base + 8 * (at[mine[-4]] + LISTED + 1)
        words[at[mine[-4]] + LISTED + 2] = 0
        for job, counted in zip(walks_of, (counts, counts, counts + 8), strict=False):
            words[at[job] + MARKS : at[job] + LISTED + 1] = [*marked, counted, numbers.data_ptr()]
        later.append((len(found_pools), numbers, sums, at[mine[-4]] + LISTED + 1))
        found_pools.append((numbers, sums, part.weight))
    found_tables = _tables(made, lists, rows, given, addresses, at_ids) if made.beside else []
    lists.frame.run(lists.frame.base, 0)
    for n, numbers, sums, counted in later:
        count = words[counted]
        found_pools[n] = numbers[:count], sums[:count], found_pools[n][2]
    place = at[lists.jobs[-1][0]] + tables.HEAD if made.beside else 0
    for n, (met, values, weight) in enumerate(found_tables):
        if met is not None and values is not None:
            count = words[place + tables.COUNT]
            found_tables[n] = met[:count], values[:count], weight
        place += tables.COLUMNS * (values is not None)
    return [*found_pools, *found_heads, *found_tables]


def _check_same(argument: str, tensor: Tensor, dtype: torch.dtype, shape: Any) -> None:
    """Raise unless a tensor is as it was when it was held."""
    if (
        tensor.dtype is dtype
        and tensor.shape == shape
        and tensor.is_cpu
        and tensor.is_contiguous()
        and not tensor.is_neg()
    ):
        return
    check_tensor(argument, tensor, tuple(shape), dtype)
    raise refused(argument, f"strides {tensor.stride()}", "a contiguous tensor")


def _tables(
    made: Together, lists: _Backward, rows: int, grads: Sequence[Tensor | None],
    addresses: Sequence[int], at_ids: int,
) -> list[Found]:  # fmt: skip
    """Where the gradients of the whole tables will be; what their job is told."""
    words, start = lists.frame.words, lists.frame.at[lists.jobs[-1][0]]
    place, count = start + tables.HEAD, 0
    found: list[Found] = []
    for n, table in enumerate(made.beside):
        weight, address = table.weight, addresses[made.fields + n]
        if not address:
            found.append((None, None, weight))
            continue
        sums = weight.new_empty(weight.shape)
        met = torch.empty(weight.shape[0], dtype=torch.int64) if table.sparse else None
        words[place : place + tables.COLUMNS] = [
            address, weight.shape[0], n * rows, -1 if table.padding is None else table.padding,
            sums.data_ptr(), 0 if met is None else met.data_ptr(),
        ]  # fmt: skip
        place, count = place + tables.COLUMNS, count + 1
        found.append((met, sums, weight))
    words[start + tables.ROWS], words[start + tables.TABLES] = rows, count
    words[start + tables.IDS] = at_ids + 8 * rows * made.fields
    return found
