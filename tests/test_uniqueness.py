"""Uniqueness: every code keeps cells of its own, and the known mistakes of others."""

import math
from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import bitfold
from bitfold import Field
from bitfold.address import Address, Mixed, Program
from bitfold.address.codes import undeal_skip
from bitfold.address.mixing import mix_int
from drawn_plans import (
    INT64,
    LARGEST,
    SEEDS,
    dense_fields,
    fitting_plan,
    hashed_fields,
    options,
    some_ids,
    spares,
)

WORD = 2**64 - 1


def code_within(program: Program, field: int, cells: list[int]) -> tuple[int, int]:
    """The code that cells stand for, and how many codes their digits can tell apart.

    Of leading digits it is the code scaled to that many, and rounded down.
    """
    lookups = program.fields[field]
    digits = [
        (cell - lookup.base - lookup.offset) % lookup.span
        for lookup, cell in zip(lookups, cells, strict=True)
    ]
    total = math.prod(lookup.radix for lookup in lookups)
    if lookups[0].leading:
        number, before = 0, 1
        for digit, lookup in zip(digits, lookups, strict=True):
            assert (lookup.leading, lookup.divisor) == (True, before)
            number, before = number * lookup.radix + digit, before * lookup.radix
        return number, total
    if len(lookups) > 1 and all(lookup.divisor == 1 for lookup in lookups):
        radices = [lookup.radix for lookup in lookups]
        assert all(math.gcd(a, b) == 1 for a, b in combinations(radices, 2))
        code = 0
        for digit, radix in zip(digits, radices, strict=True):  # Chinese remainder theorem
            other = total // radix
            code += digit * other * pow(other, -1, radix)
        return code % total, total
    product = 1
    for lookup in lookups:
        assert lookup.divisor == product
        product *= lookup.radix
    return sum(d * p.divisor for d, p in zip(digits, lookups, strict=True)), total


@given(st.data(), dense_fields(), options(), spares(), SEEDS)
def test_every_dense_id_can_be_read_back_from_its_cells(data, fields, words, spare, seed):
    """So the tuple of cells is unique, whatever the strategy, sharing and number of blocks."""
    program = fitting_plan(fields, 1, spare, seed=seed, **words).program
    for ids in some_ids(data.draw, fields):
        for f, value in enumerate(ids):
            code, total = code_within(program, f, program.cells_int(f, value))
            source = program.fields[f][0].source
            assert {lookup.source for lookup in program.fields[f]} == {source}
            expected = value
            if isinstance(source, Mixed):
                expected = mix_int(value, source.salt, source.mix_bits)
                assert fields[f].num_embeddings <= 1 << source.mix_bits == 1 << source.code_bits
            if source.deal > 1:
                code = undeal_skip(code, source.code_bits, source.deal)
            assert code == expected
            deals = isinstance(source, Mixed) or source.deal > 1
            assert total >= (1 << source.code_bits if deals else fields[f].num_embeddings)


SMALL = [1, 2, 3, 5, 8, 24, 97, 256]
FORMS = [
    {"strategy": strategy, "sharing": sharing, "mix": mix, **form}
    for strategy in ("succession", "skip")
    for sharing in ("slices", "shared", "fields")
    for mix in (False, True)
    for form in (
        {"blocks": 2},
        {"block_bits": 3},
        {"budget": 0},
        {"budget": 0, "digits": "residues"},
        {"budget": 40, "blocks": 3, "balance": 1.0},
        {"budget": 0, "blocks": 1},
    )
]


@pytest.mark.parametrize("words", FORMS, ids=lambda words: "-".join(map(str, words.values())))
def test_cells_of_small_fields_are_unique(words):
    fields = [Field(f"f{size}", size) for size in SMALL]
    words = {"fusion": "sum", **words}
    spare = words.pop("budget", None)
    made = (
        bitfold.plan(fields, 1, **words)
        if spare is None
        else fitting_plan(fields, 1, spare, **words)
    )
    address = Address(made.program)
    for f, size in enumerate(SMALL):
        cells = address.cells(torch.arange(size), torch.full((size,), f)).flatten(1)
        assert len({tuple(row) for row in cells.tolist()}) == size


@given(st.data(), hashed_fields(2), options(hashed=True), spares())
def test_hashed_ids_share_cells_only_if_their_codes_agree(data, fields, words, spare):
    program = fitting_plan(fields, 1, spare, **words).program
    for f, field in enumerate(fields):
        value = data.draw(INT64)
        source = program.fields[f][0].source
        code, total = code_within(program, f, program.cells_int(f, value & WORD))
        mixed = mix_int(value & WORD, source.salt) >> (64 - source.code_bits)
        leading = program.fields[f][0].leading
        whole = mixed
        if source.deal > 1:
            assert total >= 1 << source.code_bits
            if leading:  # the only code that is scaled to this
                code = -(-(code << source.code_bits) // total)
            code = undeal_skip(code, source.code_bits, source.deal)
        elif leading:
            whole = mixed * total >> source.code_bits
        else:
            whole = mixed % total
        assert code == whole
        least = words["code_bits"] or min(63, (field.distinct - 1).bit_length() + 2)
        assert min(total, 1 << source.code_bits) >= 1 << min(63, least)


@given(INT64, SEEDS, st.sampled_from([{"block_bits": 16}, {"blocks": 5}, {"block_bits": 13}]))
@pytest.mark.parametrize("strategy", ["succession", "skip"])
def test_all_64_bits_of_an_id_count(strategy, value, seed, form):
    words = {"code_bits": 64, "fusion": "sum", "strategy": strategy, **form}
    program = bitfold.plan([Field("q")], 1, seed=seed, **words).program
    cells = {tuple(program.cells_int(0, (value & WORD) ^ 1 << bit)) for bit in range(64)}
    assert len(cells | {tuple(program.cells_int(0, value & WORD))}) == 65


def test_every_bit_of_an_id_moves_the_code_however_short():
    """A 20-bit code of 64-bit ids: no bit is simply cut off."""
    program = bitfold.plan([Field("q")], 4, code_bits=20, blocks=2).program
    for bit in range(64):
        moved = sum(
            program.cells_int(0, base) != program.cells_int(0, base ^ 1 << bit)
            for base in range(1000, 1040)
        )
        assert moved >= 35


@pytest.mark.parametrize("strategy", ["succession", "skip"])
def test_slices_and_permuted_blocks_differ(strategy):
    words = {"strategy": strategy, "blocks": 2, "fusion": "sum"}
    slices = bitfold.plan([Field("q", 2**16)], 1, **words).program
    low, high = 0x12, 0xEF
    digits = [0, 0]
    for rank in range(8):  # one code with blocks (low, high), one with (high, low)
        for k, (first, second) in enumerate([(low, high), (high, low)]):
            places = (rank, rank + 8) if strategy == "succession" else (2 * rank, 2 * rank + 1)
            digits[k] |= (first >> rank & 1) << places[0] | (second >> rank & 1) << places[1]
    assert set(slices.cells_int(0, digits[0])) != set(slices.cells_int(0, digits[1]))
    shared = bitfold.plan([Field("q", 2**16)], 1, sharing="shared", **words).program
    assert sorted(shared.cells_int(0, digits[0])) == sorted(shared.cells_int(0, digits[1]))
    assert shared.rows == 256
    assert slices.rows == 512


def test_the_last_block_is_not_padded():
    for strategy in ("succession", "skip"):
        made = bitfold.plan(
            [Field("q", 2**24)], 1, block_bits=7, fusion="sum", strategy=strategy
        ).program
        assert sum(lookup.radix for lookup in made.fields[0]) == made.rows
        assert made.rows == (392 if strategy == "succession" else 4 * 64)


def test_skip_stays_inside_its_tables():
    """S=24: a public implementation keeps the bits' global weights and asks for row 9,587,492."""
    for blocks, rows in ((2, 8192), (3, 768), (4, 256)):
        words = {"blocks": blocks, "strategy": "skip", "fusion": "sum"}
        program = bitfold.plan([Field("q", 2**24)], 1, **words).program
        assert program.rows == rows
        ids = torch.tensor([2**24 - 1, 0xAAAAAA, 0x555555, 0x924924, 0]).unsqueeze(1)
        cells = Address(program).cells(ids)
        assert int(cells.max()) == rows - 1
        assert int(cells.min()) >= 0


@pytest.mark.parametrize("size", [2**24 + 3, 2**53 + 5, LARGEST])
def test_quotient_and_remainder_are_exact(size):
    """float32 division is wrong above 2**24, float64 above 2**53."""
    words = {"blocks": 2, "fusion": "sum", "balance": 1.0, "digits": "positional"}
    words |= {"sharing": "slices"}
    program = fitting_plan([Field("q", size)], 1, 1000, **words).program
    first, second = program.fields[0]
    ids = [size - 1 - step for step in range(50)] + [first.radix * k - 1 for k in range(1, 50)]
    cells = Address(program).cells(torch.tensor(ids).unsqueeze(1)).reshape(-1, 2).tolist()
    for value, (a, b) in zip(ids, cells, strict=True):
        assert (b - second.base) * first.radix + (a - first.base) == value


@pytest.mark.parametrize("method", ["hash", "multi-hash", "binary-code"])
def test_id_zero_is_no_special_row_of_hashed_fields(method):
    fields = [Field(f"f{i}", distinct=10_000) for i in range(8)]
    program = bitfold.plan(fields, 4, method=method, budget="20x").program
    firsts = [
        cell - lookup.base
        for f in range(8)
        for lookup, cell in zip(program.fields[f], program.cells_int(f, 0), strict=True)
    ]
    assert firsts.count(0) <= 2
    assert len(set(firsts)) >= 6


@pytest.mark.parametrize("method", ["hash", "multi-hash", "binary-code"])
def test_negative_ids_are_ids_like_others(method):
    program = bitfold.plan([Field("q", distinct=10_000)], 4, method=method, budget="5x").program
    cells = {tuple(program.cells_int(0, -value & WORD)) for value in range(1, 301)}
    assert len(cells) > (250 if method == "hash" else 298)


def test_two_hashes_rarely_meet_in_both():
    program = bitfold.plan([Field("q", distinct=4000)], 4, method="multi-hash", budget="2x").program
    one, both = set(), set()
    for value in range(4000):
        first, second = program.cells_int(0, value)
        one.add(first)
        both.add((first, second))
    assert len(both) >= 3995
    assert len(one) < 2000


@pytest.mark.parametrize(("budget", "own"), [("2x", 0.999), ("10x", 0.99), ("1000x", 0.88)])
def test_few_hashed_ids_share_a_code(budget, own):
    """A code has ceil(log2 n) + 10 bits where two blocks allow it, and at least 2 spare ones."""
    made = bitfold.plan([Field("q", distinct=50_000)], 16, method="binary-code", budget=budget)
    ids = torch.arange(50_000).unsqueeze(1) * 0x9E3779B97F4A7C15
    cells = Address(made.program).cells(ids).flatten(1)
    assert cells.unique(dim=0).shape[0] >= 50_000 * own


@pytest.mark.parametrize(("budget", "blocks"), [("10x", 2), ("100x", 3), ("1000x", 6)])
def test_hashed_ids_take_no_more_blocks_than_they_need(budget, blocks):
    made = bitfold.plan([Field("q", distinct=50_000)], 16, budget=budget, sharing="slices")
    assert made.program.lookups == blocks
