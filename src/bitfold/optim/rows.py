"""The rows of a gradient, and their update in plain torch."""

import torch
from torch import Tensor

from bitfold.errors import BitfoldError
from bitfold.kernels.move import Move


def rows_of(weight: Tensor, grad: Tensor) -> tuple[Tensor | None, Tensor]:
    """The rows of a gradient, each once, and their values `[n, w]`; None for all rows.

    Raises:
        BitfoldError: for a gradient of another shape, device or layout than the weight's.
    """
    known = grad.layout in (torch.strided, torch.sparse_coo)
    if grad.shape != weight.shape or grad.device != weight.device or not known:
        raise BitfoldError(
            "the gradient is not this weight's",
            got=f"{grad.dtype} {list(grad.shape)} on {grad.device}, {grad.layout}",
            expected=f"{list(weight.shape)} on {weight.device}, strided or sparse_coo",
            fix="call zero_grad() after a weight has got another size",
        )
    if grad.layout is torch.strided:
        return None, table(grad)
    if grad.sparse_dim() != 1:
        return None, table(grad.to_dense())
    rows = grad._indices()[0]
    if not bool((rows.diff() > 0).all()):  # those of the kernels come in order, each once
        grad = grad.coalesce()
        rows = grad._indices()[0]
    if len(rows) and (int(rows[0]) < 0 or int(rows[-1]) >= len(weight)):
        raise BitfoldError(
            "a sparse gradient names rows that the weight does not have",
            got=f"rows {int(rows[0])} to {int(rows[-1])}",
            expected=f"0 to {len(weight) - 1}",
        )
    return rows.contiguous(), table(grad._values())


def table(tensor: Tensor) -> Tensor:
    """Any tensor as rows of numbers, sharing its memory if it can."""
    return tensor.reshape(-1, 1) if tensor.dim() < 2 else tensor.flatten(1)


def moved_by_kernel(weight: Tensor) -> bool:
    """Whether a kernel moves the rows of a weight."""
    plain = weight.is_cpu and weight.dtype is torch.float32 and weight.dim() > 0
    return plain and weight.is_contiguous()


def update_by_kernel(how: Move, rows: Tensor | None, grad: Tensor) -> None:
    """The update by the kernel; rows None for all, of which those without gradient stay."""
    from bitfold.kernels.sharing import threads_of
    from bitfold.kernels.updates import update

    grad = grad.float().contiguous().resolve_neg()
    update(how, rows, grad, threads_of(grad.numel(), len(grad)))


def update_plain(how: Move, rows: Tensor, grad: Tensor) -> None:
    """The update in plain torch, on any device and in any type."""
    kind, weight, one, two, (lr, decay, l2, eps, first, second) = how
    kept = weight.detach()
    numbers = table(kept)
    values = numbers[rows]
    grad = grad.to(numbers.dtype) + l2 * values
    values = values * decay
    if kind == "sgd":
        step = grad
        if first:
            state = one.view(numbers.shape)
            step = state[rows] * first + grad
            state[rows] = step
    elif kind == "adagrad":
        state = one.view(numbers.shape)
        squares = state[rows] + grad * grad
        state[rows] = squares
        step = grad / (squares.sqrt() + eps)
    elif kind == "rowwise-adagrad":
        squares = one.view(-1)[rows] + (grad * grad).mean(1)
        one.view(-1)[rows] = squares
        step = grad / (squares.sqrt() + eps).unsqueeze(1)
    else:
        means, squares = one.view(numbers.shape), two.view(numbers.shape)
        mean = means[rows] * first + grad * (1 - first)
        square = squares[rows] * second + grad * grad * (1 - second)
        means[rows], squares[rows] = mean, square
        step = mean / (square.sqrt() + eps)
    numbers[rows] = values - lr * step
    if numbers.data_ptr() != kept.data_ptr():  # rows of a weight that is no table: a copy moved
        kept.copy_(numbers.view(kept.shape))
