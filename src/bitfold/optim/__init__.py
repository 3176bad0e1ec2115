"""Optimizers that move only the rows of the batch.

A table's gradient has a row for each row that the batch read. Dense optimizers walk the whole
table all the same, and momentum moves rows that nobody asked for. The optimizers here read and
write the rows of a gradient alone: those of a sparse one, those that are not all zero of a dense
one, so both give the same weights. On the CPU a float32 table is updated in one pass of a
kernel; elsewhere the same update is plain torch.

Weight decay is decoupled, as in AdamW: a row that moves is first scaled by `1 - lr * decay`. `l2`
is coupled, as in Adam: a row that moves has `l2` times itself added to its gradient.

- `base`: what they share: steps, state, moves within the backward pass.
- `kinds`: SGD, Adagrad, row-wise Adagrad, lazy Adam.
- `options`: which of torch's options they take.
- `rows`: a gradient's rows, and the update in plain torch.
- `pending`: rows that move at the end of a backward pass.

Sources: Duchi, Hazan, Singer, JMLR 2011 (Adagrad); Kingma, Ba, ICLR 2015 (Adam); Loshchilov,
Hutter, ICLR 2019 (decoupled decay). Row-wise Adagrad keeps the mean of a row's squares, as
recommendation models at scale do.
"""

from bitfold.optim.base import RowOptimizer
from bitfold.optim.kinds import SGD, Adagrad, LazyAdam, RowWiseAdagrad

OPTIMIZERS: dict[str, type[RowOptimizer]] = {
    kind.KIND: kind for kind in (SGD, Adagrad, RowWiseAdagrad, LazyAdam)
}

__all__ = ["OPTIMIZERS", "SGD", "Adagrad", "LazyAdam", "RowOptimizer", "RowWiseAdagrad"]
