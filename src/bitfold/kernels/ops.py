"""The lookups as operators of torch: what `torch.compile`, autograd and `torch.export` see.

Nothing is compiled when this module is imported; Numba comes with the first call.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from bitfold.errors import BitfoldError
from bitfold.kernels.choice import DIRECT

Gradients = tuple[Tensor, Tensor, Tensor, Tensor]

_library = torch.library.Library("bitfold", "DEF")
_library.define(
    "lookup(Tensor pool, Tensor? importance, Tensor ids, Tensor? offsets, Tensor? weights, "
    "Tensor packed, int fusion, int pooling, int? padding, int fields, int dim, int room, "
    "bool raw, bool sparse) -> Tensor"
)
_library.define(
    "lookup_firsts(Tensor pool, Tensor? importance, Tensor ids, Tensor offsets, Tensor packed, "
    "int fusion, int? padding, int fields, int dim, int room, bool raw, Tensor top) -> Tensor"
)
_library.define(
    "lookup_backward(Tensor grad, Tensor pool, Tensor? importance, Tensor ids, Tensor? offsets, "
    "Tensor? weights, Tensor packed, int fusion, int pooling, int? padding, int fields, int dim, "
    "int room, bool raw, Tensor? first, bool sparse, bool wants_importance, bool wants_weights) "
    "-> (Tensor, Tensor, Tensor, Tensor)"
)
# The numbers of `bitfold.kernels.walk`, which this module must not import: see above.
FUSIONS = {"sum": 0, "concat": 0, "mean": 1, "product": 2, "weighted": 3}
READ = "read"  # single ids, whose padding id is read like any other and learns nothing
POOLINGS = {None: 0, "sum": 1, "mean": 2, "max": 3, READ: 5}
MAX = POOLINGS["max"]  # whose gradient is that of the first id that reaches it


@cache
def _kernels() -> Any:
    from bitfold.kernels import lookup

    return lookup


def _lookup(*given: Any) -> Tensor:
    found: Tensor = _kernels().forward(*given[:-1])  # `sparse`, the last, is the gradient's matter
    return found


def _lookup_firsts(*args: Any) -> Tensor:
    found: Tensor = _kernels().firsts(*args)
    return found


def _lookup_backward(*args: Any) -> Gradients:
    found: Gradients = _kernels().backward(*args)
    return found


_library.impl("lookup", _lookup, "CPU")
_library.impl("lookup_firsts", _lookup_firsts, "CPU")
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


@torch.library.register_fake("bitfold::lookup_firsts", lib=_library)
def _(
    pool: Tensor,
    importance: Tensor | None,
    ids: Tensor,
    offsets: Tensor,
    packed: Tensor,
    fusion: int,
    padding: int | None,
    fields: int,
    dim: int,
    room: int,
    raw: bool,
    top: Tensor,
) -> Tensor:
    return torch.empty_like(top, dtype=torch.float64 if top.dtype == torch.float64 else torch.float)


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
    first: Tensor | None,
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
    """The gradient in a graph: by operators."""
    pool, importance, ids, offsets, weights, packed, top = ctx.saved_tensors
    wants, (fusion, pooling, padding, *shape) = ctx.needs_input_grad, ctx.words
    first = None
    if pooling == MAX:
        first = torch.ops.bitfold.lookup_firsts(
            pool, importance, ids, offsets, packed, fusion, padding, *shape, top
        )
    found = torch.ops.bitfold.lookup_backward(
        grad, pool, importance, ids, offsets, weights, packed, *ctx.words, first, ctx.sparse,
        wants[1], wants[4],
    )  # fmt: skip
    return _gradients(found, pool, importance, weights, wants, ctx.sparse)


def _gradients(
    found: Gradients,
    pool: Tensor,
    importance: Tensor | None,
    weights: Tensor | None,
    wants: tuple[bool, ...],
    sparse: bool,
) -> tuple[Tensor | None, ...]:
    """What `lookup_backward` found as the gradients of the operator's inputs."""
    rows, values, factors, shares = found
    if sparse:
        values = torch.sparse_coo_tensor(
            rows.unsqueeze(0), values, pool.shape, is_coalesced=True, check_invariants=False
        )
    return (
        values if wants[0] else None,
        factors.to(importance.dtype) if importance is not None and wants[1] else None,
        None,
        None,
        shares.to(weights.dtype) if weights is not None and wants[4] else None,
        *[None] * 9,
    )


def _refuse(ctx: Any, *grads: Tensor) -> Any:
    raise BitfoldError(
        "the kernels give no second derivatives",
        got="a gradient of a gradient",
        expected="first derivatives",
        fix="compute it within `with bitfold.plain_torch():`",
    )


torch.library.register_autograd(
    "bitfold::lookup", _differentiate, setup_context=_save, lib=_library
)
torch.library.register_autograd("bitfold::lookup_backward", _refuse, lib=_library)
torch.library.register_autograd("bitfold::lookup_firsts", _refuse, lib=_library)


class _Once(torch.autograd.Function):
    """Gradients of a kernel, which have none of their own: `sources` are what they depend on."""

    @staticmethod
    def forward(ctx: Any, sources: int, *given: Tensor) -> tuple[Tensor, ...]:
        """The gradients, as they are."""
        return tuple(each.view_as(each) for each in given[sources:])

    backward = staticmethod(_refuse)


class _Lookup(torch.autograd.Function):
    """The operator without its dispatch, which costs more than a small batch's lookup.

    The pool's values are saved only where the gradient depends on them: else a table may move
    between a lookup and its backward pass, as that of `nn.Embedding` may.
    """

    @staticmethod
    def forward(ctx: Any, pool: Tensor, *given: Any) -> Tensor:
        """Vectors, and what their gradient needs."""
        importance, ids, offsets, weights, packed, fusion, pooling, padding, *shape = given[:-2]
        out: Tensor = _kernels().forward(pool, *given[:-2])
        first = None
        if pooling == MAX:
            first = _kernels().firsts(
                pool, importance, ids, offsets, packed, fusion, padding, *shape, out
            )
        wants = ctx.needs_input_grad
        values = wants[1] or wants[4] or _kernels().needs_values(packed, fusion)
        ctx.save_for_backward(
            pool if values else None, importance, ids, offsets, weights, packed, first
        )
        ctx.pool, ctx.weight = pool.detach(), pool
        ctx.words, ctx.sparse, ctx.mover = (fusion, pooling, padding, *shape), given[-2], given[-1]
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients, or moved rows."""
        saved, importance, ids, offsets, weights, packed, first = ctx.saved_tensors
        pool = ctx.pool if saved is None else saved
        wants, second = ctx.needs_input_grad, torch.is_grad_enabled()
        given = (pool, importance, ids, offsets, weights, packed, *ctx.words, first)
        if ctx.mover is not None and wants[0]:
            ctx.mover.move_at_end(ctx.weight, grad, given)
            if not wants[1] and not wants[4]:
                return (None,) * 16
            wants = (False, *wants[1:])
        with torch.no_grad():
            found = _kernels().backward(grad, *given, ctx.sparse, wants[1], wants[4])
        if second:  # a graph of the gradient is wanted
            sources = [
                each
                for each in (grad, saved, importance, weights)
                if each is not None and each.requires_grad
            ]
            found = (found[0], *_Once.apply(len(sources), *sources, *found[1:]))
        return *_gradients(found, pool, importance, weights, wants, ctx.sparse), None


def vectors(
    pool: Tensor,
    importance: Tensor | None,
    ids: Tensor,
    offsets: Tensor | None,
    weights: Tensor | None,
    words: tuple[Any, ...],
    way: int,
    sparse: bool = False,
    mover: Any = None,
) -> Tensor:
    """Vectors `[B, F, D]`, see `bitfold.kernels.lookup.forward`, by the shortest way there is.

    Eagerly it is a call; under a compiler, a tracer or a mode an operator, and so of tensors that
    are no plain ones. `words` are those of the operator, from `packed` to `raw`; `way` is that of
    `choice.way_of`; `mover`, an optimizer, moves the pool's rows in an eager backward pass.
    """
    if way != DIRECT or type(ids) is not Tensor:
        if torch.onnx.is_in_onnx_export():
            raise BitfoldError(
                "ONNX knows no operator of bitfold",
                got="torch.onnx.export of a lookup by the kernels",
                expected="a graph of plain torch operations",
                fix="export within `with bitfold.plain_torch():`",
            )
        result: Tensor = torch.ops.bitfold.lookup(
            pool, importance, ids, offsets, weights, *words, sparse
        )
    elif torch.is_grad_enabled() and (
        pool.requires_grad
        or (importance is not None and importance.requires_grad)
        or (weights is not None and weights.requires_grad)
    ):
        result = _Lookup.apply(pool, importance, ids, offsets, weights, *words, sparse, mover)
    else:
        result = _kernels().forward(pool, importance, ids, offsets, weights, *words)
    return result
