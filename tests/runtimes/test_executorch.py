"""ExecuTorch's programs give the model's own scores, for every way of an id and every int64."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bitfold
from bitfold import BitfoldError
from bitfold.exporting.executorch_file import ROWS
from bitfold.exporting.formats import FORMATS
from bitfold.exporting.writing import graph_of
from bitfold.files import sha256
from click_log import columns
from command import process
from exported_models import NUMBERS, WAYS, apart, graph, model

pytestmark = pytest.mark.filterwarnings("ignore")


def opened(path: Any) -> Any:
    return FORMATS["executorch"].opened(path)


@pytest.mark.parametrize("way", WAYS)
def test_every_way(way: str, tmp_path: Any) -> None:
    out = bitfold.export(model(way), tmp_path / "model.pte", "executorch", numbers=NUMBERS)
    assert [each.name for each in tmp_path.iterdir()] == ["model.pte"]
    assert apart(graph(way), opened(out)) <= 1e-6


@pytest.mark.parametrize("way", ["4 bits", "product"])
def test_bags(way: str, tmp_path: Any) -> None:
    out = bitfold.export(
        model(way), tmp_path / "model.pte", "executorch", numbers=NUMBERS, bags=True
    )
    scorer = opened(out)
    made = graph(way, bags=True)
    for rows in (9, 300):
        assert apart(made, scorer, rows) <= 1e-6


def test_a_run_through_the_command(tmp_path: Any) -> None:
    run = bitfold.train(
        columns(), tmp_path / "run", label="rating>=4", fields="user,item", numeric="price",
        split="random:0.8,0.1,0.1", negative_rate=0.5, budget="2x", set={"bits": 4}, hidden=(8,),
        epochs=1, width=4, progress=False,
    )  # fmt: skip
    out = tmp_path / "model.pte"
    done = process("export", run.path, "--to", "executorch", "--out", out)
    assert (done.code, done.err) == (0, "")
    rows = columns(rows=300, seed=3)
    (batch,) = run.batches(rows, fields_only=True)
    scores = opened(out)([batch.ids.numpy(), batch.numeric.numpy()])
    np.testing.assert_allclose(scores, run.predict(rows), rtol=0, atol=1e-6)

    from executorch.runtime import Runtime

    program = Runtime.get().load_program(out)
    told = {
        name: program.load_method(name).execute([])[0]
        for name in program.method_names - {"forward"}
    }
    assert told == {
        "bitfold_version": bitfold.__version__,
        "bitfold_digest": sha256(run.path / "manifest.json"),
        "most_rows": ROWS,
    }


def test_the_most_rows(tmp_path: Any) -> None:
    out = bitfold.export(model("4 bits"), tmp_path / "model.pte", "executorch", numbers=NUMBERS)
    made, scorer = graph("4 bits"), opened(out)
    assert apart(made, scorer, ROWS) <= 1e-6
    ids, numbers = made.draw(ROWS + 1, torch.Generator().manual_seed(0))
    with pytest.raises(RuntimeError):
        scorer([ids.numpy(), numbers.numpy()])


class Sorting(nn.Module):
    """A model with an operation that ExecuTorch does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = bitfold.Embedding(100, 4, budget="2x")

    def forward(self, ids: Tensor) -> Tensor:
        return torch.linalg.qr(self.embedding(ids))[0].sum((1, 2))


def test_what_it_cannot_do_is_refused_by_name(tmp_path: Any) -> None:
    out = tmp_path / "model.pte"
    out.write_text("old")
    with pytest.raises(BitfoldError, match="cannot be exported to executorch") as told:
        bitfold.export(
            Sorting(), out, "executorch", inputs={"ids": torch.ones(4, 3, dtype=torch.int64)},
            force=True,
        )  # fmt: skip
    assert "qr" in str(told.value)
    assert out.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["model.pte"]


def test_one_graph_is_written_twice_alike(tmp_path: Any) -> None:
    made = graph_of(model("one hash"), numbers=NUMBERS)
    for name in ("a.pte", "b.pte"):
        FORMATS["executorch"].write(made, tmp_path / name)
    assert (tmp_path / "a.pte").read_bytes() == (tmp_path / "b.pte").read_bytes()
