"""Plans: never above the budget, an exact minimum, nothing wasted, JSON and back."""

import json
import math

import pytest
import torch
from hypothesis import assume, currently_in_test_context, given
from hypothesis import strategies as st

import bitfold
from bitfold import BitfoldError, BudgetTooSmall, EmbeddingCollection, Field, Plan, UnknownName
from bitfold.method.registry import method_kinds
from bitfold.planning.budget import full_bytes
from drawn_plans import dense_fields, fitting_plan, hashed_fields, least_budget, options, spares

FIELDS = [Field("user", 6040), Field("movie", 3706), Field("age", 7), Field("gender", 2)]
LOG = [*FIELDS, Field("query", distinct=50_000)]
DIMS = st.sampled_from([1, 2, 16, 30])
METHODS = method_kinds()
DTYPES = st.sampled_from(["float32", "float64", "float16", "bfloat16"])


def methods_that_take(fields):
    return [
        name
        for name, info in bitfold.methods().items()
        if info.hashed_ids or not any(field.hashed for field in fields)
    ]


@given(st.data(), dense_fields(10**7), DIMS, DTYPES, st.integers(1, 10**9))
def test_no_method_exceeds_its_budget(data, fields, dim, dtype, budget):
    method = data.draw(st.sampled_from(methods_that_take(fields)))
    words = {"method": method, "dtype": dtype}
    minimum = least_budget(fields, dim, **words)
    if budget < minimum:
        with pytest.raises(BudgetTooSmall):
            bitfold.plan(fields, dim, budget=budget, **words)
        budget = minimum
    assert 0 < bitfold.plan(fields, dim, budget=budget, **words).bytes <= budget


@given(dense_fields(), DIMS, options(), spares(), DTYPES)
def test_binary_code_never_exceeds_its_budget(fields, dim, words, spare, dtype):
    made = fitting_plan(fields, dim, spare, dtype=dtype, **words)
    assert 0 < made.bytes <= made.budget


@given(hashed_fields(), options(hashed=True), spares())
def test_nor_with_hashed_ids(fields, words, spare):
    made = fitting_plan(fields, 4, spare, **words)
    assert 0 < made.bytes <= made.budget


def check_minimum_is_exact(fields, dim, **words):
    minimum = least_budget(fields, dim, **words)
    if currently_in_test_context():
        assume(minimum < 2**63)  # int64 numbers the cells
    if minimum > 1:
        bitfold.plan(fields, dim, budget=minimum, **words)
        with pytest.raises(BudgetTooSmall) as below:
            bitfold.plan(fields, dim, budget=minimum - 1, **words)
        assert below.value.minimum == minimum


@given(dense_fields(), st.sampled_from([1, 16]), options())
def test_the_named_minimum_is_the_least_that_works(fields, dim, words):
    check_minimum_is_exact(fields, dim, **words)


@given(hashed_fields(), st.sampled_from([1, 16]), options(hashed=True))
def test_the_named_minimum_is_the_least_that_works_for_hashed_ids(fields, dim, words):
    check_minimum_is_exact(fields, dim, **words)


@pytest.mark.parametrize("method", bitfold.methods())
def test_every_method_names_an_exact_minimum(method):
    for fields in (FIELDS, LOG):
        if method in methods_that_take(fields):
            check_minimum_is_exact(fields, 16, method=method)


@pytest.mark.parametrize("scale", ["slice", "row"])
@pytest.mark.parametrize("method", [name for name, kind in METHODS.items() if kind.traits.narrow])
def test_every_method_names_an_exact_minimum_of_few_bits(method, scale):
    for fields in (FIELDS, LOG, FIELDS[3:]):
        for bits in (8, 4, 2) if method in methods_that_take(fields) else ():
            check_minimum_is_exact(fields, 16, method=method, bits=bits, scale=scale)


@given(dense_fields(), st.sampled_from([2, 16]), options(), st.sampled_from([8, 4, 1]), spares())
def test_the_least_of_few_bits_works_and_so_does_whatever_is_more(fields, dim, words, bits, spare):
    assume(not (words.get("block_bits") and words.get("fusion") == "concat"))
    check_minimum_is_exact(fields, dim, bits=bits, **words)
    made = fitting_plan(fields, dim, spare, bits=bits, **words)
    assert 0 < made.bytes <= made.budget


@pytest.mark.parametrize("budget", [1000, 2000, 3500, 8000])
@pytest.mark.parametrize("scale", ["slice", "row"])
@pytest.mark.parametrize("bits", [8, 4])
def test_steps_that_are_not_needed_buy_rows(bits, scale, budget):
    sizes = (6040, 3706, 2, 7, 21, 3439, 81)
    fields = [Field(f"f{number}", size) for number, size in enumerate(sizes)]
    for method in ("binary-code", "hash", "multi-hash"):
        made = bitfold.plan(fields, 16, method=method, budget=budget, bits=bits, scale=scale)
        assert 0.8 * budget <= made.bytes <= budget


@pytest.mark.parametrize("fusion", ["sum", "product", "weighted", "concat"])
@pytest.mark.parametrize("ratio", ["2x", "10x", "100x"])
@pytest.mark.parametrize("digits", ["positional", "residues"])
def test_binary_code_uses_its_budget(fusion, ratio, digits):
    fields = [Field("user", 604_000), Field("movie", 37_060), Field("gender", 2)]
    made = bitfold.plan(fields, 16, budget=ratio, fusion=fusion, digits=digits)
    assert 0.97 * made.budget <= made.bytes <= made.budget


@pytest.mark.parametrize("method", ["hash", "multi-hash", "binary-code", "dhe"])
@pytest.mark.parametrize("fields", [FIELDS, LOG], ids=["dense", "with hashed"])
def test_compressing_methods_use_their_budget(method, fields):
    for ratio in ("3x", "10x", "50x"):
        made = bitfold.plan(fields, 16, method=method, budget=ratio)
        assert 0.97 * made.budget <= made.bytes <= made.budget


@pytest.mark.parametrize("method", sorted(bitfold.methods().keys() - {"dhe"}))  # which has no rows
def test_a_budget_of_the_full_table_keeps_every_id_whole(method):
    made = bitfold.plan(FIELDS, 16, method=method, budget="1x")
    assert made.bytes == full_bytes(FIELDS, 16)
    assert [row["rows"] for row in made.rows()] == [6040, 3706, 7, 2]


def test_an_allocation_of_zero_keeps_small_fields_whole():
    made = bitfold.plan(FIELDS, 16, method="hash", budget="20x", allocation=0.0)
    by_name = {row["field"]: row["rows"] for row in made.rows()}
    assert (by_name["age"], by_name["gender"]) == (7, 2)
    alike = bitfold.plan(FIELDS, 16, method="hash", budget="20x", allocation=1.0)
    user, movie = (row["rows"] for row in alike.rows()[:2])
    assert user / movie == pytest.approx(6040 / 3706, rel=0.02)


@given(dense_fields(), options(), spares())
def test_a_plan_goes_through_json_and_back(fields, words, spare):
    made = fitting_plan(fields, 4, spare, **words)
    again = Plan.from_json(json.loads(json.dumps(made.to_json())))
    assert again == made
    assert again.program.fingerprint == made.program.fingerprint


def test_a_plan_of_more_bytes_than_a_float_counts_goes_through_json_and_back():
    fields = [Field("f", 2**49 + 1)]
    minimum = least_budget(fields, 4, method="binary-code", blocks=1)
    made = bitfold.plan(fields, 4, budget=minimum, method="binary-code", blocks=1)
    assert made.bytes > 2**53
    assert Plan.from_json(json.loads(json.dumps(made.to_json()))) == made


def test_the_ratio_is_full_bytes_over_bytes():
    made = bitfold.plan(FIELDS, 16, budget="10x")
    assert made.ratio == full_bytes(FIELDS, 16) / made.bytes
    unknown = bitfold.plan([Field("q")], 16, budget=4096, code_bits=20)
    assert unknown.ratio is None


def saved(**changes):
    made = bitfold.plan(FIELDS, 16, method="binary-code", budget="10x")
    return {**made.to_json(), **changes}


def group(**changes):
    values = saved()
    values["groups"][0] |= changes
    return values


def first_version():
    """What the first version of the format would hold of the same plan."""
    values = saved()
    (one,) = values["groups"]
    kept = ("method", "method_version", "options", "program", "fusion", "dtype")
    old = {name: one[name] for name in kept}
    old |= {name: values[name] for name in ("fields", "embedding_dim", "budget")}
    return old | {"plan_version": 1, "by_kind": {"weights": 1}}


def test_a_plan_of_version_1_is_one_group_with_the_same_cells_and_bytes():
    made, old = Plan.from_json(saved()), Plan.from_json(first_version())
    assert old.program == made.program
    assert old.by_kind == made.by_kind  # counted anew, whatever the file says
    assert old == made


@pytest.mark.parametrize("version", [0, 3, 99, None, "1"])
def test_a_plan_of_a_newer_format_is_refused(version):
    with pytest.raises(BitfoldError, match="format"):
        Plan.from_json(saved(plan_version=version))


def test_a_plan_of_a_newer_method_is_refused():
    with pytest.raises(BitfoldError, match="newer"):
        EmbeddingCollection.from_plan(Plan.from_json(group(method_version=99)))


@pytest.mark.parametrize("part", ["groups", "fields", "embedding_dim", "budget"])
def test_a_plan_that_lacks_a_part_is_refused(part):
    values = saved()
    del values[part]
    with pytest.raises(BitfoldError, match=f"missing required field `{part}`"):
        Plan.from_json(values)


@pytest.mark.parametrize("part", ["program", "fusion", "pools", "width", "stored"])
def test_a_group_that_lacks_a_part_is_refused(part):
    values = saved()
    del values["groups"][0][part]
    with pytest.raises(BitfoldError, match=f"missing required field `{part}`"):
        Plan.from_json(values)


def tampered():
    program = saved()["groups"][0]["program"]
    pool = saved()["groups"][0]["pools"][0]
    far = json.loads(json.dumps(program))
    far["fields"][0][0]["base"] = 10**6
    zero = json.loads(json.dumps(program))
    zero["fields"][0][0]["divisor"] = 0
    return {
        "rows": group(program={**program, "rows": program["rows"] // 2}),
        "rows of the pool": group(pools=[{**pool, "rows": pool["rows"] // 2}]),
        "width of the pool": group(pools=[{**pool, "width": 8}]),
        "numbers of the pool": group(pools=[{**pool, "numbers": "q5"}]),
        "no pool": group(pools=[]),
        "base": group(program=far),
        "divisor": group(program=zero),
        "chunks": group(program={**program, "chunks": 5}),
        "no lookups": group(program={**program, "fields": []}),
        "text for a program": group(program="x"),
        "unknown option": group(options={"no-such": 1}),
        "unknown method": group(method="no-such"),
        "unknown dtype": group(dtype="int8"),
        "unknown fusion": group(fusion="no-such"),
        "unknown kind": group(stored=[{"name": "a", "length": 1, "bits": 1, "kind": "b"}]),
        "a field twice": group(fields=[0, 0, 1, 2]),
        "no groups": saved(groups=[]),
        "width": saved(embedding_dim=0),
        "bad field": saved(fields=[{"name": "user", "num_embeddings": -1}]),
        "a field fewer": saved(fields=saved()["fields"][1:]),
    }


@pytest.mark.parametrize(("what", "values"), tampered().items(), ids=tampered().keys())
def test_a_plan_tampered_with_is_refused(what, values):
    with pytest.raises(BitfoldError):
        EmbeddingCollection.from_plan(Plan.from_json(values))


@pytest.mark.parametrize(
    ("fields", "dim", "words", "says"),
    [
        ([], 16, {}, "no fields"),
        ([Field("a", 3), Field("a", 4)], 16, {}, "share a name"),
        (FIELDS, 0, {}, "width"),
        (FIELDS, -1, {}, "width"),
        (FIELDS, 1.5, {}, "width"),
        (FIELDS, True, {}, "width"),
        (FIELDS, 16, {"budget": 0}, "budget"),
        (FIELDS, 16, {"budget": "ten"}, "budget"),
        (FIELDS, 15, {"budget": "10x", "fusion": "concat", "blocks": 2}, "divide the width"),
        (FIELDS, 16, {"budget": "10x", "blocks": 0}, "blocks"),
        (FIELDS, 16, {"budget": "10x", "balance": 2.0}, "balance"),
        (FIELDS, 16, {"budget": "10x", "blocks": 2, "block_bits": 3}, "twice"),
        (FIELDS, 16, {"budget": "10x", "method": "hash", "allocation": -1.0}, "allocation"),
        (FIELDS, 16, {"budget": "10x", "method": "multi-hash", "hashes": 0}, "hashes"),
        (FIELDS, 16, {"method": "hash"}, "needs a budget"),
        ([Field("q")], 16, {"budget": "10x"}, "no known size"),
        ([Field("q")], 16, {"block_bits": 8}, "no known width of code"),
        (LOG, 16, {"method": "full"}, "cannot take hashed ids"),
        (FIELDS, 16, {"dtype": torch.int64}, "floating"),
    ],
)
def test_mistakes_are_named(fields, dim, words, says):
    with pytest.raises(BitfoldError, match=says):
        bitfold.plan(fields, dim, **words)


@pytest.mark.parametrize(
    ("words", "nearest"),
    [
        ({"method": "binarycode"}, "'binary-code'"),
        ({"method": "ful"}, "'full'"),
        ({"blcks": 3}, "'blocks'"),
        ({"strategy": "skp"}, "'skip'"),
        ({"fusion": "products"}, "'product'"),
    ],
)
def test_unknown_names_get_the_nearest(words, nearest):
    with pytest.raises(UnknownName, match=f"did you mean {nearest}"):
        bitfold.plan(FIELDS, 16, budget="10x", **words)


def test_options_arrive_as_text_too():
    text = bitfold.plan(FIELDS, 16, budget="10x", blocks="3", mix="true", balance="0.5")
    values = bitfold.plan(FIELDS, 16, budget="10x", blocks=3, mix=True, balance=0.5)
    assert text == values
    with pytest.raises(BitfoldError, match="wrong type"):
        bitfold.plan(FIELDS, 16, budget="10x", blocks="three")


def test_a_pool_that_int64_cannot_number_is_refused():
    with pytest.raises(BitfoldError, match="more cells than an int64"):
        bitfold.plan([Field("q")], 1, budget=2**70, blocks=1, code_bits=63)


def test_hashed_ids_of_unknown_number_get_as_wide_a_code_as_the_budget_allows():
    small, large = (
        bitfold.plan([Field("q")], 16, method="binary-code", budget=size)
        for size in ("8KiB", "8MiB")
    )
    for made, least_bits in ((small, 16), (large, 56)):
        radices = [lookup.radix for lookup in made.program.fields[0]]
        assert len(radices) <= 4
        assert math.prod(radices) >= 2**least_bits
        assert made.bytes >= 0.97 * made.budget
