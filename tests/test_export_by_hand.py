"""Models by hand: folded models of somebody else's, collections; bad input beside good."""

import numpy as np
import pytest
import torch
from torch import nn

import bitfold
from bitfold import BitfoldError, EmbeddingCollection, Field

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


class Theirs(nn.Module):
    """A table, a bag of tags, numbers; an arithmetic of its own on what may be negative."""

    def __init__(self):
        super().__init__()
        self.user = nn.Embedding(3000, 8, padding_idx=0)
        self.tags = nn.EmbeddingBag(2500, 8, mode="mean", padding_idx=2)
        self.small = nn.Embedding(7, 8)
        self.out = nn.Linear(24, 1)

    def forward(self, user, tags, age):
        band = (age.floor().long() // 10) % 7
        found = [self.user(user), self.tags(tags), self.small(band)]
        return torch.sigmoid(self.out(torch.cat(found, 1))).squeeze(1)


def inputs(rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    user = torch.randint(0, 3000, (rows,), generator=generator)
    tags = torch.randint(0, 2500, (rows, 3), generator=generator)
    tags[::4] = 2  # a bag of padding alone
    return user, tags, torch.rand(rows, generator=generator) * 90 - 30


def session(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_a_folded_model(tmp_path):
    torch.manual_seed(0)
    model = bitfold.fold(Theirs(), "20x").model.eval()
    names = ("user", "tags", "age")
    given = dict(zip(names, inputs(5), strict=True))
    out = bitfold.export(model, tmp_path / "model.onnx", inputs=given)
    opened = session(out)
    assert [each.name for each in opened.get_inputs()] == list(names)
    for rows in (1, 40):
        values = inputs(rows, seed=rows)
        with torch.no_grad():
            wanted = model(*values).numpy()
        asked = {name: each.numpy() for name, each in zip(names, values, strict=True)}
        np.testing.assert_allclose(opened.run(["scores"], asked)[0], wanted, rtol=0, atol=1e-6)
    again = bitfold.export(bitfold.serving(model), tmp_path / "served.onnx", inputs=given)
    asked["user"][0] = 3000
    for path in (out, again):
        found = session(path).run(None, asked)[0]
        assert np.isnan(found[0])
        np.testing.assert_allclose(found[1:], wanted[1:], rtol=0, atol=1e-6)


def test_an_embedding_of_hashed_ids(tmp_path):
    model = nn.Sequential(bitfold.Embedding(None, 8, distinct=900, budget="4x", bits=4, seed=0))
    ids = torch.tensor([5, -(2**63), 2**63 - 1, -1])
    out = bitfold.export(model, tmp_path / "model.onnx", inputs={"ids": ids})
    wanted = bitfold.serving(model)(ids).detach().numpy()
    np.testing.assert_allclose(session(out).run(None, {"ids": ids.numpy()})[0], wanted, atol=1e-6)


def test_what_goes_wrong_in_the_runtime_is_named(tmp_path):
    model = nn.Sequential(
        bitfold.Embedding(90, 8, budget="4x"), nn.Flatten(0), nn.Unflatten(0, (-1, 16))
    )
    with pytest.raises(BitfoldError, match=r"cannot be (exported|run)"):
        bitfold.export(model, tmp_path / "model.onnx", inputs={"ids": torch.tensor([1, 2])})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_types_are_exported_or_named(dtype, tmp_path):
    model = nn.Sequential(bitfold.Embedding(90, 8, budget="4x", dtype=dtype, seed=0))
    ids, out = torch.tensor([1, 89]), tmp_path / "model.onnx"
    try:
        bitfold.export(model, out, inputs={"ids": ids})
    except BitfoldError:
        assert list(tmp_path.iterdir()) == []
        return
    found = session(out).run(None, {"ids": ids.numpy()})[0]
    np.testing.assert_allclose(found.astype(np.float64), model(ids).detach().double().numpy())


def test_the_model_is_as_it_was(tmp_path):
    model = nn.Sequential(bitfold.Embedding(90, 8, budget="4x", seed=0)).train()
    bitfold.export(model, tmp_path / "model.onnx", inputs={"ids": torch.tensor([1, 2])})
    assert model.training
    assert all(each.requires_grad for each in model.parameters())


class Stuck(nn.Module):
    """What nobody can record for any number of rows."""

    def __init__(self):
        super().__init__()
        self.table = bitfold.Embedding(90, 8, budget="4x")

    def forward(self, ids):
        return self.table(ids).sum() if int(ids.sum()) > 3 else self.table(ids).mean()


@pytest.mark.parametrize(
    ("what", "how", "told"),
    [
        (nn.Linear(2, 2), {"inputs": {"x": torch.zeros(2, 2)}}, "no embedding of bitfold"),
        (nn.Sequential(bitfold.Embedding(9, 4)), {}, "examples of the inputs"),
        (
            nn.Sequential(bitfold.Embedding(9, 4)),
            {"inputs": {"ids": torch.tensor([1])}},
            "no example of a batch",
        ),
        (Stuck(), {"inputs": {"ids": torch.tensor([1, 2])}}, "cannot be exported"),
        (3, {}, "cannot be exported"),
        (EmbeddingCollection([Field("a", 5)], 4), {"text": True}, "only a run"),
        (EmbeddingCollection([Field("a", 5)], 4), {"to": "onx"}, "did you mean 'onnx'"),
    ],
    ids=["no-table", "no-inputs", "one-row", "stuck", "number", "text", "format"],
)
def test_mistakes_are_named_and_nothing_is_written(what, how, told, tmp_path):
    with pytest.raises(BitfoldError, match=told):
        bitfold.export(what, tmp_path / "model.onnx", **how)
    assert list(tmp_path.iterdir()) == []
