"""Pooling: a bag's vectors become one."""

import torch
from torch import Tensor

from bitfold.address.words import exporting
from bitfold.errors import BitfoldError, unknown_name

MODES = ("sum", "mean", "max")


def check_pooling(mode: str, weights: Tensor | None) -> None:
    """Raise for a mode that does not exist, or for weights outside a sum."""
    if mode not in MODES:
        raise unknown_name("mode", mode, MODES)
    if weights is not None and mode != "sum":
        raise BitfoldError(
            "per_sample_weights are for sums",
            got=f"mode={mode!r}",
            expected="mode='sum', as in torch.nn.EmbeddingBag",
            fix="for a weighted mean, divide the weights by their sum",
        )


def check_bags(
    ids: Tensor, offsets: Tensor, weights: Tensor | None, mode: str, fields: int
) -> None:
    """Raise unless ids, offsets and weights are bags of `fields` fields, field by field."""
    check_pooling(mode, weights)
    bags = offsets.shape[0] - 1 if offsets.dim() == 1 else -1
    if ids.dim() != 1 or bags < 0 or bags % fields:
        raise BitfoldError(
            "bags of the wrong shape",
            got=f"ids {list(ids.shape)}, offsets {list(offsets.shape)}",
            expected=f"ids [T], offsets [{fields} * B + 1], field by field",
        )
    if weights is not None and weights.shape != ids.shape:
        raise BitfoldError(
            "per_sample_weights of the wrong shape",
            got=list(weights.shape),
            expected=f"{list(ids.shape)}, as the ids",
        )
    if offsets.dtype not in (torch.int64, torch.int32):
        raise BitfoldError("offsets are integers", got=offsets.dtype, expected="torch.int64")


def pool(
    vectors: Tensor,
    bag: Tensor,
    bags: int,
    mode: str,
    *,
    weights: Tensor | None = None,
    keep: Tensor | None = None,
) -> Tensor:
    """Reduce vectors to bags; an empty bag is zero.

    Sums run in float32 where the vectors are narrower.

    Args:
        vectors: `[T, D]`.
        bag: int64 `[T]`, the bag of each vector.
        bags: how many bags there are.
        mode: `sum`, `mean` or `max`.
        weights: `[T]`, for sums alone.
        keep: bool `[T]`; vectors left out are not in any bag.

    Returns:
        `[bags, D]`.
    """
    dtype = vectors.dtype
    if dtype in (torch.float16, torch.bfloat16):
        vectors = vectors.float()
    if weights is not None:
        vectors = vectors * weights.to(vectors.dtype).unsqueeze(-1)
    if mode == "max":
        return _largest(vectors, bag, bags, keep).to(dtype)
    empty = vectors.new_zeros(bags, vectors.shape[-1])
    if keep is not None:
        vectors = vectors.masked_fill(~keep.unsqueeze(-1), 0.0)
    out = empty.index_add(0, bag, vectors)
    if mode == "mean":
        one = vectors.new_ones(vectors.shape[0]) if keep is None else keep.to(vectors.dtype)
        count = vectors.new_zeros(bags).index_add(0, bag, one)
        out = out / count.clamp(min=1.0).unsqueeze(-1)
    return out.to(dtype)


def _largest(vectors: Tensor, bag: Tensor, bags: int, keep: Tensor | None) -> Tensor:
    """The largest number of each bag; of equal ones the first has the gradient, as in torch."""
    count, width = vectors.shape
    if exporting():
        return _largest_exported(vectors, bag, bags, keep)
    if keep is not None:  # what is left out goes to a bag of its own
        bag = torch.where(keep, bag, bags)
    index = bag.unsqueeze(-1).expand(count, width)
    values = vectors.detach()
    top = values.new_zeros(bags + 1, width)
    top = top.scatter_reduce(0, index, values, "amax", include_self=False)
    place = torch.arange(count, device=vectors.device).unsqueeze(-1)
    place = torch.where(values == top.gather(0, index), place, count)
    first = place.new_full((bags + 1, width), count).scatter_reduce(0, index, place, "amin")[:bags]
    # An empty bag, or one whose largest number is none, reads the row that is appended.
    found = torch.cat([vectors, vectors.new_zeros(1, width)]).gather(0, first)
    return torch.where(top[:bags].isnan(), top[:bags], found)


def _largest_exported(vectors: Tensor, bag: Tensor, bags: int, keep: Tensor | None) -> Tensor:
    """The largest number of each bag, without a gradient."""
    one = torch.ones_like(bag) if keep is None else keep.long()
    count = bag.new_zeros(bags).index_add(0, bag, one)
    if keep is not None:
        vectors = vectors.masked_fill(~keep.unsqueeze(-1), -torch.inf)
    index = bag.unsqueeze(-1).expand(vectors.shape)
    top = vectors.new_full((bags, vectors.shape[-1]), -torch.inf)
    top = top.scatter_reduce(0, index, vectors, "amax")
    return top.masked_fill((count == 0).unsqueeze(-1), 0.0)


def bags_of(offsets: Tensor, total: int) -> Tensor:
    """The bag of each of `total` ids, from `bags + 1` offsets.

    Example:
        >>> bags_of(torch.tensor([0, 2, 2, 3]), 3)
        tensor([0, 0, 2])
    """
    if exporting():  # no shape follows from numbers, and there is no loop
        begins = offsets.new_zeros(total + 1)
        begins = begins.index_add(0, offsets[1:], torch.ones_like(offsets[1:]))
        return begins[:total].cumsum(0)
    counts = offsets.diff()
    numbers = torch.arange(counts.shape[0], device=offsets.device)
    return torch.repeat_interleave(numbers, counts, output_size=total)


def placed(offsets: Tensor, total: int, fields: int) -> tuple[Tensor, Tensor]:
    """The bag and the field of each of `total` ids, from `fields * B + 1` offsets, field by field.

    Example:
        >>> placed(torch.tensor([0, 2, 2, 3, 3]), 3, fields=2)
        (tensor([0, 0, 2]), tensor([0, 0, 1]))
    """
    bag = bags_of(offsets, total)
    return bag, bag // max((offsets.shape[0] - 1) // fields, 1)


def by_field(pooled: Tensor, fields: int) -> Tensor:
    """Vectors of bags `[F * B, D]`, field by field, as `[B, F, D]`."""
    found = pooled.reshape(fields, pooled.shape[0] // fields, pooled.shape[1])
    return found.transpose(0, 1).contiguous()


def check_offsets(offsets: Tensor, total: int) -> None:
    """Raise unless the offsets start at 0, never fall and end at `total`."""
    if offsets.is_meta or exporting():
        return
    rises = (offsets[1:] >= offsets[:-1]).all()  # a third quicker than a difference
    good = (offsets[0] == 0) & (offsets[-1] == total) & rises
    if torch.compiler.is_compiling():
        torch._assert_async(good, "offsets must start at 0, never fall, and end at the ids' number")
    elif not bool(good):
        raise BitfoldError(
            "the offsets do not cut the ids into bags",
            got=f"first {int(offsets[0])}, last {int(offsets[-1])}, {total} ids",
            expected=f"offsets that start at 0, never fall and end at {total}",
        )
