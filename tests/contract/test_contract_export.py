"""torch.export: every form, any number of rows, the same vectors once saved and loaded."""

import contextlib
import io
import subprocess
import sys

import pytest
import torch
from torch.export import Dim

import bitfold
from bitfold.testing.cases import Case, bags_by_field, random_bags

PATHS = {"plain": bitfold.plain_torch, "kernels": contextlib.nullcontext}
OPERATOR = "bitfold.lookup.default"


@pytest.fixture(params=PATHS)
def path(request):
    """The graph of plain torch operations, and that with the kernels' operator."""
    return request.param


def exported(path, module, args, dynamic):
    """The module's graph as it comes back from a file."""
    with PATHS[path]():
        graph = torch.export.export(module, args, dynamic_shapes=dynamic, strict=False)
    file = io.BytesIO()
    torch.export.save(graph, file)
    file.seek(0)
    back = torch.export.load(file)
    ours = [str(node.target) for node in back.graph.nodes if "bitfold" in str(node.target)]
    assert ours == ([OPERATOR] if path == "kernels" else [])
    return back.module()


def same(got, expected, path):
    if path == "kernels":  # the same operator: the same bits
        assert torch.equal(got, expected)
    else:
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("mode", ["mean", "max"])
def test_bags_of_an_exported_collection(path, mode):
    case = Case("binary-code", {"fusion": "weighted", "allocation": 0.0, "strategy": "skip"})
    collection = case.collection(mode=mode).requires_grad_(False)
    # torch takes the number of rows, which follows from the offsets' length, for other than 1.
    rows = Dim("rows", min=2)
    dynamic = ({0: Dim("ids")}, {0: len(case.fields) * rows + 1})
    graph = exported(path, collection, bags_by_field(random_bags(case, 3)), dynamic)
    for count in (2, 8):
        bags = bags_by_field(random_bags(case, count))
        with PATHS[path]():
            same(graph(*bags), collection(*bags), path)


def test_one_field_exported(path):
    case, rows = Case("binary-code"), {0: Dim("rows")}
    one = case.embedding(50, padding_idx=3).requires_grad_(False)
    graph = exported(path, one, (torch.tensor([[3, 4], [0, 49]]),), (rows,))
    ids = torch.tensor([[3, 4], [0, 49], [7, 3]])
    same(graph(ids), one(ids), path)
    hashed = case.embedding(None).requires_grad_(False)
    graph = exported(path, hashed, (torch.tensor([1, 2]),), (rows,))
    ids = torch.tensor([-(2**63), 2**63 - 1, -1, 0])
    same(graph(ids), hashed(ids), path)
    bag = case.bag(50).requires_grad_(False)
    offsets = torch.tensor([0, 2, 3])
    dynamic = ({0: Dim("ids")}, {0: Dim("bags")})
    graph = exported(path, bag, (torch.arange(4), offsets), dynamic)
    ids, offsets = torch.arange(9), torch.tensor([0, 1, 1, 6])
    same(graph(ids, offsets), bag(ids, offsets), path)


def test_a_plain_graph_needs_nothing_of_bitfold(tmp_path):
    """In a process of its own; the kernels' graph needs their operator, and names it."""
    case = Case("binary-code")
    module, ids = case.collection().requires_grad_(False), case.ids(5)
    for path, forced in PATHS.items():
        with forced():
            torch.export.save(torch.export.export(module, (ids,)), tmp_path / f"{path}.pt2")
    torch.save({"ids": ids, "vectors": module(ids)}, tmp_path / "expected.pt")
    script = """
import sys, torch
expected = torch.load("expected.pt")
got = torch.export.load("plain.pt2").module()(expected["ids"])
torch.testing.assert_close(got, expected["vectors"])
assert "bitfold" not in sys.modules
import bitfold.kernels.ops
got = torch.export.load("kernels.pt2").module()(expected["ids"])
assert torch.equal(got, expected["vectors"])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
