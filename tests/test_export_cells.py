"""Cells of programs in their export form: their definition, also by ONNX Runtime, bit for bit."""

from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from torch import nn

from bitfold.address import Address, Lookup, Mapped, Mixed, Program, Raw, Salted, Stored
from bitfold.address.words import export_form
from bitfold.exporting import onnx_file
from bitfold.exporting.graphs import Graph
from bitfold.kernels.map_building import build_map
from drawn_plans import (
    INT64,
    SEEDS,
    binary_options,
    dense_fields,
    fitting_plan,
    hashed_fields,
    options,
    some_ids,
    spares,
    unbounded_plan,
)
from test_address import check_three_ways
from test_sources import programs, tables_of

WORD = 2**64 - 1
EDGES = [0, 1, -1, 2, -2, 2**63 - 1, -(2**63), 2**32, -(2**32), 2**24 + 1, 2**53 + 1]


@given(st.data(), dense_fields(), options(), spares(), SEEDS)
def test_dense_ids(data, fields, words, spare, seed):
    program = fitting_plan(fields, 1, spare, seed=seed, **words).program
    ids = some_ids(data.draw, fields)
    with export_form():
        check_three_ways(program, ids)


@given(st.data(), hashed_fields(), dense_fields(1000), options(hashed=True), spares(), SEEDS)
def test_hashed_ids_beside_whole_tables(data, hashed, dense, words, spare, seed):
    fields = [*hashed, *dense]
    program = fitting_plan(fields, 1, spare, seed=seed, **words).program
    ids = some_ids(data.draw, fields)
    with export_form():
        check_three_ways(program, ids)


@given(st.data(), hashed_fields(2), binary_options(hashed=True), SEEDS)
def test_powers_of_two_and_codes_of_64_bits(data, hashed, words, seed):
    program = unbounded_plan(hashed, 1, seed=seed, **{**words, "code_bits": 64}).program
    ids = some_ids(data.draw, hashed)
    with export_form():
        check_three_ways(program, ids)


@given(programs(), st.data(), st.integers(0, 2**32))
def test_sources_of_any_kind(program, data, seed):
    tables, fields = tables_of(program, seed), len(program.fields)
    ids = torch.tensor(data.draw(st.lists(st.tuples(*[INT64] * fields), min_size=1, max_size=5)))
    ids[:, [any(isinstance(p.source, Raw) for p in part) for part in program.fields]] &= 2**62 - 1
    field = torch.arange(fields).repeat(len(ids))
    address = Address(program)
    wanted = address.cells(ids, None, tables), address.signs(ids)
    flat = address.cells(ids.reshape(-1), field, tables)
    with export_form():
        assert torch.equal(address.cells(ids, None, tables), wanted[0])
        assert torch.equal(address.cells(ids.reshape(-1), field, tables), flat)
        signs = address.signs(ids)
    assert (signs is None) == (wanted[1] is None)
    assert signs is None or torch.equal(signs, wanted[1])


KNOWN = np.unique(np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 900))
MAP = Mapped("map", len(KNOWN), 7, Mixed(9), misses=5)
SOURCES = {
    "raw": (Lookup(Raw(), 997, 3, 11, 5, 1000), Lookup(Raw(), 1 << 10, 0, 1 << 20)),
    "raw, dealt": (Lookup(Raw(40, 3), 1 << 13, 0), Lookup(Raw(40, 3), 1 << 14, 0, 1 << 13)),
    "mixed": (Lookup(Mixed(WORD, 64, 40), 997, 3), Lookup(Mixed(5, 37, 23), 77, 9, 1000)),
    "64 bits": (Lookup(Mixed(3), 1 << 12, 0, 1 << 52), Lookup(Mixed(8), 1 << 30, 0)),
    "mixed, dealt": (Lookup(Mixed(7, 64, 64, 5), 1 << 12, 0), Lookup(Mixed(7, 33, 31, 2), 9, 1)),
    "leading": tuple(Lookup(Mixed(2), 101, 0, 101**k, leading=True) for k in range(3)),
    "leading, cut": (Lookup(Mixed(2, 64, 29), 12345, 7, leading=True),) * 2,
    "wide": (
        Lookup(Mixed(4), (1 << 40) + 7, 0, leading=True),
        Lookup(Mixed(4), 9, 0, leading=True),
    ),
    "stored": (
        Lookup(Stored("five", 300, 5), 32, 0),
        Lookup(Stored("all", 70, 40, Mixed(1)), 9, 1),
    ),
    "mapped": (Lookup(MAP, MAP.codes, 0), Lookup(Stored("of map", 905, 7, MAP), 128, 0)),
    "salted": (Lookup(Salted("salt", WORD, 1000), 1000, 0), Lookup(Salted("more", 1, 9), 9, 5)),
}


class Cells(nn.Module):
    def __init__(self, program, tables):
        super().__init__()
        self.address, self.tables = Address(program), tables

    def forward(self, ids):
        return self.address.cells(ids, None, self.tables)


def ids_of(program, rows, seed):
    """All bits; those that are read as they are from 0 on."""
    ids = torch.from_numpy(
        np.random.default_rng(seed).integers(-(2**63), 2**63 - 1, (rows, len(program.fields)))
    )
    ids[: len(EDGES)] = torch.tensor(EDGES).unsqueeze(1)
    ids[len(EDGES) :: 2, :] = torch.from_numpy(np.resize(KNOWN, (len(ids[len(EDGES) :: 2]), 1)))
    raw = [any(isinstance(p.source, Raw) for p in part) for part in program.fields]
    ids[:, raw] &= 2**63 - 1
    return ids


def test_onnx_runtime_gives_the_same_cells_bit_for_bit(tmp_path: Path):
    pytest.importorskip("onnxruntime")
    names = list(SOURCES)
    program = Program(1, tuple(SOURCES[name] for name in names), 1 << 41)
    tables = tables_of(program, 0)
    tables["map"] = torch.from_numpy(build_map(MAP.map, KNOWN))
    graph = Graph(
        module=Cells(program, tables),
        names=("ids",),
        output="cells",
        examples=(ids_of(program, 40, 0),),
        shapes=({0: torch.export.Dim("batch", min=0)},),
        draw=lambda rows, generator: (ids_of(program, rows, 0),),
    )
    onnx_file.write(graph, tmp_path / "cells.onnx")
    cells = onnx_file.opened(tmp_path / "cells.onnx")
    ids = ids_of(program, 20_000, 1)
    found, wanted = cells([ids.numpy()]), graph.eager((ids,)).numpy()
    for f, name in enumerate(names):
        assert np.array_equal(found[:, f], wanted[:, f]), name
    lists = {name: table.tolist() for name, table in tables.items()}
    for row, values in zip(found[:40], ids[:40].tolist(), strict=True):
        for f, value in enumerate(values):
            defined = program.cells_int(f, value & WORD, lists)
            assert row[f].reshape(-1)[: len(defined)].tolist() == defined
    assert cells([ids[:1].numpy()]).shape == (1, *found.shape[1:])
    assert cells([ids[:0].numpy()]).shape == (0, *found.shape[1:])
