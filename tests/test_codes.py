"""Codes: bits dealt to blocks, and read back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitfold.address.codes import (
    block_lengths,
    byte_tables,
    deal_skip,
    skip_destinations,
    succession_lengths,
    undeal_skip,
)

BITS = st.integers(1, 64)
BLOCKS = st.integers(1, 64)


@st.composite
def codes(draw):
    bits = draw(BITS)
    return draw(st.integers(0, 2**bits - 1)), bits, draw(BLOCKS)


def skip_blocks(code: int, bits: int, blocks: int) -> list[int]:
    """The paper's skip, literally: block m takes bits m, m + M, ...; a bit weighs its rank."""
    return [
        sum((code >> bit & 1) << rank for rank, bit in enumerate(range(m, bits, blocks)))
        for m in range(blocks)
    ]


@given(BITS, BLOCKS)
def test_blocks_take_every_bit_once_and_differ_by_one_bit_at_most(bits, blocks):
    lengths = block_lengths(bits, blocks)
    assert len(lengths) == blocks
    assert sum(lengths) == bits
    assert max(lengths) - min(lengths) <= 1


@given(BITS, st.integers(1, 64))
def test_only_the_last_succession_block_is_shorter(bits, block_bits):
    lengths = succession_lengths(bits, block_bits)
    assert sum(lengths) == bits
    assert all(length == block_bits for length in lengths[:-1])
    assert 1 <= lengths[-1] <= block_bits


def test_the_last_block_is_not_padded():
    lengths = succession_lengths(24, 7)
    assert sum(2**length for length in lengths) == 392  # not 512


@given(BITS, BLOCKS)
def test_skip_is_a_permutation_of_the_bits(bits, blocks):
    assert sorted(skip_destinations(bits, blocks)) == list(range(bits))


@given(codes())
def test_skip_decodes_back_to_its_code(drawn):
    code, bits, blocks = drawn
    dealt = deal_skip(code, bits, blocks)
    assert 0 <= dealt < 2**bits
    assert undeal_skip(dealt, bits, blocks) == code


@given(codes())
def test_a_bit_weighs_its_rank_in_its_block(drawn):
    code, bits, blocks = drawn
    dealt = deal_skip(code, bits, blocks)
    read = []
    for length in block_lengths(bits, blocks):
        read.append(dealt & (1 << length) - 1)
        dealt >>= length
    assert read == skip_blocks(code, bits, blocks)


@pytest.mark.parametrize("blocks", [2, 3, 4])
def test_skip_stays_inside_its_tables(blocks):
    """The mistake of a public implementation: S=24 asks 768 rows for row 9,587,492."""
    for code in (2**24 - 1, 0xAAAAAA, 0x555555, 0x924924):
        values = skip_blocks(code, 24, blocks)
        lengths = block_lengths(24, blocks)
        assert all(v < 2**length for v, length in zip(values, lengths, strict=True))


@given(codes())
def test_eight_small_tables_apply_the_permutation(drawn):
    code, bits, blocks = drawn
    tables = byte_tables(bits, blocks).view(np.uint64)
    dealt = sum(int(tables[byte, code >> 8 * byte & 255]) for byte in range(8))
    assert dealt == deal_skip(code, bits, blocks)
