"""Sources that are alike, read together: what an exported graph has in place of one after another.

Fields of a method mostly read tables in the same way: with other salts, tables and lengths. Their
operations are written once, over a dimension of the readers, so that a graph does not grow with
the fields.

Shapes: `n` readers, ids and codes int64 `[..., n]`.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bitfold.address.mixing import int64, mix_torch, shift_of, signed
from bitfold.address.source import Mapped, Mixed, Raw, Source, Stored, scaled
from bitfold.address.stored import gather_bits
from bitfold.address.words import run_of, up


def kind_of(source: Source) -> Hashable:
    """What sources have in common that are read together."""
    if isinstance(source, Raw):
        return "raw"
    if isinstance(source, Mixed):
        return "mixed", source.mix_bits, source.code_bits
    if isinstance(source, Mapped):
        own = source.table, source.ids, source.salt
        return "mapped", *own, kind_of(source.miss), kind_of(source.of)
    if isinstance(source, Stored):
        return "stored", source.bits, kind_of(source.of)
    return source


def codes(sources: Sequence[Any], ids: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
    """The codes `[..., n]` of ids `[..., n]` by sources of one kind."""
    first = sources[0]
    if isinstance(first, Mixed):
        return _mixed(sources, ids)
    if isinstance(first, Mapped):
        known = codes([each.of for each in sources], ids, tables)
        place = first.map.places_torch(tables[first.table], known)
        misses = int64([each.misses for each in sources])
        missed = first.ids + _scaled([each.miss for each in sources], ids, misses)
        return torch.where(place < 0, missed, place)
    if isinstance(first, Stored):
        return _stored(sources, ids, tables)
    found: Tensor = first.code_torch(ids, tables)  # all are the same
    return found


def _mixed(sources: Sequence[Mixed], ids: Tensor) -> Tensor:
    bits, kept = sources[0].mix_bits, sources[0].code_bits
    shift, salts = shift_of(bits), int64([each.salt for each in sources])
    mixed = mix_torch(ids, salts, shift, signed((1 << bits) - 1), (1 << bits - shift) - 1)
    return run_of(mixed, bits - kept, signed((1 << kept) - 1))


def _scaled(sources: Sequence[Mixed], ids: Tensor, sizes: Tensor) -> Tensor:
    return scaled(up(_mixed(sources, ids), 64 - sources[0].code_bits), sizes)


def _stored(sources: Sequence[Stored], ids: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
    inner: list[Any] = [each.of for each in sources]
    lengths = int64([each.length for each in sources])
    if isinstance(inner[0], Mixed):
        index = _scaled(inner, ids, lengths)
    else:
        index = codes(inner, ids, tables)
        beyond = (index < 0) | (index >= lengths)
        index = torch.where(beyond, lengths - 1, index)
    begins, end = {}, 0  # of each table, where all lie one after another
    for each in sources:
        if each.table not in begins:
            begins[each.table], end = end, end + tables[each.table].shape[0]
    whole = torch.cat([tables[name] for name in begins])
    begin = int64([begins[each.table] for each in sources])
    return gather_bits(whole, sources[0].bits, index, begin)
