"""Addresses: three ways to compute a cell agree, every code keeps cells of its own."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import bitfold
from bitfold import BitfoldError, Field
from bitfold.address import Address, Lookup, Mixed, Program, Raw
from bitfold.address.mixing import derive_salt, mix_int, mix_numpy, signed
from bitfold.address.program import place
from drawn_plans import (
    INT64,
    LARGEST,
    SEEDS,
    binary_options,
    dense_fields,
    fitting_plan,
    hashed_fields,
    options,
    some_ids,
    spares,
    unbounded_plan,
)
from kernel_rows import rows_of_the_kernel

U = np.uint64
WORD = 2**64 - 1


def mixed_in_numpy(ids: np.ndarray, salt: int, bits: int) -> np.ndarray:
    """The mixer written anew, from its description."""
    mask, fold = U((1 << bits) - 1), U(bits - bits // 2)
    x = (ids ^ U(salt)) & mask
    for factor in (0xD6E8FEB86659FD93, 0xA0761D6478BD642F):
        x = (x ^ (x >> fold)) * U(factor) & mask
    return x ^ (x >> fold)


def dealt_in_numpy(code: np.ndarray, bits: int, blocks: int) -> np.ndarray:
    """Block m takes bits m, m + M, ...; the blocks lie one after another."""
    out, place_of = np.zeros_like(code), 0
    for m in range(blocks):
        for bit in range(m, bits, blocks):
            out |= (code >> U(bit) & U(1)) << U(place_of)
            place_of += 1
    return out


def cells_in_numpy(program: Program, field: int, ids: list[int]) -> np.ndarray:
    """Cells `[n, lookups]` in unsigned arithmetic."""
    columns = []
    for lookup in program.fields[field]:
        source, code = lookup.source, np.array(ids, dtype=np.int64).view(U)
        if isinstance(source, Mixed):
            code = mixed_in_numpy(code, source.salt, source.mix_bits)
            code = code >> U(source.mix_bits - source.code_bits)
        if source.deal > 1:
            code = dealt_in_numpy(code, source.code_bits, source.deal)
        if lookup.leading:
            part = (code << U(64 - source.code_bits)) * U(lookup.divisor & WORD)
            digit = part.astype(object) * lookup.radix >> 64
        else:
            quotient = code // U(lookup.divisor) if lookup.divisor <= WORD else np.zeros_like(code)
            digit = (quotient % U(lookup.radix)).astype(object)
        columns.append(lookup.base + (digit + lookup.offset) % lookup.span)
    return np.stack(columns, axis=1).astype(np.int64)


def check_three_ways(program: Program, ids: list[list[int]]) -> None:
    """torch, Python and NumPy: `ids[b][f]`, as a batch and as bags."""
    address = Address(program)
    cells = address.cells(torch.tensor(ids))
    field = torch.arange(len(program.fields)).repeat(len(ids))
    flat = address.cells(torch.tensor(ids).reshape(-1), field)
    assert torch.equal(cells.flatten(0, 1), flat)
    real = address.present()
    for f in range(len(program.fields)):
        column = [row[f] for row in ids]
        defined = [program.cells_int(f, value & WORD) for value in column]
        assert np.array_equal(cells_in_numpy(program, f, column), np.array(defined))
        keep = slice(None) if real is None else real[f]
        assert cells[:, f][:, keep].reshape(len(ids), -1).tolist() == defined
        assert min(map(min, defined)) >= 0
        assert max(map(max, defined)) < program.rows
        for row in defined:
            for lookup, cell in zip(program.fields[f], row, strict=True):
                assert lookup.base <= cell < lookup.base + lookup.span


@given(st.data(), dense_fields(), options(), spares(), SEEDS)
def test_three_ways_agree_on_dense_ids(data, fields, words, spare, seed):
    made = fitting_plan(fields, 1, spare, seed=seed, **words)
    check_three_ways(made.program, some_ids(data.draw, fields))


@given(st.data(), hashed_fields(), dense_fields(1000), options(hashed=True), spares(), SEEDS)
def test_three_ways_agree_on_hashed_ids_beside_whole_tables(
    data, hashed, dense, words, spare, seed
):
    fields = [*hashed, *dense]
    made = fitting_plan(fields, 1, spare, seed=seed, **words)
    check_three_ways(made.program, some_ids(data.draw, fields))


@given(st.data(), dense_fields(10**6), binary_options(), SEEDS)
def test_three_ways_agree_on_powers_of_two(data, fields, words, seed):
    made = unbounded_plan(fields, 1, seed=seed, **words)
    check_three_ways(made.program, some_ids(data.draw, fields))


@given(st.data(), hashed_fields(2), binary_options(hashed=True), st.integers(1, 1000), SEEDS)
def test_three_ways_agree_on_64_bit_codes_beside_whole_tables(data, hashed, words, small, seed):
    fields = [*hashed, Field("small", small)]
    made = unbounded_plan(fields, 1, seed=seed, **{**words, "code_bits": 64})
    check_three_ways(made.program, some_ids(data.draw, fields))


def test_divisors_beyond_64_bits_leave_their_digit_at_zero():
    """Eight blocks of 2000 rows: the last divisors are above 2**63."""
    words = {"blocks": 9, "balance": 1.0, "digits": "positional", "fusion": "sum"}
    program = bitfold.plan([Field("q", 10**6)], 1, budget=4 * 2000 * 9 + 8, **words).program
    assert program.fields[0][-1].divisor > 2**63
    check_three_ways(program, [[0], [999_999], [123_456]])


@given(
    st.lists(st.integers(1, 2**40), min_size=1, max_size=5),
    st.integers(1, 64),
    SEEDS,
    st.lists(INT64, min_size=1, max_size=20),
)
def test_leading_digits_of_any_radix_and_code(radices, bits, salt, ids):
    """Radices beyond 32 bits and divisors beyond 64 too; a kernel gives the same cells."""
    source, lookups, before, end = Mixed(salt, code_bits=bits), [], 1, 0
    for radix in radices:
        lookups.append(Lookup(source, radix, end, before, leading=True))
        before, end = before * radix, end + radix
    program = Program(1, (tuple(lookups),), end)
    check_three_ways(program, [[value] for value in ids])
    assert not program.raw
    rows = rows_of_the_kernel(program, ids, 0, raw_ids=False)
    assert rows == [program.cells_int(0, value & WORD) for value in ids]


@given(
    st.integers(1, LARGEST),
    st.lists(st.tuples(st.integers(1, 2**40), st.integers(0, 2**40)), min_size=1, max_size=5),
    st.data(),
)
def test_loops_for_raw_ids_alone_give_the_same_rows(size, digits_of, data):
    """Any radix, shared rows and turned digits; with and without what mixed codes need."""
    lookups, divisor = [], 1
    for radix, turn in digits_of:
        span = radix + turn % 7
        lookups.append(Lookup(Raw(), radix, 0, divisor, turn % span, span))
        divisor *= radix
    program = Program(1, (tuple(lookups),), max(lookup.span for lookup in lookups))
    ids = data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=20))
    assert program.raw
    expected = [program.cells_int(0, value) for value in ids]
    for raw_ids in (True, False):
        assert rows_of_the_kernel(program, ids, size, raw_ids) == expected


@given(st.integers(1, 64), SEEDS, st.lists(INT64, min_size=1, max_size=20))
def test_the_mixer_is_one_definition_and_a_bijection(bits, salt, values):
    array = np.array(values, dtype=np.int64)
    expected = [mix_int(value & WORD, salt, bits) for value in values]
    assert mix_numpy(array, salt, bits).tolist() == expected
    assert mixed_in_numpy(array.view(U), salt, bits).tolist() == expected
    assert len(set(expected)) == len({(value ^ salt) & (1 << bits) - 1 for value in values})


def test_the_mixer_is_a_bijection_on_small_words():
    for bits in range(1, 13):
        assert len({mix_int(v, derive_salt(bits), bits) for v in range(2**bits)}) == 2**bits


def test_salts_differ_by_seed_field_and_lookup():
    salts = {derive_salt(s, f, k) for s in range(5) for f in range(20) for k in range(5)}
    assert len(salts) == 500
    assert derive_salt(0, 1, 2) != derive_salt(0, 2, 1)


def test_cells_never_change_between_versions():
    """Saved weights depend on these numbers: whoever changes them raises the version."""
    assert mix_int(12345, 678) == 18328304623630176074
    assert signed(derive_salt(7, 1, 2)) == -1013919305097028414


@given(dense_fields(), options(), spares(), SEEDS)
def test_a_program_goes_through_json_and_back(fields, words, spare, seed):
    program = fitting_plan(fields, 1, spare, seed=seed, **words).program
    assert Program.from_json(program.to_json()) == program


def test_the_fingerprint_tells_addresses_apart():
    fields = [Field("a", 1000), Field("b", 500)]
    words = {"method": "hash", "budget": "10x", "allocation": 0.5}
    one = bitfold.plan(fields, 4, seed=1, **words).program.fingerprint
    assert one == bitfold.plan(fields, 4, seed=1, **words).program.fingerprint
    assert one != bitfold.plan(fields, 4, seed=2, **words).program.fingerprint
    assert one != bitfold.plan(fields[::-1], 4, seed=1, **words).program.fingerprint
    assert -(2**63) <= one <= LARGEST


@pytest.mark.parametrize(
    "words",
    [
        {"radix": 0},
        {"radix": 11},
        {"base": -1},
        {"base": 8},
        {"divisor": 0},
        {"source": Mixed(1)},
        {"leading": True},
        {"pool": 1},
        {"pool": -1},
        {"signed": True},
        {"source": Mixed(1, 5, 5), "signed": True, "leading": True},
        {"source": Mixed(1, 64, 64), "radix": 2, "signed": True},
    ],
)
def test_an_address_that_leaves_its_pool_is_refused(words):
    with pytest.raises(BitfoldError, match="makes no sense"):
        Program(1, ((Lookup(**{"source": Raw(), "radix": 3, "base": 0, **words}),),), 10)


def test_slices_lie_one_after_another():
    assert place([3, 2, 4]) == ([0, 3, 5], 9)
