"""Which tensors of a checkpoint are embedding tables.

A table is a matrix of floating numbers, a row an id. A checkpoint does not say which matrices are
tables, so names and shapes do:

1. A matrix with a bias of its own (`X.weight` beside `X.bias`, one number a row) is a linear layer.
2. One whose name speaks of embeddings is a table, unless what follows there speaks of a layer
   (`embedding.proj.weight`).
3. Any other is a table if it has 1,000 rows and ten times as many rows as columns, and no word of
   its name speaks of a layer (`lm_head`, `fc`, ...).

A pattern of the user's takes the place of all three.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bitfold.errors import BitfoldError
from bitfold.weights.tensors import EXPONENTS, StoredTensor, Weights

TALL, FEW = 10, 1000
"""Rows for each column, and rows, from which on a shape alone makes a table."""

_EMBEDS = re.compile(r"embed|^embs?\d*$|emb$|^lookups?$|^tables?$|^w[tp]e$|^(vectors|factors)$")
_LAYERS = re.compile(
    r"^(lin|linear|proj|projection|fc\d*|mlp|dense|attn|attention|norm|layernorm|conv|lora|kernel"
    r"|ffn|decoder|classifier)$"
)
_OUTPUTS = re.compile(r"^(out|outputs?|heads?|cls|top|bottom|tower|logits|gate)$")
"""Words of layers. Where a name speaks of embeddings, `out` and `top` may be a field's."""


@dataclass(frozen=True)
class FoundTable:
    """A table of a checkpoint.

    Args:
        tensor: its numbers.
        also: further names of the same numbers.
    """

    tensor: StoredTensor
    also: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name under which it is told of."""
        return self.tensor.name

    @property
    def rows(self) -> int:
        """`V`, how many ids it has."""
        return self.tensor.shape[0]

    @property
    def width(self) -> int:
        """`D`, numbers in a row."""
        return self.tensor.shape[1]


def find_tables(weights: Weights, pattern: str | None = None) -> list[FoundTable]:
    """The tables of a checkpoint, each once; tensors that share their numbers are one.

    Args:
        weights: the checkpoint.
        pattern: a regular expression that the names of tables hold, instead of the rules.

    Raises:
        BitfoldError: no table is found, or the pattern cannot be read.
    """
    matrices = [each for each in weights.tensors if _is_matrix(each)]
    if pattern is None:
        sized = {each.name: each.shape for each in weights.tensors}
        chosen = {each.name for each in matrices if _looks_like_one(each, sized)}
    else:
        try:
            wanted = re.compile(pattern)
        except re.error as error:
            raise BitfoldError(
                "the pattern of the tables' names cannot be read",
                got=f"{pattern}: {error}",
                expected="a regular expression, such as 'emb_user|emb_item'",
            ) from None
        chosen = {each.name for each in matrices if wanted.search(each.name)}
    shared: dict[object, list[StoredTensor]] = {}
    for each in matrices:
        shared.setdefault(each.place, []).append(each)
    found = []
    for group in shared.values():
        first = next((each for each in group if each.name in chosen), None)
        if first is not None:
            others = tuple(each.name for each in group if each is not first)
            found.append(FoundTable(first, others))
    if not found:
        raise BitfoldError(
            f"no table is found in {weights.path}",
            got=_told(matrices),
            expected="matrices that look like embeddings"
            if pattern is None
            else f"a matrix of floating numbers whose name holds {pattern!r}",
            fix="--tables REGEX says by their names which matrices are tables",
        )
    return found


def _is_matrix(tensor: StoredTensor) -> bool:
    return len(tensor.shape) == 2 and tensor.dtype in EXPONENTS


def _looks_like_one(tensor: StoredTensor, sized: dict[str, tuple[int, ...]]) -> bool:
    """Whether the rules take a matrix for a table; `sized` has the shapes of all tensors."""
    rows, width = tensor.shape
    owner, dot, last = tensor.name.rpartition(".")
    bias = f"{owner}{dot}{last.replace('weight', 'bias')}"
    if "weight" in last and sized.get(bias) == (rows,):
        return False
    words = words_of(tensor.name)
    speaking = [place for place, word in enumerate(words) if _EMBEDS.search(word)]
    if speaking:
        return not any(_LAYERS.search(word) for word in words[speaking[-1] + 1 :])
    layer = any(_LAYERS.search(word) or _OUTPUTS.search(word) for word in words)
    return rows >= FEW and rows >= TALL * width and not layer


def words_of(name: str) -> list[str]:
    """The words of a name, in small letters.

    Example:
        >>> words_of("model.userEmbedding_2.weight")
        ['model', 'user', 'embedding', '2', 'weight']
    """
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return [word for word in re.split(r"[^0-9a-z]+", apart.lower()) if word]


def _told(matrices: Sequence[StoredTensor]) -> str:
    if not matrices:
        return "no matrix of floating numbers"
    return f"{len(matrices):,} matrices, such as " + largest(matrices)


def largest(tensors: Iterable[StoredTensor], count: int = 3) -> str:
    """The largest tensors in words: names and shapes."""
    falling = sorted(tensors, key=lambda each: -each.bytes)[:count]
    return ", ".join(f"{each.name} {list(each.shape)}" for each in falling)
