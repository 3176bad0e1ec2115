"""AOTInductor packages give the model's own scores; without a C++ compiler there are none."""

import importlib.util
import shutil
import zipfile
from typing import Any

import numpy as np
import pytest

import bitfold
from bitfold import BitfoldError
from bitfold.exporting.formats import FORMATS
from click_log import columns
from command import bitfold as command
from command import refused
from exported_models import NUMBERS, WAYS, apart, graph, model

pytestmark = pytest.mark.filterwarnings("ignore")
compiled = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++"))),
    reason="COMPILER MISSING: neither g++ nor clang++ is here, so nothing was compiled",
)


def opened(path: Any) -> Any:
    return FORMATS["pt2"].opened(path)


def check(way: str, out: Any) -> None:
    bitfold.export(model(way), out, "pt2", numbers=NUMBERS)
    assert [each.name for each in out.parent.iterdir()] == [out.name]
    made = graph(way)
    assert apart(made, opened(out)) <= 1e-6
    inside = [each.file_size for each in zipfile.ZipFile(out).infolist()]
    assert sum(inside) < made.weights + (1 << 20)


@compiled
def test_integers_wrap(tmp_path: Any) -> None:
    check("4 bits", tmp_path / "model.pt2")


@compiled
@pytest.mark.slow
@pytest.mark.parametrize("way", [way for way in WAYS if way != "4 bits"])
def test_every_way(way: str, tmp_path: Any) -> None:
    check(way, tmp_path / "model.pt2")


@compiled
@pytest.mark.slow
def test_bags(tmp_path: Any) -> None:
    out = tmp_path / "model.pt2"
    bitfold.export(model("product"), out, "pt2", numbers=NUMBERS, bags=True)
    made, scorer = graph("product", bags=True), opened(out)
    for rows in (9, 300):
        assert apart(made, scorer, rows) <= 1e-6


@compiled
@pytest.mark.slow
def test_a_run_through_the_command(tmp_path: Any) -> None:
    run = bitfold.train(
        columns(), tmp_path / "run", label="rating>=4", fields="user,item", numeric="price",
        split="random:0.8,0.1,0.1", negative_rate=0.5, budget="2x", set={"bits": 4}, hidden=(8,),
        epochs=1, width=4, progress=False,
    )  # fmt: skip
    out = tmp_path / "model.pt2"
    done = command("export", run.path, "--to", "pt2", "--out", out)
    assert (done.code, done.err) == (0, "")
    rows = columns(rows=300, seed=3)
    (batch,) = run.batches(rows, fields_only=True)
    scores = opened(out)([batch.ids.numpy(), batch.numeric.numpy()])
    np.testing.assert_allclose(scores, run.predict(rows), rtol=0, atol=1e-6)
    from torch._inductor import aoti_load_package

    told = aoti_load_package(str(out)).get_metadata()
    assert told["bitfold.version"] == bitfold.__version__
    assert len(told["bitfold.digest"]) == 64


@pytest.mark.parametrize("said", [None, "no-such-compiler"])
def test_without_a_compiler_it_is_refused(
    said: str | None, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    if said:
        monkeypatch.setenv("CXX", said)
    monkeypatch.setenv("PATH", str(tmp_path))
    out = tmp_path / "model.pt2"
    with pytest.raises(BitfoldError, match=r"C\+\+ compiler") as told:
        bitfold.export(model("one hash"), out, "pt2", numbers=NUMBERS)
    assert (said or "neither g++ nor clang++") in str(told.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_compiler_that_fails_leaves_nothing(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "bin" / "g++"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    out = tmp_path / "out" / "model.pt2"
    out.parent.mkdir()
    with pytest.raises(BitfoldError, match="cannot be exported to pt2"):
        bitfold.export(model("one hash"), out, "pt2", numbers=NUMBERS)
    assert list(out.parent.iterdir()) == []


@pytest.mark.skipif(importlib.util.find_spec("executorch") is not None, reason="it is here")
def test_executorch_names_its_extra_where_it_is_missing(tmp_path: Any) -> None:
    run = bitfold.train(
        {"user": [1, 2, 3, 4] * 50, "clicked": [0, 1, 1, 0] * 50}, tmp_path / "run",
        label="clicked", fields="user", method="full", width=4, progress=False,
    )  # fmt: skip
    out = tmp_path / "model.pte"
    done = command("export", run.path, "--to", "executorch", "--out", out)
    refused(done, "executorch needs executorch", "pip install 'bitfold[executorch]'")
    assert not out.exists()
