"""Several whole tables at once: rows `[B, D]` of each, and the gradients of all of them.

A small table of `nn.Embedding` costs a step more than its rows do: a call each way, and a gradient
that is found row by row. These kernels read and add up all of a batch's in one call each.
"""

from functools import cache

import numpy as np

from bitfold.kernels.compiled import STAMP, Kernel, kernel
from bitfold.kernels.fused import add_to
from bitfold.kernels.vectors import after, get, load, pointer, put, store, zero

# What the kernels are told, and after it of each table.
ROWS, WIDTH, TABLES, IDS, ROW_STRIDE, BAD = range(6)
HEAD = 6
WEIGHT, LIMIT, COLUMN, PADDING, FOUND, COUNT = range(6)
COLUMNS = 6


@cache
def forward(lanes: int) -> Kernel:
    """Copy rows of float32: of each table, from `WEIGHT` to the address in `FOUND`.

    Id `b` of a table is number `b * ROW_STRIDE + COLUMN` from `IDS`. Of an id that is not below
    `LIMIT` nothing is read, and `BAD` becomes 1.
    """
    stamp = STAMP

    @kernel
    def walk(address, t):
        told = pointer(address, np.int64(stamp))
        like, width = zero(lanes, 32), np.uint64(get(told, WIDTH))
        ids, stride = pointer(get(told, IDS), np.int64(0)), get(told, ROW_STRIDE)
        for n in range(get(told, TABLES)):
            own = after(told, HEAD + n * COLUMNS)
            weight = pointer(get(own, WEIGHT), np.float32(0))
            out = pointer(get(own, FOUND), np.float32(0))
            limit, at = np.uint64(get(own, LIMIT)), get(own, COLUMN)
            for b in range(get(told, ROWS)):
                row = np.uint64(get(ids, b * stride + at))
                if row >= limit:
                    put(told, BAD, np.int64(1))
                else:
                    for piece in range(0, get(told, WIDTH), lanes):
                        part = np.uint64(piece)
                        found = load(weight, row * width + part, like)
                        store(out, np.uint64(b) * width + part, found)

    return walk


@cache
def backward(lanes: int) -> Kernel:
    """Add gradients `[B, D]` at `WEIGHT` up by row: into `[LIMIT, D]` at the address in `FOUND`.

    Ids equal to `PADDING` add nothing, nor do those out of range. Where `COUNT` is an address,
    of `LIMIT` numbers, only rows that were met are kept, in order and without gaps: their numbers
    go there, and how many they are into `COUNT`.
    """
    stamp = STAMP

    @kernel
    def walk(address, t):
        told = pointer(address, np.int64(stamp))
        like, width = zero(lanes, 32), np.uint64(get(told, WIDTH))
        ids, stride = pointer(get(told, IDS), np.int64(0)), get(told, ROW_STRIDE)
        for n in range(get(told, TABLES)):
            own = after(told, HEAD + n * COLUMNS)
            grad = pointer(get(own, WEIGHT), np.float32(0))
            sums = pointer(get(own, FOUND), np.float32(0))
            met, listed = pointer(get(own, COUNT), np.int64(0)), get(own, COUNT) != 0
            rows, at = get(own, LIMIT), get(own, COLUMN)
            limit, padding = np.uint64(rows), np.uint64(get(own, PADDING))
            for i in range(0, rows * get(told, WIDTH), lanes):
                store(sums, np.uint64(i), like)
            if listed:
                for i in range(rows):
                    put(met, i, np.int64(0))
            for b in range(get(told, ROWS)):
                row = np.uint64(get(ids, b * stride + at))
                if row < limit and row != padding:
                    if listed:
                        put(met, np.int64(row), np.int64(1))
                    for piece in range(0, get(told, WIDTH), lanes):
                        part = np.uint64(piece)
                        step = load(grad, np.uint64(b) * width + part, like)
                        add_to(sums, row * width + part, step)
            if listed:
                known = 0
                for i in range(rows):
                    if get(met, i) != 0:  # never behind the place that is written to
                        for piece in range(0, get(told, WIDTH), lanes):
                            part = np.uint64(piece)
                            there = load(sums, np.uint64(i) * width + part, like)
                            store(sums, np.uint64(known) * width + part, there)
                        put(met, known, i)
                        known += 1
                put(own, COUNT, np.int64(known))

    return walk
