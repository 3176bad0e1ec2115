"""What the faces of one field share: construction, `.weight`, attributes, checkpoints."""

import copy
from typing import Any, Self

import torch
from torch import Tensor, nn

from bitfold.embedder.contract import Embedder
from bitfold.embedding.building import built
from bitfold.embedding.computed import ComputedWeight
from bitfold.errors import BitfoldError
from bitfold.fitting import Fitted
from bitfold.method.planner import plan as make_plan
from bitfold.planning.field import Field
from bitfold.planning.plan import Plan


class NoTable(BitfoldError, AttributeError):
    """`.weight` of hashed ids: `hasattr(module, "weight")` is False."""


class OneField(nn.Module):
    """One field of ids, `V` of them or any int64, with the attributes of torch's own modules.

    The names of `nn.Embedding`'s words mean what they mean there. `table` is said of a module
    whose embedder has a parameter that is the table, a row an id: `method="full"`.
    """

    embedder: Embedder
    fitted: Fitted | None = None
    """How near the vectors came to those that they were fitted to, where they were."""
    num_embeddings: int
    embedding_dim: int
    padding_idx: int | None
    max_norm: float | None
    norm_type: float
    scale_grad_by_freq: bool

    def _build(
        self,
        num_embeddings: int | None,
        embedding_dim: int,
        padding_idx: int | None,
        max_norm: float | None,
        norm_type: float,
        scale_grad_by_freq: bool,
        sparse: bool,
        weight: Tensor | None,
        freeze: bool,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
        *,
        method: str,
        budget: int | str | None,
        distinct: int | None,
        seed: int | None,
        options: dict[str, Any],
    ) -> None:
        nn.Module.__init__(self)
        if not isinstance(num_embeddings, int | None) or isinstance(num_embeddings, bool):
            raise BitfoldError(
                "num_embeddings must be an integer",
                got=repr(num_embeddings),
                expected="an int, or None for hashed ids",
            )
        field = Field("ids", num_embeddings, distinct)
        padding_idx = _within(padding_idx, num_embeddings)
        if weight is not None:
            _check_weight(weight, num_embeddings, embedding_dim)
            dtype = weight.dtype
        made = make_plan(
            [field], embedding_dim, method=method, budget=budget, seed=seed or 0, dtype=dtype,
            **options,
        )  # fmt: skip
        self.num_embeddings = num_embeddings  # type: ignore[assignment] # None for hashed ids
        self.embedding_dim, self.padding_idx = embedding_dim, padding_idx
        self.max_norm = None if max_norm is None else float(max_norm)
        self.norm_type, self.scale_grad_by_freq = float(norm_type), scale_grad_by_freq
        where = device if weight is None else "meta"
        self.embedder = built(made, seed, where, sparse)
        if self.embedder.table is None:
            self._refuse_what_needs_a_table(weight)
        elif weight is not None:
            weight = weight.detach() if device is None else weight.detach().to(device)
            self.embedder.load_state_dict({self.embedder.table: weight}, assign=True)
        else:
            self._clear_padding()
        if freeze:
            self.requires_grad_(False)

    def _refuse_what_needs_a_table(self, weight: Tensor | None) -> None:
        for word, value, unset in (
            ("_weight", weight, None),
            ("max_norm", self.max_norm, None),
            ("scale_grad_by_freq", self.scale_grad_by_freq, False),
        ):
            if value is not unset:
                raise BitfoldError(
                    f"method {self.plan.method!r} has no row for each id, as {word} needs it",
                    got=f"{word} for {self._said()}",
                    expected=f"{word}={unset}",
                    fix=f"leave {word} out, or say method='full'",
                )

    def _clear_padding(self) -> None:
        """A fresh padding row is zero; whatever is written there later is read, as in torch."""
        if self.padding_idx is not None and self.embedder.table is not None:
            table = self.weight
            if not table.is_meta:
                with torch.no_grad():
                    table[self.padding_idx].fill_(0)

    def _said(self) -> str:
        ids = "hashed ids" if self.num_embeddings is None else f"{self.num_embeddings} ids"
        return f"an {type(self).__name__} of {ids}, {self.embedding_dim} wide"

    @property
    def plan(self) -> Plan:
        """Where every number lies."""
        return self.embedder.plan

    @property
    def weight(self) -> Tensor:
        """The table `[V, D]` that the module stands for.

        With `method="full"` it is the module's parameter. The other methods *compute* it: a
        `ComputedWeight` knows its shape, type and device at once and computes what is read, with
        gradients. Writing into it raises, except what the module can honour: `normal_` with mean
        0 draws fresh weights for vectors of that deviation, `requires_grad_` freezes.

        Raises:
            AttributeError: if ids are hashed; then there is no table (`NoTable`).
        """
        if self.num_embeddings is None:
            raise _no_table()
        if self.embedder.table is not None:
            found: Tensor = self._owner_of_table().weight
            return found
        if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
            return self.computed(None)
        dtype, device = self._numbers()
        return ComputedWeight(self, dtype, device, True)

    @weight.setter
    def weight(self, value: Tensor) -> None:
        self._set_weight(value)

    def _owner_of_table(self) -> Any:
        assert self.embedder.table is not None, "the caller looks"
        return self.embedder.get_submodule(self.embedder.table.rpartition(".")[0])

    def computed(self, ids: Tensor | None) -> Tensor:
        """The vectors `[..., D]` of ids, or of all of them, as plain numbers with gradients."""
        if ids is None:
            ids = torch.arange(self.num_embeddings, device=self._numbers()[1])
        vectors: Tensor = self.embedder(ids.reshape(-1, 1), self.padding_idx)
        return vectors.reshape(*ids.shape, self.embedding_dim)

    def _numbers(self) -> tuple[torch.dtype, torch.device]:
        """The type of the vectors, and where they are made; packed rows are no parameter."""
        for numbers in self.embedder.parameters():
            return numbers.dtype, numbers.device
        device = next(self.embedder.buffers()).device
        vectors: Tensor = self.embedder(torch.empty((0, 1), dtype=torch.int64, device=device))
        return vectors.dtype, device

    def serving(self) -> Self:
        """A packed and frozen copy in evaluation mode: its state dict has the plan's bytes.

        Example:
            >>> import bitfold
            >>> layer = bitfold.Embedding(1000, 16, budget="8x").serving()
            >>> sum(each.nbytes for each in layer.state_dict().values()) == layer.plan.bytes
            True
        """
        return self._around(self.embedder.serving()).eval().requires_grad_(False)

    def resume(self) -> Self:
        """A copy that can be trained on: the inverse of `serving`.

        Raises:
            BitfoldError: the method needs more for it than serving kept.
        """
        return self._around(self.embedder.resume()).train()

    def _around(self, embedder: Embedder) -> Self:
        """A copy with another embedder."""
        return copy.deepcopy(self, {id(self.embedder): embedder})

    def redraw(self, std: float, generator: torch.Generator | None = None) -> bool:
        """Draw fresh weights, for vectors of deviation `std`; False if the method can't."""
        return self.embedder.redraw(std, generator)

    @property
    def sparse(self) -> bool:
        """Whether gradients are sparse tensors."""
        return self.embedder.sparse

    @sparse.setter
    def sparse(self, flag: bool) -> None:
        self.embedder.sparse = bool(flag)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "weight":  # `nn.Module` would register a parameter of its own
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def _set_weight(self, value: Any) -> None:
        if self.num_embeddings is None:
            raise _no_table()
        if self.embedder.table is None:
            raise BitfoldError(
                f"the weight of method {self.plan.method!r} is computed, so none can be put there",
                got=f"weight = {type(value).__name__} for {self._said()}",
                expected="no assignment",
                fix="load the module's state_dict(), or say method='full' for a table of its own",
            )
        if isinstance(value, nn.Parameter):
            _check_weight(value, self.num_embeddings, self.embedding_dim)
        self._owner_of_table().weight = value

    def __getattr__(self, name: str) -> Any:
        if name == "weight":  # asked for once more after the property's AttributeError
            raise _no_table()
        return super().__getattr__(name)

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """Register a parameter of a subclass.

        Raises:
            BitfoldError: for `weight_orig` and its like, with which `torch.nn.utils.prune` and
                `weight_norm` would take the weight away from the module that owns it.
        """
        if name.startswith("weight_"):
            raise BitfoldError(
                "pruning and weight norms belong to the module that owns the numbers",
                got=f"{name!r} registered with {self._said()}",
                expected="a reparametrization of module.embedder.pool",
                fix='for example prune.l1_unstructured(module.embedder.pool, "weight", 0.5)',
            )
        super().register_parameter(name, param)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        """Take a checkpoint of torch's own module, whose key is `weight`, for a table."""
        table, key = self.embedder.table, f"{prefix}weight"
        if table is not None and key in state_dict:
            state_dict.setdefault(f"{prefix}embedder.{table}", state_dict[key])
            del state_dict[key]
        super()._load_from_state_dict(state_dict, prefix, *args)

    def bytes(self, phase: str = "serving") -> dict[str, int]:
        """Bytes by kind; `phase` is `"serving"` or `"training"` (without an optimizer's state)."""
        return self.embedder.bytes(phase)

    def reset_parameters(self) -> None:
        """Draw fresh weights, as after `to_empty`: from the seed, or anew where none was said."""
        self.embedder.reset_parameters()
        self._clear_padding()

    def extra_repr(self) -> str:
        """Ids, width, method, bytes, and what differs from torch's defaults."""
        ids = "hashed" if self.num_embeddings is None else self.num_embeddings
        text = f"{ids}, {self.embedding_dim}, method={self.plan.method!r}, bytes={self.plan.bytes}"
        if self.padding_idx is not None:
            text += f", padding_idx={self.padding_idx}"
        if self.max_norm is not None:
            text += f", max_norm={self.max_norm}"
        if self.norm_type != 2:
            text += f", norm_type={self.norm_type}"
        if self.scale_grad_by_freq:
            text += ", scale_grad_by_freq=True"
        return text + ", sparse=True" * self.sparse

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"


def _no_table() -> NoTable:
    return NoTable(
        "an embedding of hashed ids has no table",
        got="num_embeddings=None",
        expected="dense ids",
        fix="call the module on the ids whose vectors you want",
    )


def _within(padding_idx: int | None, num_embeddings: int | None) -> int | None:
    """A padding id counted from the front."""
    if num_embeddings is None or padding_idx is None:
        return padding_idx
    if not -num_embeddings <= padding_idx < num_embeddings:
        raise BitfoldError(
            "padding_idx is out of range",
            got=padding_idx,
            expected=f"{-num_embeddings} to {num_embeddings - 1}",
        )
    return padding_idx % num_embeddings


def _check_weight(weight: Tensor, num_embeddings: int | None, embedding_dim: int) -> None:
    if not isinstance(weight, Tensor) or weight.shape != (num_embeddings, embedding_dim):
        shape = list(weight.shape) if isinstance(weight, Tensor) else type(weight).__name__
        raise BitfoldError(
            "a weight of another shape than the table",
            got=shape,
            expected=[num_embeddings, embedding_dim],
            fix="say num_embeddings and embedding_dim as the weight has them",
        )
