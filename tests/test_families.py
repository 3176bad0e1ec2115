"""The families of other papers: each against what its paper says of an id, by hand."""

import pytest
import torch

import bitfold
from bitfold import BitfoldError, BudgetTooSmall, EmbeddingCollection, Field
from bitfold.address.mixing import mix_int
from bitfold.planning.plan import Plan
from bitfold.pool import FlatPool

FIELDS = [Field("user", 6040), Field("movie", 3706), Field("gender", 2)]
RATIOS = ("2x", "10x", "25x")


def planned(method: str, budget: int | str, dim: int = 16, **options: object) -> Plan:
    return bitfold.plan(FIELDS, dim, method=method, budget=budget, **options)


def pool_of(collection: EmbeddingCollection) -> torch.Tensor:
    weight = collection.embedder.pool.weight
    assert isinstance(weight, torch.Tensor)
    return weight.detach()


@pytest.mark.parametrize("fusion", ["product", "sum", "concat"])
def test_quotients_and_remainders_are_those_of_integers(fusion: str) -> None:
    size = (1 << 26) + 1  # a division in float32 is wrong for a quarter of these ids
    made = bitfold.plan(
        [Field("id", size)], 4, method="quotient-remainder", budget="200x", fusion=fusion
    )
    remainders, quotients = (lookup.radix for lookup in made.program.fields[0])
    assert quotients == -(-size // remainders)
    module = EmbeddingCollection.from_plan(made, seed=0)
    ids = torch.arange(size - 1, 0, -123_457).unsqueeze(1)
    table = pool_of(module)
    first, second = table[ids % remainders], table[remainders + ids // remainders]
    expected = {
        "product": first * second,
        "sum": first + second,
        "concat": torch.cat([first, second], -1),
    }
    torch.testing.assert_close(module(ids).detach(), expected[fusion])


def test_quotient_remainder_takes_two_digits_and_says_the_least() -> None:
    for ratio in RATIOS:
        made = planned("quotient-remainder", ratio)
        assert [row["lookups"] for row in made.rows()] == [2, 2, 1]
        assert 0 <= made.budget - made.bytes < 64
    with pytest.raises(BudgetTooSmall, match="quotient-remainder") as error:
        planned("quotient-remainder", 1000)
    least = planned("quotient-remainder", error.value.minimum)
    assert least.bytes == error.value.minimum
    with pytest.raises(BudgetTooSmall):
        planned("quotient-remainder", error.value.minimum - 1)


@pytest.mark.parametrize(("fusion", "lookups"), [("concat", 4), ("sum", 2)])
def test_unified_fields_read_one_pool_by_hashes_of_their_own(fusion: str, lookups: int) -> None:
    made = planned("unified", "10x", fusion=fusion)
    rows, salts = made.program.rows, set()
    module = EmbeddingCollection.from_plan(made, seed=0)
    table, ids = pool_of(module), torch.tensor([[6039, 17, 1]])
    vectors = module(ids).detach()[0]
    for f, each in enumerate(made.program.fields):
        assert len(each) == lookups
        salts |= {lookup.source.salt for lookup in each}
        cells = [mix_int(int(ids[0, f]), p.source.salt, 64) * rows >> 64 for p in each]
        pieces = table[cells]
        expected = pieces.reshape(-1) if fusion == "concat" else pieces.sum(0)
        torch.testing.assert_close(vectors[f], expected)
    assert len(salts) == 3 * lookups


def test_unified_uses_its_budget_and_says_the_least() -> None:
    for ratio in RATIOS:
        made = planned("unified", ratio)
        assert 0 <= made.budget - made.bytes < 16
    with pytest.raises(BudgetTooSmall) as error:
        planned("unified", 1)
    assert planned("unified", error.value.minimum).bytes == error.value.minimum == 16 + 8
    with pytest.raises(BitfoldError, match="divide the width"):
        planned("unified", "10x", lookups=3)
    assert bitfold.plan(FIELDS, 6, method="unified", budget="10x").program.chunks == 3
    assert bitfold.plan(FIELDS, 7, method="unified", budget="10x").program.chunks == 1


@pytest.mark.parametrize("signs", [False, True])
@pytest.mark.parametrize("chunk", [None, 1, 2, 16])
def test_robe_reads_neighbours_from_hashed_places_of_a_ring(chunk: int | None, signs: bool) -> None:
    made = planned("robe", "10x", chunk=chunk, signs=signs)
    size = chunk or 8
    module = EmbeddingCollection.from_plan(made, seed=0)
    array, ids = pool_of(module), torch.tensor([[4000, 3705, 1]])
    numbers = made.program.rows
    assert array.shape == (numbers,)
    assert made.bytes == 4 * numbers + 8 == made.budget - made.budget % 4
    vectors = module(ids).detach()[0]
    for f, each in enumerate(made.program.fields):
        words = [mix_int(int(ids[0, f]), lookup.source.salt, 64) for lookup in each]
        places = [((word * numbers >> 64) + j) % numbers for word in words for j in range(size)]
        turned = [-1 if signs and word % 2 else 1 for word in words for _ in range(size)]
        assert torch.equal(vectors[f], array[places] * torch.tensor(turned))
        assert len({p.source.salt for p in each}) == 16 // size


def test_robe_takes_arrays_of_any_size() -> None:
    with pytest.raises(BudgetTooSmall) as error:
        planned("robe", 1)
    assert error.value.minimum == 4 * 8 + 8
    for budget in (40, 41, 44, 1001):
        made = planned("robe", budget)
        assert made.bytes == budget - budget % 4
        ids = torch.randint(0, 2, (50, 3), generator=torch.Generator().manual_seed(0))
        assert EmbeddingCollection.from_plan(made)(ids).isfinite().all()
    with pytest.raises(BitfoldError, match="chunks must divide"):
        planned("robe", "10x", chunk=5)
    with pytest.raises(BitfoldError, match="chunks begin at any number"):
        planned("robe", "10x", bits=4)


def test_a_cell_outside_a_flat_array_is_no_cell_of_its_ring() -> None:
    pool = FlatPool(5, 3)
    for cell in (5, 6, -6):
        with pytest.raises(IndexError):
            pool(torch.tensor([0, cell]))
