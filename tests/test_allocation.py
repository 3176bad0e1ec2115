"""Rows dealt to fields: within their bounds, and none left over that a field could use."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bitfold
from bitfold.method.allocation import allocate

bounds = st.tuples(st.integers(1, 10**7), st.integers(0, 50), st.integers(0, 10**5)).map(
    lambda drawn: (drawn[0], drawn[1], drawn[1] + drawn[2])
)


@given(st.lists(bounds, min_size=1, max_size=12), st.integers(0, 10**6), st.floats(0, 1))
def test_every_row_is_dealt_within_the_bounds(
    fields: list[tuple[int, int, int]], more: int, exponent: float
) -> None:
    sizes, least, most = zip(*fields, strict=True)
    rows = sum(least) + more
    dealt = allocate(sizes, least, most, rows, exponent)
    assert sum(dealt) == min(rows, sum(most))
    assert all(low <= got <= high for low, got, high in zip(least, dealt, most, strict=True))


def test_fields_that_are_alike_differ_by_the_rest_alone() -> None:
    assert allocate([90] * 3, [1] * 3, [90] * 3, 100, 0.5) == [34, 33, 33]
    assert allocate([90] * 3, [1] * 3, [33, 90, 90], 100, 0.5) == [33, 34, 33]


@pytest.mark.parametrize("method", ["hash", "multi-hash", "binary-code"])
@pytest.mark.parametrize("allocation", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("budget", [2000, 2063, 5000])
def test_a_budget_is_met_to_the_row(method: str, allocation: float, budget: int) -> None:
    fields = [bitfold.Field(name, 90) for name in "abcdefg"]
    made = bitfold.plan(fields, 4, method=method, budget=budget, allocation=allocation)
    assert 0 <= budget - made.bytes < 16
