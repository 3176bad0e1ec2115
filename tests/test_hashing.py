"""Ids equal the reference XXH64 of the canonical text, for every type of value."""

import datetime as dt
import math
from decimal import Decimal

import numpy as np
import polars as pl
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from bitfold.data.hashing import (
    canonical_text,
    cross_ids,
    hash_series,
    hash_text,
    hash_values,
    missing_id,
    mix,
)
from bitfold.errors import BitfoldError

SEEDS = st.integers(0, 2**64 - 1)


def reference(data: bytes, seed: int = 0) -> int:
    return int(np.uint64(xxhash.xxh64_intdigest(data, seed)).view(np.int64))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(), min_size=1, max_size=20), SEEDS)
def test_text_equals_the_reference(texts: list[str], seed: int) -> None:
    expected = [reference(text.encode(), seed) for text in texts]
    assert hash_values(texts, seed).tolist() == expected


@pytest.mark.parametrize("length", [0, 1, 3, 4, 7, 8, 31, 32, 33, 63, 64, 1000])
def test_every_length_of_input(length: int) -> None:
    text = ("aé漢😀" * 300).encode()[:length].decode(errors="ignore")
    assert hash_text(text, 7) == reference(text.encode(), 7)


@settings(max_examples=50, deadline=None)
@given(SEEDS)
def test_missing_is_the_hash_of_a_byte_no_text_contains(seed: int) -> None:
    assert missing_id(seed) == reference(b"\xff", seed)
    assert hash_values([None, float("nan")], seed).tolist() == [missing_id(seed)] * 2


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20))
def test_integers_hash_as_base_ten(numbers: list[int]) -> None:
    expected = [reference(str(number).encode()) for number in numbers]
    assert hash_values(np.array(numbers, np.int64)).tolist() == expected
    assert hash_values(numbers).tolist() == expected


@settings(max_examples=150, deadline=None)
@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=20))
def test_floats_read_back_as_themselves(numbers: list[float]) -> None:
    texts = canonical_text(pl.Series(numbers, dtype=pl.Float64)).to_list()
    for number, text in zip(numbers, texts, strict=True):
        if math.isnan(number):
            assert text is None
            continue
        assert float(text) == number
        if math.isfinite(number) and number.is_integer():
            assert text == str(int(number))
        elif math.isfinite(number):
            assert text == repr(number)
    assert hash_values(numbers).tolist() == hash_values(np.array(numbers)).tolist()


def test_narrow_floats_use_their_own_width() -> None:
    assert canonical_text(pl.Series([0.1, 2.0], dtype=pl.Float32)).to_list() == ["0.1", "2"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (False, "false"),
        (-0.0, "0"),
        (1e16, "10000000000000000"),
        (1e-7, "1e-07"),
        (float("inf"), "inf"),
        (dt.date(2024, 1, 31), "2024-01-31"),
        (dt.datetime(2024, 1, 31, 10), "2024-01-31T10:00:00"),
        (dt.datetime(2024, 1, 31, 10, 0, 0, 120), "2024-01-31T10:00:00.000120"),
        (dt.datetime(2024, 1, 31, 10, tzinfo=dt.UTC), "2024-01-31T10:00:00+00:00"),
        (dt.time(10, 30), "10:30:00"),
        (Decimal("1.50"), "1.5"),
        (Decimal("20.0"), "20"),
    ],
)
def test_canonical_text_of_other_types(value: object, text: str) -> None:
    assert hash_values([value]).tolist() == [reference(text.encode())]
    assert canonical_text(pl.Series([value, None])).to_list() == [text, None]


def test_a_moment_in_another_zone_is_the_same_moment() -> None:
    moment = pl.Series([dt.datetime(2024, 1, 31, 10, tzinfo=dt.UTC)])
    there = moment.dt.convert_time_zone("Asia/Tokyo")
    assert canonical_text(there).to_list() == canonical_text(moment).to_list()


def test_columns_of_any_text_type_agree() -> None:
    plain = pl.Series(["a", "b", None])
    assert (
        hash_series(plain).to_list()
        == hash_series(plain.cast(pl.Categorical)).to_list()
        == hash_values(["a", "b", None]).tolist()
    )


def test_unsigned_integers_beyond_int64() -> None:
    large = pl.Series([2**64 - 1], dtype=pl.UInt64)
    assert hash_series(large).to_list() == [reference(b"18446744073709551615")]


def test_a_missing_value_is_no_empty_text() -> None:
    empty, missing = hash_values(["", None])
    assert empty == reference(b"")
    assert empty != missing


def test_no_values_no_ids() -> None:
    assert hash_values([]).shape == (0,)
    assert hash_values(np.empty(0)).dtype == np.int64


@pytest.mark.parametrize(
    "value",
    [
        *([1], {"a": 1}, b"bytes", object(), {1}, frozenset(), range(3), "half \ud800", 1j),
        *(dt.timedelta(1), np.timedelta64(1, "s"), Decimal("1e500"), np.array([1])),
    ],
)
def test_what_has_no_text_is_refused(value: object) -> None:
    for values in ([value], ["a", 1, value]):
        with pytest.raises(BitfoldError, match=r"cannot be (hashed|read)"):
            hash_values(values)


@pytest.mark.parametrize("kind", ["m8[s]", "c16", "S3", [("a", "i8"), ("b", "i8")]])
def test_arrays_of_what_has_no_text_are_refused(kind: str) -> None:
    with pytest.raises(BitfoldError, match="cannot be hashed"):
        hash_values(np.zeros(3, kind))


def test_missing_values_of_every_kind_have_one_id() -> None:
    missing = [None, float("nan"), Decimal("NaN"), np.float32("nan"), np.datetime64("NaT")]
    assert set(hash_values(missing).tolist()) == {missing_id()}


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, True])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(BitfoldError, match="seed"):
        hash_text("a", seed)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=2, max_size=2, unique=True),
    st.integers(0, 2**32),
)
def test_mix_is_one_to_one_and_salted(numbers: list[int], salt: int) -> None:
    mixed = mix(np.array(numbers, np.int64), salt)
    assert mixed[0] != mixed[1]
    assert mixed[0] != mix(np.array(numbers, np.int64), salt + 1)[0]


def test_a_cross_depends_on_every_part_and_on_their_order() -> None:
    a, b, c = (hash_values([f"{name}{i}" for i in range(1000)]) for name in "abc")
    abc = cross_ids([a, b, c])
    assert len(set(abc.tolist())) == 1000
    assert not np.any(abc == cross_ids([a, c, b]))
    assert not np.any(abc == cross_ids([a, b]))
    assert not np.any(cross_ids([a, a]) == cross_ids([b, b]))


def splitmix(value: int, salt: int) -> int:
    whole = 2**64 - 1
    z = (value + 0x9E3779B97F4A7C15 * (salt + 1)) & whole
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & whole
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & whole
    return z ^ (z >> 31)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=2, max_size=4))
def test_a_cross_is_the_fold_that_its_version_says(parts: list[int]) -> None:
    """Ids are stored in runs: this arithmetic may change only with HASH_VERSION."""
    folded = splitmix(parts[0], 0)
    for index, part in enumerate(parts[1:], start=1):
        folded = splitmix(folded + part, index)
    got = cross_ids([np.array([part], np.int64) for part in parts])
    assert int(got.view(np.uint64)[0]) == folded
