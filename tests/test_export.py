"""Exported files: a run's own scores by ONNX Runtime, small, whole or not there."""

import numpy as np
import pytest

import bitfold
from bitfold import BitfoldError
from bitfold.exporting.formats import FORMATS, Format
from bitfold.files import sha256
from click_log import columns
from command import bitfold as command

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
COMMON = {"fields": "user,item", "hidden": (8,), "epochs": 1, "width": 4, "progress": False}
COMMON |= {"label": "rating>=4", "split": "random:0.8,0.1,0.1"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Hashed ids in 4 bits, numbers, negatives that were thinned out."""
    folder = tmp_path_factory.mktemp("run")
    return bitfold.train(
        columns(),
        folder / "run",
        numeric="price",
        negative_rate=0.5,
        budget="2x",
        set={"bits": 4},
        **COMMON,
    )


def session(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def scored(path, batch):
    given = {"ids": batch.ids.numpy(), "numbers": batch.numeric.numpy()}
    if batch.offsets is not None:
        given["offsets"] = batch.offsets.numpy()
    opened = session(path)
    names = {each.name for each in opened.get_inputs()}
    return opened.run(["scores"], {name: given[name] for name in names})[0]


def test_a_run_through_the_command(run, tmp_path):
    out = tmp_path / "model.onnx"
    done = command("export", run.path, "--to", "onnx", "--out", out)
    assert (done.code, done.err) == (0, "")
    assert f"{out.stat().st_size:,} bytes" in done.out
    assert [each.name for each in tmp_path.iterdir()] == ["model.onnx"]
    rows = columns(rows=300, seed=3)
    (batch,) = run.batches(rows, fields_only=True)
    np.testing.assert_allclose(scored(out, batch), run.predict(rows), rtol=0, atol=1e-6)
    notes = {each.key: each.value for each in onnx.load(out).metadata_props}
    assert notes == {
        "bitfold.version": bitfold.__version__,
        "bitfold.digest": sha256(run.path / "manifest.json"),
    }
    again = command("export", run.path, "--out", out)
    assert again.code == 2
    assert "--force" in again.err
    before = out.read_bytes()
    assert command("export", run.path, "--out", out, "--force").code == 0
    assert out.read_bytes() == before


def test_inputs_outputs_and_bytes(run, tmp_path):
    out = bitfold.export(run, tmp_path / "model.onnx")
    opened = session(out)
    shapes = {each.name: (each.type, each.shape[1:]) for each in opened.get_inputs()}
    assert shapes == {"ids": ("tensor(int64)", [2]), "numbers": ("tensor(float)", [1])}
    assert [(each.name, each.type) for each in opened.get_outputs()] == [
        ("scores", "tensor(float)")
    ]
    network = sum(each.nbytes for each in run.model.network.state_dict().values())
    assert out.stat().st_size <= run.plan.bytes + network + (16 << 10)
    graph = onnx.load(out).graph
    assert not {node.op_type for node in graph.node} & {"Loop", "Scan", "If", "BitShift"}
    assert all(each.data_type != onnx.TensorProto.DOUBLE for each in graph.initializer if each.dims)


def test_an_error_leaves_what_was_there(run, tmp_path, monkeypatch):
    out = tmp_path / "model.onnx"
    out.write_text("old")
    monkeypatch.setitem(FORMATS, "wrong", Format("wrong", ".x", "test_export"))
    with pytest.raises(BitfoldError, match="does not score as the model"):
        bitfold.export(run, out, "wrong", force=True)
    assert out.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["model.onnx"]


def test_mistakes_are_named(run, tmp_path):
    for wrong, told in (
        (("export", run.path, "--to", "onx", "--out", tmp_path / "a"), "'onnx'"),
        (("export", tmp_path / "no-run", "--out", tmp_path / "a"), "no-run"),
        (("export", run.path), "--out is missing"),
    ):
        done = command(*wrong)
        assert done.code == 2
        assert told in done.err
        assert "Traceback" not in done.err
    assert list(tmp_path.iterdir()) == []


# The two functions of a format whose file says the same of everybody.
def write(graph, path):
    path.write_text("nothing")


def opened(path):
    return lambda inputs: np.zeros(len(inputs[0]), np.float32)
