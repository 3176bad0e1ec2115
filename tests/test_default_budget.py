"""Without a budget no table becomes larger than the full one."""

import pytest
import torch

import bitfold
from bitfold.embedding import Embedding, EmbeddingCollection
from bitfold.errors import BitfoldError, BudgetTooSmall
from bitfold.method.planner import plan
from bitfold.planning.budget import full_bytes
from bitfold.planning.field import Field

FORMS = [
    {},
    {"sharing": "fields"},
    {"sharing": "shared"},
    {"fusion": "concat"},
    {"fusion": "sum", "digits": "residues"},
    {"strategy": "skip"},
    {"blocks": 3},
    {"balance": 1.0},
]
FIELDS = [
    [Field("user", distinct=60), Field("item", distinct=40), Field("city", distinct=5)],
    [Field("user", distinct=100_000), Field("item", distinct=700)],
    [Field("user", 6040), Field("query", distinct=300)],
    [Field("user", 3), Field("item", 1000)],
    [Field("ids", distinct=1000)],
]


@pytest.mark.parametrize("options", FORMS, ids=str)
@pytest.mark.parametrize("fields", FIELDS, ids=lambda fields: "+".join(str(f.size) for f in fields))
def test_binary_codes_are_never_larger_than_the_full_table(fields, options):
    made = plan(fields, 8, **options)
    assert made.bytes <= full_bytes(fields, 8)
    assert made.budget is None
    wide = plan(fields, 8, dtype=torch.float64, **options)
    assert wide.bytes <= 2 * full_bytes(fields, 8)


def test_what_fits_is_as_it_was():
    fields = [Field("ids", distinct=10**6)]
    assert plan(fields, 8).program.rows < 10**6
    assert plan(fields, 8) == plan(fields, 8, budget=None)


SIZED = ("auto", "full", "binary-code")  # methods with a size of their own


@pytest.mark.parametrize("method", sorted(bitfold.methods()))
@pytest.mark.parametrize(
    "ids", [{"num_embeddings": 500}, {"num_embeddings": None, "distinct": 500}]
)
def test_every_method_in_a_layer(method, ids):
    needed = dict.fromkeys(bitfold.methods().keys() - {*SIZED}, "needs a budget")
    if method == "full" and ids["num_embeddings"] is None:
        needed["full"] = "dense"
    if method in needed:
        with pytest.raises(BitfoldError, match=needed[method]):
            Embedding(embedding_dim=8, method=method, **ids)
        return
    layer = Embedding(embedding_dim=8, method=method, **ids)
    assert layer.plan.bytes <= 500 * 8 * 4
    assert layer(torch.tensor([1, 499])).shape == (2, 8)


def test_a_collection():
    assert EmbeddingCollection(FIELDS[0], 4).plan.bytes <= full_bytes(FIELDS[0], 4)


def test_a_few_ids_take_the_least_that_there_is():
    assert plan([Field("ids", distinct=1)], 4, method="binary-code").bytes == 40
    with pytest.raises(BudgetTooSmall, match="block_bits"):
        plan([Field("ids", distinct=1000)], 4, block_bits=14)
