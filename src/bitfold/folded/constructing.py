"""Models that never fitted: their tables are folded while they are constructed."""

import contextlib
import math
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from bitfold.errors import BitfoldError
from bitfold.folded.exchange import MIN_ROWS, fold
from bitfold.folded.finding import DRAWN, KINDS, TO
from bitfold.folded.report import FoldReport


class Folding:
    """What `folding` made: `report`, once its block has ended."""

    def __init__(self) -> None:
        self._report: FoldReport | None = None

    @property
    def report(self) -> FoldReport:
        """What was done.

        Raises:
            BitfoldError: the block has not ended.
        """
        if self._report is None:
            raise BitfoldError("nothing is folded yet", got="within the block", expected="after it")
        return self._report


@contextlib.contextmanager
def folding(budget: int | str, *, min_rows: int = MIN_ROWS, **words: Any) -> Iterator[Folding]:
    """Within this, models are built whose tables never have their full size.

    Tables of `min_rows` rows or more get no memory while the model is constructed; at the end of
    the block all of them are folded, as `fold` does it. How their rows were to be drawn is noted,
    and fresh rows have that deviation.

    Args:
        budget: as for `fold`.
        min_rows: as for `fold`.
        words: all else that `fold` takes.

    Raises:
        BitfoldError: as `fold`; and if several models were built that no module holds together.

    Example:
        >>> with folding("8MiB") as folded:
        ...     model = nn.Sequential(nn.EmbeddingBag(10**9, 16), nn.Linear(16, 1))
        >>> folded.report.bytes <= 8 * 2**20, model(torch.tensor([[10**9 - 1, 7]])).shape
        (True, torch.Size([1, 1]))
    """
    made, done = Made(min_rows), Folding()
    with made:
        yield done
    done._report = fold(made.model(), budget, min_rows=min_rows, **words)
    made.forget()


class Made(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The modules that this thread constructs, and how tables without memory are drawn."""

    def __init__(self, min_rows: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.min_rows, self.thread = min_rows, threading.get_ident()
        self.modules: list[weakref.ref[nn.Module]] = []
        self.tables: dict[int, weakref.ref[nn.Module]] = {}  # by the id of a weight
        self.before: dict[type, Any] = {}
        self.moves: dict[type, Any] = {}

    def __enter__(self) -> "Made":
        for kind in (nn.Module, *KINDS):
            self.before[kind] = kind.__init__
        nn.Module.__init__ = self._noted()  # type: ignore[method-assign]
        for kind in KINDS:
            kind.__init__ = self._without_memory(kind)  # type: ignore[method-assign]
            self.moves[kind] = kind.__dict__.get("_apply")
            kind._apply = self._moved(kind)  # type: ignore[method-assign]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for kind, was in self.before.items():
            kind.__init__ = was  # type: ignore[misc]
        for kind, move in self.moves.items():
            if move is None:
                del kind._apply  # type: ignore[attr-defined]
            else:
                kind._apply = move  # type: ignore[attr-defined]

    def _noted(self) -> Any:
        was = self.before[nn.Module]

        def noted(module: nn.Module, *args: Any, **words: Any) -> None:
            was(module, *args, **words)
            if threading.get_ident() == self.thread:
                self.modules.append(weakref.ref(module))

        return noted

    def _without_memory(self, kind: type) -> Any:
        was = self.before[kind]

        def without_memory(module: Any, *args: Any, **words: Any) -> None:
            rows = args[0] if args else words.get("num_embeddings")
            given = words.get("_weight") is not None or len(args) > 7
            mine = threading.get_ident() == self.thread and type(module) is kind
            if not mine or given or not isinstance(rows, int) or rows < self.min_rows:
                was(module, *args, **words)
                return
            device = words.pop("device", None)
            where = torch.get_default_device() if device is None else torch.device(device)
            with torch.device("meta"):
                was(module, *args, device="meta", **words)
            setattr(module, TO, where)
            setattr(module, DRAWN, 1.0)  # as `nn.Embedding` draws
            self.tables[id(module.weight)] = weakref.ref(module)

        return without_memory

    def _moved(self, kind: Any) -> Any:
        was = kind._apply

        def moved(module: Any, fn: Any, recurse: bool = True) -> Any:
            """What `.to(device)` within a constructor does: it is noted, and done when folded."""
            weight = module._parameters.get("weight")
            if not hasattr(module, TO) or weight is None or not weight.is_meta:
                return was(module, fn, recurse)
            wanted = fn(torch.empty(0, dtype=weight.dtype, device=getattr(module, TO)))
            setattr(module, TO, wanted.device)
            if wanted.dtype != weight.dtype:
                weight.data = weight.data.to(wanted.dtype)
            return module

        return moved

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note the deviation with which a table would have been drawn."""
        found = func(*args, **(kwargs or {}))
        drawn = _DRAWN.get(func)
        module = self._table(args[0]) if drawn else None
        if drawn and module is not None:
            setattr(module, DRAWN, drawn(*args[1:], **(kwargs or {})))
        return found

    def _table(self, weight: Any) -> Any:
        """The module whose weight, or whose weight's data, this is."""
        if not isinstance(weight, torch.Tensor) or not weight.is_meta:
            return None
        for ref in self.tables.values():
            module: Any = ref()
            own = None if module is None else module._parameters.get("weight")
            if own is not None and weight.untyped_storage()._cdata == own.untyped_storage()._cdata:
                return module
        return None

    def model(self) -> nn.Module:
        """The model that was built.

        Raises:
            BitfoldError: there are several, or none.
        """
        alive = [module for ref in self.modules if (module := ref()) is not None]
        held = {id(child) for module in alive for child in module.children()}
        roots = [each for each in alive if id(each) not in held]
        ours = {id(ref()) for ref in self.tables.values()}
        roots = [each for each in roots if any(id(part) in ours for part in each.modules())]
        if len(roots) != 1:
            raise BitfoldError(
                "folding builds one model",
                got=f"{len(roots)} with tables: "
                + (", ".join(type(each).__name__ for each in roots) or "none"),
                expected="one module that holds all tables",
                fix="build them within one module, such as nn.ModuleDict; or fold each by itself",
            )
        return roots[0]

    def forget(self) -> None:
        """Take the notes off the tables."""
        for ref in self.tables.values():
            module: Any = ref()
            if module is not None:
                for name in (TO, DRAWN):
                    module.__dict__.pop(name, None)


_ATEN = torch.ops.aten
# The deviation from zero of what each operation writes.
_DRAWN: dict[Any, Any] = {
    _ATEN.normal_.default: lambda mean=0.0, std=1.0, **_: math.hypot(mean, std),
    _ATEN.uniform_.default: lambda low=0.0, high=1.0, **_: (
        ((low**2 + low * high + high**2) / 3) ** 0.5
    ),
    _ATEN.fill_.Scalar: lambda value, **_: abs(float(value)),
    _ATEN.zero_.default: lambda **_: 0.0,
}
