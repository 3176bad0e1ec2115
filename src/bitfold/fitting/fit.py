"""The door: any embedder, and the trained table of each of its fields."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from bitfold.embedder.contract import Embedder
from bitfold.embedder.corridor import Corridor
from bitfold.embedder.group import GroupEmbedder
from bitfold.embedder.quantizing import Quantizing
from bitfold.errors import BitfoldError
from bitfold.fitting.choices import fit_choices
from bitfold.fitting.corridors import fit_corridor
from bitfold.fitting.gradients import descend
from bitfold.fitting.learning import learn
from bitfold.fitting.tables import Trained


class Fitted(NamedTuple):
    """How near a field's vectors have come to its trained table.

    Args:
        field: its name.
        error: `sqrt(sum c |x - y|^2 / sum c |x|^2)`: 0 for equal vectors, 1 for zeros.
        how: what was done, in words.
    """

    field: str
    error: float
    how: str


def fit(
    embedder: Embedder,
    tables: Sequence[Any],
    counts: Sequence[Any] | None = None,
    *,
    padding: Sequence[int | None] | None = None,
    seed: int = 0,
) -> tuple[Fitted, ...]:
    """Make an embedder's numbers hold trained tables as well as they can.

    Weights, heads, and what is stored beside them are overwritten in place; the same for the same
    seed. Tables are read some rows at a time, and several times.

    Args:
        embedder: as it is trained, not its serving form.
        tables: for each field `[V, D]` for the ids `0..V-1`: a tensor, or whatever gives rows by
            slices (an array, a memory-mapped file); or a pair of ids int64 `[N]` and their vectors
            `[N, D]`, which hashed fields need.
        counts: for each field how often each id occurs, `[V]` or `[N]`, or None; what it counts.
        padding: for each field an id that is left out, or None.
        seed: what is drawn where a fit begins at random.

    Returns:
        For each field, how near its vectors have come, by what the embedder returns.

    Raises:
        BitfoldError: shapes and types do not fit, or there is what is not a number. Then nothing
            is written.

    Example:
        >>> from bitfold import EmbeddingCollection, Field
        >>> fields, tables = [Field("user", 500)], [torch.randn(500, 8)]
        >>> made = EmbeddingCollection(fields, 8, method="full", bits=8)
        >>> (user,) = fit(made.embedder, tables)
        >>> user.how, user.error < 0.02
        ('rows as they are, rounded to 8 bits', True)
    """
    fields = embedder.plan.fields
    for what, given in (("tables", tables), ("counts", counts), ("padding", padding)):
        if given is not None and len(given) != len(fields):
            raise BitfoldError(
                f"{what} are not one for each field",
                got=len(given),
                expected=f"{len(fields)}: {', '.join(field.name for field in fields)}",
            )
    _check_trainable(embedder)
    device = next(embedder.parameters()).device
    given_counts = counts or [None] * len(fields)
    left_out = padding or [None] * len(fields)
    trained = [
        Trained(field, table, embedder.plan.embedding_dim, count, pad, device)
        for field, table, count, pad in zip(fields, tables, given_counts, left_out, strict=True)
    ]
    found: dict[int, Fitted] = {}
    for part, numbers in embedder.members():
        own = [trained[number] for number in numbers]
        learn(part, own)
        if isinstance(part, Corridor):
            how = fit_corridor(part, own, seed)
        elif isinstance(part, Quantizing):
            how = fit_choices(part, own, seed)
        elif part.takes_rows:
            how = [put(part, number, each) for number, each in enumerate(own)]
        else:
            how = [descend(part, own, seed)] * len(own)
        for number, error, said in zip(numbers, errors(part, own), how, strict=True):
            found[number] = Fitted(fields[number].name, error, said)
    return tuple(found[number] for number in range(len(fields)))


def put(part: Embedder, number: int, trained: Trained) -> str:
    """Write the vectors of a field as they are."""
    chunks = trained.chunks(trained.at_once())
    part.put_rows(number, ((each.ids, each.vectors, each.weights) for each in chunks))
    return "rows as they are, as far as their lengths reach"


@torch.no_grad()
def errors(part: Embedder, tables: Sequence[Trained]) -> list[float]:
    """The relative error of each field, of the vectors that are served."""
    training = part.training
    served = part if part.exact else part.serving()
    served.eval()
    found = []
    for number, trained in enumerate(tables):
        lost = 0.0
        for chunk in trained.chunks(trained.at_once()):
            vectors = served.vectors(chunk.ids, torch.full_like(chunk.ids, number))
            off = (vectors.double() - chunk.vectors.double()).square().sum(1)
            lost += float((off * chunk.counts).sum())
        found.append((lost / trained.energy) ** 0.5 if trained.energy else float(lost > 0))
    part.train(training)
    return found


def _pools(part: Embedder) -> list[Any]:
    return part.pools() if isinstance(part, GroupEmbedder) else []


def _check_trainable(embedder: Embedder) -> None:
    parameters = list(embedder.parameters())
    packed = any(
        not hasattr(pool, "put") for part, _ in embedder.members() for pool in _pools(part)
    )
    if packed or not parameters:
        raise BitfoldError(
            "a packed and frozen embedder holds no numbers that could be fitted",
            got="the serving form",
            expected="the embedder as it is trained",
            fix="fit first, then call serving(); or resume() it",
        )
    if any(each.is_meta for each in parameters):
        raise BitfoldError(
            "an embedder on the meta device has no numbers",
            got="device='meta'",
            expected="weights somewhere",
            fix="call to_empty(device=...) first",
        )
