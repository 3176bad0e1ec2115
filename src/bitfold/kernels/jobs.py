"""Jobs that run one after another in one call, and those that stand between lookups.

A call from Python costs more than a small batch's lookup, so what a step needs is listed: which
kernel, and where it is told what. All numbers are float32, all jobs run on one thread.
"""

from functools import cache, lru_cache

import numpy as np

from bitfold.kernels.compiled import STAMP, Kernel, call_kernel, kernel
from bitfold.kernels.vectors import after, fma, get, load, pointer, put, splat, store, zero

# What moves vectors: then come the addresses of `[B, D]` of each field.
ROWS, FIELDS, WIDTH, DIM, NARROW, HEADS, HEAD_GRADS, TURNED, COLUMNS = range(9)


@lru_cache(maxsize=1)
def run_all() -> Kernel:
    """Run a list: how many there are, then the addresses of each kernel and of what it is told."""
    stamp = STAMP

    @kernel
    def walk(address, t):
        told = pointer(address, np.int64(stamp))
        for n in range(get(told, 0)):
            call_kernel(get(told, 1 + 2 * n), get(told, 2 + 2 * n), np.int64(0))

    return walk


@lru_cache(maxsize=1)
def nothing() -> Kernel:
    """A job that is left out."""
    stamp = STAMP

    @kernel
    def walk(address, t):
        pointer(address, np.int64(stamp))

    return walk


@lru_cache(maxsize=1)
def gather() -> Kernel:
    """Copy ids: how many rows and columns, and to which address, column by column.

    Then of each column where a second copy begins, in columns and numbers, and how many numbers
    apart it is (0: there is none); then of each column the address it comes from, and how many
    numbers its ids are apart there.
    """
    stamp = STAMP

    @kernel
    def walk(address, t):
        number = np.int64(stamp)
        told = pointer(address, number)
        rows, columns, out = get(told, 0), get(told, 1), pointer(get(told, 2), number)
        for n in range(columns):
            more, place = after(told, 3 + 3 * n), after(told, 3 + 3 * columns + 2 * n)
            source, apart = pointer(get(place, 0), number), get(place, 1)
            for b in range(rows):
                put(out, n * rows + b, get(source, b * apart))
            begin, stride = get(more, 0) * rows + get(more, 1), get(more, 2)
            if stride != 0:
                for b in range(rows):
                    put(out, begin + b * stride, get(source, b * apart))

    return walk


@cache
def split(lanes: int) -> Kernel:
    """Vectors `[B, f, D]` to `[B, D]` of each field."""
    stamp = STAMP

    @kernel
    def walk(address, t):
        told, like = pointer(address, np.int64(stamp)), zero(lanes, 32)
        fields, dim = get(told, FIELDS), get(told, DIM)
        vectors = pointer(get(told, NARROW), np.float32(0))
        for f in range(fields):
            out = pointer(get(told, COLUMNS + f), np.float32(0))
            for b in range(get(told, ROWS)):
                for piece in range(0, dim, lanes):
                    value = load(vectors, np.uint64((b * fields + f) * dim + piece), like)
                    store(out, np.uint64(b * dim + piece), value)

    return walk


@cache
def join(lanes: int) -> Kernel:
    """The inverse of `split`; a field without an address is zero."""
    stamp = STAMP

    @kernel
    def walk(address, t):
        told, like = pointer(address, np.int64(stamp)), zero(lanes, 32)
        fields, dim = get(told, FIELDS), get(told, DIM)
        vectors = pointer(get(told, NARROW), np.float32(0))
        for f in range(fields):
            there = get(told, COLUMNS + f)
            column = pointer(there, np.float32(0))
            for b in range(get(told, ROWS)):
                for piece in range(0, dim, lanes):
                    value = like
                    if there != 0:
                        value = load(column, np.uint64(b * dim + piece), like)
                    store(vectors, np.uint64((b * fields + f) * dim + piece), value)

    return walk


@cache
def lift(lanes: int) -> Kernel:
    """Vectors `[B, f, w]` by matrices `[f, w, D]` to `[B, D]` of each field.

    Four rows are taken at a time, so that a matrix is loaded once for them.
    """
    stamp = STAMP

    @kernel
    def walk(address, t):
        told, like = pointer(address, np.int64(stamp)), zero(lanes, 32)
        rows, fields = get(told, ROWS), get(told, FIELDS)
        width, dim = get(told, WIDTH), get(told, DIM)
        narrow = pointer(get(told, NARROW), np.float32(0))
        heads = pointer(get(told, HEADS), np.float32(0))
        apart = fields * width
        for f in range(fields):
            head = after(heads, f * width * dim)
            out = pointer(get(told, COLUMNS + f), np.float32(0))
            for b in range(0, rows - 3, 4):
                row = after(narrow, (b * fields + f) * width)
                for piece in range(0, dim, lanes):
                    one, two, three, four = like, like, like, like
                    for k in range(width):
                        factor = load(head, np.uint64(k * dim + piece), like)
                        one = fma(splat(get(row, k), like), factor, one)
                        two = fma(splat(get(row, apart + k), like), factor, two)
                        three = fma(splat(get(row, 2 * apart + k), like), factor, three)
                        four = fma(splat(get(row, 3 * apart + k), like), factor, four)
                    store(out, np.uint64(b * dim + piece), one)
                    store(out, np.uint64((b + 1) * dim + piece), two)
                    store(out, np.uint64((b + 2) * dim + piece), three)
                    store(out, np.uint64((b + 3) * dim + piece), four)
            for b in range(rows - rows % 4, rows):
                row = after(narrow, (b * fields + f) * width)
                for piece in range(0, dim, lanes):
                    value = like
                    for k in range(width):
                        factor = load(head, np.uint64(k * dim + piece), like)
                        value = fma(splat(get(row, k), like), factor, value)
                    store(out, np.uint64(b * dim + piece), value)

    return walk


@cache
def lower(lanes: int, few: int) -> Kernel:
    """The gradient of `lift`: from those of its vectors, of `NARROW` in place of these, and of the
    matrices. `TURNED` has room for `[D, w]`. A field without an address has no gradient.

    Args:
        lanes, few: of pieces of a vector, and of a narrow one.
    """
    stamp = STAMP

    @kernel
    def walk(address, t):
        told, like, short = pointer(address, np.int64(stamp)), zero(lanes, 32), zero(few, 32)
        rows, fields = get(told, ROWS), get(told, FIELDS)
        width, dim = get(told, WIDTH), get(told, DIM)
        narrow = pointer(get(told, NARROW), np.float32(0))
        heads = pointer(get(told, HEADS), np.float32(0))
        sums = pointer(get(told, HEAD_GRADS), np.float32(0))
        turned, apart = pointer(get(told, TURNED), np.float32(0)), fields * width
        for i in range(0, fields * width * dim, lanes):
            store(sums, np.uint64(i), like)
        for f in range(fields):
            head, own = after(heads, f * width * dim), after(sums, f * width * dim)
            there = get(told, COLUMNS + f)
            grads = pointer(there, np.float32(0))
            for k in range(width):
                for j in range(dim):
                    put(turned, j * width + k, get(head, k * dim + j))
            if there == 0:
                for b in range(rows):
                    row = after(narrow, (b * fields + f) * width)
                    for piece in range(0, width, few):
                        store(row, np.uint64(piece), short)
                continue
            for b in range(0, rows - 3, 4):
                row, grad = after(narrow, (b * fields + f) * width), after(grads, b * dim)
                for piece in range(0, dim, lanes):
                    part = np.uint64(piece)
                    one, two = load(grad, part, like), load(after(grad, dim), part, like)
                    three = load(after(grad, 2 * dim), part, like)
                    four = load(after(grad, 3 * dim), part, like)
                    for k in range(width):
                        place = np.uint64(k * dim + piece)
                        value = fma(splat(get(row, k), like), one, load(own, place, like))
                        value = fma(splat(get(row, apart + k), like), two, value)
                        value = fma(splat(get(row, 2 * apart + k), like), three, value)
                        value = fma(splat(get(row, 3 * apart + k), like), four, value)
                        store(own, place, value)
                for piece in range(0, width, few):
                    part = np.uint64(piece)
                    first, second, third, fourth = short, short, short, short
                    for j in range(dim):
                        factor = load(turned, np.uint64(j * width + piece), short)
                        first = fma(splat(get(grad, j), short), factor, first)
                        second = fma(splat(get(grad, dim + j), short), factor, second)
                        third = fma(splat(get(grad, 2 * dim + j), short), factor, third)
                        fourth = fma(splat(get(grad, 3 * dim + j), short), factor, fourth)
                    store(row, part, first)
                    store(after(row, apart), part, second)
                    store(after(row, 2 * apart), part, third)
                    store(after(row, 3 * apart), part, fourth)
            for b in range(rows - rows % 4, rows):
                row, grad = after(narrow, (b * fields + f) * width), after(grads, b * dim)
                for piece in range(0, dim, lanes):
                    step = load(grad, np.uint64(piece), like)
                    for k in range(width):
                        place = np.uint64(k * dim + piece)
                        value = fma(splat(get(row, k), like), step, load(own, place, like))
                        store(own, place, value)
                for piece in range(0, width, few):
                    value = short
                    for j in range(dim):
                        factor = load(turned, np.uint64(j * width + piece), short)
                        value = fma(splat(get(grad, j), short), factor, value)
                    store(row, np.uint64(piece), value)

    return walk
