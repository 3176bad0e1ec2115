"""The lookups as operators of torch: what `torch.compile`, autograd and `torch.export` see.

Nothing is compiled when this module is imported; Numba comes with the first call.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bitfold.errors import BitfoldError
from bitfold.kernels.choice import DIRECT
from bitfold.kernels.reading import LENGTH, Reading, spelled

Gradients = tuple[Tensor, Tensor, Tensor, Tensor]

_library = torch.library.Library("bitfold", "DEF")
_library.define(f"lookup({spelled(after='bool sparse')}) -> Tensor")
_library.define(f"lookup_firsts({spelled(after='Tensor top')}) -> Tensor")
_library.define(
    f"lookup_backward({spelled(before='Tensor grad', after='Tensor? first, bool sparse')}, "
    "bool wants_importance, bool wants_weights) -> (Tensor, Tensor, Tensor, Tensor)"
)
# The numbers of `bitfold.kernels.walk`, which this module must not import: see above.
FUSIONS = {"sum": 0, "concat": 0, "mean": 1, "product": 2, "weighted": 3}
TENSORS, NUMBERS = 6, 7  # of a reading, as it begins; then come scales, bits and tables
READ = "read"  # single ids, whose padding id is read like any other and learns nothing
POOLINGS = {None: 0, "sum": 1, "mean": 2, "max": 3, READ: 5}
MAX = POOLINGS["max"]  # whose gradient is that of the first id that reaches it


@cache
def _kernels() -> Any:
    from bitfold.kernels import lookup

    return lookup


@cache
def _backward() -> Any:
    from bitfold.kernels.gradients import backward

    return backward


def _lookup(*given: Any) -> Tensor:
    found: Tensor = _kernels().forward(Reading(*given[:-1]))  # `sparse` is the gradient's matter
    return found


def _lookup_firsts(*given: Any) -> Tensor:
    found: Tensor = _kernels().firsts(Reading(*given[:-1]), given[-1])
    return found


def _lookup_backward(grad: Tensor, *given: Any) -> Gradients:
    found: Gradients = _backward()(grad, Reading(*given[:LENGTH]), *given[LENGTH:])
    return found


_library.impl("lookup", _lookup, "CPU")
_library.impl("lookup_firsts", _lookup_firsts, "CPU")
_library.impl("lookup_backward", _lookup_backward, "CPU")


@torch.library.register_fake("bitfold::lookup", lib=_library)
def _(*given: Any) -> Tensor:
    reading = Reading(*given[:-1])
    shape = reading.rows, reading.fields, reading.dim
    return reading.pool.new_empty(shape, dtype=reading.dtype)


@torch.library.register_fake("bitfold::lookup_firsts", lib=_library)
def _(*given: Any) -> Tensor:
    top = given[-1]
    return torch.empty_like(top, dtype=torch.float64 if top.dtype == torch.float64 else torch.float)


@torch.library.register_fake("bitfold::lookup_backward", lib=_library)
def _(grad: Tensor, *given: Any) -> Gradients:
    pool, importance, ids, *_ = reading = Reading(*given[:LENGTH])
    _, sparse, wants_importance, wants_weights = given[LENGTH:]
    found = torch.library.get_ctx().new_dynamic_size() if sparse else 0
    lookups = importance.shape[0] if wants_importance and importance is not None else 0
    rows = 0 if reading.codes else found if sparse else pool.shape[0]
    return (
        ids.new_empty(found),
        pool.new_empty(rows, pool.shape[1], dtype=reading.dtype),
        pool.new_empty(lookups, dtype=reading.dtype),
        pool.new_empty(ids.shape[0] if wants_weights else 0, dtype=reading.dtype),
    )


def _saved(reading: Reading, first: Tensor | None) -> tuple[Any, ...]:
    """The tensors of a reading, and what else its gradient needs.

    Centres and steps are copied: a refresh between a forward and its backward writes into them.
    """
    scales = (None if each is None else each.clone() for each in (reading.centres, reading.steps))
    return *reading[:TENSORS], first, *scales, *reading.tables


class Held(NamedTuple):
    """What a backward pass needs of a lookup, beside the tensors that autograd keeps.

    Where the gradient does not depend on the pool's values, autograd keeps neither them nor their
    scales: a table may move between a lookup and its backward pass, as that of `nn.Embedding` may.
    """

    pool: Tensor
    scales: tuple[Tensor | None, Tensor | None]
    words: tuple[Any, ...]
    values: bool

    @classmethod
    def of(
        cls, reading: Reading, first: Tensor | None, values: bool
    ) -> tuple["Held", tuple[Any, ...]]:
        """That, and the tensors that autograd has to keep."""
        if values:
            saved = _saved(reading, first)
        else:  # to copy the scales costs as much as the lookup
            saved = (None, *reading[1:TENSORS], first, None, None, *reading.tables)
        scales = reading.centres, reading.steps
        return cls(reading.pool.detach(), scales, _words(reading), values), saved

    def restored(self, saved: Sequence[Any]) -> tuple[Reading, Tensor | None]:
        """The reading again, and which id of each bag was the largest."""
        reading, first = _restored(tuple(saved), self.words)
        if not self.values:
            centres, steps = self.scales
            reading = reading._replace(pool=self.pool, centres=centres, steps=steps)
        return reading, first


def _restored(saved: tuple[Any, ...], words: tuple[Any, ...]) -> tuple[Reading, Tensor | None]:
    given, (first, centres, steps, *tables) = saved[:TENSORS], saved[TENSORS:]
    return Reading._make((*given, *words[:-1], centres, steps, words[-1], tables)), first


def _words(reading: Reading) -> tuple[Any, ...]:
    """What of a reading is no tensor."""
    return (*reading[TENSORS : TENSORS + NUMBERS], reading.bits)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    reading, ctx.sparse = Reading(*inputs[:-1]), inputs[-1]
    ctx.save_for_backward(*_saved(reading, output if reading.pooling == MAX else None))
    ctx.words = _words(reading)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """The gradient in a graph: by operators."""
    reading, top = _restored(ctx.saved_tensors, ctx.words)
    needs, first = ctx.needs_input_grad, None
    wants = needs[0], needs[1], needs[4]
    if reading.pooling == MAX:
        first = torch.ops.bitfold.lookup_firsts(*reading, top)
    found = torch.ops.bitfold.lookup_backward(grad, *reading, first, ctx.sparse, *wants[1:])
    pool, factors, weights = _gradients(found, reading, wants, ctx.sparse)
    tables: Any = [None] * len(reading.tables)  # a list of tensors has a list of gradients
    return pool, factors, None, None, weights, *[None] * (LENGTH - 6), tables, None


def of_rows(rows: Tensor, values: Tensor, table: Tensor) -> Tensor:
    """A table's gradient that is that of some of its rows, in order."""
    return torch.sparse_coo_tensor(
        rows.unsqueeze(0), values, table.shape, is_coalesced=True, check_invariants=False
    )


def _gradients(
    found: Gradients, reading: Reading, wants: tuple[bool, bool, bool], sparse: bool
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """What `lookup_backward` found, as gradients of the pool, the factors and the weights."""
    rows, values, factors, shares = found
    importance, weights = reading.importance, reading.weights
    if sparse and wants[0]:
        values = of_rows(rows, values, reading.pool)
    return (
        values if wants[0] else None,
        factors.to(importance.dtype) if importance is not None and wants[1] else None,
        shares.to(weights.dtype) if weights is not None and wants[2] else None,
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


class Once(torch.autograd.Function):
    """Gradients of a kernel, which have none of their own: `sources` are what they depend on."""

    @staticmethod
    def forward(ctx: Any, sources: int, *given: Tensor) -> tuple[Tensor, ...]:
        """The gradients, as they are."""
        return tuple(each.view_as(each) for each in given[sources:])

    backward = staticmethod(_refuse)


class _Lookup(torch.autograd.Function):
    """The operator without its dispatch, which costs more than a small batch's lookup.

    The last input is the parameter whose rows the pool's codes are, where codes are trained: it has
    the gradient then.
    """

    @staticmethod
    def forward(
        ctx: Any, pool: Tensor, importance: Tensor | None, weights: Tensor | None,
        trained: Tensor | None, rest: tuple[Any, ...],
    ) -> Tensor:  # fmt: skip
        """Vectors, and what their gradient needs; `rest` are a reading, `sparse` and `mover`.

        What may have a gradient is an argument, and in the reading again; autograd looks at each
        argument, which costs more than to look at one more tuple.
        """
        given, ctx.sparse, ctx.mover = rest
        out: Tensor = _kernels().forward(given)
        reading = Reading._make(given)
        first = _kernels().firsts(reading, out) if reading.pooling == MAX else None
        wants = ctx.needs_input_grad
        values = wants[1] or wants[2] or _kernels().needs_values(reading.packed, reading.fusion)
        ctx.held, saved = Held.of(reading, first, values)
        ctx.save_for_backward(*saved)
        ctx.weight = reading.pool if trained is None else trained
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients, or moved rows."""
        saved = ctx.saved_tensors
        reading, first = ctx.held.restored(saved)
        *wants, to_trained, _ = ctx.needs_input_grad
        second = torch.is_grad_enabled()
        if ctx.mover is not None and (wants[0] or to_trained):
            ctx.mover.move_at_end(ctx.weight, grad, (reading, first))
            if not wants[1] and not wants[2]:
                return (None,) * 5
            wants[0] = to_trained = False
        sparse = ctx.sparse or to_trained
        with torch.no_grad():
            found = _backward()(grad, reading, first, sparse, *wants[1:])
        if second:  # a graph of the gradient is wanted
            sources = [
                each
                for each in (grad, saved[0], reading.importance, reading.weights)
                if each is not None and each.requires_grad
            ]
            found = (found[0], *Once.apply(len(sources), *sources, *found[1:]))
        table = None
        if to_trained:
            table = of_rows(found[0], found[1], ctx.weight)
            table = table if ctx.sparse else table.to_dense()
        return *_gradients(found, reading, tuple(wants), ctx.sparse), table, None


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
    tables: Sequence[Tensor] = (),
    trained: Tensor | None = None,
) -> Tensor:
    """Vectors `[B, F, D]`, see `bitfold.kernels.lookup.forward`, by the shortest way there is.

    Eagerly it is a call; under a compiler, a tracer or a mode an operator, and so of tensors that
    are no plain ones. `words` are those of a reading, from `packed` to `bits`; `way` is that of
    `choice.way_of`; `mover`, an optimizer, moves the pool's rows in an eager backward pass;
    `tables` are those that the program's sources read; `trained`, where the pool is codes that are
    trained, is their parameter: eagerly alone.
    """
    # A tuple: to make a reading of it costs a tenth of a row's lookup.
    given = (pool, importance, ids, offsets, weights, *words, tables)
    if way != DIRECT or type(ids) is not Tensor:
        if torch.onnx.is_in_onnx_export():
            raise BitfoldError(
                "ONNX knows no operator of bitfold",
                got="torch.onnx.export of a lookup by the kernels",
                expected="a graph of plain torch operations",
                fix="export within `with bitfold.plain_torch():`",
            )
        result: Tensor = torch.ops.bitfold.lookup(*given, sparse)
    elif torch.is_grad_enabled() and (
        pool.requires_grad
        or (trained is not None and trained.requires_grad)
        or (importance is not None and importance.requires_grad)
        or (weights is not None and weights.requires_grad)
    ):
        result = _Lookup.apply(pool, importance, weights, trained, (given, sparse, mover))
    else:
        result = _kernels().forward(given)
    return result
