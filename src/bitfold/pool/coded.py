"""Rows that are codes as a parameter: a shape and a gradient, without numbers."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self, cast

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


class Coded(nn.Module):
    """A pool whose parameter `weight` is a `CodedWeight`, and whose rows are `codes`.

    In state dicts the codes have the name that packed rows have there, `weight`; a cast is of what
    is read, and leaves codes and moments as they are.
    """

    rows: int
    width: int
    codes: Tensor

    def _weight(self, like: Tensor, trained: bool = True) -> CodedWeight:
        """The parameter, on the device and of the type of `like`."""
        return CodedWeight.of(
            cast("LowPrecisionPool", self), (self.rows, self.width), like, trained
        )

    @contextmanager
    def _codes_as_weight(self) -> Iterator[None]:
        """State dicts have codes under the name that packed rows have there."""
        weight, codes = self._parameters.pop("weight"), self._buffers.pop("codes")
        self._non_persistent_buffers_set.discard("codes")
        self._buffers["weight"] = codes
        try:
            yield
        finally:
            codes = self._buffers.pop("weight")
            self._parameters["weight"] = weight
            self.register_buffer("codes", codes, persistent=False)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        with self._codes_as_weight():
            super()._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        with self._codes_as_weight():
            super()._load_from_state_dict(state_dict, prefix, *rest)
        weight = self._parameters["weight"]
        if weight is not None and weight.device != self.codes.device:  # codes came to a meta module
            like = torch.empty(0, dtype=weight.dtype, device=self.codes.device)
            self._parameters["weight"] = self._weight(like, weight.requires_grad)

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, CodedWeight) and value.pool is not self:
            raise BitfoldError(
                "a parameter of codes belongs to the pool that has them",
                got="that of another pool",
                expected="the pool's own",
                fix="load the state dict of the other pool, or put the pool in the place of this",
            )
        super().__setattr__(name, value)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Codes are no numbers: a cast is of the pieces."""
        weight = self._parameters.pop("weight")
        assert isinstance(weight, CodedWeight)
        kept = {name: self._buffers[name] for name in ("codes", "moments")}
        try:
            super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
            like = fn(torch.empty(0, dtype=weight.dtype, device=weight.device))
            if (like.dtype, like.device) != (weight.dtype, weight.device):
                weight = self._weight(like, weight.requires_grad)
            for name, value in kept.items():
                moved = self._buffers[name]
                if value is not None and moved is not None and moved.dtype != value.dtype:
                    self._buffers[name] = value.to(moved.device)
        finally:
            self._parameters["weight"] = weight
        return self


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
