"""Picking: codes that are read from tables, put beside those that are computed.

Computed codes of all fields, and then what each source reads, lie beside one another; each lookup
picks its own. Of a batch, tables are read for the fields that use them; of bags, where ids of all
fields are in one row, for every id.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from bitfold.address.lookup import Lookup
from bitfold.address.program import Program
from bitfold.address.source import Reader

Readers = dict[Reader, list[int]]
"""The sources that read tables, and the fields whose ids they read them for."""


def that_read_tables(program: Program) -> Readers:
    """The readers of a program."""
    found: Readers = {}
    for f, lookups in enumerate(program.fields):
        for lookup in lookups:
            source = lookup.source
            if isinstance(source, Reader) and f not in found.setdefault(source, []):
                found[source].append(f)
    return found


def picks(rows: Sequence[Sequence[Lookup]], width: int, readers: Readers) -> tuple[Tensor, Tensor]:
    """Which of all codes each lookup reads.

    Args:
        rows: `S` lookups for each field, one for each code that is wanted.
        width: how many computed codes a field has: `S`, or 1.
        readers: the sources that read tables.

    Returns:
        `[F * S]`, for codes `[B, F * width + ...]` of a batch, each reader's fields side by side;
        `[F, S]`, for codes `[T, width + ...]` of bags, one of each reader.
    """
    starts: dict[Reader, tuple[int, int]] = {}
    end = width * len(rows)
    for number, (reader, fields) in enumerate(readers.items()):
        starts[reader], end = (end, width + number), end + len(fields)
    batch, bags = [], []
    for f, row in enumerate(rows):
        for s, lookup in enumerate(row):
            if isinstance(lookup.source, Reader):
                start, place = starts[lookup.source]
                batch.append(start + readers[lookup.source].index(f))
                bags.append(place)
            else:
                batch.append(f * width + min(s, width - 1))
                bags.append(min(s, width - 1))
    return torch.tensor(batch), torch.tensor(bags).reshape(len(rows), -1)
