"""The lookups as operators of torch: what `torch.compile`, autograd and `torch.export` see.

Nothing is compiled when this module is imported; Numba comes with the first call.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling

from bitfold.errors import BitfoldError

Gradients = tuple[Tensor, Tensor, Tensor, Tensor]

_library = torch.library.Library("bitfold", "DEF")
_library.define(
    "lookup(Tensor pool, Tensor? importance, Tensor ids, Tensor? offsets, Tensor? weights, "
    "Tensor packed, int fusion, int pooling, int? padding, int fields, int dim, int room, "
    "bool raw, bool sparse) -> Tensor"
)
_library.define(
    "lookup_backward(Tensor grad, Tensor pool, Tensor? importance, Tensor ids, Tensor? offsets, "
    "Tensor? weights, Tensor packed, int fusion, int pooling, int? padding, int fields, int dim, "
    "int room, bool raw, Tensor? top, bool sparse, bool wants_importance, bool wants_weights) "
    "-> (Tensor, Tensor, Tensor, Tensor)"
)
# The numbers of `bitfold.kernels.walk`, which this module must not import: see above.
FUSIONS = {"sum": 0, "concat": 0, "mean": 1, "product": 2, "weighted": 3}
READ = "read"  # single ids, whose padding id is read like any other and learns nothing
POOLINGS = {None: 0, "sum": 1, "mean": 2, "max": 3, READ: 5}
MAX = POOLINGS["max"]  # whose gradient needs its result


@cache
def _kernels() -> Any:
    from bitfold.kernels import lookup

    return lookup


def _lookup(*given: Any) -> Tensor:
    found: Tensor = _kernels().forward(*given[:-1])  # `sparse`, the last, is the gradient's matter
    return found


def _lookup_backward(*args: Any) -> Gradients:
    found: Gradients = _kernels().backward(*args)
    return found


_library.impl("lookup", _lookup, "CPU")
_library.impl("lookup_backward", _lookup_backward, "CPU")


@torch.library.register_fake("bitfold::lookup", lib=_library)
def _(
    pool: Tensor,
    importance: Tensor | None,
    ids: Tensor,
    offsets: Tensor | None,
    weights: Tensor | None,
    packed: Tensor,
    fusion: int,
    pooling: int,
    padding: int | None,
    fields: int,
    dim: int,
    room: int,
    raw: bool,
    sparse: bool,
) -> Tensor:
    rows = ids.shape[0] if offsets is None else (offsets.shape[0] - 1) // fields
    return pool.new_empty(rows, fields, dim)


@torch.library.register_fake("bitfold::lookup_backward", lib=_library)
def _(
    grad: Tensor,
    pool: Tensor,
    importance: Tensor | None,
    ids: Tensor,
    offsets: Tensor | None,
    weights: Tensor | None,
    packed: Tensor,
    fusion: int,
    pooling: int,
    padding: int | None,
    fields: int,
    dim: int,
    room: int,
    raw: bool,
    top: Tensor | None,
    sparse: bool,
    wants_importance: bool,
    wants_weights: bool,
) -> Gradients:
    found = torch.library.get_ctx().new_dynamic_size() if sparse else 0
    lookups = importance.shape[0] if wants_importance and importance is not None else 0
    return (
        ids.new_empty(found),
        pool.new_empty(found, pool.shape[1]) if sparse else torch.empty_like(pool),
        pool.new_empty(lookups),
        pool.new_empty(ids.shape[0] if wants_weights else 0),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    pool, importance, ids, offsets, weights, packed, fusion, pooling, *rest, sparse = inputs
    top = output if pooling == MAX else None
    ctx.save_for_backward(pool, importance, ids, offsets, weights, packed, top)
    ctx.words = fusion, pooling, *rest
    ctx.sparse = sparse


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    pool, importance, ids, offsets, weights, packed, top = ctx.saved_tensors
    wants = ctx.needs_input_grad
    rows, values, factors, shares = torch.ops.bitfold.lookup_backward(
        grad, pool, importance, ids, offsets, weights, packed, *ctx.words, top, ctx.sparse,
        wants[1], wants[4],
    )  # fmt: skip
    if ctx.sparse:
        values = torch.sparse_coo_tensor(
            rows.unsqueeze(0), values, pool.shape, is_coalesced=True, check_invariants=False
        )
    return (
        values if wants[0] else None,
        factors.to(importance.dtype) if wants[1] else None,
        None,
        None,
        shares.to(weights.dtype) if wants[4] else None,
        *[None] * 9,
    )


def _refuse(ctx: Any, *grads: Tensor) -> None:
    raise BitfoldError(
        "the kernels give no second derivatives",
        got="a gradient of a gradient",
        expected="first derivatives",
        fix="compute it within `with bitfold.plain_torch():`",
    )


def _move(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Move the pool's rows by `ctx.mover` instead of giving their gradient."""
    pool, importance, ids, offsets, weights, packed, top = ctx.saved_tensors
    wants = ctx.needs_input_grad
    factors, shares = _kernels().move(
        grad, pool, importance, ids, offsets, weights, packed, *ctx.words, top, wants[1],
        wants[4], how=ctx.mover.next_move(ctx.weight),
    )  # fmt: skip
    return (
        None,
        factors.to(importance.dtype) if wants[1] else None,
        None,
        None,
        shares.to(weights.dtype) if wants[4] else None,
        *[None] * 10,
    )


class _Lookup(torch.autograd.Function):
    """The operator without its dispatch, which costs more than a small batch's lookup."""

    forward = staticmethod(_lookup)
    setup_context = staticmethod(_save)
    backward = staticmethod(_differentiate)


def vectors(
    pool: Tensor,
    importance: Tensor | None,
    ids: Tensor,
    offsets: Tensor | None,
    weights: Tensor | None,
    words: tuple[Any, ...],
    sparse: bool = False,
    mover: Any = None,
) -> Tensor:
    """Vectors `[B, F, D]`, see `bitfold.kernels.lookup.forward`, by the shortest way there is.

    Eagerly it is a call, under a compiler an operator. `words` are those of the operator, from
    `packed` to `raw`; `mover`, an optimizer, moves the pool's rows in an eager backward pass.
    """
    if is_compiling() or type(ids) is not Tensor:
        result: Tensor = torch.ops.bitfold.lookup(
            pool, importance, ids, offsets, weights, *words, sparse
        )
    elif torch.is_grad_enabled() and any(
        tensor is not None and tensor.requires_grad for tensor in (pool, importance, weights)
    ):
        given = (pool, importance, ids, offsets, weights, *words, sparse)
        mover = mover if pool.requires_grad else None
        result = _Lookup.apply(*given) if mover is None else _Moving.apply(*given, mover)
    else:
        result = _kernels().forward(pool, importance, ids, offsets, weights, *words)
    return result


class _Moving(_Lookup):
    """The operator whose backward pass moves the pool's rows."""

    forward = staticmethod(lambda *given: _lookup(*given[:-1]))
    backward = staticmethod(_move)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep what the backward pass needs."""
        _save(ctx, inputs[:-1], output)
        ctx.weight, ctx.mover = inputs[0], inputs[-1]


torch.library.register_autograd(
    "bitfold::lookup", _differentiate, setup_context=_save, lib=_library
)
torch.library.register_autograd("bitfold::lookup_backward", _refuse, lib=_library)
