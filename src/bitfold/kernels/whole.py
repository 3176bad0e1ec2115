"""Whole tables that are read at once: tensors in, tensors out, around the walks of `tables.py`."""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bitfold.errors import IdOutOfRange
from bitfold.kernels import tables as walks
from bitfold.kernels.held import check_tensor, refused
from bitfold.kernels.ready import as_kind
from bitfold.kernels.together import Beside, Found
from bitfold.kernels.vectors import lanes_of


def _check(beside: Beside) -> tuple[int, int]:
    """`B` and `D`; raises unless the kernels can read the tables, and columns for them."""

    ids, width = beside.ids, beside.weights[0].shape[1]
    check_tensor("ids", ids, tuple(ids.shape), torch.int64)
    if ids.dim() != 2 or not all(0 <= column < ids.shape[1] for column in beside.columns):
        raise refused("ids", list(ids.shape), f"[B, ...] with columns {list(beside.columns)}")
    for weight in beside.weights:
        check_tensor("the weight", weight, (weight.shape[0], width), torch.float32)
        if not weight.is_contiguous():
            raise refused("the weight", f"strides {weight.stride()}", "a contiguous tensor")
    return ids.shape[0], width


def _told(beside: Beside, ids: Tensor, tables: Sequence[tuple[int, ...]]) -> Any:
    """What the walks are told."""

    width = beside.weights[0].shape[1]
    words = [ids.shape[0], width, len(tables), ids.data_ptr(), ids.stride(0), 0]
    for table in tables:
        words += table
    assert len(words) == walks.HEAD + walks.COLUMNS * len(tables)
    return (ctypes.c_int64 * len(words))(*words)


def _run(kernel: Any, told: Any) -> None:

    kernel.call(ctypes.addressof(told), 0)


def rows_of(beside: Beside) -> list[Tensor]:
    """Rows `[B, D]` of each table."""

    rows, width = _check(beside)
    found = [weight.new_empty(rows, width) for weight in beside.weights]
    step = beside.ids.stride(1)
    told = _told(beside, beside.ids, [
        (weight.data_ptr(), weight.shape[0], column * step, -1, out.data_ptr(), 0)
        for weight, column, out in zip(beside.weights, beside.columns, found, strict=True)
    ])  # fmt: skip
    _run(walks.forward(lanes_of(width)), told)
    if told[walks.BAD]:
        raise IdOutOfRange(
            "an id is outside of a table that is read beside others",
            got=f"ids {list(beside.ids.shape)}",
            expected=f"columns below {[weight.shape[0] for weight in beside.weights]}",
        )
    return found


def sums_of(beside: Beside, ids: Tensor, grads: Sequence[Tensor | None]) -> list[Found]:
    """Gradients of the tables."""

    beside = beside._replace(ids=ids)
    rows, width = _check(beside)
    told: list[tuple[int, ...]] = []
    kept: list[Tensor] = []  # while the walk runs
    found: list[tuple[Tensor | None, Tensor | None, Tensor]] = []
    for weight, column, padding, sparse, grad in zip(
        beside.weights, beside.columns, beside.paddings, beside.sparse, grads, strict=True
    ):
        if grad is None:
            found.append((None, None, weight))
            continue
        check_tensor("grad", grad, (rows, width))
        grad = as_kind(grad, torch.float32)
        sums = weight.new_empty(weight.shape)
        met = torch.empty(weight.shape[0] + 1, dtype=torch.int64) if sparse else None
        kept.append(grad)
        found.append((met, sums, weight))
        told.append((
            grad.data_ptr(), weight.shape[0], column * ids.stride(1),
            -1 if padding is None else padding, sums.data_ptr(),
            0 if met is None else met.data_ptr(),
        ))  # fmt: skip
    if told:
        _run(walks.backward(lanes_of(width)), _told(beside, ids, told))
    return [_met(*each) for each in found]


def _met(met: Tensor | None, sums: Tensor | None, weight: Tensor) -> Found:
    """A gradient of the rows that were met, where they are listed."""
    if met is None or sums is None:
        return None, sums, weight
    count = int(met[-1])
    return met[:count], sums[:count], weight
