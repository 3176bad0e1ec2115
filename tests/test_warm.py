"""First scores of a process, and kernels that are compiled ahead."""

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import bitfold
from bitfold.embedder.contract import Embedder
from bitfold.kernels.choice import DIRECT, PLAIN, plain_here, way_of
from bitfold.runs.warming import KernelsLater, is_exact
from bitfold.testing.cases import Case, all_cases, bags_by_field, random_bags
from bitfold.training import train
from click_log import DATA, TINY, columns, write
from command import bitfold as command
from command import refused


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("warm")
    log = write(folder / "log.csv", columns(300))
    train([log], DATA, replace(TINY, epochs=1), folder / "run")
    return folder / "run"


def process(script: str, *args: object, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *map(str, args)],
        env=os.environ | environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


FIRST = """
import sys
import bitfold
scorer = bitfold.load(sys.argv[1]).scorer()
row = {"user": "u1", "item": "i2", "city": "c3", "price": "4.5"}
first = scorer.score(row)
heavy = [name for name in ("polars", "pyarrow", "sklearn", "torch._dynamo", "sympy")
         if name in sys.modules]
assert not heavy, heavy
later = scorer._later
assert later is not None
later.wait()
assert later.ready and "numba" in sys.modules
print(first == scorer.score(row), scorer.scores([row] * 9).tolist() == [first] * 9)
"""


def test_a_first_score_loads_neither_polars_nor_a_compiler_and_kernels_follow(run: Path) -> None:
    assert process(FIRST, run) == "True True\n"


def test_a_row_of_predict_waits_for_no_kernels_either(run: Path) -> None:
    script = """
import copy, sys
import bitfold
run = bitfold.load(sys.argv[1])
row = {"user": "u1", "item": "i2", "city": "c3", "price": "4.5"}
first = run.predict(row)
run._later.wait()
assert run._later.ready
again = copy.deepcopy(run)
print((run.predict(row) == first).all(), (run.predict([row] * 500) == first).all(),
      not again._later.ready, (again.predict(row) == first).all())
"""
    assert process(script, run) == "True True True True\n"


def test_loading_and_plain_scores_need_no_kernels(run: Path) -> None:
    script = """
import sys
import bitfold
run = bitfold.load(sys.argv[1])
with bitfold.plain_torch():
    run.predict({"user": "u1"})
    assert run._later._thread is None
print([name for name in ("numba", "polars", "torch._dynamo", "sympy") if name in sys.modules])
"""
    assert process(script, run) == "[]\n"


@pytest.mark.parametrize("case", all_cases(), ids=str)
def test_what_is_said_to_be_exact_is(case: Case) -> None:
    """Plain torch and the kernels agree to the last bit wherever they are said to."""
    served = case.collection(mode="sum").serving()
    parts = [each for each in served.modules() if isinstance(each, Embedder)]
    with torch.no_grad():
        for mode in (None, "sum", "max", "mean"):
            if not all(part.exact_in_plain(mode) for part in parts):
                continue
            served.mode = mode or "sum"
            bags = bags_by_field(random_bags(case, 40))
            given = (case.ids(200),) if mode is None else bags
            by_kernels = served(*given)
            with plain_here():
                assert torch.equal(served(*given), by_kernels), mode


def test_more_terms_than_two_are_not_said_to_be_exact() -> None:
    def exact(mode: str | None, **words: object) -> bool:
        fields = [bitfold.Field("a", 5000)]
        made = bitfold.EmbeddingCollection(fields, 8, budget="4x", seed=0, **words)  # type: ignore[arg-type]
        return made.embedder.exact_in_plain(mode)

    assert exact(None, method="multi-hash", hashes=2)
    assert not exact(None, method="multi-hash", hashes=3)
    assert exact("sum", method="hash")
    assert not exact("mean", method="hash")


def test_a_run_whose_bits_would_differ_waits_for_its_kernels(tmp_path: Path) -> None:
    log = write(tmp_path / "log.csv", columns(300))
    data = replace(DATA, fields=("user", "tags"), multi={"tags": "|"})
    for pooled, waits in (("mean", True), ("sum", False)):
        out = tmp_path / pooled
        train([log], data, replace(TINY, epochs=1, bags=pooled), out)
        made = bitfold.load(out)
        assert is_exact(made.model, bags=True) is not waits
        scorer = made.scorer()
        assert scorer._later is not None
        assert scorer._later.ready == waits
        rows = {name: values[:20] for name, values in columns(30, 3).items()}
        assert (scorer.scores_of(rows) == made.predict(rows)).all()


def test_plain_here_is_for_one_thread() -> None:
    weight, found = torch.zeros(2, 2), []
    with plain_here():
        other = threading.Thread(target=lambda: found.append(way_of(weight)))
        other.start()
        other.join()
        found.append(way_of(weight))
    assert [*found, way_of(weight)] == [DIRECT, PLAIN, DIRECT]


def test_work_is_plain_until_the_kernels_are_ready() -> None:
    weight, ready = torch.zeros(2, 2), threading.Event()
    later = KernelsLater(lambda: ready.wait(30))
    assert [later(lambda: way_of(weight)) for _ in range(3)] == [PLAIN] * 3
    ready.set()
    later.wait()
    assert later(lambda: way_of(weight)) == DIRECT


def test_nobody_waits_for_kernels_that_nobody_may_use() -> None:
    made: list[int] = []
    later = KernelsLater(lambda: made.append(1))
    with bitfold.plain_torch():
        later.wait()
        assert not later.ready
    assert not made
    later.wait()
    assert later.ready
    assert made == [1]


def test_kernels_that_fail_are_told_once_and_plain_torch_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        raise RuntimeError("no compiler here")

    later = KernelsLater(fail)
    weight = torch.zeros(2, 2)
    assert later(lambda: way_of(weight)) == PLAIN
    later.wait()
    assert later(lambda: way_of(weight)) == PLAIN
    assert len(calls) == 1
    assert caplog.text.count("no compiler here") == 1


def test_warm_compiles_what_a_run_needs_and_then_nothing(run: Path, tmp_path: Path) -> None:
    # Of more than one thread there is a third kernel, which launches the others.
    cache = {"NUMBA_CACHE_DIR": str(tmp_path / "kept"), "OMP_NUM_THREADS": "1"}
    script = "import sys; from bitfold.cli import main; main(['warm', *sys.argv[1:]])"
    # Where a folder's name is long, the line goes on below.
    first, again = (" ".join(process(script, run, **cache).split()) for _ in range(2))
    assert str(tmp_path / "kept") in first
    assert "compiled 1 digits, 1 forward;" in first
    assert "nothing to compile" in again
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").rglob("*.nbc")}
    assert f"{len(made)} others are there" in again
    process(FIRST, run, **cache)
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").rglob("*.nbc")}
    assert after == made  # a first score reads what was compiled


FORKED = """
import os, time
import torch
from bitfold.kernels.choice import PLAIN, way_of
from bitfold.runs.warming import KernelsLater

later = KernelsLater(lambda: time.sleep(0.5))
assert later(lambda: way_of(torch.zeros(2, 2))) == PLAIN and not later.ready
child = os.fork()
if child == 0:
    os._exit(0 if later.ready else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_fork_waits_for_compilations_whose_locks_its_child_would_wait_for() -> None:
    assert process(FORKED, PYTHONWARNINGS="ignore") == "0\n"


READ_ONLY = """
import errno, sys, tempfile
import bitfold, torch
import numba.core.caching as caching
from numba.core.ccallback import CFunc

def refuse(*_, **__):
    raise OSError(errno.EROFS, "read-only")

tempfile.TemporaryFile = caching.IndexDataCacheFile._save_index = refuse
compile, compiled = CFunc._compile_uncached, []
CFunc._compile_uncached = lambda self: compiled.append(1) or compile(self)
scorer = bitfold.load(sys.argv[1]).scorer(wait=True)
score = scorer.score({"user": "u1"})
print(len(compiled) == 0)
layer = bitfold.Embedding(50, 7, method="full")  # of a width that is not there
print(layer(torch.tensor([3])).shape == (1, 7), len(compiled) > 0)
"""


def test_kernels_of_a_folder_that_is_read_only_are_read(run: Path, tmp_path: Path) -> None:
    cache = {"NUMBA_CACHE_DIR": str(tmp_path / "kept")}
    process("import sys; from bitfold.cli import main; main(['warm', *sys.argv[1:]])", run, **cache)
    assert process(READ_ONLY, run, **cache) == "True\nTrue True\n"


def test_warm_is_told_of_what_is_no_run(tmp_path: Path) -> None:
    refused(command("warm", tmp_path), "not a finished run")
    refused(command("warm", tmp_path / "none"), "not a finished run")


def test_warm_needs_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitfold.training.ahead.cache_folder", lambda: None)
    refused(command("warm"), "no place", "NUMBA_CACHE_DIR")


def test_warm_reads_all_usual_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    from bitfold.training import ahead

    forms = list(ahead._forms(everything=False))
    bits = {made.plan.groups[0].pools[0].bits for made, _ in forms}
    assert {8, 4} < bits
    monkeypatch.setattr(ahead, "_forms", lambda everything: iter(forms[:1]))
    before = forms[0][0].embedder.state_dict()["pool.weight"].clone()
    found = ahead.warm(everything=True)
    assert found.seconds > 0
    now = forms[0][0].embedder.state_dict()["pool.weight"]
    assert not np.array_equal(before.numpy(), now.numpy())  # it was trained, too
