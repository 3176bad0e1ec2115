"""`.weight` where no parameter is the table: lazy to read, and not to be written.

Every read computes what it needs from the module as it then is. A write would go into a
temporary and be lost, so each raises; those that a module can honour arrive:

- `normal_` with mean 0 on the whole table draws fresh weights, of vectors of that deviation;
- `requires_grad_` on it freezes or frees the module's parameters;
- a write that changes nothing passes, such as zeros into the row of `padding_idx`.

What shares memory with a computed table (rows, slices, `.T`, `.detach()`) is guarded too.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch._C import DisableTorchFunctionSubclass

from bitfold.errors import BitfoldError

if TYPE_CHECKING:
    from bitfold.embedding.single import OneField

_T: Any = Tensor


def _getters(*names: str) -> set[Any]:
    return {getattr(_T, name).__get__ for name in names if hasattr(_T, name)}


# What is known without the numbers.
_KNOWN = _getters(
    "shape", "dtype", "device", "layout", "ndim", "is_sparse", "is_cuda", "is_meta", "is_cpu",
    "is_quantized", "is_nested", "is_mkldnn", "is_mps", "is_xpu", "itemsize", "nbytes", "names",
    "_version", "output_nr", "name", "retains_grad",
) | {
    _T.size, _T.dim, _T.numel, _T.nelement, _T.ndimension, _T.stride, _T.element_size,
    _T.is_floating_point, _T.is_complex, _T.is_signed, _T.get_device, _T.__len__, _T.__hash__,
    _T.is_contiguous, torch.is_floating_point, torch.is_complex, torch.numel, torch.is_tensor,
    _T.storage_offset, _T.is_inference,
}  # fmt: skip
_POINTERS = {
    _T.data_ptr, _T.untyped_storage, _T.storage, _T.__dlpack__, _T.register_hook, _T.retain_grad,
    _T.register_post_accumulate_grad_hook, _T.grad.__get__,
}  # fmt: skip
_WHOLE = {_T.detach, _T.data.__get__, torch.detach}
_IN_PLACE = {
    f"__i{name}__"
    for name in (
        "add", "sub", "mul", "div", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or",
        "xor", "lshift", "rshift",
    )
} | {"__setitem__", "__delitem__", "__set__", "__delete__"}  # fmt: skip
_ARRAYS = {"numpy", "__array__"}


class _Guarded(Tensor):
    """What both kinds share: every call runs on plain tensors, and none may write into them."""

    _module: "OneField"

    def _plain(self) -> Tensor:
        raise NotImplementedError

    def __iter__(self) -> Iterator[Tensor]:
        """Its rows, guarded as it is."""
        return iter(self.unbind(0))

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run `func` on the numbers, unless it would write into them."""
        kwargs = kwargs or {}
        guarded = next(each for each in _flat([*args, *kwargs.values()]) if _is(each))
        if func in _POINTERS:
            raise _refused(guarded._module, getattr(func, "__name__", "it"), _WHY)
        name = getattr(func, "__name__", "")
        target = args[0] if args else kwargs.get("tensor", kwargs.get("input"))
        if _writes(name) and any(_is(each) for each in _flat([target])):
            if name != "__set__" and _changes_nothing(func, target, args, kwargs):
                return target
            raise _refused(guarded._module, name, _WHY)
        return _run(guarded._module, func, args, kwargs)


class ComputedRows(_Guarded):
    """Some numbers of a computed table, or another view of it: computed, and not to be written."""

    @classmethod
    def of(cls, value: Tensor, module: "OneField") -> "ComputedRows":
        """The value, guarded."""
        rows = value.as_subclass(cls)
        rows._module = module
        return rows

    def _plain(self) -> Tensor:
        with DisableTorchFunctionSubclass():
            return self.as_subclass(Tensor)


class ComputedWeight(_Guarded):
    """The table `[V, D]` of a module that computes it, as a tensor without numbers of its own.

    Shape, type and device are known at once; anything else computes what it reads, with gradients
    to the module's parameters.

    Example:
        >>> import bitfold
        >>> weight = bitfold.Embedding(1_000_000, 16, budget="100x").weight
        >>> weight
        ComputedWeight([1000000, 16], dtype=torch.float32, device=cpu, requires_grad=True)
        >>> weight[7].shape
        torch.Size([16])
    """

    _tracked: bool

    @staticmethod
    def __new__(cls, module: "OneField", dtype: torch.dtype, device: torch.device, tracked: bool):  # type: ignore[no-untyped-def]
        """A tensor of that shape, type and device, which has no memory."""
        shape = (module.num_embeddings, module.embedding_dim)
        made = _T._make_wrapper_subclass(cls, shape, dtype=dtype, device=device)
        made._module, made._tracked = module, tracked
        return made

    def __init__(self, *given: Any) -> None:
        pass

    def _plain(self) -> Tensor:
        table = self._module.computed(None)
        return table if self._tracked else table.detach()

    def _handle(self) -> "ComputedWeight":
        """The same table without gradients."""
        with DisableTorchFunctionSubclass():
            return ComputedWeight(self._module, self.dtype, self.device, False)

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Answer what is known, honour what can arrive; else as for all that is guarded."""
        kwargs = kwargs or {}
        if func in _KNOWN:
            with DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        weight = args[0] if args else kwargs.get("tensor")
        if isinstance(weight, ComputedWeight):
            if func in _WHOLE:
                return weight._handle()
            if func in _OWN:
                return _OWN[func](weight, *args[1:], **kwargs)
        return super().__torch_function__(func, types, args, kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """What reaches a tensor past Python: the same rules."""
        module = next(each for each in _flat([*args]) if _is(each))._module
        if func._schema.is_mutable and _is(args[0]):
            raise _refused(module, str(func), _WHY)
        return _run(module, func, args, kwargs or {})

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        shape, grad = list(self.shape), ", requires_grad=True" * self.requires_grad
        return f"ComputedWeight({shape}, dtype={self.dtype}, device={self.device}{grad})"

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)


def _requires_grad(weight: ComputedWeight) -> bool:
    return weight._tracked and any(each.requires_grad for each in weight._module.parameters())


def _set_requires_grad(weight: ComputedWeight, flag: bool = True, **named: bool) -> ComputedWeight:
    if not weight._tracked:
        raise _refused(
            weight._module, "requires_grad_", "a table of your own is `emb.weight.detach().clone()`"
        )
    weight._module.requires_grad_(named.get("requires_grad", flag))
    return weight


def _normal(
    weight: ComputedWeight,
    mean: float = 0.0,
    std: float = 1.0,
    generator: torch.Generator | None = None,
    **_: Any,
) -> ComputedWeight:
    """Fresh weights, whose vectors have the deviation `std`."""
    if mean != 0 or not weight._module.redraw(float(std), generator):
        raise _refused(weight._module, f"normal_({mean}, {std})", _WHY)
    return weight


def _row(weight: ComputedWeight, key: Any) -> Any:
    """Rows, of which only those that are read are computed."""
    ids: Any = key
    if isinstance(key, int | slice) and not isinstance(key, bool):
        ids = torch.arange(weight._module.num_embeddings, device=weight.device)[key]
    if not isinstance(ids, Tensor) or _is(ids) or ids.dtype not in (torch.int64, torch.int32):
        return _run(weight._module, _T.__getitem__, (weight, key), {})
    ids = torch.where(ids < 0, ids + weight._module.num_embeddings, ids)
    found = weight._module.computed(ids)
    found = found if weight._tracked else found.detach()
    return found if ids is key else ComputedRows.of(found, weight._module)


_OWN: dict[Any, Callable[..., Any]] = {
    _T.requires_grad.__get__: _requires_grad,
    _T.requires_grad.__set__: _set_requires_grad,
    _T.requires_grad_: _set_requires_grad,
    _T.is_leaf.__get__: lambda weight: not _requires_grad(weight),
    _T.type: lambda weight, *to, **named: (  # what `torch.typename` and its errors say
        _run(weight._module, _T.type, (weight, *to), named) if to or named else "ComputedWeight"
    ),
    _T.normal_: _normal,
    torch.nn.init.normal_: _normal,
    _T.__getitem__: _row,
}

_WHY = (
    "train, load or freeze the module's parameters() and state_dict(); say std=... for the "
    "deviation of fresh vectors; method='full' has a table to write into"
)


def _refused(module: "OneField", what: str, fix: str) -> BitfoldError:
    return BitfoldError(
        f"the weight of method {module.plan.method!r} is computed: what is written there is lost",
        got=f"{what} on a computed table [{module.num_embeddings}, {module.embedding_dim}]",
        expected="reading alone",
        fix=fix,
    )


def _is(value: Any) -> bool:
    return isinstance(value, _Guarded)


def _flat(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _flat(value)
        else:
            yield value


def _writes(name: str) -> bool:
    return name in _IN_PLACE or (name.endswith("_") and not name.endswith("__"))


def _changes_nothing(func: Any, target: Any, args: Any, kwargs: dict[str, Any]) -> bool:
    """Whether a write would leave a table with a padding row as it is."""
    if not _is(target) or target._module.padding_idx is None or not args:
        return False
    before = target._plain().detach()
    after = before.clone()
    func(after, *args[1:], **kwargs)
    return torch.equal(before, after)


def _run(module: "OneField", func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Call `func` with numbers in the place of what is guarded."""
    made: dict[int, Tensor] = {}

    def plain(value: Any) -> Any:
        if _is(value):
            return made.setdefault(id(value), value._plain())
        if type(value) in (list, tuple):
            return type(value)(plain(each) for each in value)
        return value

    given, named = plain(args), {name: plain(value) for name, value in kwargs.items()}
    counted = [(each, each._version) for each in made.values() if not each.is_inference()]
    found = func(*given, **named)
    if any(each._version != version for each, version in counted):
        raise _refused(module, getattr(func, "__name__", "a write"), _WHY)
    if getattr(func, "__name__", "") in _ARRAYS:
        found.flags.writeable = False
        return found
    homes = {_home(each) for each in made.values()}

    def guard(value: Any) -> Any:
        if isinstance(value, Tensor):
            return ComputedRows.of(value, module) if _home(value) in homes else value
        if isinstance(value, list):
            return [guard(each) for each in value]
        if type(value) is tuple:
            return tuple(guard(each) for each in value)
        return value

    return guard(found)


def _home(value: Tensor) -> int:
    """Where a tensor's numbers lie; a number of its own where that cannot be said."""
    if value.is_meta or value.layout is not torch.strided or value.numel() == 0:
        return id(value)
    return value.untyped_storage().data_ptr()
