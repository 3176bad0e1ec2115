"""Radices: enough codes, no row wasted, exact however large the numbers."""

import math
from itertools import combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitfold.address.radices import (
    coprime_radices,
    divisors,
    fewest_blocks,
    fit_radices,
    least_radices,
    least_rows,
)

SIZES = st.integers(1, 2**63)
BLOCKS = st.integers(1, 40)


def fewest_by_trying(size: int, blocks: int) -> int:
    limit = range(1, size + 1)
    return min(sum(each) for each in product(limit, repeat=blocks) if math.prod(each) >= size)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 11, 12, 17])
@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_no_other_radices_need_fewer_rows(size, blocks):
    assert sum(least_radices(size, blocks)) == fewest_by_trying(size, blocks)


@given(SIZES, BLOCKS)
def test_least_radices_reach_the_size_and_one_row_fewer_does_not(size, blocks):
    radices = least_radices(size, blocks)
    assert len(radices) == blocks
    assert math.prod(radices) >= size
    assert max(radices) - min(radices) <= 1  # for a given sum, the product is largest when even
    if max(radices) > 1:
        fewer = [*radices]
        fewer[fewer.index(max(fewer))] -= 1
        assert math.prod(fewer) < size


@given(st.integers(2, 2**31), st.integers(2, 6))
def test_roots_are_taken_in_integers(base, degree):
    size = base**degree
    assert least_radices(size, degree) == (base,) * degree
    assert least_radices(size + 1, degree) == (base + 1,) + (base,) * (degree - 1)


@given(SIZES)
def test_least_rows_is_the_least_over_all_numbers_of_blocks(size):
    assert least_rows(size) == min(sum(least_radices(size, m)) for m in range(1, 41))


@given(SIZES, st.integers(1, 2**34))
def test_fewest_blocks_fit_and_fewer_do_not(size, rows):
    blocks = fewest_blocks(size, rows)
    if blocks is None:
        assert rows < least_rows(size)
        return
    assert sum(least_radices(size, blocks)) <= rows
    assert all(sum(least_radices(size, fewer)) > rows for fewer in range(1, blocks))


@given(SIZES, BLOCKS, st.integers(0, 2**40), st.floats(0, 1))
def test_fitted_radices_use_every_row(size, blocks, spare, balance):
    least = sum(least_radices(size, blocks))
    radices = fit_radices(size, blocks, least + spare, balance)
    assert radices is not None
    assert len(radices) == blocks
    assert min(radices) >= 1
    assert sum(radices) == least + spare
    assert math.prod(radices) >= size
    assert fit_radices(size, blocks, least - 1, balance) is None


def test_balance_goes_from_one_large_block_to_equal_blocks():
    sizes = [fit_radices(6040, 3, 300, balance)[0] for balance in (0, 0.5, 1)]
    assert sizes == sorted(sizes, reverse=True)
    assert fit_radices(6040, 3, 300, 1) == (100, 100, 100)
    large, *small = fit_radices(6040, 3, 300, 0)
    assert math.prod(small) * large >= 6040
    assert (small[0] - 1) ** 2 * (300 - 2 * (small[0] - 1)) < 6040  # as small as uniqueness lets


@given(SIZES, st.integers(2, 6), st.integers(0, 2**32), st.floats(0, 1))
def test_coprime_radices_are_coprime_and_reach_the_size(size, blocks, spare, balance):
    rows = sum(least_radices(size, blocks)) + spare
    radices = coprime_radices(size, blocks, rows, balance)
    if radices is None:  # near the minimum there may be none
        return
    assert len(radices) == blocks
    assert sum(radices) <= rows
    assert math.prod(radices) >= size
    assert all(math.gcd(a, b) == 1 for a, b in combinations(radices, 2))


def test_coprime_radices_waste_next_to_nothing_with_room():
    for size, blocks, rows in [(6040, 2, 604), (10**6, 3, 5000), (2**40, 4, 10**5)]:
        for balance in (0.0, 0.5, 1.0):
            assert rows - sum(coprime_radices(size, blocks, rows, balance)) <= 0.01 * rows


@given(st.lists(st.integers(1, 2**20), min_size=1, max_size=5), st.data())
def test_divisors_write_every_number_in_digits(radices, data):
    number = data.draw(st.integers(0, math.prod(radices) - 1))
    before = divisors(radices)
    digits = [number // d % r for d, r in zip(before, radices, strict=True)]
    assert sum(digit * d for digit, d in zip(digits, before, strict=True)) == number
