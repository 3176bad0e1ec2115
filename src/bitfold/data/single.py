"""A few rows to ids and numbers without Polars: for one request, and for a forked process.

Polars takes about a millisecond a query, whatever its size, and its threads do not survive a fork.
Here each value goes through `bitfold.data.canonical` and XXH64 by itself. The ids are those of
`columns`, bit for bit.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bitfold.data.canonical import NUMBER, number_of, text_of, utf8
from bitfold.data.columns_of import bag_of
from bitfold.data.fields import FieldSpec, field_specs
from bitfold.data.finishing import assemble
from bitfold.data.hashing import missing_id
from bitfold.data.memory_log import check_row
from bitfold.data.schema import Schema
from bitfold.data.table import Bags, Table
from bitfold.data.types import speller
from bitfold.data.vocabulary import FieldMap
from bitfold.errors import BitfoldError

FEW = 64
"""Up to so many rows go this way."""

_WHOLE = 2**64 - 1
_ODD_1, _ODD_2, _ODD_3 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
Ids = npt.NDArray[np.int64]


class RowEncoder:
    """Turns dictionaries into rows ready for a batch.

    Args:
        schema: how rows become ids and numbers.
    """

    def __init__(self, schema: Schema) -> None:
        from xxhash import xxh64_intdigest

        config = schema.config
        self._schema, self._config = schema, config
        self._hash = xxh64_intdigest
        self._seed, self._missing_id = config.hash_seed, missing_id(config.hash_seed)
        self._missing = frozenset(config.missing)
        self._specs = [spec for spec in field_specs(config) if spec.kind != "bucket"]
        parts = [part for spec in self._specs for part in spec.parts]
        self.columns = tuple(dict.fromkeys([*parts, *config.numeric]))
        self._spell = {name: speller(schema.types.get(name, "")) for name in parts}
        hashed = [
            part
            for spec in self._specs
            if spec.kind == "cross" or (spec.kind == "plain" and config.ids != "dense")
            for part in spec.parts
        ]
        self._hashed = tuple(dict.fromkeys(hashed))

    def table(self, rows: Sequence[Mapping[str, Any]], first: int = 0) -> Table:
        """The rows, in their order.

        Args:
            rows: values by column name; a key that is not there is a missing value.
            first: the number of the first row, for messages.

        Raises:
            BitfoldError: naming the column, for a value that cannot be read.
        """
        for index, row in enumerate(rows):
            check_row(row, self.columns, first + index)
        hashed = {name: [self._id(name, row.get(name)) for row in rows] for name in self._hashed}
        ids: list[Ids | Bags] = []
        for index, spec in enumerate(self._specs):
            ids.append(self._field(spec, rows, hashed, self._map(index)))
        numbers = [
            np.array([self._number(name, row.get(name)) for row in rows], np.float64)
            for name in self._config.numeric
        ]
        schema = self._schema
        buckets = [info for info in schema.fields if info.kind == "bucket"]
        for info, values in zip(buckets, numbers, strict=False):
            place = 1 + np.searchsorted(np.array(info.edges), values, side="right")
            ids.append(np.where(np.isnan(values), 0, place).astype(np.int64))
        none = np.zeros((len(rows), 0), np.float32)
        matrix = schema.numbers(numbers) if schema.numeric else none
        return assemble(ids, matrix, {}, None)

    def _map(self, index: int) -> FieldMap | None:
        vocabulary = self._schema.vocabulary
        return None if vocabulary is None else vocabulary.maps[index]

    def _field(
        self,
        spec: FieldSpec,
        rows: Sequence[Mapping[str, Any]],
        hashed: Mapping[str, list[int]],
        fmap: FieldMap | None,
    ) -> Ids | Bags:
        dense = self._config.ids == "dense"
        if spec.kind == "bag":
            lists = [self._bag(spec.name, row.get(spec.name), dense) for row in rows]
            values = np.array([value for each in lists for value in each], np.int64)
            offsets = np.cumsum([0, *map(len, lists)], dtype=np.int64)
            return Bags(values if fmap is None else fmap.apply(values), offsets)
        if spec.kind == "cross":
            found = [_cross(parts) for parts in zip(*(hashed[p] for p in spec.parts), strict=True)]
        elif dense:
            found = [dense_id(spec.name, row.get(spec.name)) for row in rows]
        else:
            found = hashed[spec.name]
        ids = np.array(found, np.int64)
        return ids if fmap is None else fmap.apply(ids)

    def _text(self, name: str, value: Any) -> str | None:
        try:
            text = text_of(value)
        except BitfoldError as error:
            raise _in_column(error, name) from None
        if text is None or text in self._missing:
            return None
        return self._spell[name](text)

    def _id(self, name: str, value: Any) -> int:
        text = self._text(name, value)
        return self._missing_id if text is None else self._hashed_text(name, text)

    def _hashed_text(self, name: str, text: str) -> int:
        try:
            unsigned = self._hash(text.encode(), self._seed)
        except UnicodeEncodeError:
            try:
                utf8(text)
            except BitfoldError as error:
                raise _in_column(error, name) from None
            raise
        return unsigned - 2**64 if unsigned >= 2**63 else unsigned

    def _bag(self, name: str, value: Any, dense: bool) -> list[int]:
        try:
            if isinstance(value, str) and value in self._missing:
                return []
            texts = bag_of(value, self._config.multi[name])
        except BitfoldError as error:
            raise _in_column(error, name) from None
        if dense:
            return [dense_id(name, text) for text in texts if text != ""]
        spelt = [self._spell[name](text) for text in texts if text not in self._missing]
        return [self._hashed_text(name, text) for text in spelt if text]

    def _number(self, name: str, value: Any) -> float:
        try:
            if self._missing and text_of(value) in self._missing:
                return float("nan")
            number = number_of(value)
        except BitfoldError as error:
            raise _in_column(error, name) from None
        if number in (float("inf"), float("-inf")):
            raise BitfoldError(
                f"the numeric column holds what is no number: column {name!r}",
                got=repr(value),
                expected="finite numbers, or nothing where they are missing",
            )
        return number


def dense_id(name: str, value: Any) -> int:
    """An id that the column holds already.

    Raises:
        BitfoldError: it is missing, fractional or negative.
    """
    text = text_of(value)
    found = -1
    if text is not None and NUMBER.fullmatch(text):
        if text.lstrip("+-").isdigit():
            found = int(text)
        elif float(text).is_integer():
            found = int(float(text))
    if not 0 <= found < 2**63:
        raise BitfoldError(
            f"the column holds what is no dense id: column {name!r}",
            got="nothing (a missing value)" if text is None else repr(value),
            expected="whole numbers 0, 1, 2, ... in every row",
            fix="train with --ids hashed (any value works) or --ids vocabulary",
        )
    return found


def _cross(parts: Sequence[int]) -> int:
    """`bitfold.data.hashing.cross_ids` of one row."""
    folded = _mix(parts[0], 0)
    for index, part in enumerate(parts[1:], start=1):
        folded = _mix(folded + part, index)
    return folded - 2**64 if folded >= 2**63 else folded


def _mix(value: int, salt: int) -> int:
    """`bitfold.data.hashing.mix` of one number."""
    z = (value + _ODD_1 * (salt + 1)) & _WHOLE
    z = ((z ^ (z >> 30)) * _ODD_2) & _WHOLE
    z = ((z ^ (z >> 27)) * _ODD_3) & _WHOLE
    return z ^ (z >> 31)


def _in_column(error: BitfoldError, name: str) -> BitfoldError:
    return BitfoldError(
        f"{error.problem}: column {name!r}", got=error.got, expected=error.expected, fix=error.fix
    )
