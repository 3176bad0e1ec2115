"""A prepared log holds exactly the rows of the raw one, however they were written."""

import gzip
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import zstandard

from bitfold.data.config import DataConfig
from bitfold.data.hashing import cross_ids, hash_values, missing_id
from bitfold.data.prepare import prepare, prepare_or_open
from bitfold.data.prepared import PreparedLog
from bitfold.data.raw import read_batches
from bitfold.data.schema import Schema
from bitfold.errors import BitfoldError

ALL = "random:1,0,0"


def frame(rows: int = 500) -> pl.DataFrame:
    rng = np.random.default_rng(3)
    return pl.DataFrame(
        {
            "click": rng.integers(0, 2, rows),
            "user": rng.integers(0, 20, rows),
            "item": [f"ü{i}" for i in rng.integers(0, 50, rows)],
            "price": [None if rng.random() < 0.1 else rng.integers(-5, 1000) for _ in range(rows)],
            "tags": ["|".join(f"t{j}" for j in range(i)) for i in rng.integers(0, 4, rows)],
            "row": np.arange(rows),
        },
        schema_overrides={"price": pl.Int64},
    )


CONFIG = DataConfig(
    label="click",
    fields=("user", "item", "tags"),
    multi={"tags": "|"},
    cross=("user*item",),
    numeric=("price", "row"),
    numeric_transform="standard",
    group="user",
    weight="row",
    split=ALL,
)


def rows_of(log: PreparedLog, part: str = "train") -> list[tuple[object, ...]]:
    """All rows of a part as tuples, in a canonical order."""
    out: list[tuple[object, ...]] = []
    for batch in log.batches(part, 64):
        fields = len(log.schema.fields)
        for row in range(batch.rows):
            ids: list[object] = []
            for field in range(fields):
                if batch.offsets is None:
                    ids.append(int(batch.ids[row, field]))
                else:
                    bag = field * batch.rows + row
                    start, stop = batch.offsets[bag], batch.offsets[bag + 1]
                    ids.append(tuple(batch.ids[start:stop].tolist()))
            others = [
                None if column is None else float(column[row])
                for column in (batch.labels, batch.weights, batch.groups)
            ]
            out.append((tuple(ids), *others, *batch.numeric[row].tolist()))
    return sorted(out, key=str)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> PreparedLog:
    folder = tmp_path_factory.mktemp("reference")
    frame().write_csv(folder / "log.csv")
    return prepare(folder / "log.csv", folder / "out", CONFIG)


def test_rows_are_those_of_the_raw_log(reference: PreparedLog) -> None:
    raw = frame()
    price = raw["price"].cast(pl.Float64).to_numpy()
    row = raw["row"].to_numpy().astype(float)
    scaled = [np.nan_to_num((x - np.nanmean(x)) / np.nanstd(x)) for x in (price, row)]
    user, item = hash_values(raw["user"]), hash_values(raw["item"])
    crossed = cross_ids([user, item])
    got = {round(entry[2]): entry for entry in rows_of(reference)}  # the weight is the row
    assert len(got) == raw.height
    for index in range(raw.height):
        ids, label, _, group, *numbers = got[index]
        tags = [tag for tag in raw["tags"][index].split("|") if tag]
        assert ids == (
            (user[index],),
            (item[index],),
            tuple(hash_values(tags).tolist()),
            (crossed[index],),
        )
        assert label == raw["click"][index]
        assert group == pytest.approx(float(user[index]))
        assert numbers == pytest.approx([column[index] for column in scaled], abs=1e-5)


def write_as(raw: pl.DataFrame, path: Path) -> Path:
    name = path.name
    if name.endswith(".parquet"):
        raw.write_parquet(path, row_group_size=77)
        return path
    text = raw.write_csv(separator="\t" if ".tsv" in name else ",").encode()
    if "crlf" in name:
        text = text.replace(b"\n", b"\r\n")
    if "bom" in name:
        text = b"\xef\xbb\xbf" + text
    if "quoted" in name:
        text = raw.write_csv(quote_style="always").encode()
    if name.endswith(".gz"):
        text = gzip.compress(text[:999]) + gzip.compress(text[999:])  # two members
    if name.endswith(".zst"):
        text = zstandard.compress(text[:999]) + zstandard.compress(text[999:])
    path.write_bytes(text)
    return path


@pytest.mark.parametrize(
    "name",
    [
        "a.parquet",
        "a.tsv",
        "a.csv.gz",
        "a.tsv.zst",
        "crlf.csv",
        "bom.csv",
        "quoted.csv",
        "tail.csv",
    ],
)
def test_every_way_to_write_a_log_gives_the_same(reference, tmp_path, name):
    path = write_as(frame(), tmp_path / name)
    if name == "tail.csv":
        path.write_bytes(path.read_bytes().rstrip(b"\n"))
    assert rows_of(prepare(path, tmp_path / "out", CONFIG)) == rows_of(reference)


def test_several_files_of_mixed_kinds_in_order(reference, tmp_path):
    raw = frame()
    write_as(raw[:100], tmp_path / "1.csv")
    write_as(raw[100:350].select(reversed(raw.columns)), tmp_path / "2.csv.gz")
    write_as(raw[350:], tmp_path / "3.parquet")
    by_pattern = prepare(tmp_path / "*", tmp_path.parent / "by_pattern", CONFIG)
    by_folder = prepare(tmp_path, tmp_path.parent / "by_folder", CONFIG)
    assert rows_of(by_pattern) == rows_of(by_folder) == rows_of(reference)


def test_no_header_line(reference, tmp_path):
    path = write_as(frame(), tmp_path / "a.csv")
    path.write_text(path.read_text().split("\n", 1)[1])
    named = CONFIG.replace(columns=tuple(frame().columns))
    assert rows_of(prepare(path, tmp_path / "out", named)) == rows_of(reference)
    numbered = DataConfig(
        header="no", label="column_1", fields=("column_2",), split=ALL, format="csv"
    )
    assert prepare(path, tmp_path / "out2", numbered).rows["train"] == 500


@pytest.mark.parametrize("separator", ["|", ";", "::", "tab"])
def test_separators(tmp_path, separator):
    raw = frame().select("click", "user", "item")
    text = raw.write_csv(separator="\x01").replace("\x01", {"tab": "\t"}.get(separator, separator))
    (tmp_path / "a.csv").write_text(text)
    config = DataConfig(label="click", fields=("user", "item"), split=ALL, separator=separator)
    log = prepare(tmp_path / "a.csv", tmp_path / "out", config)
    got = np.concatenate([batch.ids.numpy() for batch in log.batches("train", 100)])
    assert sorted(got[:, 1].tolist()) == sorted(hash_values(raw["item"]).tolist())


def test_a_cell_over_two_lines(tmp_path):
    rows = "".join(f'{i % 2},"u\n{i}"\n' for i in range(2000))
    (tmp_path / "a.csv").write_text("click,user\n" + rows)
    config = DataConfig(label="click", fields=("user",), split=ALL)
    log = prepare(tmp_path / "a.csv", tmp_path / "out", config)
    assert log.stats["fields"]["user"]["distinct"] == 2000


def test_lists_in_parquet_equal_joined_text(reference, tmp_path):
    raw = frame().with_columns(pl.col("tags").str.split("|"))
    raw.write_parquet(tmp_path / "a.parquet")
    assert rows_of(prepare(tmp_path / "a.parquet", tmp_path / "out", CONFIG)) == rows_of(reference)


def test_the_same_seeds_give_the_same_bytes(tmp_path):
    path = write_as(frame(), tmp_path / "a.csv")
    config = CONFIG.replace(split="random:0.6,0.2,0.2", split_seed=5)
    first = prepare(path, tmp_path / "one", config).path
    second = prepare(path, tmp_path / "two", config).path
    files = sorted(p.relative_to(first) for p in first.rglob("*") if p.is_file())
    assert len(files) > 4
    for file in files:
        assert (first / file).read_bytes() == (second / file).read_bytes(), file
    other = prepare(path, tmp_path / "three", config.replace(split_seed=6))
    assert rows_of(other) != rows_of(PreparedLog(first))


def test_many_shards_hold_what_one_does(reference, tmp_path, monkeypatch):
    monkeypatch.setattr("bitfold.data.dealing.BIN_BYTES", 4000)
    monkeypatch.setattr("bitfold.data.dealing.HELD_BYTES", 7000)
    monkeypatch.setattr("bitfold.data.text.BLOCK_BYTES", 2048)
    path = write_as(frame(), tmp_path / "a.csv")
    log = prepare(path, tmp_path / "out", CONFIG)
    assert len(list((log.path / "train").iterdir())) > 5
    assert rows_of(log) == rows_of(reference)


def test_rows_lose_the_order_of_the_log(tmp_path):
    frame(5000).write_csv(tmp_path / "a.csv")
    log = prepare(tmp_path / "a.csv", tmp_path / "out", CONFIG)
    weights = np.concatenate([b.weights.numpy() for b in log.batches("train", 100)])
    assert abs(np.corrcoef(weights, np.arange(5000))[0, 1]) < 0.1


def test_comparisons_make_labels(tmp_path):
    columns = {"r": [1, 2, 3, 4, 5], "w": ["a", "b", "a", "c", "a"], "f": [0, 1, 0, 1, 0]}
    pl.DataFrame(columns).write_csv(tmp_path / "a.csv")
    for rule, expected in [
        ("r>=4", 2),
        ("r>4", 1),
        ("r<=2", 2),
        ("r<2", 1),
        ("r==3.0", 1),
        ("r!=3", 4),
        ("w==a", 3),
        ("w!=a", 2),
    ]:
        config = DataConfig(label=rule, fields=("f",), split=ALL)
        log = prepare(tmp_path / "a.csv", tmp_path / "out", config, force=True)
        assert log.stats["train_positives"] == expected, rule


@pytest.mark.parametrize("labels", [[True, False], ["true", "False"], ["1.0", "0"], [1.0, 0.0]])
def test_ways_to_write_a_label(tmp_path, labels):
    pl.DataFrame({"y": labels, "f": [1, 2]}).write_parquet(tmp_path / "a.parquet")
    config = DataConfig(label="y", fields=("f",), split=ALL)
    log = prepare(tmp_path / "a.parquet", tmp_path / "out", config)
    assert log.stats["train_positives"] == 1


def test_missing_values(tmp_path):
    (tmp_path / "a.csv").write_text("y,f,g\n1,,NA\n0,a,-1\n1,b,x\n")
    config = DataConfig(label="y", fields=("f", "g"), missing=("NA", "-1"), split=ALL)
    stats = prepare(tmp_path / "a.csv", tmp_path / "out", config).stats["fields"]
    assert stats["f"]["missing"] == 1
    assert stats["g"]["missing"] == 2
    assert {"id": missing_id(), "count": 2, "value": None} == stats["g"]["head"][0]
    pl.DataFrame({"y": [1, 0, 1], "f": [None, "a", "b"], "g": ["NA", "-1", "x"]}).write_parquet(
        tmp_path / "a.parquet"
    )
    log = prepare(tmp_path / "a.parquet", tmp_path / "out2", config)
    assert log.stats["fields"]["g"]["missing"] == 2


def test_buckets_are_quantiles_of_the_training_part(tmp_path):
    values = np.concatenate([np.arange(1000), np.full(200, 1e9)])
    parts = ["train"] * 1000 + ["test"] * 200
    raw = pl.DataFrame({"y": np.arange(1200) % 2, "f": 1, "x": values, "part": parts}).with_columns(
        pl.when(pl.col("x") % 100 == 99).then(None).otherwise("x").alias("x")
    )
    raw.write_csv(tmp_path / "a.csv")
    config = DataConfig(
        label="y", fields=("f",), numeric=("x",), numeric_transform="buckets:8", split="column:part"
    )
    log = prepare(tmp_path / "a.csv", tmp_path / "out", config)
    assert [f.num_embeddings for f in log.schema.embedding_fields()] == [None, 9]
    train = np.concatenate([b.ids.numpy()[:, 1] for b in log.batches("train", 100)])
    counts = np.bincount(train, minlength=9)
    assert counts[0] == 10
    assert counts[1:].min() >= 120
    assert counts[1:].max() <= 127
    assert {int(i) for b in log.batches("test", 50) for i in b.ids[:, 1]} == {8}


def test_log_transform_is_sign_aware_and_standardised(tmp_path):
    x = np.array([-100.0, -1.0, 0.0, 1.0, 1e6, np.nan])
    pl.DataFrame({"y": [0, 1, 0, 1, 0, 1], "f": 1, "x": x}).write_parquet(tmp_path / "a.parquet")
    config = DataConfig(label="y", fields=("f",), numeric=("x",), split=ALL)
    log = prepare(tmp_path / "a.parquet", tmp_path / "out", config)
    got = np.sort(np.concatenate([b.numeric.numpy()[:, 0] for b in log.batches("train", 10)]))
    logs = np.sign(x) * np.log1p(np.abs(x))
    expected = np.nan_to_num((logs - np.nanmean(logs)) / np.nanstd(logs))
    assert got == pytest.approx(np.sort(expected), abs=1e-6)


def test_dense_ids_stay_as_they_are(tmp_path):
    raw = pl.DataFrame({"y": [0, 1] * 50, "f": range(100), "g": [7.0] * 100, "t": ["3|9"] * 100})
    raw.write_csv(tmp_path / "a.csv")
    config = DataConfig(
        label="y", fields=("f", "g", "t"), multi={"t": "|"}, ids="dense", cross=("f*g",), split=ALL
    )
    log = prepare(tmp_path / "a.csv", tmp_path / "out", config)
    sizes = [f.num_embeddings for f in log.schema.embedding_fields()]
    assert sizes == [100, 8, 10, None]
    batch = next(log.batches("train", 100))
    assert sorted(batch.ids[:100].tolist()) == list(range(100))
    assert batch.ids[100:200].tolist() == [7] * 100
    assert batch.ids[200:400].tolist() == [3, 9] * 100


def test_raw_rows_through_the_schema_keep_their_order(reference, tmp_path):
    raw = frame()
    extra = raw[:3].with_columns(item=pl.lit("never seen"), user=pl.lit(999))
    both = pl.concat([raw, extra], how="vertical_relaxed")
    both.drop("click").write_parquet(tmp_path / "new.parquet")
    reference.schema.save(tmp_path)
    schema = Schema.load(tmp_path)
    assert schema == reference.schema
    batches = list(read_batches(tmp_path / "new.parquet", schema, 64))
    assert [b.rows for b in batches] == [64] * 7 + [503 - 448]
    assert all(b.labels is None for b in batches)
    weights = np.concatenate([b.weights.numpy() for b in batches])
    assert weights.tolist() == [*range(500), 0, 1, 2]
    users = np.concatenate([b.ids[b.offsets[0] : b.offsets[b.rows]].numpy() for b in batches])
    assert users.tolist() == hash_values(both["user"]).tolist()


def test_a_prepared_log_is_opened_not_prepared_again(tmp_path):
    path = write_as(frame(), tmp_path / "a.csv")
    first = prepare_or_open(path, tmp_path / "out", CONFIG)
    made = (first.path / "schema.json").stat().st_mtime_ns
    assert prepare_or_open(first.path, tmp_path / "unused", CONFIG).path == first.path
    prepare_or_open(path, tmp_path / "out", CONFIG)
    assert (first.path / "schema.json").stat().st_mtime_ns == made
    prepare_or_open(path, tmp_path / "out", CONFIG.replace(split_seed=1))
    assert (first.path / "schema.json").stat().st_mtime_ns != made


def test_progress_tells_all_stages(tmp_path):
    path = write_as(frame(), tmp_path / "a.csv")
    told: list[tuple[str, int, int, int]] = []
    prepare(path, tmp_path / "out", CONFIG, progress=lambda *words: told.append(words))
    assert [stage for stage, *_ in told] == ["reading", "fitting", "writing"]
    assert told[0] == ("reading", 500, path.stat().st_size, path.stat().st_size)


@pytest.mark.parametrize("harm", ["shard", "schema", "newer", "manifest", "no schema"])
def test_a_log_that_is_not_whole_is_refused(reference, tmp_path, harm):
    import shutil

    folder = tmp_path / "log"
    shutil.copytree(reference.path, folder)
    schema = folder / "schema.json"
    if harm == "shard":
        shard = next((folder / "train").iterdir())
        shard.write_bytes(shard.read_bytes()[:-1])
    elif harm == "schema":
        schema.write_text(schema.read_text()[:-20])
    elif harm == "newer":
        schema.write_text(json.dumps(json.loads(schema.read_text()) | {"version": 99}))
    elif harm == "manifest":
        (folder / "log.json").write_text("{}")
    else:
        schema.unlink()
    with pytest.raises(BitfoldError, match="got:"):
        PreparedLog(folder)
