"""One pool for first digits: ids stay apart, later digits have rows of their own, bytes are met."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bitfold
from bitfold import BitfoldError, BudgetTooSmall, Field, Plan
from bitfold.method.first_digit import _radices, _spender


def first(fields: list[Field], dim: int, budget: int | str, **options: object) -> Plan:
    return bitfold.plan(
        fields, dim, method="binary-code", sharing="first", budget=budget, **options
    )


@given(
    st.lists(st.integers(1, 400), min_size=1, max_size=5),
    st.integers(0, 5000),
    st.sampled_from([None, 1, 4]),
    st.sampled_from(["product", "sum", "weighted"]),
)
def test_ids_of_a_field_are_told_apart_and_the_budget_is_met(
    sizes: list[int], spare: int, bits: int | None, fusion: str
) -> None:
    fields = [Field(f"f{number}", size) for number, size in enumerate(sizes)]
    with pytest.raises(BudgetTooSmall) as refusal:
        first(fields, 8, 1, bits=bits, fusion=fusion)
    least = refusal.value.minimum
    with pytest.raises(BudgetTooSmall):
        first(fields, 8, least - 1, bits=bits, fusion=fusion)
    made = first(fields, 8, least + spare, bits=bits, fusion=fusion)
    assert made.bytes <= least + spare
    for number, size in enumerate(sizes):
        cells = {tuple(made.program.cells_int(number, value)) for value in range(size)}
        assert len(cells) == size


@pytest.mark.parametrize("sizes", [(1, 2, 2), (4, 4), (5, 5), (1, 1), (2, 3, 5, 9)])
def test_tiny_fields_are_told_apart_with_any_rows_above_the_least(sizes: tuple[int, ...]) -> None:
    fields = [Field(f"f{number}", size) for number, size in enumerate(sizes)]
    with pytest.raises(BudgetTooSmall) as refusal:
        first(fields, 1, 1)
    for budget in range(refusal.value.minimum, 4 * (sum(sizes) + 8)):
        assert first(fields, 1, budget).bytes <= budget


@given(st.lists(st.integers(1, 10**13), min_size=1, max_size=4), st.integers(1, 9), st.data())
def test_sums_that_are_looked_up_are_those_of_the_radices(
    sizes: list[int], later: int, data: st.DataObject
) -> None:
    first = data.draw(st.integers(1, max(sizes) + 1))
    told = sum(sum(_radices(size, first, later)[1:]) for size in sizes)
    assert _spender(sizes, later)(first) == told


def test_hundreds_of_fields_are_planned() -> None:
    fields = [Field(f"f{number}", 50 + 997 * number**2) for number in range(300)]
    made = first(fields, 8, "100x")
    assert 0.99 < made.bytes / made.budget <= 1  # type: ignore[operator]


def test_first_digits_share_rows_and_later_ones_share_none() -> None:
    fields = [Field("user", 6040), Field("item", 3706), Field("age", 7)]
    made = first(fields, 16, "50x")
    user, item, age = made.program.fields
    assert (user[0].base, user[0].span) == (item[0].base, item[0].span)
    assert user[0].offset != item[0].offset  # frequent ids of both do not meet
    later = [range(each.base, each.base + each.span) for each in (*user[1:], *item[1:], *age)]
    cells = [cell for span in later for cell in span]
    assert len(cells) == len(set(cells))
    assert min(cells) >= user[0].span
    assert made.rows_kept == made.program.rows == user[0].span + len(cells)
    # The bytes of few bits are spent to less than a row.
    packed = first(fields, 16, "50x", bits=4)
    assert 0 <= packed.budget - packed.bytes < 8 * 3  # type: ignore[operator]


def test_hashed_ids_take_leading_digits() -> None:
    made = first([Field("query", distinct=5000), Field("page", distinct=300)], 16, "20x")
    assert all(lookup.leading for lookup in made.program)
    assert made.bytes <= 5300 * 64 // 20


@pytest.mark.parametrize(
    "options", [{"fusion": "concat"}, {"strategy": "skip"}, {"blocks": 2}, {"digits": "residues"}]
)
def test_what_would_choose_other_digits_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(BitfoldError, match="sharing=first"):
        first([Field("user", 100)], 16, "4x", **options)
