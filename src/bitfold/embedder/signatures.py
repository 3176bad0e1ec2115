"""Rows that ids choose by signatures of the company they keep: shared memory follows overlap.

Source: Desai, Pan, Sun, Chou, Shrivastava, "Semantically Constrained Memory Allocation (SCMA) for
Embedding in Efficient Recommendation Systems", 2021, arXiv 2103.06124.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bitfold.address import Stored
from bitfold.address.mixing import derive_salt, field_salt, mix_numpy
from bitfold.address.stored import pack_bits
from bitfold.embedder.corridor import Corridor
from bitfold.embedder.minhash import MinHashes, add_neighbours, hashed, sample
from bitfold.planning.plan import Plan
from bitfold.planning.statistics import Occurrences, Statistics


class Signatures(Corridor):
    """A corridor whose stored integers are elements of minhash signatures.

    Until rows of a log are told they are hashes of the ids, and they stay that for ids that are
    met too seldom.

    Args:
        plan: one group, of such a program.
        of: what an id's set holds: the `ids` of its rows, or the `rows`.
        power: least hashes that an element is made of.
        rare: ids of fewer rows keep plain hashes.
        most_rows: rows that are read at most, drawn by chance; None for all.
        how: as for every corridor.
    """

    def __init__(
        self, plan: Plan, *, of: str, power: int, rare: int, most_rows: int | None, **how: Any
    ) -> None:
        self.of, self.power, self.rare, self.most_rows = of, power, rare, most_rows
        self.told = False
        super().__init__(plan, **how)

    @property
    def prepares(self) -> bool:  # type: ignore[override]
        """There are signatures to make."""
        return True

    def prepare(self, stats: Statistics) -> None:
        """Make the signatures, in one pass over the training rows.

        Where statistics have counts alone, signatures stay as they are.
        """
        super().prepare(stats)
        parts = stats.occurrences()
        if parts is None or self.pool.weight.is_meta:
            return
        salt = derive_salt(self.program.fingerprint)
        signed = {name: sources for name, _, sources in self._signed()}
        functions = self.power * max(map(len, signed.values()))
        hashes = {n: MinHashes(s[0].length, functions, salt) for n, s in signed.items()}
        met = {name: np.zeros(s[0].length, np.int64) for name, s in signed.items()}
        company = list(signed) if len(signed) > 1 else [each.name for each in self.plan.fields]
        share = 1.0
        if self.most_rows is not None and stats.rows:
            share = self.most_rows / stats.rows
        for part in parts:
            part = part if share >= 1 else sample(part, share, derive_salt(salt, 1))
            part = {name: part[name] for name in company}
            sets = {name: self._sets(s[0], part[name]) for name, s in signed.items()}
            self._tell(hashes, part, sets)
            for name, own in sets.items():
                met[name] += np.bincount(own, minlength=len(met[name]))
        for name, number, sources in self._signed():
            made = hashes[name].elements(self.power, self._ways(number))
            plain = self._hashed(name, number, sources)
            known = met[name] >= max(self.rare, 1)
            self._put(sources, np.where(known, made, plain))
        self.told = True

    def _tell(
        self,
        hashes: Mapping[str, MinHashes],
        part: Mapping[str, Occurrences],
        sets: Mapping[str, NDArray[np.int64]],
    ) -> None:
        """Add some rows to the ids' sets."""
        if self.of == "rows":
            for name, into in hashes.items():
                into.add(sets[name], mix_numpy(part[name].rows, 0))
            return
        members = {n: mix_numpy(each.ids, field_salt(0, n)) for n, each in part.items()}
        add_neighbours(hashes, part, members, sets)

    def _sets(self, source: Stored, told: Occurrences) -> NDArray[np.int64]:
        """The places of ids among a field's signatures."""
        ids = torch.from_numpy(told.ids.copy())
        tables = {name: each.cpu() for name, each in self.stored.named().items()}
        found: NDArray[np.int64] = source.of.code_torch(ids, tables).numpy()
        return found

    def _signed(self) -> Iterator[tuple[str, int, list[Stored]]]:
        """Each field that has signatures: its name, its number, and the sources of its elements."""
        fields = enumerate(zip(self.plan.fields, self.program.fields, strict=True))
        for number, (field, lookups) in fields:
            sources = dict.fromkeys(each.source for each in lookups)
            found = [each for each in sources if isinstance(each, Stored)]
            if found:
                yield field.name, number, found

    def _ways(self, number: int) -> int:
        """How many values an element of a field has."""
        return self.program.fields[number][0].radix

    def _hashed(self, name: str, number: int, sources: list[Stored]) -> NDArray[np.int64]:
        salts = [field_salt(self.program.fingerprint, name, e) for e in range(len(sources))]
        return hashed(sources[0].length, salts, self._ways(number))

    def _put(self, sources: list[Stored], elements: NDArray[np.int64]) -> None:
        for source, each in zip(sources, elements, strict=True):
            self.stored.put(source.table, pack_bits(each, source.bits))

    def _draw(self, std: float, generator: torch.Generator) -> None:
        """Fresh rows; signatures are hashes where no rows were told."""
        super()._draw(std, generator)
        for name, number, sources in () if self.told else self._signed():
            self._put(sources, self._hashed(name, number, sources))
