"""`bitfold.lite`: raw rows scored by an exported file, without torch and its kind."""

import hashlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

import bitfold
import bitfold.lite
from bitfold.data import cells, rules_json
from bitfold.data.raw import read_batches
from bitfold.data.schema import Schema
from bitfold.data.single import RowEncoder
from bitfold.data.vocabulary import Vocabulary
from bitfold.data.xxh64 import xxh64
from bitfold.errors import BitfoldError, IdOutOfRange
from bitfold.runs.run import Run
from command import bitfold as command
from test_scoring import WORDS, columns, rows
from test_spelling import COLUMNS, FIELDS

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")
LOG = {name: WORDS[name] for name in ("label", "fields", "multi", "numeric", "cross")}
FORMS: dict[str, dict[str, Any]] = {
    "hashed": {"hash_seed": 2**64 - 1},
    "vocabulary": {"ids": "vocabulary", "min_count": 3},
    "missing": {"missing": ("-1", "none"), "numeric_transform": "standard"},
    "buckets": {"numeric_transform": "buckets:4", "ids": "vocabulary"},
    "plain": {"multi": {}, "fields": ("user", "item"), "hash_seed": 7},
}
HEAVY = ("torch", "polars", "numba", "llvmlite", "pyarrow", "pandas", "msgspec", "safetensors")


def lists(table: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]


def encoder_of(schema: Schema, dense: Vocabulary | None = None) -> RowEncoder:
    text = rules_json.to_text(schema, dense, digest="", file="", version="")
    return RowEncoder(rules_json.rules_of(json.loads(text), Path("a.json")))


def same_inputs(encoder: RowEncoder, some: Any, schema: Schema) -> None:
    """The encoder's inputs are those of the run's own way by columns."""
    found = encoder.encode(some)
    [batch] = read_batches(iter(some), schema, 10**6, fields_only=True)
    np.testing.assert_array_equal(found.ids, batch.ids.numpy())
    np.testing.assert_array_equal(found.numbers.view(np.int32), batch.numeric.numpy().view("i4"))
    assert (found.offsets is None) == (batch.offsets is None)
    if batch.offsets is not None:
        np.testing.assert_array_equal(found.offsets, batch.offsets.numpy())


@pytest.fixture(scope="module", params=list(FORMS))
def schema(request: pytest.FixtureRequest) -> Schema:
    return bitfold.prepare(columns(), **LOG | FORMS[request.param]).schema


@given(rows)
def test_ids_and_numbers_are_those_of_the_run(schema: Schema, some: list[dict[str, Any]]) -> None:
    same_inputs(encoder_of(schema), some, schema)


@given(rows)
def test_without_xxhash_they_are_the_same(schema: Schema, some: list[dict[str, Any]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "hasher", lambda: xxh64)
        encoder = encoder_of(schema)
    same_inputs(encoder, some, schema)


@pytest.mark.parametrize("many", [1, 30, 200])
def test_columns_of_every_type_are_spelt_as_in_training(many: int) -> None:
    text = {name: list(map(str, values)) for name, values in COLUMNS.items()}
    schemas = [bitfold.prepare(each, fields=FIELDS, label="clicked") for each in (COLUMNS, text)]
    for log in schemas:
        for table in (COLUMNS, text):
            some = lists({name: list(values)[:many] for name, values in table.items()})
            same_inputs(encoder_of(log.schema), some, log.schema)


@given(st.lists(st.integers(0, 2**63 - 1) | st.integers(0, 9).map(float), min_size=1))
def test_dense_ids(ids: list[float]) -> None:
    table = {"user": list(range(50)) * 4, "clicked": [0, 1] * 100}
    log = bitfold.prepare(table, fields="user", label="clicked", ids="dense")
    same_inputs(encoder_of(log.schema), [{"user": each} for each in ids], log.schema)


@given(st.binary(max_size=200), st.integers(0, 2**64 - 1))
def test_xxh64_in_python(data: bytes, seed: int) -> None:
    assert xxh64(data, seed) == xxhash.xxh64_intdigest(data, seed)


def test_xxh64_of_every_length() -> None:
    data = bytes(range(256)) * 2
    for length in range(len(data)):
        assert xxh64(data[:length], 9) == xxhash.xxh64_intdigest(data[:length], 9)


@pytest.fixture(scope="module")
def run() -> Run:
    """With bags, a cross, numbers and thinned negatives."""
    return bitfold.train(columns(), **WORDS | {"negative_rate": 0.25})


@pytest.fixture(scope="module")
def file(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("lite") / "model.onnx"
    done = command("export", run.path, "--out", out, "--text")
    assert (done.code, done.err) == (0, "")
    assert sorted(each.name for each in out.parent.iterdir()) == [out.name, f"{out.name}.json"]
    return out


@given(rows)
def test_the_scores_are_the_run_s(run: Run, file: Path, some: Any) -> None:
    scorer, expected = bitfold.lite.load(file), run.predict(some)
    # A price a thousand deviations off is rounded as large numbers are.
    np.testing.assert_allclose(scorer.scores(some), expected, rtol=2e-3, atol=1e-6)
    alone = [scorer.score(row) for row in some]
    np.testing.assert_allclose(alone, expected, rtol=2e-3, atol=1e-6)


def test_its_face_is_the_run_s_scorer_s(run: Run, file: Path) -> None:
    scorer, other = bitfold.lite.load(file, threads=2), run.scorer()
    told = rules_json.read(Path(f"{file}.json"))
    assert (told["inputs"], told["output"]) == (["ids", "offsets", "numbers"], "scores")
    assert (scorer.digest, scorer.columns) == (other.digest, other.columns)
    table = columns(2)
    expected = run.predict(table)
    some = {name: np.array(values) for name, values in table.items()}
    frame = pd.DataFrame(table)
    series = {str(name): frame[name] for name in frame}
    for data in (table, some, series, lists(table)):
        found = scorer.scores_of(data)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    one = {"user": 1, "tags": ["t1", "t2"]}
    assert scorer.scores_of(one).tolist() == [scorer.score(one)]
    assert scorer.scores([]).shape == scorer.scores_of({name: [] for name in table}).shape == (0,)
    many = {name: values * 40 for name, values in table.items()}
    np.testing.assert_allclose(scorer.scores_of(many), list(expected) * 40, rtol=0, atol=1e-6)
    assert (scorer.scores(lists(many)) == scorer.scores_of(many)).all()


def test_many_threads_get_their_own_scores(file: Path) -> None:
    scorer = bitfold.lite.load(file)
    parts = [lists(columns(seed)) for seed in range(4)]
    expected = [scorer.scores(part) for part in parts]

    def work(turn: int) -> bool:
        part, wanted = parts[turn % 4], expected[turn % 4]
        one = scorer.score(part[turn])
        found = scorer.scores(part)
        return bool((found == wanted).all()) and abs(one - wanted[turn]) < 1e-6

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(80)))


def test_nothing_heavy_is_imported(file: Path) -> None:
    program = (
        "import sys, bitfold.lite\nbitfold.lite.load(sys.argv[1]).score({'user': 1, 'tags': 'a'})\n"
        f"print(sorted(set(sys.modules) & {set(HEAVY)!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(file)], capture_output=True, text=True, timeout=120
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_whoever_reads_no_further(file: Path) -> None:
    text = "\n".join(map(json.dumps, lists(columns(1)) * 20)) + "\n"
    done = subprocess.run(
        f"{sys.executable} -m bitfold.lite {file} | head -n 3",
        input=text,
        shell=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (len(done.stdout.split()), done.stderr) == (3, "")


@pytest.mark.parametrize("blocked", [(), ("xxhash",)])
def test_a_process_without_torch(run: Run, file: Path, blocked: tuple[str, ...]) -> None:
    some = lists(columns(3))[:40]
    some[3] = {"user": None, "tags": ["é", "t1"], "price": float("nan")}
    program = (
        f"import sys\nfor name in {HEAVY + blocked!r}: sys.modules[name] = None\n"
        "import bitfold.lite\nsys.exit(bitfold.lite.main(sys.argv[1:]))"
    )
    text = "\n".join(map(json.dumps, some)) + "\n"
    done = subprocess.run(
        [sys.executable, "-c", program, str(file)],
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = np.array(done.stdout.split(), np.float32)
    np.testing.assert_allclose(found, run.predict(some), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ('{"user": 1', "line 301 is no JSON"),
        ("", "line 301 is no JSON"),
        ("[" * 100_000, "line 301 is no JSON"),
        ("[1]", "row 301 is no dictionary"),
        ('{"usre": 1}', "row 301 has no column 'user'"),
        ('{"user": 1, "price": "cheap"}', "column 'price', row 301"),
        ('{"user": {"a": 1}}', "column 'user', row 301"),
    ],
)
def test_a_wrong_line(file: Path, line: str, match: str) -> None:
    text = "\n".join([*map(json.dumps, lists(columns(1))), line]) + "\n"
    done = subprocess.run(
        [sys.executable, "-m", "bitfold.lite", str(file)],
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert match in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stdout.split()) == 256  # what came before is told


def test_a_wrong_column(file: Path) -> None:
    scorer = bitfold.lite.load(file)
    table = columns()
    with pytest.raises(BitfoldError, match="unknown column 'user'"):
        scorer.scores_of({name: table[name] for name in table if name != "user"})
    with pytest.raises(BitfoldError, match="not of one length"):
        scorer.scores_of(table | {"price": [1.0]})
    with pytest.raises(BitfoldError, match="column 'price', row 2"):
        scorer.scores_of({name: [values[0], "x"] for name, values in table.items()})
    with pytest.raises(BitfoldError, match="these are no rows"):
        scorer.scores({"user": 1})  # type: ignore[arg-type]
    with pytest.raises(BitfoldError, match="these are no rows"):
        scorer.scores_of("rows.csv")


def test_what_is_not_the_two_files_of_one_export(file: Path, tmp_path: Path) -> None:
    model, told = file.read_bytes(), Path(f"{file}.json").read_bytes()
    here, beside = tmp_path / "m.onnx", tmp_path / "m.onnx.json"

    def refused(match: str, model: bytes | None, told: bytes | None) -> None:
        for path, data in ((here, model), (beside, told)):
            path.unlink(missing_ok=True)
            if data is not None:
                path.write_bytes(data)
        with pytest.raises(BitfoldError, match=match):
            bitfold.lite.load(here)
        assert bitfold.lite.main([str(here)]) == 2

    value = json.loads(told)

    def with_(**changes: Any) -> bytes:
        made = {name: each for name, each in value.items() if name != "seal"} | changes
        return json.dumps(made | {"seal": rules_json._seal(made)}).encode()

    refused(r"m.onnx.json cannot be read", model, None)
    refused(r"m.onnx cannot be read", None, told)
    refused(r"another SHA-256", model + b"\0", told)
    refused(r"is no JSON|damaged", model, told[:-40])
    refused(r"damaged", model, b"[" * 100_000)
    refused(r"damaged", model, b'{"kind": "bitfold run"}')
    refused(r"seal of another content", model, told.replace(b'"user"', b'"users"', 1))
    refused(r"another format", model, with_(format=2))
    refused(r"model of the run", model, with_(digest="0" * 64))
    refused(r"another hash", model, with_(schema=value["schema"] | {"hash_version": 9}))
    refused(r"damaged", model, with_(schema=value["schema"] | {"fields": 3}))
    refused(r"damaged", model, with_(maps=[[{"ids": 1, "keys": "AA=="}]]))
    garbage = with_(file=hashlib.sha256(b"no model").hexdigest())
    refused(r"ONNX Runtime refuses", b"no model", garbage)


def test_without_its_runtime(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BitfoldError, match="needs ONNX Runtime"):
        bitfold.lite.load(file)


def test_a_run_with_a_map_of_its_own(tmp_path: Path) -> None:
    words = WORDS | {"method": "full", "budget": None, "numeric_transform": "buckets:3"}
    run = bitfold.train(columns(), **words)
    assert run.dense is not None
    bitfold.export(run, tmp_path / "model.onnx", text=True)
    scorer = bitfold.lite.load(tmp_path / "model.onnx")
    some = [*lists(columns(1)), {"user": "new"}, {"item": None, "tags": "t1|?"}]
    np.testing.assert_allclose(scorer.scores(some), run.predict(some), rtol=0, atol=1e-6)


def test_a_dense_id_out_of_range(tmp_path: Path) -> None:
    table = {"user": list(range(50)) * 4, "clicked": [0, 1, 1, 0] * 50, "age": [1.0, 2.0] * 100}
    words = {"label": "clicked", "ids": "dense", "width": 4, "hidden": [4], "epochs": 1}
    run = bitfold.train(table, fields="user", numeric="age", method="full", device="cpu", **words)
    bitfold.export(run, tmp_path / "model.onnx", text=True)
    scorer = bitfold.lite.load(tmp_path / "model.onnx")
    np.testing.assert_allclose(scorer.scores_of(table), run.predict(table), rtol=0, atol=1e-6)
    with pytest.raises(IdOutOfRange, match="row 3"):
        scorer.scores([{"user": 1}, {"user": 49}, {"user": 50}])
    with pytest.raises(BitfoldError, match="no dense id: column 'user', row 2"):
        scorer.scores([{"user": 1}, {"user": -1}])


def test_arguments_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert bitfold.lite.main([]) == bitfold.lite.main(["--help"]) == 2
    assert capsys.readouterr().err.count("usage:") == 2
