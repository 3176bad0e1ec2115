"""Stored integers come back as they were, and take the bytes that were planned."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from bitfold import BitfoldError
from bitfold.address import stored
from bitfold.address.stored import bits_int, gather_bits, pack_bits, stored_bytes, unpack_bits


@given(st.integers(1, 40), st.data())
def test_integers_come_back_in_all_ways(bits, data):
    values = data.draw(st.lists(st.integers(0, (1 << bits) - 1), max_size=50))
    table = pack_bits(torch.tensor(values, dtype=torch.int64), bits)
    assert table.dtype == torch.uint8
    assert len(table) == stored_bytes(len(values), bits)
    assert unpack_bits(table, bits, len(values)).tolist() == values
    assert [bits_int(table.tolist(), bits, i) for i in range(len(values))] == values
    if values:
        index = torch.tensor([[len(values) - 1, 0], [0, len(values) // 2]])
        assert torch.equal(gather_bits(table, bits, index), torch.tensor(values)[index])


def test_many_integers_are_packed_in_turns(monkeypatch):
    values = np.random.default_rng(0).integers(0, 1 << 13, 1003)
    whole = pack_bits(values, 13)
    monkeypatch.setattr(stored, "_AT_ONCE", 16)
    assert torch.equal(pack_bits(values, 13), whole)
    assert unpack_bits(whole, 13, 1003).tolist() == values.tolist()


@pytest.mark.parametrize("values", [[-1], [8], [0, 1 << 40]])
def test_integers_that_do_not_fit_are_refused(values):
    with pytest.raises(BitfoldError, match="does not fit 3 bits"):
        pack_bits(torch.tensor(values), 3)


@pytest.mark.parametrize("bits", [0, 41])
def test_too_many_bits_are_refused(bits):
    with pytest.raises(BitfoldError, match="1 to 40"):
        pack_bits(torch.tensor([1]), bits)


@pytest.mark.parametrize("values", [torch.zeros(3), torch.zeros(2, 2, dtype=torch.int64)])
def test_integers_come_as_one_array(values):
    with pytest.raises(BitfoldError, match="one array"):
        pack_bits(values, 3)
