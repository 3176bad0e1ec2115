"""Cells: a program run over tensors of ids, in plain torch.

The same function serves single ids `[B, F]` and bags of ids `[T]` with a field each. Fields may
differ in their number of lookups. Columns of single ids are then taken in `parts` of equal
terms; in bags the shorter ones are padded, and `present` says which lookups are real.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bitfold.address.codes import byte_tables, skip_destinations
from bitfold.address.constants import WithConstants
from bitfold.address.lookup import Lookup
from bitfold.address.mixing import int64, mix_torch, shift_of, signed
from bitfold.address.picking import picks, that_read_tables
from bitfold.address.program import Program
from bitfold.address.source import Mixed
from bitfold.address.stacked import codes, kind_of
from bitfold.address.words import exporting, power, quotient, remainder, run_of, total, up

HALF = 0xFFFFFFFF


class Address(WithConstants):
    """Turns ids into cells. Shapes: `B` rows, `F` fields, `C` chunks, `K` most terms of a field.

    Args:
        program: what to run.
        device: where its constants live.
        columns: which fields of a larger address these are; None for all of them.

    Everything here follows from the program, so its tensors are constants: nothing is stored in
    the state dict, and they are made anew whenever the module moves, from the meta device too.
    """

    real: Tensor
    order: Tensor
    pools: Tensor  # which pool each lookup reads, where there are several
    picked: Tensor
    picked_of_bags: Tensor
    base: Tensor
    tables: Tensor
    destinations: Tensor
    byte_shift: Tensor
    byte_start: Tensor
    alike: dict[str, int]  # constants that are one number for all

    def __init__(
        self,
        program: Program,
        device: torch.device | str | None = None,
        columns: list[int] | None = None,
    ) -> None:
        super().__init__()
        self.program = program
        self.columns_listed = columns
        self.columns: Tensor | None = None
        self.num_fields = len(program.fields)
        self.chunks = program.chunks
        self.most_terms = max(program.terms)
        self.ragged = len(set(program.terms)) > 1
        lookups = [_within_int64(lookup) for lookup in program]
        self.mixed = any(isinstance(lookup.source, Mixed) for lookup in lookups)
        self.all_mixed = all(isinstance(lookup.source, Mixed) for lookup in lookups)
        self.dealt = any(lookup.source.deal > 1 for lookup in lookups)
        self.one_source = all(len({each.source for each in part}) == 1 for part in program.fields)
        self.powers_of_two = all(lookup.binary for lookup in lookups)
        self.unsigned = not self.powers_of_two and any(lookup.unsigned for lookup in lookups)
        self.leading = any(lookup.leading for lookup in lookups)
        self.all_leading = all(lookup.leading for lookup in lookups)
        self.wide = any(lookup.leading and lookup.radix >> 32 for lookup in lookups)
        self.divided = any(lookup.divisor > 1 for lookup in lookups)
        self.rotated = any(lookup.offset for lookup in lookups)
        self.signed = program.signed
        self.sources = that_read_tables(program)
        groups = [
            [f for f, terms in enumerate(program.terms) if terms == count]
            for count in sorted(set(program.terms))
        ]
        self.parts: Iterable[Address] = nn.ModuleList(  # type: ignore[assignment]
            Address(replace(program, fields=tuple(program.fields[f] for f in group)), device, group)
            for group in groups * self.ragged
        )
        self.grouped = [f for group in groups for f in group]
        self.place_constants(device)

    def cells(
        self,
        ids: Tensor,
        field: Tensor | None = None,
        tables: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """The cells of ids.

        Args:
            ids: int64 `[B, F]`, or `[T]` with `field`.
            field: int64 `[T]`, the field of each id of a bag.
            tables: the bytes of the program's tables by name, uint8, where the ids are.

        Returns:
            int64 `[B, F, C, K]`, or `[T, C, K]`. Padding repeats a chunk's first cell, so that
            a sparse gradient names no row that the batch did not read.
        """

        of = self._constants_of(ids, field)
        code = ids.unsqueeze(-1)
        if self.mixed:
            mixed = run_of(self._mix(ids, of), of("drop"), of("keep"))
            code = mixed if self.all_mixed else torch.where(of("is_mixed"), mixed, code)
        if self.dealt:
            code = self._deal(code, of)
        if self.sources:
            code = self._look_up(code, ids, field, tables or {})
        digit = self._digit(code, of)
        if self.rotated:
            digit = remainder(digit + of("offset"), of("span"))
        cells: Tensor = digit + of("base")
        return cells.reshape(*cells.shape[:-1], self.chunks, self.most_terms)

    def signs(self, ids: Tensor, field: Tensor | None = None) -> Tensor | None:
        """The sign of each piece, 1 or -1, int64 as `cells`; None where no piece has one."""
        if not self.signed:
            return None
        of = self._constants_of(ids, field)
        signs = torch.where(of("is_signed"), 1 - 2 * (self._mix(ids, of) & 1), 1)
        return signs.reshape(*signs.shape[:-1], self.chunks, self.most_terms)

    def _constants_of(self, ids: Tensor, field: Tensor | None) -> Callable[[str], Any]:
        """The constants, by name, as they stand beside ids; in an export form numbers for all."""

        def of(name: str) -> Any:
            if exporting() and name in self.alike:
                return self.alike[name]
            values: Tensor = getattr(self, name)
            return values if field is None else values[field]

        if self.base.device != ids.device:  # weights that went there past `Module.to`
            self.place_constants(ids.device)
        return of

    def _mix(self, ids: Tensor, of: Callable[[str], Any]) -> Tensor:
        return mix_torch(
            ids.unsqueeze(-1), of("salt"), of("mix_shift"), of("mix_mask"), of("mix_high")
        )

    def _look_up(
        self, code: Tensor, ids: Tensor, field: Tensor | None, tables: Mapping[str, Tensor]
    ) -> Tensor:
        """Codes `[..., F, S]` or `[T, S]`, those of tables in their places: see `picking.py`."""
        if exporting():
            return self._look_up_exported(code, ids, field, tables)
        if field is None:
            read = [
                source.code_torch(ids[:, getattr(self, f"fields_{number}")], tables)
                for number, source in enumerate(self.sources)
            ]
            every = torch.cat([code.flatten(1), *read], 1)
            # Said in full: of no rows, -1 may be any number, and `len` is a constant of a graph.
            wanted = self.picked.shape[0] // self.num_fields
            return every[:, self.picked].reshape(ids.shape[0], self.num_fields, wanted)
        read = [source.code_torch(ids, tables).unsqueeze(1) for source in self.sources]
        every = torch.cat([code, *read], 1)
        return torch.gather(every, 1, self.picked_of_bags[field])

    def _look_up_exported(
        self, code: Tensor, ids: Tensor, field: Tensor | None, tables: Mapping[str, Tensor]
    ) -> Tensor:
        """The same, with sources that are alike read together."""
        # Of a batch a source has a column for each of its fields, of bags one for all.
        columns = [(each, f) for each, fields in self.sources.items() for f in fields]
        if field is not None:
            columns = [(each, 0) for each in self.sources]
        kinds: dict[Hashable, list[int]] = {}
        for number, (each, _) in enumerate(columns):
            kinds.setdefault(kind_of(each), []).append(number)
        read = []
        for numbers in kinds.values():
            some = [columns[number] for number in numbers]
            given = ids[:, [f for _, f in some]] if field is None else ids.unsqueeze(1)
            found = codes([each for each, _ in some], given, tables)
            read.append(found.expand(found.shape[0], len(some)))
        computed = code.flatten(1)
        turned = [number for numbers in kinds.values() for number in numbers]
        before = computed.shape[1]
        order = torch.tensor(
            [*range(before), *(before + turned.index(n) for n in range(len(turned)))]
        )
        every = torch.cat([computed, *read], 1)
        if field is None:
            wanted = self.picked.shape[0] // self.num_fields
            return every[:, order[self.picked]].reshape(ids.shape[0], self.num_fields, wanted)
        return torch.gather(every, 1, order[self.picked_of_bags[field]])

    def _digit(self, code: Tensor, of: Callable[[str], Any]) -> Tensor:
        if self.all_leading:
            return self._leading_digit(code, of)
        digit = self._trailing_digit(code, of)
        if self.leading:
            digit = torch.where(of("is_leading"), self._leading_digit(code, of), digit)
        return digit

    def _leading_digit(self, code: Tensor, of: Callable[[str], Any]) -> Tensor:
        """The upper 64 bits of (code as a fraction of 2**64) * divisor * radix, from halves."""
        code = up(code, of("align"))
        if self.divided:
            code = code * of("multiplier")
        high, low, radix = run_of(code, 32, HALF), code & HALF, of("radix")
        if not self.wide:
            narrow: Tensor = run_of(high * radix + run_of(low * radix, 32, HALF), 32, HALF)
            return narrow
        upper, radix = run_of(radix, 32, HALF), radix & HALF
        middle = high * radix + run_of(low * radix, 32, HALF)
        carry = run_of(low * upper + (middle & HALF), 32, HALF)
        wide: Tensor = high * upper + run_of(middle, 32, HALF) + carry
        return wide

    def _trailing_digit(self, code: Tensor, of: Callable[[str], Any]) -> Tensor:
        if self.powers_of_two:
            return run_of(code, of("divisor_shift"), of("radix_mask"))
        digit = remainder(quotient(code, of("divisor")) if self.divided else code, of("radix"))
        if self.unsigned:  # torch divides signed numbers only: a 64-bit code needs shifts
            shifted = run_of(code, of("divisor_shift"), of("radix_mask"))
            digit = torch.where(of("is_power"), shifted, digit)
        return digit

    def _deal(self, code: Tensor, of: Callable[[str], Any]) -> Tensor:
        if exporting():
            return self._deal_exported(code, of)
        index = run_of(code.unsqueeze(-1), self.byte_shift, 255)
        index = index + self.byte_start + of("table_start").unsqueeze(-1)
        return self.tables[index].sum(-1)

    def _deal_exported(self, code: Tensor, of: Callable[[str], Any]) -> Tensor:
        """The same by four bits at a time, from tables that the graph makes of destinations."""
        kinds, bits = self.destinations.shape
        weights = power(self.destinations.long()).reshape(kinds, bits // 4, 1, 4)
        steps = torch.arange(4, device=code.device)
        ones = run_of(torch.arange(16, device=code.device).unsqueeze(1), steps, 1)
        tables = total(weights * ones)  # [kinds, parts, 16]
        parts = torch.arange(tables.shape[1], device=code.device)
        index = run_of(code.unsqueeze(-1), parts * 4, 15) + parts * 16
        index = index + of("kind").unsqueeze(-1) * (tables.shape[1] * 16)
        return total(tables.flatten()[index])

    def present(self, field: Tensor | None = None) -> Tensor | None:
        """Which cells are real: bool `[F, C, K]` or `[T, C, K]`; None where all of them are."""
        if not self.ragged:
            return None
        return self.real if field is None else self.real[field]

    def _constants(self) -> dict[str, Tensor]:
        grid = [self._pad(lookups) for lookups in self.program.fields]

        self.alike = {}

        def per_lookup(of: Callable[[Lookup], int], name: str = "") -> Tensor:
            return told([[of(p) for p in row] for row in grid], name)

        def per_source(of: Callable[[Lookup], int], name: str = "") -> Tensor:
            if self.one_source:  # one code per field serves all its lookups
                return told([[of(part[0])] for part in self.program.fields], name)
            return per_lookup(of, name)

        def told(rows: list[list[int]], name: str) -> Tensor:
            numbers = {number for row in rows for number in row}
            if name and len(numbers) == 1:
                self.alike[name] = signed(*numbers)
            return int64(rows)

        values = {
            "radix": per_lookup(lambda p: p.radix),
            "base": per_lookup(lambda p: p.base),
            "divisor": per_lookup(lambda p: p.divisor),
        }
        if self.leading:
            values["is_leading"] = per_lookup(lambda p: p.leading).bool()
            values["align"] = per_lookup(lambda p: (64 - _mixer(p).code_bits) * p.leading, "align")
            values["multiplier"] = per_lookup(lambda p: p.divisor, "multiplier")
            values["divisor"] = per_lookup(lambda p: 1 if p.leading else p.divisor)
        if self.rotated:
            values["offset"] = per_lookup(lambda p: p.offset, "offset")
            values["span"] = per_lookup(lambda p: p.span, "span")
        if self.powers_of_two or self.unsigned:
            values["divisor_shift"] = per_lookup(
                lambda p: (_log2(p.divisor) or 0) % 64, "divisor_shift"
            )
            values["radix_mask"] = per_lookup(lambda p: p.radix - 1, "radix_mask")
            values["is_power"] = per_lookup(lambda p: p.binary).bool()
        if self.mixed:
            values["is_mixed"] = per_source(lambda p: isinstance(p.source, Mixed)).bool()
            values["salt"] = per_source(lambda p: _mixer(p).salt, "salt")
            values["mix_shift"] = per_source(lambda p: shift_of(_mixer(p).mix_bits), "mix_shift")
            values["mix_mask"] = per_source(lambda p: (1 << _mixer(p).mix_bits) - 1, "mix_mask")
            values["mix_high"] = per_source(
                lambda p: (1 << (_mixer(p).mix_bits // 2)) - 1, "mix_high"
            )
            values["drop"] = per_source(lambda p: _mixer(p).mix_bits - _mixer(p).code_bits, "drop")
            values["keep"] = per_source(lambda p: (1 << _mixer(p).code_bits) - 1, "keep")
        if self.dealt:
            kinds = sorted({_dealing(p) for p in self.program})
            tables = np.concatenate([byte_tables(bits, deal) for bits, deal in kinds])
            values["tables"] = torch.from_numpy(tables.reshape(-1))
            values["table_start"] = per_source(lambda p: kinds.index(_dealing(p)) * 2048)
            parts = -(-max(bits for bits, _ in kinds) // 4)
            ends = [
                [*skip_destinations(bits, deal), *[64] * 64][: parts * 4] for bits, deal in kinds
            ]
            values["destinations"] = torch.tensor(ends, dtype=torch.uint8)
            values["kind"] = per_source(lambda p: kinds.index(_dealing(p)))
            values["byte_shift"] = torch.arange(0, 64, 8)
            values["byte_start"] = torch.arange(8) * 256
        if self.ragged:
            terms = torch.tensor(self.program.terms).reshape(-1, 1, 1)
            real = torch.arange(self.most_terms) < terms
            values["real"] = real.expand(-1, self.chunks, -1).clone()
            values["order"] = torch.tensor(self.grouped).argsort()
        if self.program.more_rows:
            pools = per_lookup(lambda p: p.pool)
            values["pools"] = pools.reshape(-1, self.chunks, self.most_terms)
        if self.signed:
            values["is_signed"] = per_lookup(lambda p: p.signed).bool()
        if self.sources:
            width = len(grid[0]) if (self.mixed or self.dealt) and not self.one_source else 1
            rows = [row[:1] for row in grid] if self.one_source else grid
            values["picked"], values["picked_of_bags"] = picks(rows, width, self.sources)
            for number, fields in enumerate(self.sources.values()):
                values[f"fields_{number}"] = torch.tensor(fields)
        if self.columns_listed is not None:
            values["columns"] = torch.tensor(self.columns_listed)
        return values

    def _pad(self, lookups: tuple[Lookup, ...]) -> list[Lookup]:
        terms = len(lookups) // self.chunks
        row: list[Lookup] = []
        for start in range(0, len(lookups), terms):
            chunk = [_within_int64(lookup) for lookup in lookups[start : start + terms]]
            row += chunk + chunk[:1] * (self.most_terms - terms)
        return row


def _within_int64(lookup: Lookup) -> Lookup:
    """The same cells, where a divisor beyond every code leaves the digit at 0."""
    if lookup.leading or lookup.divisor < (1 << 64 if lookup.unsigned else 1 << 63):
        return lookup
    return replace(lookup, radix=1, divisor=1)


def _mixer(lookup: Lookup) -> Mixed:
    """How a lookup's id is mixed; anyhow, where it is not and nobody looks."""
    return lookup.source if isinstance(lookup.source, Mixed) else Mixed(0)


def _dealing(lookup: Lookup) -> tuple[int, int]:
    """The bits of a lookup's code and the blocks that they are dealt to; 1 leaves all 64."""
    source = lookup.source
    return (source.codes - 1).bit_length() if source.deal > 1 else 64, source.deal


def _log2(value: int) -> int | None:
    return value.bit_length() - 1 if value & (value - 1) == 0 else None
