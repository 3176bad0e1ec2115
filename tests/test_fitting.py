"""Fitting trained tables: exact where it can be, never worse than plain means, streaming."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bitfold
from bitfold import BitfoldError, EmbeddingCollection, Field
from bitfold.fitting import few_bits, fit
from bitfold.fitting.linear import conjugate
from bitfold.fitting.products import blocks, turn
from bitfold.fitting.reading import Reading, loss
from bitfold.fitting.tables import Trained
from bitfold.kernels.choice import plain_torch

FIELDS = [Field("user", 700), Field("item", 260), Field("day", 7)]
DIM = 8


def made(method, budget="6x", fields=FIELDS, dim=DIM, seed=0, **options):
    return EmbeddingCollection(fields, dim, method=method, budget=budget, seed=seed, **options)


@torch.no_grad()
def tables_of(collection):
    """The tables that a collection of dense fields stands for."""
    found = []
    for number, field in enumerate(collection.fields):
        ids = torch.zeros(field.num_embeddings, len(collection.fields), dtype=torch.int64)
        ids[:, number] = torch.arange(field.num_embeddings)
        with plain_torch():  # which compiles nothing
            found.append(collection(ids)[:, number].clone())
    return found


def drawn(fields=FIELDS, dim=DIM, seed=0, rank=3, noise=0.5):
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(*shape, generator=generator)

    return [
        randn(f.num_embeddings, rank) @ randn(rank, dim) + noise * randn(f.num_embeddings, dim)
        for f in fields
    ]


def zipf(fields=FIELDS):
    return [1 + 10_000 // (1 + torch.arange(field.num_embeddings)) for field in fields]


# What a family can hold it does hold.


@pytest.mark.parametrize(
    ("method", "options", "least"),
    [
        ("full", {"budget": None}, 1e-6),
        ("hash", {}, 1e-6),
        ("multi-hash", {}, 1e-3),
        ("multi-hash", {"fusion": "mean", "hashes": 3}, 1e-3),
        ("multi-hash", {"fusion": "concat"}, 1e-6),
        ("binary-code", {"fusion": "sum"}, 1e-3),
        ("binary-code", {"fusion": "weighted"}, 1e-3),
        ("binary-code", {"fusion": "sum", "sharing": "fields"}, 1e-3),
        ("binary-code", {"fusion": "concat", "blocks": 4}, 1e-6),
        ("binary-code", {"fusion": "product", "sharing": "none"}, 1e-2),
        ("binary-code", {"fusion": "product", "sharing": "first"}, 2e-2),
        ("binary-code", {"fusion": "product", "sharing": "none", "budget": "30x"}, 1e-2),
        ("quotient-remainder", {}, 1e-2),
        ("unified", {}, 1e-6),
        ("unified", {"fusion": "sum"}, 1e-3),
        ("robe", {"signs": True}, 1e-6),
        ("hash-embeddings", {}, 1e-3),
        ("low-rank", {}, 1e-3),
        ("low-rank", {"budget": "2x"}, 1e-3),
        ("mixed-dimensions", {"alpha": 0.6}, 1e-3),
    ],
)
def test_a_table_that_the_family_can_hold_is_held(method, options, least):
    source = made(method, **options, seed=5)
    target = made(method, **options, seed=5)
    target.embedder.redraw(0.1, torch.Generator().manual_seed(9))
    fitted = fit(target.embedder, tables_of(source))
    assert max(each.error for each in fitted) < least, fitted


def test_clusters_that_are_there_are_found():
    centres = torch.randn(6, DIM, generator=torch.Generator().manual_seed(2))
    table = centres[torch.arange(700) * 7 % 6]
    collection = made("cce", "12x", [Field("user", 700)], chunks=1)
    (user,) = fit(collection.embedder, [table])
    assert user.error < 1e-3
    assert user.how.startswith("k-means")


def test_the_largest_numbers_are_kept():
    (table,) = drawn(FIELDS[:1])
    collection = made("pep", "4x", FIELDS[:1])
    (user,) = fit(collection.embedder, [table])
    kept = collection.plan.group.pools[0].kept
    squares = table.square().flatten().sort(descending=True).values
    best = float(squares[kept:].sum() / squares.sum()) ** 0.5
    assert user.error == pytest.approx(best, abs=1e-4)


# Never worse than what is plain.


@pytest.mark.parametrize("often", [None, zipf()])
def test_rows_of_the_hash_trick_are_weighted_means(often):
    tables, collection = drawn(), made("hash")
    fit(collection.embedder, tables, often)
    part = collection.embedder
    table = tables[0].double().numpy()
    weights = np.ones(700) if often is None else often[0].double().numpy()
    weights = weights if often is None else weights + 1e-3 * weights.mean()
    ids = torch.zeros(700, 3, dtype=torch.int64)
    ids[:, 0] = torch.arange(700)
    cells = part.address.cells(ids)[:, 0, 0, 0].numpy()
    for cell in np.unique(cells):
        here = cells == cell
        mean = np.average(table[here], axis=0, weights=weights[here])
        got = part.pool.weight.detach().numpy()[cell]
        np.testing.assert_allclose(got, mean, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fusion", ["sum", "mean", "product"])
@pytest.mark.parametrize("budget", ["4x", "20x"])
def test_terms_together_are_never_worse_than_means_by_the_first_digit(fusion, budget):
    tables, often = drawn(), zipf()
    collection = made("binary-code", budget, fusion=fusion, sharing="none")
    fitted = fit(collection.embedder, tables, often)
    for number, (table, count) in enumerate(zip(tables, often, strict=True)):
        lookup = collection.embedder.program.fields[number][0]
        ids = torch.arange(len(table))
        cells = (ids // lookup.divisor) % lookup.radix
        weight = count.double()[:, None]
        sums = torch.zeros(lookup.radix, DIM, dtype=torch.float64)
        sums.index_add_(0, cells, table.double() * weight)
        mass = torch.zeros(lookup.radix, 1, dtype=torch.float64).index_add_(0, cells, weight)
        off = table.double() - (sums / mass.clamp_min(1e-9))[cells]
        plain = (off.square() * weight).sum() / (table.double().square() * weight).sum()
        assert fitted[number].error <= float(plain) ** 0.5 + 1e-4
        assert fitted[number].error <= 1


@pytest.mark.parametrize("method", ["hash", "binary-code", "multi-hash", "low-rank"])
def test_a_larger_budget_holds_more(method):
    tables, found = drawn(), []
    for budget in ("7x", "5x", "3x", "2x"):
        collection = made(method, budget)
        energy = sum(each.error**2 for each in fit(collection.embedder, tables))
        found.append(energy)
    assert found == sorted(found, reverse=True)


@pytest.mark.parametrize("method", ["hash", "multi-hash", "binary-code", "low-rank", "robe", "dhe"])
def test_counts_favour_frequent_ids(method):
    tables, often = drawn(), zipf()
    plain, counted = made(method, "6x"), made(method, "6x")
    fit(plain.embedder, tables)
    said = fit(counted.embedder, tables, often)
    lost = []
    for each in (plain, counted):
        off = ((tables_of(each)[0] - tables[0]).square().sum(1) * often[0]).sum()
        lost.append(float(off / (tables[0].square().sum(1) * often[0]).sum()) ** 0.5)
    assert lost[1] < 0.99 * lost[0]
    assert said[0].error == pytest.approx(lost[1], rel=1e-3)


# Few bits.


@pytest.mark.parametrize("method", ["full", "hash", "binary-code", "low-rank"])
def test_more_bits_hold_more_and_serve_the_same(method):
    tables, found = drawn(), []
    for bits in (2, 4, 8):
        rows = None if method == "full" else 150_000 // 10 * bits // 8
        collection = made(method, rows, bits=bits)
        fitted = fit(collection.embedder, tables)
        found.append(sum(each.error**2 for each in fitted))
        collection.eval()
        served = tables_of(collection.serving())
        assert all(torch.equal(a, b) for a, b in zip(served, tables_of(collection), strict=True))
    assert found == sorted(found, reverse=True)


@pytest.mark.parametrize("fusion", ["sum", "product"])
@pytest.mark.parametrize("bits", [4, 2])
def test_terms_make_up_for_each_others_rounding(fusion, bits, monkeypatch):
    tables = drawn()
    words = {"fusion": fusion, "bits": bits, "sharing": "none"}
    mended = fit(made("binary-code", "30x", **words).embedder, tables)
    monkeypatch.setattr(few_bits, "TURNS", 0)
    left = fit(made("binary-code", "30x", **words).embedder, tables)
    assert sum(a.error for a in mended) < sum(a.error for a in left)


def test_codes_that_are_trained_are_those_of_rows_that_are_rounded():
    tables, words = drawn(), {"bits": 4, "sharing": "none"}
    coded = made("binary-code", "20x", low_precision=True, **words)
    floats = made("binary-code", "20x", **words)
    assert fit(coded.embedder, tables) == fit(floats.embedder, tables)
    assert all(torch.equal(a, b) for a, b in zip(*map(tables_of, (coded, floats)), strict=True))


def test_importances_tell_apart_ids_that_share_rows():
    tables = drawn()
    learned = fit(made("hash-embeddings", "4x", share=0.5).embedder, tables)
    shared = fit(made("multi-hash", "4x").embedder, tables)
    assert learned[0].how.endswith("importances in turns")
    assert learned[0].error < shared[0].error


def test_an_id_that_comes_twice_has_the_mean_of_its_vectors():
    collection = made("full", None, [Field("day", 2)])
    vectors = torch.stack([torch.full((DIM,), x) for x in (1.0, 3.0, 5.0)])
    fit(collection.embedder, [(torch.tensor([0, 1, 1]), vectors)])
    assert torch.allclose(collection.embedder.pool.weight, torch.tensor([[1.0], [4.0]]))


# How it is solved.


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 8), width=st.integers(1, 3))
def test_conjugate_gradients_solve_normal_equations(seed, rows, width):
    generator = torch.Generator().manual_seed(seed)
    factor = torch.randn(rows + 3, rows, generator=generator, dtype=torch.float64)
    target = torch.randn(rows + 3, width, generator=generator, dtype=torch.float64)
    square = factor.T @ factor + 0.1 * torch.eye(rows, dtype=torch.float64)
    wanted = factor.T @ target
    got = conjugate(
        lambda p: square @ p, wanted, square.diagonal()[:, None], float(target.square().sum())
    )
    best = torch.linalg.solve(square, wanted)

    def lost(p):
        return float((p * (square @ p)).sum() / 2 - (p * wanted).sum())

    assert lost(got) <= lost(best) + 1e-3 * abs(lost(best))


@pytest.mark.parametrize("fusion", ["sum", "product"])
def test_every_turn_of_a_term_lowers_the_error(fusion):
    tables = drawn()
    part = made("binary-code", "12x", fusion=fusion, sharing="none").embedder
    given_tables = [Trained(f, t, DIM) for f, t in zip(FIELDS, tables, strict=True)]
    reading = Reading(part, [0, 1, 2], given_tables, [None] * 3)
    rows = 1 + 0.1 * torch.randn(
        reading.rows, reading.width, generator=torch.Generator().manual_seed(0), dtype=reading.dtype
    )
    errors = [loss(reading, rows)]
    for _ in range(3):
        for term in blocks(reading):
            turn(reading, rows, rows, term)
            errors.append(loss(reading, rows))
    assert all(after <= before + 1e-9 for before, after in pairwise(errors))
    assert errors[-1] < errors[0]


def test_terms_that_share_rows_have_no_turns_of_their_own():
    trained = [Trained(f, t, DIM) for f, t in zip(FIELDS, drawn(), strict=True)]
    shared = made("binary-code", "12x", fusion="product", sharing="fields").embedder
    apart = made("binary-code", "12x", fusion="product", sharing="none").embedder
    assert blocks(Reading(shared, [0, 1, 2], trained, [None] * 3)) is None
    assert blocks(Reading(apart, [0, 1, 2], trained, [None] * 3)) == [0, 1, 2]


# Tables.


class Sliced:
    """Rows that are given by slices alone, and how long the longest was."""

    def __init__(self, table):
        self.table, self.shape, self.longest = table, table.shape, 0

    def __getitem__(self, rows):
        assert isinstance(rows, slice)
        self.longest = max(self.longest, rows.stop - rows.start)
        return self.table[rows]


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("hash", {}),
        ("multi-hash", {}),
        ("binary-code", {"bits": 4}),
        ("low-rank", {"bits": 4}),
        ("cce", {}),
        ("tensor-train", {}),
    ],
)
def test_tables_are_read_some_rows_at_a_time(method, options):
    field = Field("user", 6_000)
    generator = torch.Generator().manual_seed(0)
    table = Sliced(torch.randn(6_000, 64, generator=generator))
    collection = made(method, "20x" if method != "low-rank" else "10x", [field], 64, **options)
    fit(collection.embedder, [table])
    assert table.longest <= 1 << 12


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_tables_of_other_types_and_arrays(dtype, tmp_path: Path):
    tables = [each.to(dtype) for each in drawn()]
    collection = made("hash")
    said = fit(collection.embedder, tables)
    plain = made("hash")
    assert [each.error for each in said] == pytest.approx(
        [each.error for each in fit(plain.embedder, [each.float() for each in tables])], rel=1e-3
    )
    if dtype != torch.bfloat16:
        arrays = []
        for number, table in enumerate(tables):
            np.save(tmp_path / f"{number}.npy", table.numpy())
            arrays.append(np.load(tmp_path / f"{number}.npy", mmap_mode="r"))
        again = made("hash")
        assert fit(again.embedder, arrays) == said


def test_hashed_ids_come_with_their_vectors():
    fields = [Field("query", distinct=500), Field("day", 7)]
    ids = torch.randint(-(2**63), 2**63 - 1, (500,), generator=torch.Generator().manual_seed(0))
    query, day = drawn([Field("query", 500), Field("day", 7)])
    collection = made("binary-code", "2x", fields)
    fitted = fit(collection.embedder, [(ids, query), (torch.arange(7), day)])
    with torch.no_grad(), plain_torch():
        got = collection(torch.stack([ids, ids % 7], 1))[:, 0]
    lost = float((got - query).square().sum() / query.square().sum()) ** 0.5
    assert fitted[0].error == pytest.approx(lost, rel=1e-3)
    assert lost < 0.9


def test_several_groups_are_fitted_each_for_its_fields():
    fields = [Field("a", 600), Field("b", 5), Field("c", 600)]
    tables = drawn(fields)
    collection = made("mixed-dimensions", "3x", fields, alpha=0.6)
    assert len(collection.plan.groups) > 1
    fitted = fit(collection.embedder, tables)
    for number, got in enumerate(tables_of(collection)):
        lost = (got - tables[number]).square().sum() / tables[number].square().sum()
        assert fitted[number].error == pytest.approx(float(lost) ** 0.5, abs=1e-4)


def test_what_counts_choose_needs_counts():
    collection = made("hot-cold", stats=None)
    with pytest.raises(BitfoldError, match="give counts"):
        fit(collection.embedder, drawn())
    fitted = fit(collection.embedder, drawn(), zipf())
    assert max(each.error for each in fitted) < 1


def nan_at(table, row):
    table = table.clone()
    table[row, 0] = float("nan")
    return table


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, c: (t[:2], c), "not one for each field"),
        (lambda t, c: (t, c[:1]), "counts are not one for each"),
        (lambda t, c: ([t[0][:-1], *t[1:]], c), "another shape"),
        (lambda t, c: ([t[0], t[1][:, :3], t[2]], c), r"field 'item'(.|\n)*\[260, 3\]"),
        (lambda t, c: ([t[0], None, t[2]], c), "another shape"),
        (lambda t, c: ([t[0].long(), *t[1:]], c), "floating"),
        (lambda t, c: ([nan_at(t[0], 7), *t[1:]], c), r"not a number(.|\n)*id 7"),
        (lambda t, c: (t, [c[0][:-1], *c[1:]]), r"counts of field 'user'(.|\n)*\[700\]"),
        (lambda t, c: (t, [-c[0], *c[1:]]), "from 0 on"),
        (lambda t, c: (t, [c[0] * float("nan"), *c[1:]]), "finite"),
        (lambda t, c: ([(torch.arange(700) + 1, t[0]), *t[1:]], c), "0 to 699"),
        (lambda t, c: ([(torch.arange(700.0), t[0]), *t[1:]], c), "integers"),
        (lambda t, c: ([(torch.arange(9), t[0]), *t[1:]], c), "another shape"),
    ],
)
def test_what_cannot_be_fitted_is_refused_and_nothing_is_written(change, message):
    collection = made("binary-code")
    before = {name: value.clone() for name, value in collection.state_dict().items()}
    tables, often = change(drawn(), zipf())
    with pytest.raises(BitfoldError, match=message) as error:
        fit(collection.embedder, tables, often)
    assert error.value.got is not None
    assert error.value.expected is not None
    assert all(torch.equal(value, before[name]) for name, value in collection.state_dict().items())


def test_hashed_fields_have_no_table_by_row():
    collection = made("hash", fields=[Field("query", distinct=500)])
    with pytest.raises(BitfoldError, match="a pair"):
        fit(collection.embedder, [torch.zeros(500, DIM)])


def test_what_has_no_numbers_to_fit_is_refused():
    for method in ("hash", "pep"):
        words = {"bits": 4} if method == "hash" else {}
        with pytest.raises(BitfoldError, match="packed"):
            fit(made(method, **words).serving().embedder, drawn())
    with pytest.raises(BitfoldError, match="meta"):
        fit(made("hash", device="meta").embedder, drawn())


# The faces.


def test_from_pretrained_chooses_a_method():
    (table,) = drawn(FIELDS[:1])
    kept = bitfold.Embedding.from_pretrained(table)
    assert kept.plan.method == "full"
    assert kept.fitted is None
    small = bitfold.Embedding.from_pretrained(table, budget="8x")
    assert small.plan.asked == "auto" if hasattr(small.plan, "asked") else True
    assert small.plan.bytes <= table.nbytes // 8
    assert small.fitted.error < 1
    few = bitfold.EmbeddingBag.from_pretrained(table, method="full", bits=8)
    assert few.fitted.error < 0.02


def test_from_pretrained_reads_a_memory_mapped_array(tmp_path: Path):
    (table,) = drawn(FIELDS[:1])
    np.save(tmp_path / "table.npy", table.numpy())
    array = np.load(tmp_path / "table.npy", mmap_mode="r")
    layer = bitfold.Embedding.from_pretrained(array, budget="8x", freeze=False)
    assert layer.fitted == bitfold.Embedding.from_pretrained(table, budget="8x").fitted
    whole = bitfold.Embedding.from_pretrained(array)
    assert torch.equal(whole.weight, table)
    assert all(each.requires_grad for each in layer.parameters())
