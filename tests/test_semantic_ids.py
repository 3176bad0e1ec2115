"""Semantic ids by hand: digits of a hierarchy, what tells ids apart, what a plan weighs."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitfold import BitfoldError, BudgetTooSmall, EmbeddingBag, EmbeddingCollection, Field, plan
from bitfold.address.stored import unpack_bits
from bitfold.embedder.semantic import SemanticCodes, semantic_codes
from bitfold.fitting import fit
from bitfold.planning.statistics import Counted
from bitfold.training.phases import begun, ended, next_collection, stages

FIELDS = [Field("user", 300), Field("item", 200), Field("sex", 2)]


def read(points):
    return lambda ids: points[ids]


def hierarchy(kinds=3, sorts=3, each=4, seed=0):
    """Points of `kinds` far apart, each of `sorts` nearer ones, each of some that nearly meet."""
    random = np.random.default_rng(seed)
    kind, sort = np.divmod(np.arange(kinds * sorts * each) // each, sorts)
    far = 100.0 * np.eye(kinds)[kind]
    near = 10.0 * np.eye(sorts)[sort]
    points = np.concatenate([far, near], 1) + 0.01 * random.standard_normal((len(kind), 6))
    return points.astype(np.float32), kind, sort


def state_bytes(collection):
    return sum(each.nbytes for each in collection.serving().state_dict().values())


def test_digits_are_those_of_the_hierarchy():
    points, kind, sort = hierarchy()
    found = semantic_codes(read(points), np.ones(len(points)), 3, 2, tell=False)
    for names, digit in ((kind, found[:, 0]), (sort, found[:, 1])):
        # One digit for each name, whichever, and as many digits as names.
        assert len({(int(a), int(b)) for a, b in zip(names, digit, strict=True)}) == 3
        assert set(digit) == {0, 1, 2}


def test_the_last_digit_tells_apart_what_shares_the_others():
    points, _, _ = hierarchy()
    counts = np.tile([1.0, 4.0, 3.0, 2.0], 9)
    found = semantic_codes(read(points), counts, 4, 3)
    assert len(np.unique(found, axis=0)) == len(points)
    plain = semantic_codes(read(points), counts, 4, 2, tell=False)
    assert np.array_equal(found[:, :2], plain)
    for code in np.unique(plain, axis=0):
        same = (plain == code).all(1)
        order = np.argsort(-counts[same], kind="stable")
        assert found[same, 2][order].tolist() == list(range(same.sum()))


def test_ids_that_never_occur_have_no_code():
    points, _, _ = hierarchy()
    counts = np.ones(len(points))
    counts[[3, 20]] = 0
    found = semantic_codes(read(points), counts, 3, 3)
    assert (found[[3, 20]] == -1).all()
    assert (np.delete(found, [3, 20], 0) >= 0).all()
    assert (semantic_codes(read(points), 0 * counts, 3, 3) == -1).all()


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(1, 80),
    rows=st.integers(1, 9),
    digits=st.integers(2, 4),
    tell=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_digits_lie_below_their_radix_and_are_the_same_again(count, rows, digits, tell, seed):
    random = np.random.default_rng(seed)
    points = random.integers(-3, 4, (count, 2)).astype(np.float32)
    counts = random.integers(0, 3, count).astype(np.float64)
    one, two = (
        semantic_codes(read(points), counts, rows, digits, tell=tell, seed=seed) for _ in range(2)
    )
    assert np.array_equal(one, two)
    assert one[counts > 0].size == 0 or 0 <= one[counts > 0].min() <= one.max() < rows


def planned(fields=FIELDS, **more):
    return plan(fields, 8, **{"method": "semantic-ids", "budget": 5000, **more})


def test_alike_ids_share_first_rows_after_the_small_table():
    """Users in three kinds: after phase one their first digit is the kind, and rows follow it."""
    made = plan([Field("user", 300)], 64, method="semantic-ids", budget=3900, rows=3, digits=2)
    first = EmbeddingCollection.from_plan(begun(made), seed=1)
    first.embedder.prepare(Counted({"user": (np.arange(300), np.arange(300)[::-1] + 1.0)}))
    kinds = np.arange(300) % 3
    with torch.no_grad():
        weight = first.embedder.pool.weight
        weight.zero_()
        weight[:, 0] = torch.from_numpy(100.0 * kinds + 0.001 * np.arange(300))
    small, clusters = stages(first.plan, 4)
    after = next_collection(first, ended(first, small.phase), clusters.phase, seed=1)
    assert isinstance(after.embedder, SemanticCodes)
    assert after.plan.group == made.group
    source = after.embedder.program.fields[0][0].source
    table = after.embedder.stored.named()[source.table]
    code = unpack_bits(table, source.bits, source.length).numpy()
    pairs = {(int(a), int(b)) for a, b in zip(kinds, code % 3, strict=True)}
    assert len(pairs) == len({b for _, b in pairs}) == 3
    assert (code // 3 == np.arange(300) // 3 % 3).all()  # frequent ids first, in turn
    pool = after.embedder.pool.weight
    vectors = after(torch.arange(300).unsqueeze(1))[:, 0]
    assert torch.equal(vectors, pool[code % 3] + pool[3 + code // 3])
    assert state_bytes(after) == after.plan.bytes <= 3900


def test_bytes_are_counted_to_the_last_digit():
    made = planned()
    assert made.bytes <= 5000
    collection = EmbeddingCollection.from_plan(made, seed=0)
    assert state_bytes(collection) == made.bytes
    lookups = made.group.program.fields[0]
    assert len(lookups) == 3
    rows = lookups[0].radix
    bits = (rows**3 - 1).bit_length()
    pointers = sum(-(-size * bits // 8) for size in (300, 200))
    assert made.by_kind["pointers"] == pointers
    assert made.by_kind["weights"] == (2 * 3 * rows + 2) * 8 * 4


def test_a_trained_table_gives_digits_and_rows():
    """Given vectors that are sums of two rows: the codes say which, and the fit is exact."""
    random = np.random.default_rng(0)
    far = 100.0 * np.eye(4)[np.arange(160) % 4]
    near = np.eye(4)[np.arange(160) // 4 % 4]
    table = torch.tensor(np.concatenate([far, near], 1), dtype=torch.float32)
    table = table[torch.from_numpy(random.permutation(160))]
    made = plan(
        [Field("item", 160)], 8, method="semantic-ids", budget=600, rows=4, digits=2, tell=False
    )
    collection = EmbeddingCollection.from_plan(made, seed=0)
    (item,) = fit(collection.embedder, [table])
    assert item.error < 1e-4
    with torch.no_grad():
        vectors = collection(torch.arange(160).unsqueeze(1))[:, 0]
    assert torch.allclose(vectors, table, atol=1e-2)


def test_the_public_layers_take_it():
    bag = EmbeddingBag(400, 8, budget=4000, method="semantic-ids", mode="sum")
    out = bag(torch.tensor([1, 5, 7]), torch.tensor([0, 2]))
    assert torch.allclose(out[0], bag.weight[1] + bag.weight[5], atol=1e-6)


def test_mistakes_are_told():
    with pytest.raises(BitfoldError, match="digits"):
        planned(digits=1)
    with pytest.raises(BitfoldError, match="fusion"):
        planned(fusion="concat")
    with pytest.raises(BitfoldError, match="hashed"):
        planned([Field("query", distinct=300)])
    with pytest.raises(BudgetTooSmall) as told:
        planned(budget=100)
    assert planned(budget=told.value.minimum).bytes <= told.value.minimum
    with pytest.raises(BudgetTooSmall):
        planned(budget=told.value.minimum - 1)
