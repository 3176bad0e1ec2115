"""Sources that read tables: stored integers, compact maps; pools, signs; three ways agree."""

from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

import bitfold
from bitfold import BitfoldError, Field
from bitfold.address import Address, Lookup, Mapped, Mixed, Program, Raw, Salted, Stored
from bitfold.address.fingerprint import check_fingerprint, fingerprint_of
from bitfold.address.mixing import mix_int
from bitfold.address.stored import pack_bits
from bitfold.address.tables import StoredTables
from bitfold.kernels.map_building import build_map
from drawn_plans import INT64, SEEDS
from kernel_rows import rows_of_the_kernel

WORD = 2**64 - 1
NAMES = st.sampled_from(["a", "b", "c"])


@st.composite
def mixed(draw):
    code_bits = draw(st.integers(1, 63))
    return Mixed(draw(SEEDS), draw(st.integers(code_bits, 64)), code_bits)


@st.composite
def mapped(draw, name):
    misses = st.one_of(st.integers(1, 3), st.integers(1, 2**31))
    of = draw(st.one_of(st.just(Raw()), mixed()))
    return Mapped(name, draw(st.integers(1, 300)), draw(SEEDS), draw(mixed()), draw(misses), of)


@st.composite
def sources(draw, number):
    """A source of any kind; tables have names of their own."""
    kind = draw(st.integers(0, 4))
    if kind == 4:
        return Salted(f"salt{number}", draw(SEEDS), draw(st.integers(1, 2**31)))
    if kind == 0:
        return Raw()
    if kind == 1:
        return draw(mixed())
    if kind == 2:
        return draw(mapped(f"map{number}"))
    of = draw(st.one_of(st.just(Raw()), mixed(), mapped(f"of{number}")))
    length, bits = draw(st.integers(1, 300)), draw(st.integers(1, 40))
    return Stored(f"table{number}", length, bits, of)


@st.composite
def programs(draw):
    """Ragged fields of lookups with any sources, pools, offsets and signs."""
    chunks, number, fields, rows = draw(st.integers(1, 2)), 0, [], [0, 0]
    for _ in range(draw(st.integers(1, 3))):
        lookups, source = [], Raw()
        for _ in range(chunks * draw(st.integers(1, 2))):
            source = draw(sources(number)) if not lookups or draw(st.booleans()) else source
            number += 1
            radix, pool = draw(st.integers(1, 2**33)), draw(st.integers(0, 1))
            span = radix + draw(st.integers(0, 5))
            is_mixed = isinstance(source, Mixed)
            cut = is_mixed and source.code_bits < source.mix_bits
            lookups.append(
                Lookup(
                    source, radix, draw(st.integers(0, 9)), draw(st.integers(1, 2**35)),
                    draw(st.integers(0, span - 1)), span, is_mixed and draw(st.booleans()), pool,
                    cut and draw(st.booleans()),
                )
            )  # fmt: skip
            rows[pool] = max(rows[pool], lookups[-1].base + span)
        fields.append(tuple(lookups))
    return Program(chunks, tuple(fields), rows[0], (rows[1],))


def tables_of(program, seed):
    """Any bytes are a table."""
    random = np.random.default_rng(seed)
    return {
        name: torch.from_numpy(random.integers(0, 256, shape.bytes).astype(np.uint8))
        for name, shape in program.tables.items()
    }


@given(programs(), st.data(), st.integers(0, 2**32))
def test_three_ways_agree_on_any_sources(program, data, seed):
    """In Python, over a batch, over bags; whatever the tables hold, cells lie in their slices."""
    tables, fields = tables_of(program, seed), len(program.fields)
    lists = {name: table.tolist() for name, table in tables.items()}
    raw = [all(not isinstance(p.source, Raw) for p in part) for part in program.fields]
    columns = [INT64 if hashed else st.integers(0, 2**62) for hashed in raw]
    ids = data.draw(st.lists(st.tuples(*columns), min_size=1, max_size=5))
    address, batch = Address(program), torch.tensor(ids)
    cells, signs = address.cells(batch, None, tables), address.signs(batch)
    field = torch.arange(fields).repeat(len(ids))
    assert torch.equal(cells.flatten(0, 1), address.cells(batch.reshape(-1), field, tables))
    real = address.present()
    for f, lookups in enumerate(program.fields):
        keep = slice(None) if real is None else real[f]
        for b, row in enumerate(ids):
            defined = program.cells_int(f, row[f] & WORD, lists)
            assert cells[b, f][keep].reshape(-1).tolist() == defined
            for lookup, cell in zip(lookups, defined, strict=True):
                assert lookup.base <= cell < lookup.base + lookup.span
            found = program.signs_int(f, row[f] & WORD)
            if signs is not None:
                assert signs[b, f][keep].reshape(-1).tolist() == found
            assert program.signed or set(found) == {1}


@given(programs())
def test_a_program_of_any_sources_goes_through_json_and_back(program):
    values = program.to_json()
    assert Program.from_json(values) == program
    assert Program.from_json(values).fingerprint == program.fingerprint


@given(programs(), st.data(), st.integers(0, 2**32))
def test_kernels_give_the_same_rows(program, data, seed):
    """Of ids that are looked up, in blocks of any length; whatever the tables hold."""
    for lookups in program.fields:
        if any(isinstance(lookup.source, Raw) for lookup in lookups):
            continue
        plain = tuple(replace(lookup, pool=0, signed=False) for lookup in lookups)
        alone = Program(program.chunks, (plain,), max(program.rows, *program.more_rows))
        tables = {name: table.numpy() for name, table in tables_of(alone, seed).items()}
        ids = data.draw(st.lists(INT64, min_size=1, max_size=5)) * data.draw(st.integers(1, 90))
        lists = {name: table.tolist() for name, table in tables.items()}
        expected = [alone.cells_int(0, value & WORD, lists) for value in ids]
        found = rows_of_the_kernel(alone, ids, 0, raw_ids=False, tables=[*tables.values()])
        assert found == expected


@pytest.mark.parametrize("hits", [0.0, 0.5, 1.0])
def test_kernels_find_the_places_of_a_map(hits):
    """In blocks where all ids are of the set, some, none."""
    ids = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 700)
    source = Mapped("map", 700, 7, Mixed(9), misses=3)
    program = Program(1, ((Lookup(source, source.codes, 0),),), source.codes)
    table = build_map(source.map, ids)
    asked = [*ids[: int(700 * hits)].tolist(), *range(700 - int(700 * hits))]
    rows = rows_of_the_kernel(program, asked, 0, raw_ids=False, tables=[table])
    assert rows == [program.cells_int(0, value & WORD, {"map": table}) for value in asked]


def test_places_of_a_map_are_read_as_dense_ids():
    """Hits have rows of their own; the others share a few rows after them."""
    ids = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 500)
    source = Mapped("map", 500, 7, Mixed(9), misses=3)
    program = Program(1, ((Lookup(source, source.codes, 0),),), source.codes)
    tables = {"map": torch.from_numpy(build_map(source.map, ids))}
    cells = Address(program).cells(torch.from_numpy(ids).unsqueeze(1), None, tables)
    assert cells.flatten().sort().values.tolist() == list(range(500))
    others = torch.arange(1, 5001).unsqueeze(1)
    cells = Address(program).cells(others, None, tables).flatten()
    assert int((cells < 500).sum()) < 60
    assert set(cells[cells >= 500].tolist()) == {500, 501, 502}


def test_a_map_with_other_table_bytes_gives_other_places():
    source = Mapped("map", 50, 7, Mixed(9))
    program = Program(1, ((Lookup(source, 51, 0),),), 51)
    nothing = {"map": [0] * source.map.bytes}
    assert [program.cells_int(0, value, nothing) for value in range(3)] == [[50], [50], [50]]


def test_stored_pointers_of_dense_ids_and_of_buckets():
    table = [0b11_10_01_00]
    dense, hashed = Stored("p", 4, 2), Stored("p", 4, 2, Mixed(5))
    assert [dense.code_int(value, {"p": table}) for value in range(6)] == [0, 1, 2, 3, 3, 3]
    assert dense.code_int(WORD, {"p": table}) == 3
    for value in range(50):
        assert hashed.code_int(value, {"p": table}) == mix_int(value, 5) * 4 >> 64


def test_signs_halve_the_ids():
    lookup = Lookup(Mixed(3), 10, 0, leading=True, signed=True)
    signs = [lookup.sign_int(value) for value in range(4000)]
    assert set(signs) == {1, -1}
    assert abs(sum(signs)) < 300
    together = [lookup.cell_int(v, {}) for v in range(4000) if signs[v] == 1]
    assert min(together.count(cell) for cell in range(10)) > 120


@pytest.mark.parametrize(
    "make",
    [
        lambda: Mixed(1, 5, 6),
        lambda: Mixed(1, 65, 6),
        lambda: Mapped("m", 0, 1, Mixed(1)),
        lambda: Mapped("m", 2**31 + 1, 1, Mixed(1)),
        lambda: Mapped("m", 5, 1, Mixed(1), misses=0),
        lambda: Mapped("m", 5, 1, Mixed(1, 64, 64, 2)),
        lambda: Mapped("m", 5, 1, Raw()),
        lambda: Stored("s", 0, 5),
        lambda: Stored("s", 5, 0),
        lambda: Stored("s", 5, 41),
        lambda: Stored("s", 5, 5, Raw(8, 2)),
        lambda: Stored("s", 5, 5, Stored("t", 5, 5)),
        lambda: Lookup(Stored("s", 5, 5), 3, 0, leading=True),
        lambda: Lookup(Mapped("m", 5, 1, Mixed(1)), 3, 0, signed=True),
        lambda: Program(
            1, ((Lookup(Stored("s", 5, 5), 3, 0), Lookup(Stored("s", 6, 5), 3, 0)),), 3
        ),
    ],
)
def test_sources_that_cannot_be_are_refused(make):
    with pytest.raises(BitfoldError, match="makes no sense"):
        make()


@pytest.mark.parametrize(
    "change",
    [
        {"map_version": 2},
        {"ids": 0},
        {"miss": {"mix_bits": 64, "code_bits": 64, "deal": 1}},
        {"more": 1},
        {"table": 5},
    ],
)
def test_a_map_of_another_format_is_refused(change):
    program = Program(1, ((Lookup(Mapped("m", 5, 1, Mixed(1)), 6, 0),),), 6)
    values = program.to_json()
    values["fields"][0][0]["source"] |= change
    with pytest.raises(BitfoldError):
        Program.from_json(values)


def test_raw_ids_of_other_widths_were_never_written():
    values = Program(1, ((Lookup(Raw(), 6, 0),),), 6).to_json()
    values["fields"][0][0]["source"]["mix_bits"] = 32
    with pytest.raises(BitfoldError, match="makes no sense"):
        Program.from_json(values)


def test_fingerprints_of_programs_never_change():
    """Weights that are saved have them: from before there were tables, pools and signs."""
    fields = [Field("u", 6040), Field("h", distinct=20_000), Field("s", 7)]
    found = [
        bitfold.plan(fields, 16, seed=3, **words).program.fingerprint
        for words in (
            {"method": "binary-code", "budget": "10x"},
            {"method": "binary-code", "budget": "10x", "strategy": "skip"},
            {"method": "binary-code", "budget": "10x", "strategy": "skip", "mix": True},
            {"method": "hash", "budget": "10x"},
            {"method": "multi-hash", "budget": "10x"},
        )
    ]
    assert found == [
        8464816061427707514,
        -1110679986275964328,
        7931854723294974509,
        3925870073034338780,
        4880389229515548492,
    ]


def test_a_fingerprint_has_the_names_of_fields_in_it():
    program = Program(1, ((Lookup(Mixed(1), 6, 0, leading=True),),) * 2, 6)
    one, other = (fingerprint_of(program, names) for names in (["a", "b"], ["b", "a"]))
    assert one == fingerprint_of(program, ("a", "b"))
    assert len({one, other, program.fingerprint}) == 3
    check_fingerprint(torch.tensor(one), one, program.fingerprint)
    check_fingerprint(torch.tensor(program.fingerprint), one, program.fingerprint)
    with pytest.raises(BitfoldError, match="another address"):
        check_fingerprint(torch.tensor(other), one, program.fingerprint)


def test_fields_that_change_places_are_noticed_on_loading():
    def layer(*names):
        fields = [Field(name, distinct=500) for name in names]
        return bitfold.EmbeddingCollection(fields, 4, method="hash", budget="10x")

    saved = layer("user", "item").state_dict()
    layer("user", "item").load_state_dict(saved)
    with pytest.raises(BitfoldError, match="another address"):
        layer("item", "user").load_state_dict(saved)


def test_weights_from_before_names_were_in_the_fingerprint_load():
    layer = bitfold.Embedding(1000, 4, method="hash", budget="10x")
    saved = layer.state_dict()
    saved["embedder.fingerprint"] = torch.tensor(layer.plan.program.fingerprint)
    layer.load_state_dict(saved)


def test_tables_of_a_module_are_in_its_state_dict():
    tables = StoredTables([("one", 3), ("two", 0)])
    assert tables.named()["one"].tolist() == [0, 0, 0]
    tables.put("one", torch.tensor([1, 2, 3], dtype=torch.uint8))
    again = StoredTables([("one", 3), ("two", 0)])
    again.load_state_dict(tables.state_dict())
    assert again.named()["one"].tolist() == [1, 2, 3]
    assert StoredTables([("one", 3)], "meta").to_empty(device="cpu").named()["one"].shape == (3,)


@pytest.mark.parametrize("table", [torch.zeros(3), torch.zeros(4, dtype=torch.uint8)])
def test_a_table_of_another_size_is_refused(table):
    with pytest.raises(BitfoldError, match="not what was planned"):
        StoredTables([("one", 3)]).put("one", table)


@pytest.mark.parametrize("name", ["a.b", "", "named"])
def test_a_table_has_a_name_that_a_module_can_hold(name):
    with pytest.raises(BitfoldError, match="cannot be"):
        StoredTables([(name, 3)])


def test_packed_pointers_are_read_by_a_program():
    values = torch.tensor([3, 0, 2, 1, 3])
    source = Stored("p", 5, 2)
    program = Program(1, ((Lookup(source, 4, 0),),), 4)
    cells = Address(program).cells(torch.arange(5).unsqueeze(1), None, {"p": pack_bits(values, 2)})
    assert torch.equal(cells.flatten(), values)
