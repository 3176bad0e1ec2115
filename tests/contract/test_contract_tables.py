"""`TableCollection`: widths and poolings of each table's own, features that share one."""

import copy

import pytest
import torch
from torch import nn

from bitfold import BitfoldError, IdOutOfRange, Table, TableCollection
from bitfold.errors import BudgetTooSmall
from bitfold.testing.cases import Case

TABLES = [
    Table("item", 4, 40, features=("clicked", "shown", "saved"), mode="mean"),
    Table("user", 4, 300, mode="sum"),
    Table("day", 2, 7, features=("opened", "closed"), mode="max"),
    Table("place", 6, 90, mode="mean"),
]
SIZES = [40, 40, 40, 300, 7, 7, 90]


def collection(case: Case, tables=TABLES, **more) -> TableCollection:
    words = {"seed": 0, "method": case.method, **case.words, **more}
    words.setdefault("budget", None if case.is_table else "2x")
    try:
        return case.ready(TableCollection(tables, **words))
    except BudgetTooSmall:
        return case.ready(TableCollection(tables, **{**words, "budget": None}))


def ids_of(rows):
    generator = torch.Generator().manual_seed(rows)
    return torch.stack([torch.randint(0, n, (rows,), generator=generator) for n in SIZES], 1)


def bags_of(rows):
    """Bags by feature and row, some empty."""
    generator = torch.Generator().manual_seed(rows)
    return [
        [torch.randint(0, n, (int(k),), generator=generator) for k in lengths]
        for n, lengths in zip(
            SIZES, torch.randint(0, 4, (len(SIZES), rows), generator=generator), strict=True
        )
    ]


@pytest.mark.first_form
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_features_of_one_table_read_the_same_vectors(case, rows):
    tables = collection(case)
    ids = ids_of(rows)
    out = tables(ids)
    assert out.shape == (rows, 4 * 4 + 2 * 2 + 6)
    found = tables.by_feature(out)
    assert list(found) == list(tables.features)
    assert [each.shape[1] for each in found.values()] == list(tables.widths)
    moved = ids[:, [1, 2, 0, 3, 5, 4, 6]]  # the features of each table change places
    other = tables.by_feature(tables(moved))
    assert torch.equal(other["clicked"], found["shown"])
    assert torch.equal(other["saved"], found["clicked"])
    assert torch.equal(other["opened"], found["closed"])
    assert torch.equal(other["place"], found["place"])


@pytest.mark.first_form
def test_bags_are_pooled_as_each_table_says(case):
    tables, rows = collection(case), 4
    bags = bags_of(rows)
    flat = torch.cat([bag for column in bags for bag in column])
    offsets = torch.tensor([0, *[len(bag) for column in bags for bag in column]]).cumsum(0)
    found = tables.by_feature(tables(flat, offsets))
    modes = {name: table.mode for table in TABLES for name in table.features}
    for c, name in enumerate(tables.features):
        for b in range(rows):
            bag = bags[c][b]
            expected = torch.zeros(tables.widths[c])
            if len(bag):
                ids = ids_of(len(bag))
                ids[:, c] = bag
                singles = tables.by_feature(tables(ids))[name]
                expected = (
                    singles.amax(0) if modes[name] == "max" else getattr(singles, modes[name])(0)
                )
            torch.testing.assert_close(found[name][b], expected)


@pytest.mark.first_form
@pytest.mark.parametrize("sparse", [False, True])
def test_what_a_feature_learns_the_others_of_its_table_read(case, sparse):
    tables = collection(case, sparse=sparse)
    ids = torch.tensor([[3, 5, 5, 0, 0, 0, 0]])
    before = tables.by_feature(tables(ids).detach().clone())
    tables.by_feature(tables(ids))["clicked"].sum().backward()
    with torch.no_grad():
        for parameter in tables.parameters():
            if parameter.grad is not None:
                parameter -= parameter.grad.to_dense()
    swapped = torch.tensor([[5, 3, 5, 0, 0, 0, 0]])
    after = tables.by_feature(tables(swapped))
    assert not torch.equal(after["shown"], before["clicked"])  # id 3, by another feature
    assert torch.equal(after["opened"], before["opened"])
    assert torch.equal(after["place"], before["place"])


def test_full_is_torchs_bags_of_one_weight():
    tables = collection(Case("full"))
    bags = bags_of(5)
    flat = torch.cat([bag for column in bags for bag in column])
    offsets = torch.tensor([0, *[len(bag) for column in bags for bag in column]]).cumsum(0)
    found = tables.by_feature(tables(flat, offsets))
    zeros = torch.zeros(1, 7).long()
    for table in TABLES:
        rows = torch.arange(table.num_embeddings)
        ids = zeros.repeat(len(rows), 1)
        ids[:, tables.features.index(table.features[0])] = rows
        weight = tables.by_feature(tables(ids))[table.features[0]].detach()
        theirs = nn.EmbeddingBag.from_pretrained(weight, mode=table.mode)
        for name in table.features:
            column = bags[tables.features.index(name)]
            starts = torch.tensor([0, *map(len, column)]).cumsum(0)[:-1]
            torch.testing.assert_close(found[name].detach(), theirs(torch.cat(column), starts))


def test_weights_are_for_sums():
    case = Case("hash")
    tables = collection(case, [Table("a", 4, 9, features=("x", "y")), Table("b", 2, 9)])
    ids, offsets = torch.tensor([1, 2, 3, 4]), torch.tensor([0, 2, 3, 4])
    weights = torch.tensor([1.0, -2.0, 3.0, 0.5])
    out = tables.by_feature(tables(ids, offsets, weights))
    single = tables.by_feature(tables(torch.tensor([[1, 3, 4], [2, 3, 4]])))
    torch.testing.assert_close(out["x"][0], single["x"][0] - 2 * single["x"][1])
    torch.testing.assert_close(out["b"][0], single["b"][0] / 2)
    with pytest.raises(BitfoldError, match="sums"):
        collection(case)(torch.zeros(7).long(), torch.arange(8), torch.ones(7))


def test_budgets_hold_over_all_widths():
    full = 4 * sum(table.num_embeddings * table.embedding_dim for table in TABLES)
    for budget, most in (("2x", full // 2), (full // 2, full // 2), ("3KB", 3000)):
        tables = TableCollection(TABLES, budget=budget, method="hash")
        size = sum(tensor.nbytes for tensor in tables.state_dict().values())
        assert size == sum(tables.bytes().values()) == sum(plan.bytes for plan in tables.plans)
        assert size <= most
    with pytest.raises(BudgetTooSmall) as error:
        TableCollection(TABLES, budget=64)
    least = TableCollection(TABLES, budget=error.value.minimum)
    assert sum(least.bytes().values()) <= error.value.minimum
    with pytest.raises(BudgetTooSmall):
        TableCollection(TABLES, budget=error.value.minimum - 1)


def test_a_width_too_small_for_its_share_gets_the_least_of_the_others():
    tables = [Table("item", 16, 50_000), Table("weekday", 4, 7)]
    made = TableCollection(tables, budget="50x")
    full = 4 * (50_000 * 16 + 7 * 4)
    assert sum(made.bytes().values()) <= full // 50
    assert made(torch.tensor([[49_999, 6]])).shape == (1, 20)


def test_copies_states_and_starts():
    one = TableCollection(TABLES, budget="2x")
    other = TableCollection(TABLES, budget="2x")
    ids = ids_of(3)
    assert not torch.equal(one(ids), other(ids))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(ids), other(ids))
    assert torch.equal(copy.deepcopy(one)(ids), one(ids))
    seeded = TableCollection(TABLES, budget="2x", seed=3)
    assert torch.equal(TableCollection(TABLES, budget="2x", seed=3)(ids), seeded(ids))
    graph = torch.fx.symbolic_trace(nn.Sequential(one, nn.Linear(26, 1)))
    assert torch.equal(graph(ids), nn.Sequential(one, graph.get_submodule("1"))(ids))
    assert "features=7" in repr(one)
    one.reset_parameters()
    assert not torch.equal(one(ids), other(ids))


def test_hashed_and_dense_tables_side_by_side():
    tables = TableCollection(
        [Table("q", 4, distinct=500, features=("now", "last")), Table("d", 2, 7)], budget="2x"
    )
    ids = torch.tensor([[-(2**63), 2**63 - 1, 6]])
    found = tables.by_feature(tables(ids))
    again = tables.by_feature(tables(ids[:, [1, 0, 2]]))
    assert torch.equal(found["now"], again["last"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: TableCollection([]), "no tables"),
        (lambda: TableCollection([Table("a", 4, 9), Table("a", 4, 9)]), "tables share a name"),
        (
            lambda: TableCollection([Table("a", 4, 9), Table("b", 4, 9, features=("a",))]),
            "features share a name",
        ),
        (lambda: Table("a", 4, 9, mode="median"), "mode"),
        (lambda: Table("a", 4, 9, features="xy"), "tuple"),
        (lambda: TableCollection([Table("a", 0, 9)]), "width"),
        (lambda: TableCollection(TABLES)(torch.zeros(2, 6).long()), "a column for each feature"),
        (lambda: TableCollection(TABLES)(torch.zeros(2).long(), torch.arange(3)), "feature by"),
        (lambda: TableCollection(TABLES)(torch.zeros(9).long(), torch.arange(1, 9)), "offsets"),
        (
            lambda: TableCollection([Table("a", 4), Table("b", 2, 9)], budget=5000),
            "no known size",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(wrong, message):
    with pytest.raises(BitfoldError, match=message):
        wrong()


def test_an_id_that_is_none_names_its_table():
    ids = torch.zeros(2, 7).long()
    ids[1, 5] = 7
    with pytest.raises(IdOutOfRange, match="'day'"):
        collection(Case("hash"))(ids)
