"""The rows that the compiled loops make of ids, without a pool."""

from collections.abc import Sequence

import numpy as np
from numba import njit

from bitfold.address import Program
from bitfold.kernels.digits import digits, read_rows
from bitfold.kernels.packing import BLOCK, COLUMNS, HEAD, pack
from bitfold.kernels.vectors import pointer


def rows_of_the_kernel(
    program: Program,
    ids: list[int],
    limit: int,
    raw_ids: bool,
    tables: Sequence[np.ndarray] = (),
) -> list[list[int]]:
    """Rows of a program's only field by `read_rows`, block by block."""
    packed, loops = pack(program, [limit]), digits(raw_ids, bool(tables)).address
    words = packed[HEAD + 2 + 1 :]
    beside = words[program.lookups * COLUMNS :]
    where = np.array([table.ctypes.data for table in tables], np.int64)
    out = []
    for begin in range(0, len(ids), BLOCK):
        raw = np.array(ids[begin : begin + BLOCK], np.int64).view(np.uint64)
        code = np.zeros(BLOCK, np.uint64)
        rows = np.zeros((program.lookups + 2, BLOCK), np.uint64)
        _run(loops, raw, len(raw), words, program.lookups, beside, where, code, rows)
        out += rows[: program.lookups, : len(raw)].T.tolist()
    return out


@njit
def _run(loops, raw, count, words, lookups, beside, where, code, rows):
    whole = np.uint64(0)
    read_rows(
        loops, pointer(raw.ctypes.data, whole), count, pointer(words.ctypes.data, whole), lookups,
        0, pointer(beside.ctypes.data, whole), pointer(where.ctypes.data, whole),
        pointer(code.ctypes.data, whole), pointer(rows.ctypes.data, whole),
    )  # fmt: skip
