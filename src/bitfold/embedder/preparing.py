"""What a corridor learns of a training part beforehand: its maps, and which rows stay unread."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from bitfold.address import Mapped, Program, Stored
from bitfold.address.tables import StoredTables
from bitfold.errors import BitfoldError
from bitfold.planning.field import Field
from bitfold.planning.statistics import Statistics


def maps_of(program: Program) -> dict[int, Mapped]:
    """The maps that fields read their ids through, by the field's number."""
    found = {}
    for number, lookups in enumerate(program.fields):
        for lookup in lookups:
            source = lookup.source
            source = source.of if isinstance(source, Stored) else source
            if isinstance(source, Mapped):
                found[number] = source
    return found


def unbuilt(program: Program, state_dict: Mapping[str, Tensor], prefix: str) -> bool:
    """Whether a state dict lacks a map, or has an empty one: all ids would read the same rows."""
    tables = [state_dict.get(prefix + source.table) for source in maps_of(program).values()]
    return any(each is None or (not each.is_meta and not bool(each.any())) for each in tables)


def unbuilt_maps(method: str) -> BitfoldError:
    """The error of a lookup before its maps are built."""
    return BitfoldError(
        "the maps of this embedding's ids are not built yet",
        got=f"method {method!r} before prepare",
        expected="statistics of the training part, or a state dict",
        fix="call prepare(stats) first, or give stats to EmbeddingCollection",
    )


def build_maps(
    program: Program, fields: Sequence[Field], stored: StoredTables, stats: Statistics
) -> None:
    """Give the most frequent ids of each mapped field places of their own."""
    from bitfold.kernels.map_building import build_map  # with Numba, which loads late

    for number, source in maps_of(program).items():
        ids, _ = stats.top(fields[number].name, source.ids)
        keys = source.of.code_torch(torch.from_numpy(ids.copy()), {}).numpy()
        stored.put(source.table, torch.from_numpy(build_map(source.map, keys)))


def unseen_places(
    program: Program, fields: Sequence[Field], stored: StoredTables, stats: Statistics
) -> dict[int, Tensor]:
    """Which places of a field no training id has, bool `[codes]`, by the field's number.

    Only fields where each id has rows that no other id reads, and where some are seen and some not.
    """
    maps, found = maps_of(program), {}
    for number in program.own_rows([field.num_embeddings for field in fields]):
        name, source = fields[number].name, maps.get(number)
        if source is None:
            seen = stats.counts(name, np.arange(fields[number].num_embeddings or 0)) > 0
        else:
            ids, _ = stats.top(name, stats.distinct(name))
            codes = source.code_torch(torch.from_numpy(ids.copy()), stored.named()).cpu().numpy()
            seen = np.zeros(source.codes, bool)
            seen[codes] = True
        if seen.any() and not seen.all():
            found[number] = torch.from_numpy(~seen)
    return found
