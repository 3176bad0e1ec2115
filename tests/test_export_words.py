"""The needle: integer arithmetic in its export form is the eager one, for every int64."""

import threading

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from bitfold.address.mixing import mix_int, mix_torch, shift_of, signed
from bitfold.address.stored import gather_bits, pack_bits
from bitfold.address.words import (
    down,
    export_form,
    exporting,
    place_in,
    quotient,
    remainder,
    run_of,
    total,
    up,
)
from bitfold.fuse.bags import bags_of, pool
from bitfold.pool.rounding import pack, unpack
from drawn_plans import INT64, SEEDS

WORD = 2**64 - 1
EDGES = [0, 1, -1, 2**63 - 1, -(2**63), 2**32, -(2**32), 2**24 + 1]
WORDS = st.lists(st.one_of(INT64, st.sampled_from(EDGES)), min_size=1, max_size=20)


@given(WORDS, st.integers(0, 63), st.data(), st.booleans())
def test_a_run_of_bits_is_that_of_the_unsigned_word(words, first, data, constant):
    bits = data.draw(st.integers(1, 64 - first))
    mask = signed((1 << bits) - 1)
    wanted = [signed((word & WORD) >> first & (1 << bits) - 1) for word in words]
    of = (first, mask) if constant else (torch.tensor([first]), torch.tensor([mask]))
    assert run_of(torch.tensor(words), *of).tolist() == wanted
    with export_form():
        assert run_of(torch.tensor(words), *of).tolist() == wanted


@given(WORDS, st.integers(0, 63), st.booleans())
def test_shifts_up_and_down(words, by, constant):
    several = by if constant else torch.tensor([by])
    with export_form():
        found = up(torch.tensor(words), several)
        assert found.tolist() == [signed(word << by) for word in words]
        if by < 63:
            kept = torch.tensor(words) & 2**63 - 1
            assert down(kept, several).tolist() == [(word & 2**63 - 1) >> by for word in words]
    assert torch.equal(found, up(torch.tensor(words), several))


@given(WORDS, st.integers(1, 2**63 - 1))
def test_quotients_and_remainders(words, by):
    kept = torch.tensor(words) & 2**63 - 1
    with export_form():
        found = quotient(kept, by), remainder(kept, torch.tensor(by))
    assert found[0].tolist() == [(word & 2**63 - 1) // by for word in words]
    assert found[1].tolist() == [(word & 2**63 - 1) % by for word in words]
    assert torch.equal(found[0], quotient(kept, by))
    assert torch.equal(found[1], remainder(kept, by))


@given(WORDS)
def test_totals_wrap(words):
    with export_form():
        found = total(torch.tensor([words, words]))
    assert found.tolist() == [signed(sum(words))] * 2


@given(WORDS, SEEDS, st.integers(1, 64))
def test_mixing(words, salt, bits):
    shift = shift_of(bits)
    of = torch.tensor(signed(salt)), shift, signed((1 << bits) - 1), (1 << bits - shift) - 1
    with export_form():
        found = mix_torch(torch.tensor(words), *of)
    assert [word & WORD for word in found.tolist()] == [mix_int(w, salt, bits) for w in words]


@given(WORDS, st.lists(INT64, min_size=1, max_size=40, unique=True))
def test_places_among_bounds(words, bounds):
    values, bounds = torch.tensor(words), torch.tensor(sorted(bounds))
    with export_form():
        found = place_in(values, bounds)
    assert torch.equal(found, torch.bucketize(values, bounds, right=True))


@given(st.integers(1, 40), st.data())
def test_stored_integers(bits, data):
    values = data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=1, max_size=30))
    table = pack_bits(torch.tensor(values), bits)
    with export_form():
        assert gather_bits(table, bits, torch.arange(len(values))).tolist() == values


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
def test_codes_of_few_bits(bits):
    codes = torch.randint(0, 2**bits, (9, 13), dtype=torch.uint8)
    with export_form():
        assert torch.equal(unpack(pack(codes, bits), 13, bits), codes)


@given(st.lists(st.integers(0, 3), max_size=12), st.sampled_from(["sum", "mean", "max"]))
def test_bags_without_a_loop(lengths, mode):
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    total = int(offsets[-1])
    vectors = torch.randn(total, 3)
    bag = bags_of(offsets, total)
    keep = torch.rand(total) < 0.7
    wanted = [pool(vectors, bag, len(lengths), mode, keep=kept) for kept in (None, keep)]
    with export_form():
        assert torch.equal(bags_of(offsets, total), bag)
        for kept, eager in zip((None, keep), wanted, strict=True):
            found = pool(vectors, bag, len(lengths), mode, keep=kept)
            torch.testing.assert_close(found, eager)


def test_the_form_holds_in_its_own_thread_and_ends():
    seen = []
    with export_form():
        thread = threading.Thread(target=lambda: seen.append(exporting()))
        thread.start()
        thread.join()
        seen.append(exporting())
    assert [*seen, exporting()] == [False, True, False]
