"""Rounding to few bits: codes, their values and their bytes, for all numbers and all scales."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitfold import BitfoldError
from bitfold.pool.refreshing import due
from bitfold.pool.rounding import (
    FEW_BITS,
    OF_DEVIATION,
    OF_LARGEST,
    codes_of,
    pack,
    rounded,
    row_bytes,
    row_steps,
    scales_of,
    unpack,
    values_of,
)

bits = st.sampled_from(FEW_BITS)
floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
halves = st.floats(width=16, allow_nan=False, allow_infinity=False)
steps = st.one_of(st.just(0.0), st.floats(width=16, min_value=2.0**-24, max_value=60_000.0))


def half(value):
    return torch.tensor([value], dtype=torch.half)


@given(bits, st.integers(1, 70), st.integers(0, 2**32))
def test_packed_codes_come_back(bits, width, seed):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 1 << bits, (3, 2, width), generator=generator, dtype=torch.uint8)
    packed = pack(codes, bits)
    assert packed.shape == (3, 2, row_bytes(width, bits))
    assert packed.dtype == torch.uint8
    assert torch.equal(unpack(packed, width, bits), codes)


@given(bits, st.lists(st.integers(0, 255), min_size=1, max_size=20))
def test_a_row_is_one_number_with_the_first_code_lowest(bits, codes):
    codes = [code % (1 << bits) for code in codes]
    packed = pack(torch.tensor([codes], dtype=torch.uint8), bits)
    number = sum(code << (bits * place) for place, code in enumerate(codes))
    assert int.from_bytes(bytes(packed[0].tolist()), "little") == number


@given(bits, st.lists(floats, min_size=1, max_size=8), halves, steps)
def test_a_value_is_that_of_its_code_to_the_bit(bits, numbers, centre, step):
    numbers, centre, step = torch.tensor(numbers), half(centre), half(step)
    codes = codes_of(numbers, centre, step, bits)
    assert int(codes.max()) < 1 << bits
    again = values_of(codes, centre, step, bits)
    assert torch.equal(rounded(numbers, centre, step, bits), again)
    assert torch.equal(rounded(again, centre, step, bits), again)
    assert torch.isfinite(again).all()


@given(bits, halves, st.floats(width=16, min_value=2.0**-14, max_value=100.0))
@settings(max_examples=50)
def test_values_are_those_of_exact_arithmetic_and_keep_their_codes(bits, centre, step):
    """A value is centre + step * (code - half), but for two roundings."""
    codes = torch.arange(1 << bits, dtype=torch.uint8)
    values = values_of(codes, half(centre), half(step), bits).double().numpy()
    exact = centre + step * (np.arange(1 << bits) - ((1 << bits) - 1) / 2)
    size = abs(centre) + step * (1 << bits)
    assert np.abs(values - exact).max() <= 2.0**-23 * size
    if step > 2.0**-18 * size:  # steps that float32 can tell apart there
        found = codes_of(torch.from_numpy(values).float(), half(centre), half(step), bits)
        assert torch.equal(found, codes)


@given(bits, st.integers(0, 2**32))
@settings(max_examples=30)
def test_a_number_goes_to_the_nearest_value(bits, seed):
    numbers = torch.randn(50, generator=torch.Generator().manual_seed(seed)) * 2 + 1
    centre, step = half(1.0), half(4 / (1 << bits))
    levels = values_of(torch.arange(1 << bits, dtype=torch.uint8), centre, step, bits)
    nearest = (numbers[:, None] - levels).abs().amin(1)
    found = (numbers - rounded(numbers, centre, step, bits)).abs()
    torch.testing.assert_close(found, nearest, rtol=0, atol=1e-6)


@pytest.mark.parametrize("bits", FEW_BITS)
def test_what_is_not_a_number_stays_so_and_is_not_packed(bits):
    numbers = torch.tensor([0.5, float("nan"), float("inf"), -float("inf")])
    values = rounded(numbers, half(0.0), half(1.0), bits)
    assert values.isnan().tolist() == [False, True, False, False]
    assert values[2] == -values[3] == ((1 << bits) - 1) / 2
    with pytest.raises(BitfoldError, match="not numbers cannot be packed"):
        codes_of(numbers, half(0.0), half(1.0), bits)


@pytest.mark.parametrize("bits", FEW_BITS)
def test_the_steps_are_the_best_of_a_gaussian(bits):
    numbers = torch.randn(200_000, generator=torch.Generator().manual_seed(0))

    def error(factor):
        step = torch.tensor([OF_DEVIATION[bits] * factor])
        return float((numbers - rounded(numbers, half(0.0), step, bits)).square().mean())

    assert error(1) < min(error(0.8), error(1.25))


@pytest.mark.parametrize("bits", FEW_BITS)
def test_a_rows_own_step_is_near_the_best_of_16_gaussians(bits):
    rows = torch.randn(20_000, 16, generator=torch.Generator().manual_seed(0))
    steps = row_steps(rows, half(0.0), bits)
    assert steps.shape == (20_000, 1)
    largest = rows.abs().amax(1, keepdim=True)
    torch.testing.assert_close(steps.float(), largest * OF_LARGEST[bits], rtol=1e-3, atol=0)

    def error(factor):
        return float(
            (rows - rounded(rows, half(0.0), steps.float() * factor, bits)).square().mean()
        )

    assert error(1) < min(error(0.75), error(1.33))


def test_scales_follow_mean_and_deviation_by_column():
    rows = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    centre, step = scales_of(rows, bits=2)
    assert centre.tolist() == [2.0, 5.0]
    torch.testing.assert_close(step.float(), torch.tensor([0.996, 0.0]), rtol=1e-3, atol=0)
    assert torch.equal(rounded(rows, centre, step, 2)[:, 1], rows[:, 1])


def test_scales_of_many_rows_are_those_of_an_even_sample():
    rows = torch.randn(100_000, 2, generator=torch.Generator().manual_seed(1)) + 3
    rows[:50_000] += 2  # rows in order of frequency differ along the slice
    centre, step = scales_of(rows, bits=4)
    torch.testing.assert_close(centre.float(), rows.mean(0), rtol=0, atol=0.05)
    torch.testing.assert_close(step.float(), rows.std(0) * OF_DEVIATION[4], rtol=0.02, atol=0)


@pytest.mark.parametrize("value", [1e30, -1e30])
def test_scales_beyond_float16_are_its_largest(value):
    centre, step = scales_of(torch.tensor([[value], [0.0]]), bits=1)
    assert centre.isfinite().all()
    assert step.item() == torch.finfo(torch.half).max


def test_a_slice_of_no_rows_has_scales_of_zero():
    centre, step = scales_of(torch.zeros(0, 3), bits=4)
    assert centre.tolist() == step.tolist() == [0.0] * 3


def test_steps_are_refreshed_often_at_first_then_regularly():
    assert [n for n in range(200) if due(n, 64)] == [0, 1, 2, 4, 8, 16, 32, 64, 128, 192]
    assert [n for n in range(6) if due(n, 1)] == list(range(6))
