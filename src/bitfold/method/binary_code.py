"""Binary-code hash embedding: an id's bits, dealt into blocks, each block picks a row.

Source: Yan, Wang, Liu, Lin, Lee, Xu, Zheng, "Binary Code based Hash Embedding for Web-scale
Applications", CIKM 2021, arXiv 2109.02471. Two forms of the digits:

- *binary*, as in the paper: blocks of bits, so radices are powers of two (`block_bits`, or
  `blocks` without a budget);
- *mixed radices*: with a budget, digits whose radices add up to exactly the rows it buys.

The tuple of digits is unique for every dense id. A hashed id is as unique as its code: see
`codes_of` for how wide that is.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import ClassVar

from bitfold.address.codes import MOST_CODE_BITS
from bitfold.address.program import Program
from bitfold.address.radices import MOST_BLOCKS
from bitfold.config import option
from bitfold.errors import BitfoldError, BudgetTooSmall
from bitfold.fuse import FUSIONS
from bitfold.method.allocation import allocate, check_minimum
from bitfold.method.base import Forms, Method, check_options
from bitfold.method.digits import (
    WHOLE,
    Code,
    Digits,
    check_width,
    code_of,
    lay_out,
    least_rows_of,
    most_lookups_of,
    whole,
)
from bitfold.method.first_digit import first_digits, least_first_rows
from bitfold.method.hash import check_allocation, field_sizes
from bitfold.planning.ask import Ask
from bitfold.planning.field import Field
from bitfold.planning.spec import Group


@dataclass(frozen=True)
class BinaryCode(Method):
    """Blocks of an id's code choose rows; the rows are fused."""

    strategy: str = option(
        "succession",
        help="how bits are dealt to blocks: runs of neighbours, or every M-th bit",
        choices=("succession", "skip"),
    )
    blocks: int | None = option(
        None, help="M, digits per id; as few as the budget allows when not said"
    )
    block_bits: int | None = option(
        None, help="bits per block, for the paper's power-of-two tables; the last may be shorter"
    )
    digits: str | None = option(
        None,
        help="positional digits fit tightly, residues use every row of balanced radices; when not "
        "said: positional for hashed ids and slices with balance 0, residues otherwise",
        choices=("positional", "residues"),
    )
    balance: float = option(
        0.0, help="0: one large block, the others as small as uniqueness allows; 1: equal blocks"
    )
    sharing: str | None = option(
        None,
        help="a slice of rows a block, one shared by a field's blocks, one for all fields, or one "
        "for their first blocks and a slice for each later one; when not said: one for all fields "
        "if any has hashed ids or the budget is too small for slices",
        choices=("slices", "shared", "fields", "first"),
    )
    fusion: str = option("product", help="how the rows become one vector", choices=FUSIONS)
    code_bits: int | None = option(
        None,
        help="S, bits of a hashed id's code; when not said ceil(log2 n) + 10 for n ids, fewer "
        "where that would take another block",
    )
    mix: bool = option(
        False, help="shuffle dense ids one to one first, when their order means nothing"
    )
    allocation: float = option(
        0.0, help="rows go to fields by size**allocation; 1: one ratio for all, 0: small ones whole"
    )

    name: ClassVar[str] = "binary-code"
    summary: ClassVar[str] = "an id's code in digits; each digit picks a row, the rows are fused"
    when: ClassVar[str] = "the default: every id keeps a vector of its own at any budget"
    forms: ClassVar[Forms] = (
        {},
        {"fusion": "sum"},
        {"fusion": "mean", "strategy": "skip"},
        {"fusion": "concat", "blocks": 3},
        {"fusion": "weighted", "allocation": 0.0},
        {"fusion": "product", "sharing": "shared"},
        {"fusion": "sum", "sharing": "fields"},
        {"fusion": "sum", "digits": "residues", "balance": 1.0, "mix": True},
        {"fusion": "sum", "block_bits": 3, "budget": None, "code_bits": 64},
        {"bits": 4},
        {"bits": 4, "low_precision": True},
        {"fusion": "sum", "bits": 3, "scale": "row"},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(self.name, vars(self), blocks=1, block_bits=1, code_bits=1)
        check_allocation(self.allocation)
        if not 0 <= self.balance <= 1:
            raise BitfoldError("balance is out of range", got=self.balance, expected="0 to 1")
        for words, most in (
            ("code_bits", MOST_CODE_BITS),
            ("block_bits", 40),
            ("blocks", MOST_BLOCKS),
        ):
            value = getattr(self, words)
            if value is not None and value > most:
                raise BitfoldError(f"{words} is too large", got=value, expected=f"{most} or fewer")
        if self.sharing == "first" and (
            self.fusion == "concat" or self.digits == "residues" or self.strategy == "skip"
            or self.blocks is not None or self.block_bits is not None
        ):  # fmt: skip
            raise BitfoldError(
                "sharing=first chooses its digits by itself",
                got=f"fusion={self.fusion}, strategy={self.strategy}, digits={self.digits}, "
                f"blocks={self.blocks}, block_bits={self.block_bits}",
                expected="positional digits in succession, summed or multiplied, of any number",
            )
        if self.blocks is not None and self.block_bits is not None:
            raise BitfoldError(
                "blocks and block_bits say the same thing twice",
                got=f"blocks={self.blocks}, block_bits={self.block_bits}",
                expected="one of them",
            )
        if self.fusion == "concat" and self.block_bits is not None:
            raise BitfoldError(
                "concat needs the same number of blocks in every field",
                got=f"block_bits={self.block_bits}",
                expected="blocks=M",
            )

    def plan(self, ask: Ask) -> Group:
        """Digits for every field, within the budget to the row."""
        if self.sharing is None:
            mixed = ask.budget is not None and self.block_bits is None
            if not (mixed and any(field.hashed for field in ask.fields)):
                # One pool's least bytes are never above the slices'.
                with suppress(BudgetTooSmall):
                    return replace(self, sharing="slices").plan(ask)
            return replace(self, sharing="fields").plan(ask)
        chunks = self._chunks(ask.dim)
        if self.block_bits is not None or ask.budget is None:
            program = self._binary(ask.fields, chunks, ask.seed)
            if ask.budget is not None:
                needed = self.finish(ask, program, self.fusion).bytes(ask.dim)
                check_minimum(self.name, needed, ask.budget, "fewer block_bits make smaller tables")
        else:
            program = self._mixed(ask, ask.budget, chunks)
        return self.finish(ask, program, self.fusion)

    def _digits(self, code: Code) -> str:
        if self.digits is not None:
            return self.digits
        tight = self.sharing == "slices" and self.balance == 0
        return "positional" if tight or not code.dense else "residues"

    def _chunks(self, dim: int) -> int:
        if self.fusion != "concat":
            return 1
        chunks = self.blocks or 2
        if dim % chunks:
            raise BitfoldError(
                "concatenated blocks must divide the width",
                got=f"width {dim}, {chunks} blocks",
                expected="a number of blocks that divides the width",
            )
        return chunks

    def _binary(self, fields: Sequence[Field], chunks: int, seed: int) -> Program:
        """Power-of-two blocks: the form's sizes follow from the bits, not from a budget."""
        parts: list[Digits] = []
        for index, field in enumerate(fields):
            check_width(field, self.code_bits)
            code = code_of(field, index, seed, self.strategy, self.mix, self.code_bits)
            blocks = chunks if chunks > 1 else self.blocks
            if self.block_bits is None and blocks is None:
                blocks = 2
            digits = code.binary(self.strategy, blocks, self.block_bits)
            small = field.num_embeddings
            if small and self.sharing == "slices" and small * chunks <= sum(digits.radices):
                digits = whole(small, chunks)
            parts.append(digits)
        return lay_out(parts, chunks, self.sharing or "slices", seed)

    def _mixed(self, ask: Ask, budget: int, chunks: int) -> Program:
        """Mixed radices that add up to the rows that the budget buys; whole tables if all fit."""
        field_sizes(self.name, ask.fields, budget)
        codes = [
            code_of(field, index, ask.seed, self.strategy, self.mix, self.code_bits)
            for index, field in enumerate(ask.fields)
        ]
        blocks = chunks if chunks > 1 else self.blocks
        every = None
        if all(code.dense for code in codes) and sum(code.ids for code in codes) * chunks < 1 << 62:
            parts = [whole(code.ids, chunks) for code in codes]
            program = lay_out(parts, chunks, "slices", ask.seed)
            every = self.finish(ask, program, self.fusion).bytes(ask.dim)
            if every <= budget:
                return program
        if self.sharing == "first":
            return self._first(ask, budget, codes, every)
        shared = self.sharing != "slices"
        least = [least_rows_of(code, blocks, shared) for code in codes]
        if self.sharing == "fields":
            lows = [max(least)] * len(codes)
            rows = lows[0]
        else:
            lows = [code.capped(low, chunks) for code, low in zip(codes, least, strict=True)]
            rows = sum(lows)
        # Weights per lookup are reserved for the most lookups that a field can come to have:
        # more rows never need more blocks than the fewest rows do.
        pairs = zip(codes, lows, strict=True)
        lookups = sum(most_lookups_of(code, low, blocks, chunks, shared) for code, low in pairs)
        width = ask.dim // chunks
        fixed = ask.fixed_bytes(lookups, width, lookups if self.fusion == "weighted" else 0)
        minimum = rows * ask.row_bytes(width) + fixed
        minimum = minimum if every is None else min(minimum, every)
        check_minimum(self.name, minimum, budget, self._remedy(minimum))
        rows = (budget - fixed) // ask.row_bytes(width)
        deal = self._one_pool if self.sharing == "fields" else self._own_rows
        return lay_out(
            deal(codes, lows, rows, chunks, blocks), chunks, self.sharing or "slices", ask.seed
        )

    def _own_rows(
        self, codes: list[Code], least: list[int], rows: int, chunks: int, blocks: int | None
    ) -> list[Digits]:
        shared = self.sharing == "shared"
        most = [code.most_rows(chunks, low) for code, low in zip(codes, least, strict=True)]
        sizes = [code.ids for code in codes]
        shares = allocate(sizes, least, most, rows, self.allocation)
        parts = []
        for code, share in zip(codes, shares, strict=True):
            if code.dense and share >= code.ids * chunks:
                parts.append(whole(code.ids, chunks))
            elif shared:
                parts.append(code.shared(share, blocks, self._digits(code)))
            else:
                parts.append(code.sliced(share, blocks, self._digits(code), self.balance))
        return parts

    def _one_pool(
        self, codes: list[Code], least: list[int], rows: int, chunks: int, blocks: int | None
    ) -> list[Digits]:
        parts: dict[int, Digits] = {}
        left = rows
        for index in sorted(range(len(codes)), key=lambda i: codes[i].ids):
            code = codes[index]
            cost = code.ids * chunks
            if code.dense and cost * WHOLE * len(codes) <= rows and left - cost >= max(least):
                parts[index] = whole(code.ids, chunks)
                left -= cost
        for index, code in enumerate(codes):
            if index not in parts:
                parts[index] = code.shared(left, blocks, self._digits(code))
        return [parts[index] for index in range(len(codes))]

    def _first(self, ask: Ask, budget: int, codes: list[Code], every: int | None) -> Program:
        """One pool for first digits; small fields whole."""

        def made(rows: int) -> Program:
            return lay_out(first_digits(codes, rows), 1, "first", ask.seed)

        def weighed(program: Program) -> int:
            return self.finish(ask, program, self.fusion).bytes(ask.dim)

        least = made(least_first_rows(codes))
        minimum = weighed(least)
        minimum = minimum if every is None else min(minimum, every)
        check_minimum(self.name, minimum, budget, self._remedy(minimum))
        rows = budget // ask.row_bytes()
        while rows > least.rows:
            program = made(rows)
            over = weighed(program) - budget
            if over <= 0:
                return program
            rows -= -(-over // ask.row_bytes())
        return least

    def _remedy(self, minimum: int) -> str:
        words = f"raise the budget to {minimum} bytes"
        if self.sharing != "fields":
            words += ", or let all fields share one pool (sharing=fields)"
        return words
