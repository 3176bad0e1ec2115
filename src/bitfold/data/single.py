"""A few rows to ids and numbers without Polars: for one request, and for a forked process.

Polars takes about a millisecond a query, whatever its size, and its threads do not survive a fork.
Here each value goes through `bitfold.data.canonical` and XXH64 by itself. The ids are those of
`columns`, bit for bit. What is done to each column is decided once, when the encoder is made.
Nothing is imported but NumPy and, where it is installed, xxhash.
"""

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bitfold.data.cells import Bag, Cells, DenseIds, HashedIds, Numbers
from bitfold.data.checking import check_row
from bitfold.data.field_map import FieldMap
from bitfold.data.fields import FieldSpec, field_specs
from bitfold.data.rules import RowRules

if TYPE_CHECKING:
    from bitfold.data.batch import Batch

FEW = 64
"""Up to so many rows go this way."""

_WHOLE = 2**64 - 1
_ODD_1, _ODD_2, _ODD_3 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB

Ids = npt.NDArray[np.int64]
Columns = Sequence[Sequence[Any]]
Field = Callable[[Columns, Columns, int], list[Any]]
"""The raw columns, the hashes of those that are hashed, and the first row's number, to the ids (or
lists of ids) of one field."""


class Encoded(NamedTuple):
    """B rows of F fields and N numbers, as a `Batch` has them.

    Args:
        ids: int64 `[B, F]`, or of bags `[T]`.
        offsets: None, or of bags int64 `[F*B + 1]`.
        numbers: float32 `[B, N]`.
    """

    ids: Ids
    offsets: Ids | None
    numbers: npt.NDArray[np.float32]


class RowEncoder:
    """Turns dictionaries into rows ready for a batch. Any number of threads may use one.

    Args:
        rules: how rows become ids and numbers.
    """

    def __init__(self, rules: RowRules) -> None:
        config = rules.config
        specs = field_specs(config)
        counted = [spec for spec in specs if spec.kind != "bucket"]
        parts = [part for spec in counted for part in spec.parts]
        self.columns: tuple[str, ...] = tuple(dict.fromkeys([*parts, *config.numeric]))
        self._picks = [itemgetter(name) for name in self.columns]
        place = {name: index for index, name in enumerate(self.columns)}
        whole = config.ids == "dense"
        hashed = [
            part
            for spec in counted
            if spec.kind == "cross" or (spec.kind == "plain" and not whole)
            for part in spec.parts
        ]
        names = list(dict.fromkeys(hashed))
        self._hashed = [(place[name], HashedIds(name, rules)) for name in names]
        self._numbers = [(place[name], Numbers(name, rules)) for name in config.numeric]
        self._fields = [_field(spec, rules, place, names) for spec in counted]
        self._maps = rules.maps
        self._edges = rules.edges
        self._standard = rules.standard
        self._numeric = bool(config.numeric) and not rules.edges
        self._bags = [spec.kind == "bag" for spec in specs]

    def encode(self, rows: Sequence[Mapping[str, Any]], first: int = 0) -> Encoded:
        """The rows, in their order.

        Args:
            rows: values by column name; a key that is not there is a missing value.
            first: the number of the first row, for messages.

        Raises:
            BitfoldError: naming the row and the column, for a value that cannot be read.
        """
        return self.encode_columns(self._columns(rows, first), len(rows), first)

    def batch(self, rows: Sequence[Mapping[str, Any]], first: int = 0) -> "Batch":
        """The rows as tensors; arguments and errors are those of `encode`."""
        import torch

        from bitfold.data.batch import Batch

        found = self.encode(rows, first)
        offsets = None if found.offsets is None else torch.from_numpy(found.offsets)
        return Batch(torch.from_numpy(found.ids), offsets, torch.from_numpy(found.numbers))

    def encode_columns(self, columns: Columns, rows: int, first: int = 0) -> Encoded:
        """Rows given as the values of each of `self.columns`; as `encode` otherwise."""
        hashed = [cells.read(columns[place], first) for place, cells in self._hashed]
        fields = [field(columns, hashed, first) for field in self._fields]
        numbers = [cells.read(columns[place], first) for place, cells in self._numbers]
        for edges, values in zip(self._edges, numbers, strict=False):
            fields.append([0 if v != v else 1 + bisect_right(edges, v) for v in values])
        if self._numeric:
            shaped = self._standard.apply(_matrix(numbers, rows, np.float64))
        else:
            shaped = np.zeros((rows, 0), np.float32)
        if any(self._bags):
            return Encoded(*self._joined(fields, rows), shaped)
        mapped = [_mapped(ids, maps) for ids, maps in zip(fields, self._maps, strict=True)]
        return Encoded(_matrix(mapped, rows, np.uint64).view(np.int64), None, shaped)

    def _columns(self, rows: Sequence[Mapping[str, Any]], first: int) -> Columns:
        if all(type(row) is dict for row in rows):
            try:
                return [list(map(pick, rows)) for pick in self._picks]
            except KeyError:  # a key that is not there
                pass
        for index, row in enumerate(rows):
            check_row(row, self.columns, first + index)
        return [[row.get(name) for row in rows] for name in self.columns]

    def _joined(self, fields: list[list[Any]], rows: int) -> tuple[Ids, Ids]:
        """Bags after bags, field after field, and their bounds."""
        values: list[int] = []
        lengths = np.ones((len(fields), rows), np.int64)
        for index, (ids, maps) in enumerate(zip(fields, self._maps, strict=True)):
            if self._bags[index]:
                lengths[index] = [len(each) for each in ids]
                ids = [value for each in ids for value in each]
            values += _mapped(ids, maps)
        offsets = np.zeros(lengths.size + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        return np.array(array("Q", values)).view(np.int64), offsets


def _field(
    spec: FieldSpec, rules: RowRules, place: Mapping[str, int], hashed: Sequence[str]
) -> Field:
    """What reads one field of the raw columns."""
    if spec.kind == "cross":
        slots = [hashed.index(part) for part in spec.parts]
        return lambda _, hashes, first: [
            _cross(parts) for parts in zip(*(hashes[slot] for slot in slots), strict=True)
        ]
    if spec.kind == "plain" and rules.config.ids != "dense":
        slot = hashed.index(spec.name)
        return lambda _, hashes, first: list(hashes[slot])
    at = place[spec.name]
    cells: Cells[Any] = (Bag if spec.kind == "bag" else DenseIds)(spec.name, rules)
    return lambda columns, _, first: cells.read(columns[at], first)


def _mapped(ids: list[int], maps: Iterable[FieldMap]) -> list[int]:
    for fmap in maps:
        if len(ids) <= FEW:
            ids = fmap.places(ids)
        else:
            ids = fmap.apply(np.array(array("Q", ids)).view(np.int64)).tolist()
    return ids


def _matrix(columns: Columns, rows: int, kind: type[Any]) -> npt.NDArray[Any]:
    """Columns of so many rows as a matrix whose rows lie in one piece."""
    if rows == 1:
        return np.array([[column[0] for column in columns]], kind)
    code = "d" if kind is np.float64 else "Q"
    made = np.empty((rows, len(columns)), kind)
    for index, column in enumerate(columns):
        made[:, index] = array(code, column)  # quicker than NumPy from a list
    return made


def _cross(parts: Sequence[int]) -> int:
    """`bitfold.data.hashing.cross_ids` of one row, without a sign."""
    folded = _mix(parts[0], 0)
    for index, part in enumerate(parts[1:], start=1):
        folded = _mix(folded + part, index)
    return folded


def _mix(value: int, salt: int) -> int:
    """`bitfold.data.hashing.mix` of one number."""
    z = (value + _ODD_1 * (salt + 1)) & _WHOLE
    z = ((z ^ (z >> 30)) * _ODD_2) & _WHOLE
    z = ((z ^ (z >> 27)) * _ODD_3) & _WHOLE
    return z ^ (z >> 31)
