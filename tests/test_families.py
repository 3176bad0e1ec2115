"""The families of other papers: each against what its paper says of an id, by hand."""

import pytest
import torch

import bitfold
from bitfold import BitfoldError, BudgetTooSmall, EmbeddingCollection, Field
from bitfold.address.mixing import derive_salt, mix_int
from bitfold.method.registry import method_kind
from bitfold.planning.ask import Ask
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


@pytest.mark.parametrize(("ratio", "own"), [("2x", True), ("10x", False)])
def test_hash_embeddings_weigh_rows_by_importances_of_the_id(ratio: str, own: bool) -> None:
    made = planned("hash-embeddings", ratio, hashes=3, share=0.5)
    module = EmbeddingCollection.from_plan(made, seed=0)
    embedder = module.embedder
    table, learned = pool_of(module), embedder.importance.weight
    with torch.no_grad():
        learned.normal_()
    assert made.by_kind["importances"] == learned.nbytes
    assert (len(learned) == 6040 + 3706) == own
    ids, base = torch.tensor([[4000, 3705, 1]]), 0
    vectors = module(ids).detach()[0]
    for f, rows in enumerate(embedder.rows[:2]):
        value, lookups = int(ids[0, f]), made.program.fields[f]
        place = value
        if not own:
            salt = derive_salt(lookups[0].source.salt, 0)
            place = mix_int(value, salt, 64) * rows >> 64
        weights = learned[base + place].detach()
        expected = weights @ table[made.program.cells_int(f, value)]
        torch.testing.assert_close(vectors[f], expected)
        base += rows
    assert torch.equal(vectors[2], table[made.program.cells_int(2, 1)[0]])  # whole: not weighed


def test_hash_embeddings_start_as_a_sum_of_rows() -> None:
    made = planned("hash-embeddings", "10x")
    module, ids = EmbeddingCollection.from_plan(made, seed=0), torch.tensor([[4000, 3705, 1]])
    table = pool_of(module)
    for f in range(2):
        expected = table[made.program.cells_int(f, int(ids[0, f]))].sum(0)
        torch.testing.assert_close(module(ids)[0, f].detach(), expected)


def test_hash_embeddings_spend_all_and_say_the_least() -> None:
    for ratio in RATIOS:
        for share in (0.1, 0.25, 0.9):
            made = planned("hash-embeddings", ratio, share=share)
            folded = made.by_kind["importances"] < 8 * (6040 + 3706)
            assert 0 <= made.budget - made.bytes < (8 if folded else 64)
    with pytest.raises(BudgetTooSmall) as error:
        planned("hash-embeddings", 1)
    assert error.value.minimum == 3 * 64 + 3 * 8 + 8
    for budget in range(error.value.minimum, error.value.minimum + 200, 7):
        made = planned("hash-embeddings", budget)
        ids = torch.tensor([[6039, 3705, 1], [0, 0, 0]])
        assert EmbeddingCollection.from_plan(made)(ids).isfinite().all()
    for share in (0.0, 1.0):
        with pytest.raises(BitfoldError, match="share"):
            planned("hash-embeddings", "10x", share=share)


@pytest.mark.parametrize("method", ["low-rank", "mixed-dimensions"])
def test_narrow_rows_are_lifted_by_a_matrix_of_their_field(method: str) -> None:
    made = planned(method, "3x")
    module = EmbeddingCollection.from_plan(made, seed=0)
    ids = torch.tensor([[6039, 17, 1], [3, 3705, 0]])
    vectors = module(ids).detach()
    assert len(made.groups) > 1
    for group, part in zip(made.groups, module.embedder.parts, strict=True):
        table, bases = part.pool.weight, part.program.fields
        assert table.shape[1] == group.width
        for place, f in enumerate(group.fields):
            expected = table[bases[place][0].base + ids[:, f]]
            if group.width < 16:
                expected = expected @ part.head.weight[place]
            torch.testing.assert_close(vectors[:, f], expected.detach())
    first = [part.pool.weight[0, :2] for part in module.embedder.parts]
    assert not any(torch.equal(one, other) for one in first for other in first if one is not other)


def widths_of(made: Plan) -> list[int]:
    return [row["width"] for row in made.rows()]


def test_low_rank_has_one_width_but_for_what_is_left() -> None:
    for ratio in ("2x", "5x", "10x"):
        made = planned("low-rank", ratio)
        user, movie, gender = widths_of(made)
        assert gender == 16
        assert abs(user - movie) <= 1
        assert made.budget - made.bytes < 4 * 3706 + 64


def test_widths_fall_with_the_number_of_ids_as_their_power() -> None:
    fields = [Field("a", 100_000), Field("b", 1000), Field("c", 10)]
    flat, steep = (
        bitfold.plan(fields, 64, method="mixed-dimensions", budget="10x", alpha=alpha)
        for alpha in (0.0, 0.5)
    )
    one, _, whole = widths_of(flat)
    assert (one, whole) == (6, 64)
    wide, narrow, whole = widths_of(steep)
    assert (wide, whole) == (5, 64)
    assert narrow == 64 or narrow == pytest.approx(wide * 10, rel=0.2)
    assert all(0 <= each.budget - each.bytes < 400_000 + 256 for each in (flat, steep))


@pytest.mark.parametrize("method", ["low-rank", "mixed-dimensions"])
def test_the_least_is_a_number_an_id(method: str) -> None:
    with pytest.raises(BudgetTooSmall) as error:
        planned(method, 1000)
    assert error.value.minimum == 4 * (6040 + 3706 + 2) + 3 * 64
    made = planned(method, error.value.minimum)
    assert made.bytes == error.value.minimum
    assert widths_of(made) == [1, 1, 1]
    with pytest.raises(BudgetTooSmall):
        planned(method, error.value.minimum - 1)
    with pytest.raises(BitfoldError, match="row per id"):
        bitfold.plan([Field("q", distinct=100)], 8, method=method, budget="2x")
    with pytest.raises(BitfoldError, match="several ways"):
        method_kind(method)().plan(Ask((Field("a", 900), Field("b", 9)), 8, 10_000))


def test_mixed_dimensions_need_a_power() -> None:
    for alpha in (-0.1, 2.5):
        with pytest.raises(BitfoldError, match="alpha"):
            planned("mixed-dimensions", "3x", alpha=alpha)


ROWS = ("quotient-remainder", "unified", "hash-embeddings", "low-rank", "mixed-dimensions")


@pytest.mark.parametrize("bits", [4, 2])
@pytest.mark.parametrize("method", ROWS)
def test_families_of_rows_are_served_in_few_bits_to_the_byte(method: str, bits: int) -> None:
    """Trained rounded, so what is packed gives the same vectors."""
    made = planned(method, "50x", bits=bits)
    assert made.bytes <= made.budget
    module = EmbeddingCollection.from_plan(made, seed=0)
    ids = torch.stack([torch.arange(0, size, size // 2)[:2] for size in (6040, 3706, 2)], 1)
    steps = torch.optim.Adam(module.parameters(), lr=0.01)
    for _ in range(3):
        steps.zero_grad()
        (module(ids) - 1).square().sum().backward()
        steps.step()
    module.eval()
    served = module.serving()
    assert torch.equal(served(ids), module(ids))
    assert sum(tensor.nbytes for tensor in served.state_dict().values()) == made.bytes
    assert {pool.bits for group in made.groups for pool in group.pools} == {bits}
