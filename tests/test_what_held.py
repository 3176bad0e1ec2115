"""What an attack on bitfold could not break, kept so."""

import ast
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import bitfold
from bitfold.files import read_tensors
from command import READING, TRAINING, write_ratings

PACKAGE = Path(bitfold.__file__).parent
ROWS = {
    "user": [f"u{n % 23}" for n in range(240)],
    "item": [f"i{n % 17}" for n in range(240)],
    "age": [n % 50 for n in range(240)],
}


def test_nothing_that_is_read_can_run() -> None:
    """No pickle but torch's of weights alone, no YAML, no evaluated text in the package."""
    modules = {"pickle", "cPickle", "dill", "marshal", "shelve", "yaml", "joblib"}
    for file in PACKAGE.rglob("*.py"):
        if file.parent.name == "testing":  # tests, which nothing else imports, copy by pickle
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not {name.name.split(".")[0] for name in node.names} & modules, file
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] not in modules, file
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec", "compile", "__import__"), file
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                whole = ast.unparse(node.func)
                assert whole not in ("np.load", "numpy.load"), file
                if whole == "torch.load":
                    said = {each.arg: ast.unparse(each.value) for each in node.keywords}
                    assert said.get("weights_only") == "True", file


@pytest.fixture(scope="module")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ratings(tmp_path_factory.mktemp("raw") / "ratings.csv", rows=1500)


def test_weights_and_scores_do_not_depend_on_the_number_of_threads(
    ratings: Path, tmp_path: Path
) -> None:
    weights, scores = [], []
    for threads in (1, 2, 4):
        out = tmp_path / f"run{threads}"
        done = subprocess.run(
            [
                *(sys.executable, "-m", "bitfold", "train", str(ratings), *map(str, READING)),
                *(*map(str, TRAINING), "--budget", "2x", "--out", str(out)),
            ],
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            capture_output=True, text=True, check=False, timeout=240,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        weights.append(read_tensors(out / "weights.safetensors")[0])
        scores.append(bitfold.load(out).predict(ROWS))
    for other, score in zip(weights[1:], scores[1:], strict=True):
        for name, tensor in weights[0].items():
            np.testing.assert_allclose(other[name], tensor, rtol=1e-4, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(score, scores[0], atol=1e-5)


def test_many_threads_score_with_one_run(ratings: Path) -> None:
    run = bitfold.train(
        ratings, label="rating>=4", fields="user,item", method="binary-code", budget="2x",
        width=4, hidden=[8], epochs=1, progress=False,
    )  # fmt: skip
    parts = [
        {name: column[start : start + 1 + start % 7] for name, column in ROWS.items()}
        for start in range(0, 200, 2)
    ]
    alone = [run.predict(part) for part in parts]
    with ThreadPoolExecutor(8) as pool:
        for got, right in zip(pool.map(run.predict, parts), alone, strict=True):
            np.testing.assert_array_equal(got, right)
