"""The parameter of rows that are codes: a shape and a gradient, without numbers."""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bitfold.errors import BitfoldError

if TYPE_CHECKING:
    from bitfold.pool.lowprecision import LowPrecisionPool

_HARMLESS = {"requires_grad_", "share_memory_", "detach_"}


class CodedWeight(nn.Parameter):
    """The parameter of a pool of codes: its shape, its gradient, and no numbers.

    It is one zero, expanded to `[R, w]`, and takes 4 bytes. Optimizers of `bitfold.optim` know it
    and move the codes; whatever else would write into it is refused.
    """

    pool: "LowPrecisionPool"

    @classmethod
    def of(
        cls, pool: "LowPrecisionPool", shape: tuple[int, int], like: Tensor, trained: bool = True
    ) -> "CodedWeight":
        """The parameter of a pool of `[R, w]`, on the device and of the type of `like`."""
        with torch.inference_mode(False):
            zero = torch.zeros((), dtype=like.dtype, device=like.device)
            made = torch.Tensor._make_subclass(cls, zero.expand(shape), trained)
        assert isinstance(made, CodedWeight)
        made.pool = pool
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> "CodedWeight":
        pool = copy.deepcopy(self.pool, memo)
        found: CodedWeight | None = memo.get(id(self))  # the pool's copy may have made it
        if found is None:
            shape = int(self.shape[0]), int(self.shape[1])
            found = memo[id(self)] = CodedWeight.of(pool, shape, self.detach(), self.requires_grad)
        return found

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _again, (
            self.pool,
            tuple(self.shape),
            self.dtype,
            str(self.device),
            self.requires_grad,
        )

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Refuse what writes."""
        name = getattr(func, "__name__", "")
        writes = name.endswith("_") and not name.endswith("__") and name not in _HARMLESS
        if writes and args and any(type(each) is cls for each in _listed(args[0])):
            raise BitfoldError(
                "these rows are kept as codes, which no operation of torch can move",
                got=f"{name} of a table that is trained in low precision",
                expected="an optimizer of bitfold.optim",
                fix="use bitfold.optim, or low_precision=False",
            )
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))


def trained_bytes(weight: Tensor) -> int:
    """What a parameter's numbers take while they are trained, in bytes."""
    if not isinstance(weight, CodedWeight):
        return weight.nbytes
    pool = weight.pool
    return pool.codes.nbytes + pool.moments.nbytes


def _listed(given: Any) -> Sequence[Any]:
    return given if isinstance(given, list | tuple) else (given,)


def _again(
    pool: Any, shape: tuple[int, int], dtype: torch.dtype, device: str, trained: bool
) -> CodedWeight:
    return CodedWeight.of(pool, shape, torch.empty(0, dtype=dtype, device=device), trained)
