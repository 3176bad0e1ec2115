"""What decides the ids and numbers of a row, as plain data: no file, no library but NumPy."""

from collections.abc import Mapping
from dataclasses import dataclass

from bitfold.data.config import DataConfig
from bitfold.data.field_map import FieldMap
from bitfold.data.standard import Standard


@dataclass(frozen=True)
class RowRules:
    """How one row of raw values becomes F ids and N numbers.

    Args:
        config: how rows are read.
        types: how the training part spelt the values of columns (`bitfold.data.types`).
        edges: the bounds between the buckets of each bucketised number.
        maps: for each of F fields, the maps that its ids pass, one after another.
        standard: what is done to numbers.
    """

    config: DataConfig
    types: Mapping[str, str]
    edges: tuple[tuple[float, ...], ...]
    maps: tuple[tuple[FieldMap, ...], ...]
    standard: Standard
