"""What several tests of the contract compare."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bitfold.embedder.contract import embedders as embedders
from bitfold.kernels.choice import plain_torch
from bitfold.optim import OPTIMIZERS, RowOptimizer
from bitfold.pool.coded import CodedWeight

TOLERANCES: dict[torch.dtype, dict[str, float]] = {
    torch.float32: {"rtol": 1e-5, "atol": 1e-6},
    torch.float64: {"rtol": 1e-12, "atol": 1e-14},
    torch.bfloat16: {"rtol": 8e-3, "atol": 1e-6},  # of what float32 gives: one rounding
}
PATHS: dict[str, Callable[[], Any]] = {
    "kernels": contextlib.nullcontext,
    "plain": plain_torch,
}
"""Where lookups run: by the kernels where they can, or in plain torch."""


def exact(module: nn.Module) -> bool:
    """Whether a module serves the very vectors that it trains: not while it searches for some."""
    return all(part.exact for part in embedders(module))


def by_kernels(module: nn.Module) -> bool:
    """Whether a module's lookups are run by the kernels."""
    return all(_by_kernels(part) for part in embedders(module) if not hasattr(part, "parts"))


def _by_kernels(part: Any) -> bool:
    """Whether one embedder's are: its program, and rows in the type that they have now."""
    return getattr(part, "by_kernels", False) and part.pool.read_by_kernels(part.pool.weight)


def need_kernels(module: nn.Module) -> None:
    """Skip a test of the kernels for what plain torch runs."""
    if not by_kernels(module):
        pytest.skip("no kernel runs this program: plain torch does")


def narrow(module: nn.Module) -> bool:
    """Whether a module's pools keep numbers in few bits."""
    groups = [group for part in embedders(module) for group in part.plan.groups]
    return any(pool.packed for group in groups for pool in group.pools)


def steps(module: nn.Module) -> bool:
    """Whether vectors change by steps: numbers are rounded, or rows are chosen."""
    return narrow(module) or any(part.estimates for part in embedders(module))


def need_derivatives(module: nn.Module) -> None:
    """Skip a test of derivatives where gradients are straight-through estimates."""
    if steps(module):
        pytest.skip("vectors change by steps: their gradients pass straight through")


def state_bytes(module: nn.Module) -> int:
    """Bytes of a module's state dict."""
    return sum(tensor.nbytes for tensor in module.state_dict().values())


def dense(gradient: Tensor) -> Tensor:
    """A gradient, dense if it is sparse."""
    return gradient.to_dense() if gradient.is_sparse else gradient


def gradients(loss: Tensor, module: nn.Module) -> Sequence[Tensor | None]:
    """The gradients of a loss for every parameter."""
    return torch.autograd.grad(loss, list(module.parameters()), allow_unused=True)


def results(module: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Vectors, and the gradients of a random sum of them."""
    module.zero_grad()
    out = module(*inputs)
    drawn = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    drawn = drawn.bfloat16().to(out.dtype)
    (out * drawn).sum().backward()
    found = [out.detach()]
    for weight in module.parameters():
        assert weight.grad is not None
        found.append(dense(weight.grad))
    return found


def with_gradients(
    module: nn.Module, call: Callable[..., Tensor], inputs: Sequence[Tensor]
) -> list[Tensor]:
    """What `call` makes of inputs, and the gradients of its squares."""
    module.zero_grad()
    out = call(*inputs)
    out.pow(2).sum().backward()
    grads = [p.grad for p in module.parameters() if p.grad is not None]
    return [out.detach(), *[dense(grad).clone() for grad in grads]]


def same(got: Sequence[Any], expected: Sequence[Any], **tolerance: Any) -> None:
    """Raise unless two lists of tensors are close, one by one."""
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, **tolerance)


def same_rows(module: nn.Module, got: Tensor, expected: Tensor) -> None:
    """Raise unless vectors that batches of two sizes gave are equal.

    To the bit, unless matrices were multiplied: then the last bits depend on the batch.
    """
    if any(part.multiplies for part in embedders(module)):
        torch.testing.assert_close(got, expected)
    else:
        assert torch.equal(got, expected)


@torch.no_grad()
def rewrite(module: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    """Write what `change` makes of its numbers into every weight."""
    for weight in module.parameters():
        if isinstance(weight, CodedWeight):
            rows = torch.arange(len(weight), device=weight.device)
            weight.pool.move(rows, change(weight.pool.numbers(rows)))
        else:
            weight.copy_(change(weight.detach().clone()))


def disturb(module: nn.Module, by: float = 1.0) -> None:
    """Add a number to every weight."""
    rewrite(module, lambda numbers: numbers + by)


def of_size_one(module: nn.Module) -> None:
    """Draw every weight from a normal distribution: maxima differ by more than rounding."""
    rewrite(module, lambda old: old.normal_(generator=torch.Generator().manual_seed(3)))


def coded(module: nn.Module) -> bool:
    """Whether a weight is codes while it is trained, too: bitfold's optimizers move it alone."""
    return any(isinstance(weight, CodedWeight) for weight in module.parameters())


def optimizer_named(kind: str, module: nn.Module, lr: float) -> RowOptimizer:
    """One of bitfold's optimizers, of all parameters of a module."""
    make: Callable[..., RowOptimizer] = OPTIMIZERS[kind]
    return make(module.parameters(), lr=lr)


@contextlib.contextmanager
def on(path: str) -> Iterator[None]:
    """Run lookups by one of `PATHS`."""
    with PATHS[path]():
        yield
