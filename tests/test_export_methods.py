"""Every method's export form: its vectors, NaN where an id has none; by ONNX Runtime too."""

import numpy as np
import pytest
import torch

import bitfold
from bitfold import BitfoldError, EmbeddingCollection, Field
from bitfold.address.words import export_form
from bitfold.kernels.choice import plain_torch
from bitfold.nets.building import build_network
from bitfold.nets.model import ClickModel
from bitfold.nets.sets import repeated
from bitfold.testing.cases import Case, all_cases, bags_by_field, first_cases, random_bags

SIXTEEN_KIB = 16 << 10
FEW = [
    ("full", 8, "ids"),
    ("binary-code", 4, "mean"),
    ("hash-embeddings", 32, "ids"),
    ("optembed", 32, "max"),
    ("dhe", 32, "ids"),
]


def served(case: Case, bits: int, mode: str = "mean") -> EmbeddingCollection:
    """The case's collection as it is served, if it can be kept in so many bits."""
    try:
        made = case.collection(mode=mode, **({} if bits == 32 else {"bits": bits}))
    except BitfoldError as error:
        pytest.skip(str(error).splitlines()[0])
    return made.serving()


def plainly(collection, *inputs):
    """As other tests hold against the kernels."""
    with plain_torch(), torch.no_grad():
        return collection(*inputs)


def exported_form(collection, *inputs):
    with export_form(), plain_torch(), torch.no_grad():
        return collection(*inputs)


@pytest.mark.parametrize("bits", [32, 4, 3])
@pytest.mark.parametrize("case", all_cases(), ids=str)
def test_the_export_form_gives_the_methods_vectors(case, bits):
    collection = served(case, bits)
    ids = case.ids(40)
    wanted = plainly(collection, ids)
    torch.testing.assert_close(exported_form(collection, ids), wanted, rtol=0, atol=1e-6)
    bags, offsets = bags_by_field(random_bags(case, 9))
    found = exported_form(collection, bags, offsets)
    torch.testing.assert_close(found, plainly(collection, bags, offsets), rtol=0, atol=1e-6)
    wrong = ids.clone()
    wrong[::3, 2] = 300
    wrong[1::3, 2] = -1
    found = exported_form(collection, wrong)
    assert found[0::3, 2].isnan().all()
    assert found[1::3, 2].isnan().all()
    wrong[:, 2] = ids[:, 2]
    found[:, 2] = wanted[:, 2]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ["sum", "max"])
@pytest.mark.parametrize("case", first_cases(), ids=str)
def test_the_export_form_of_bags(case, mode):
    collection = served(case, 32, mode)
    bags, offsets = bags_by_field(random_bags(case, 9))
    found = exported_form(collection, bags, offsets)
    torch.testing.assert_close(found, plainly(collection, bags, offsets), rtol=0, atol=1e-6)


def check_onnx(case, bits, bags, folder):
    onnxruntime = pytest.importorskip("onnxruntime")
    collection = served(case, bits, "mean" if bags == "ids" else bags)
    out = bitfold.export(collection, folder / "model.onnx", bags=bags != "ids")
    held = sum(each.nbytes for each in collection.state_dict().values())
    reads = any(group.program and group.program.tables for group in collection.plan.groups)
    assert out.stat().st_size <= held + SIXTEEN_KIB or reads
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    for rows in (0, 1, 33):
        ids = case.ids(rows, seed=4)
        given = (ids,) if bags == "ids" else bags_by_field(random_bags(case, max(rows, 1)))
        names = ("ids", "offsets")[: len(given)]
        inputs = {name: each.numpy() for name, each in zip(names, given, strict=True)}
        found = session.run(["vectors"], inputs)[0]
        np.testing.assert_allclose(found, collection(*given).numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("method", "bits", "bags"), FEW)
def test_onnx_runtime_gives_a_few_methods_vectors(method, bits, bags, tmp_path):
    case = next(each for each in first_cases() if each.method == method)
    check_onnx(case, bits, bags, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("bags", ["ids", "sum", "mean", "max"])
@pytest.mark.parametrize("bits", [32, 8, 4, 3, 2, 1])
@pytest.mark.parametrize("case", all_cases(), ids=str)
def test_onnx_runtime_gives_every_methods_vectors(case, bits, bags, tmp_path):
    check_onnx(case, bits, bags, tmp_path)


FIELDS = [Field("u", 30), Field("q", distinct=90), Field("m", 9)]


def click_model(network, sets=1, numbers=2, method="full", budget=None, mode="mean", **options):
    fields = [
        Field(f"{f.name}{s}", f.num_embeddings, f.distinct) for s in range(sets) for f in FIELDS
    ]
    fields = FIELDS if sets == 1 else fields
    if method == "full":
        fields = [Field(f.name, f.num_embeddings or 50) for f in fields]
    made = EmbeddingCollection(
        fields, 4, method=method, budget=budget, seed=0, mode=mode, **options
    )
    net = build_network(network, 3, 4, numbers, seed=0, sets=sets)
    return ClickModel(made, net, sets).eval()


def rows_of(model, rows):
    generator = torch.Generator().manual_seed(rows)
    fields = model.embeddings.fields[: len(FIELDS)]
    low = [0 if f.num_embeddings else -(2**63) for f in fields]
    high = [f.num_embeddings or 2**63 - 1 for f in fields]
    draws = zip(low, high, strict=True)
    return torch.stack([torch.randint(a, b, (rows,), generator=generator) for a, b in draws], 1)


@pytest.mark.parametrize(
    ("network", "sets", "numbers"),
    [("lr", 1, 2), ("deepfm", 1, 0), ("dcnv2", 1, 2), ("dlrm", 1, 0), ("dlrm", 1, 2)],
)
def test_networks(network, sets, numbers, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    model = click_model(network, sets, numbers)
    out = bitfold.export(model, tmp_path / "model.onnx", numbers=numbers)
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    for rows in (0, 1, 20):
        ids, numeric = rows_of(model, rows), torch.randn(rows, numbers)
        given = {"ids": ids.numpy(), "numbers": numeric.numpy()}
        if not numbers:
            del given["numbers"]
        wanted = torch.sigmoid(model.logits(ids, None, numeric)).detach().numpy()
        found = session.run(["scores"], given)[0]
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)


def test_bags_of_a_click_model_and_rows_without_a_score(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    model = click_model("deepfm", method="hash", budget="2x", bits=4)
    out = bitfold.export(model, tmp_path / "model.onnx", numbers=2, bags=True)
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    lengths = torch.tensor([[1, 0, 3], [2, 2, 0], [0, 1, 1]])  # by field, then by row
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.flatten().cumsum(0)])
    ids = torch.tensor([3, 0, 29, 7, -5, 2**63 - 1, -(2**63), 12, 8, 0])
    numeric = torch.randn(3, 2)
    given = {"ids": ids.numpy(), "offsets": offsets.numpy(), "numbers": numeric.numpy()}
    wanted = torch.sigmoid(model.logits(ids, offsets, numeric)).detach().numpy()
    np.testing.assert_allclose(session.run(None, given)[0], wanted, rtol=0, atol=1e-6)
    given["ids"] = given["ids"].copy()
    given["ids"][1] = 30  # of row 2: the last id of the first field is 29
    wanted[2] = np.nan
    np.testing.assert_allclose(session.run(None, given)[0], wanted, rtol=0, atol=1e-6)


def test_embedding_sets(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    model = click_model("deepfm", sets=2)
    assert repeated(torch.tensor([[1, 2, 3]]), None, 2)[0].shape == (1, 6)
    out = bitfold.export(model, tmp_path / "model.onnx", numbers=2)
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    ids, numeric = rows_of(model, 20), torch.randn(20, 2)
    wanted = torch.sigmoid(model.logits(ids, None, numeric)).detach().numpy()
    found = session.run(None, {"ids": ids.numpy(), "numbers": numeric.numpy()})[0]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)
