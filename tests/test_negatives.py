"""Drawn negatives of a log of positives: never an item that the user has, in any part."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from bitfold.data.config import DataConfig
from bitfold.data.hashing import cross_ids, hash_values
from bitfold.data.negatives import Drawer, Pool
from bitfold.data.prepare import prepare
from bitfold.data.prepared import PreparedLog
from bitfold.errors import BitfoldError
from command import TRAINING, bitfold, process, refused

PARTS = ("train", "valid", "test")
SPLITS = ("random:0.6,0.2,0.2", "time:0.6,0.2,0.2", "last:1,1", "column:part")


def columns(seed: int = 0, users: int = 30, items: int = 40, each: int = 8) -> dict[str, Any]:
    """Positives; popular items come often, and an item has a genre, tags and a price."""
    draw = np.random.default_rng(seed)
    chance = 1.0 / np.arange(1, items + 1)
    item = np.concatenate(
        [draw.choice(items, each, replace=False, p=chance / chance.sum()) for _ in range(users)]
    )
    user = np.repeat(np.arange(users), each)
    order = draw.permutation(len(user))
    user, item = user[order], item[order]
    return {
        "user": [f"u{u}" for u in user],
        "item": [f"i{i}" for i in item],
        "genre": [f"g{i % 5}" for i in item],
        "tags": ["|".join(f"t{k}" for k in range(i % 3)) for i in item],
        "price": [round(1.5 * int(i) + 1, 2) for i in item],
        "age": [20 + int(u) % 4 for u in user],
        "hour": draw.integers(0, 24, len(user)).tolist(),
        "time": list(range(len(user))),
        "part": [PARTS[min(i % 10, 9) // 4] for i in range(len(user))],
    }


def write(folder: Path, data: dict[str, Any], **words: Any) -> PreparedLog:
    folder.mkdir(exist_ok=True)
    pl.DataFrame(data).write_csv(folder / "raw.csv")
    config = DataConfig(
        **{
            "fields": ("user", "item"),
            "group": "user",
            "item": "item",
            "time": "time",
            "negatives": 3,
            **words,
        }
    )
    return prepare(folder / "raw.csv", folder / "log", config, force=True)


def rows_of(log: PreparedLog, part: str) -> dict[str, np.ndarray]:
    names = ["label", "group", *(f"id:{name}" for name in log.schema.field_names)]
    names += [f"number:{name}" for name in log.schema.numeric_names]
    found: dict[str, list[Any]] = {name: [] for name in names}
    for shard in log.columns(part, names):
        for name in names:
            found[name].append(shard[name])
    return {name: np.concatenate(parts) for name, parts in found.items() if parts}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("by", ["uniform", "popularity"])
def test_a_negative_is_an_item_that_the_user_has_nowhere(
    tmp_path: Path, split: str, by: str
) -> None:
    data = columns()
    log = write(tmp_path, data, split=split, negatives_by=by)
    users, items = (hash_values(data[name]) for name in ("user", "item"))
    has = set(zip(users.tolist(), items.tolist(), strict=True))
    met: set[int] = set()
    total = 0
    for part in PARTS:
        rows = rows_of(log, part)
        clicked = rows["label"] == 1
        met |= set(rows["id:item"][clicked].tolist())
        drawn = list(zip(rows["group"][~clicked].tolist(), rows["id:item"][~clicked].tolist(),
                         strict=True))  # fmt: skip
        assert len(drawn) == 3 * clicked.sum()
        assert not has & set(drawn)
        # Of this part's items or an earlier one's: training meets no item of the future.
        assert {item for _, item in drawn} <= met
        # A negative carries its positive's user, three to one.
        assert Counter(user for user, _ in drawn) == {
            user: 3 * count for user, count in Counter(rows["group"][clicked].tolist()).items()
        }
        total += int(clicked.sum())
    assert total == len(users)


def test_the_context_is_the_positives_and_the_side_is_the_items(tmp_path: Path) -> None:
    data = columns()
    log = write(
        tmp_path,
        data,
        fields=("user", "item", "genre", "age", "hour"),
        cross=("user*age", "item*genre", "genre*age", "hour*user*item"),
        numeric=("price",),
        numeric_transform="standard",
        item_fields=("genre", "price"),
        split="time:0.8,0.1,0.1",
    )
    frame = pl.DataFrame(data)
    hashes = {name: hash_values(frame[name].to_list()) for name in frame.columns[:7]}
    genre = dict(zip(hashes["item"].tolist(), hashes["genre"].tolist(), strict=True))
    price = dict(zip(hashes["item"].tolist(), data["price"], strict=True))
    context = Counter(zip(*(hashes[n].tolist() for n in ("user", "age", "hour")), strict=True))
    info = log.schema.numeric[0]
    seen: Counter[tuple[int, ...]] = Counter()
    for part in PARTS:
        rows = rows_of(log, part)
        ids = {name: rows[f"id:{name}"] for name in log.schema.field_names}
        assert [genre[i] for i in ids["item"].tolist()] == ids["genre"].tolist()
        raw = rows["number:price"] * info.deviation + info.mean
        assert np.allclose(raw, [price[i] for i in ids["item"].tolist()], rtol=1e-5)
        for cross in ("user*age", "item*genre", "genre*age", "hour*user*item"):
            assert (ids[cross] == cross_ids([ids[name] for name in cross.split("*")])).all()
        seen.update(zip(*(ids[name].tolist() for name in ("user", "age", "hour")), strict=True))
    assert seen == {key: 4 * count for key, count in context.items()}


def test_a_negative_weighs_what_its_positive_does(tmp_path: Path) -> None:
    data = columns()
    data["weight"] = [1.0 + row % 7 for row in range(len(data["user"]))]
    log = write(tmp_path, data, weight="weight", split="random:1,0,0")
    expected = Counter(zip(hash_values(data["user"]).tolist(), data["weight"], strict=True))
    found: Counter[tuple[int, float]] = Counter()
    for shard in log.columns("train", ["group", "weight"]):
        found.update(zip(shard["group"].tolist(), shard["weight"].tolist(), strict=True))
    assert found == {key: 4 * count for key, count in expected.items()}


@pytest.mark.parametrize("ids", ["hashed", "vocabulary", "dense"])
def test_every_kind_of_ids(tmp_path: Path, ids: str) -> None:
    data = columns()
    if ids == "dense":
        for name in ("user", "item", "genre"):
            data[name] = [int(value[1:]) for value in data[name]]
        data["tags"] = [tags.replace("t", "") for tags in data["tags"]]
    log = write(
        tmp_path, data, ids=ids, fields=("user", "item", "genre", "tags"), multi={"tags": "|"},
        item_fields=("genre", "tags"), split="random:0.8,0.1,0.1",
    )  # fmt: skip
    items = hash_values(data["item"]) if ids == "hashed" else None
    size = log.schema.fields[1].num_embeddings
    genre_of: dict[int, int] = {}
    for batch in log.batches("train", 10_000):
        assert batch.labels is not None
        assert batch.offsets is not None
        assert abs(float(batch.labels.mean()) - 0.25) < 1e-6
        rows = batch.rows
        item, genre = batch.ids[rows : 2 * rows].tolist(), batch.ids[2 * rows : 3 * rows].tolist()
        for one, kind in zip(item, genre, strict=True):
            assert genre_of.setdefault(one, kind) == kind
        if items is not None:
            assert set(item) <= set(items.tolist())
        else:
            assert size is not None
            assert max(item) < size


def test_same_seed_same_negatives_and_another_seed_others(tmp_path: Path) -> None:
    data = columns()
    one, two, other = (
        rows_of(write(tmp_path / name, data, negatives_seed=seed), "train")
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    for name in one:
        assert (one[name] == two[name]).all()
    assert sorted(one["id:item"].tolist()) != sorted(other["id:item"].tolist())


def test_popular_items_are_drawn_in_proportion() -> None:
    """Counts 1, 3, 6, nobody has anything: a tenth, three tenths, six tenths."""
    drawer = Drawer(np.arange(3), np.empty(0, np.uint64), seed=5)
    users, numbers = np.zeros(20_000, np.int64), np.arange(20_000)
    popular = drawer.draw(users, numbers, Pool(np.arange(3), np.array([1, 4, 10])))
    assert np.allclose(np.bincount(popular) / 20_000, [0.1, 0.3, 0.6], atol=0.015)
    even = drawer.draw(users, numbers, Pool(np.arange(3), None))
    assert np.allclose(np.bincount(even) / 20_000, 1 / 3, atol=0.015)


@pytest.mark.parametrize("below", [None, np.cumsum([1] + [10**9] * 299)])
def test_a_user_who_lacks_one_item_gets_that_one(below: np.ndarray | None) -> None:
    """Blind draws would nearly never meet it."""
    from bitfold.data.interactions import pair_keys

    has = np.arange(1, 300)
    drawer = Drawer(np.arange(300), np.sort(pair_keys(np.full(299, 7), has)), seed=0)
    drawn = drawer.draw(np.full(50, 7), np.arange(50), Pool(np.arange(300), below))
    assert (drawn == 0).all()
    assert not drawer.short


def test_users_with_every_item_are_told(tmp_path: Path) -> None:
    data = {"user": ["a"] * 3 + ["b"] * 2, "item": ["x", "y", "z", "x", "y"], "time": range(5)}
    log = write(tmp_path, data, split="random:1,0,0")
    assert log.rows["train"] == 5 + 2 * 3
    found = log.stats["negatives"]
    assert (found["lacking"], found["full_users"]) == (9, 1)
    out = bitfold(
        "prepare", tmp_path / "raw.csv", "--fields", "user,item", "--group", "user", "--item",
        "item", "--negatives", 3, "--split", "random:1,0,0", "--out", tmp_path / "again",
    )  # fmt: skip
    assert out.code == 0
    assert "9 negatives are lacking: 1 of user have every item" in out.out
    out = bitfold("inspect", tmp_path / "again", "--quick")
    assert "label drawn negatives" in out.out
    assert "9 negatives are lacking: 1 of user have every item" in out.out
    data = {"user": ["a", "a", "b", "b"], "item": ["x", "y", "x", "y"], "time": range(4)}
    with pytest.raises(BitfoldError, match="no negative can be drawn"):
        write(tmp_path, data, split="random:1,0,0")


def test_rows_that_the_label_calls_negative_are_left_out_and_never_drawn(tmp_path: Path) -> None:
    data = columns(users=10, items=15)
    data["rating"] = [1 + i % 5 for i in range(len(data["user"]))]
    log = write(tmp_path, data, label="rating>=4", split="last:1,1")
    kept = sum(rating >= 4 for rating in data["rating"])
    assert sum(log.rows.values()) == 4 * kept
    assert log.stats["negatives"]["dropped"] == len(data["user"]) - kept
    has = set(zip(hash_values(data["user"]).tolist(), hash_values(data["item"]).tolist(),
                  strict=True))  # fmt: skip
    clicked = 0
    for part in PARTS:
        rows = rows_of(log, part)
        for label, *pair in zip(rows["label"], rows["group"].tolist(), rows["id:item"].tolist(),
                                strict=True):  # fmt: skip
            assert (tuple(pair) in has) == (label == 1)
            clicked += int(label)
    assert clicked == kept


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ({"fields": ("user", "item", "genre")}, "genre"),
        ({"fields": ("user", "item", "tags"), "multi": {"tags": "|"}}, "tags"),
        ({"numeric": ("price",)}, "price"),
        ({"numeric": ("price",), "numeric_transform": "buckets:4"}, "price"),
        ({"cross": ("user*genre",)}, "genre"),
        ({"fields": ("user", "item", "genre", "hour"), "cross": ("hour*genre",)}, "genre"),
    ],
)
def test_a_column_that_belongs_to_the_item_must_be_said(
    tmp_path: Path, words: dict[str, Any], name: str
) -> None:
    """Left with the context, a drawn item would carry another item's genre, and give it away."""
    with pytest.raises(BitfoldError, match=f"'{name}' belongs to 'item'") as told:
        write(tmp_path, columns(), **words)
    assert f"--item-fields {name}" in str(told.value)
    assert not (tmp_path / "log").exists()
    log = write(tmp_path, columns(), **words, item_fields=(name,))
    assert log.rows["train"]


def test_what_only_looks_like_the_items_is_let_be(tmp_path: Path) -> None:
    """A context column of nearly one value, and one of few rows: chance, not the item."""
    data = columns()
    data["age"] = [20] * len(data["user"])
    data["age"][0] = 21
    data["item"] = [f"i{i}" for i in range(len(data["item"]) - 4)] + ["i0", "i1", "i2", "i3"]
    data["genre"] = [f"g{int(item[1:]) % 5}" for item in data["item"]]
    write(tmp_path, data, fields=("user", "item", "age", "genre"))


def test_a_missing_item_is_never_drawn(tmp_path: Path) -> None:
    from bitfold.data.hashing import missing_id

    data = columns()
    data["item"] = [None if i % 9 == 0 else item for i, item in enumerate(data["item"])]
    rows = rows_of(write(tmp_path, data), "train")
    assert missing_id(0) not in rows["id:item"][rows["label"] == 0]


@pytest.mark.parametrize("shards", [1, 3])
def test_draws_do_not_depend_on_chunks(
    tmp_path: Path, shards: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small shards, many chunks: the same negatives."""
    data = columns()
    whole = rows_of(write(tmp_path / "a", data), "train")
    monkeypatch.setattr("bitfold.data.dealing.BIN_BYTES", 40_000 // shards)
    monkeypatch.setattr("bitfold.data.interactions._WAITING", 7)
    parted = rows_of(write(tmp_path / "b", data), "train")
    pairs = [
        sorted(zip(*(rows[name].tolist() for name in ("label", "group", "id:item")), strict=True))
        for rows in (whole, parted)
    ]
    assert pairs[0] == pairs[1]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ({"group": None, "split": "random:1,0,0"}, "negatives need the user's column"),
        ({"item": None}, "negatives need the item's column"),
        ({"item": "user"}, "the item is the user"),
        ({"item": "genre"}, "the item 'genre' is no field"),
        ({"item_fields": ("nope",)}, "nope"),
        ({"item_fields": ("user",)}, "cannot be a column of the item"),
        ({"negatives": -1}, "negatives"),
        ({"negatives": 10**9}, "negatives is too large"),
        ({"negative_rate": 0.5}, "exclude each other"),
        ({"negatives_by": "fame"}, "fame"),
    ],
)
def test_what_cannot_be_is_refused(words: dict[str, Any], text: str, tmp_path: Path) -> None:
    with pytest.raises(BitfoldError, match=text):
        write(tmp_path, columns(), **words)
    assert not (tmp_path / "log").exists()


def test_no_positive_is_told(tmp_path: Path) -> None:
    data = columns() | {"rating": [1] * len(columns()["user"])}
    with pytest.raises(BitfoldError, match="no positives"):
        write(tmp_path, data, label="rating>=4")


# Sequences

TRAIN = "0 1 2 3\n1 2,4\t5\r\n\n2\n3   1 2 4\n0 6"


def sequences(path: Path, text: str = TRAIN, **words: Any) -> PreparedLog:
    path.mkdir(exist_ok=True)
    (path / "train.txt").write_bytes(text.encode())
    config = DataConfig(**{"format": "sequences", "negatives": 2, **words})
    return prepare(path / "train.txt", path / "log", config, force=True)


def positives(log: PreparedLog, part: str) -> set[tuple[int, int]]:
    rows = rows_of(log, part)
    kept = rows["label"] == 1
    return set(zip(rows["id:user"][kept].tolist(), rows["id:item"][kept].tolist(), strict=True))


def pairs(*texts: str) -> set[tuple[int, int]]:
    listed = [text.split() for text in texts]
    users, items = (hash_values([pair[k] for pair in listed]).tolist() for k in (0, 1))
    return set(zip(users, items, strict=True))


def test_sequences_are_read_in_the_order_of_their_lines(tmp_path: Path) -> None:
    log = sequences(tmp_path, split="last:1,1")
    assert positives(log, "test") == pairs("0 6", "1 5", "3 4")
    assert positives(log, "valid") == pairs("0 3", "1 4", "3 2")
    assert positives(log, "train") == pairs("0 1", "0 2", "1 2", "3 1")


def test_sequences_with_a_separator_of_their_own_and_other_names(tmp_path: Path) -> None:
    log = sequences(
        tmp_path, "a b|x y|z\nc|z|w\n", separator="|", columns=("who", "what"),
        fields=("who", "what"), group="who", item="what", split="random:1,0,0", negatives=1,
    )  # fmt: skip
    rows = rows_of(log, "train")
    items = set(hash_values(["x y", "z", "w"]).tolist())
    assert set(rows["id:what"].tolist()) == items
    assert (rows["label"] == 1).sum() == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0 1 2\r1 3 4\r2 5\r", {}),
        ("\ufeff0 1 2\r\n1 3 4\r\n2 5", {}),
        ('"0" "1" "2"\n"1","3","4"\n2\t"5"\n', {}),
        ("user items\n0 1 2\n1 3 4\n2 5\n", {"header": "yes"}),
        ("0|1|2\r\n1|3| 4 |\n\n2||5\n", {"separator": "|"}),
        ("0 1\n1 3\n0 2\n2\n1 4\n2 5", {}),
        ("0 1 2\n1 3 {a}\n1 4\n2 5\n", {}),
        ("  0  1  2  \n1\t3,4\n2 , 5\n", {}),
    ],
)
def test_ways_to_write_a_line(tmp_path: Path, text: str, words: dict[str, Any]) -> None:
    log = sequences(tmp_path, text, split="random:1,0,0", negatives=1, **words)
    assert positives(log, "train") >= pairs("0 1", "0 2", "1 3", "1 4", "2 5")
    assert len(positives(log, "train")) == 5 + text.count("{a}")


def test_missing_values_of_sequences(tmp_path: Path) -> None:
    from bitfold.data.hashing import missing_id

    log = sequences(tmp_path, missing=("-1",), text="0 1 -1\n1 3 4\n2 5\n", split="random:1,0,0")
    rows = rows_of(log, "train")
    assert (rows["id:item"][rows["label"] == 1] == missing_id(0)).sum() == 1
    assert missing_id(0) not in rows["id:item"][rows["label"] == 0]


@pytest.mark.parametrize(
    "line", ['{"user": 1, "items": [1, 2]}', "1 [2, 3]", '1,"[2, 3]"', "[1, 2, 3]"]
)
def test_json_is_no_sequence(tmp_path: Path, line: str) -> None:
    with pytest.raises(BitfoldError, match=r"line 2 of .*no line of a user and items"):
        sequences(tmp_path, f"0 1 2\n{line}\n")


@pytest.mark.parametrize("packing", ["gz", "zst"])
def test_packed_sequences_in_small_blocks(
    tmp_path: Path, packing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow as pa

    monkeypatch.setattr("bitfold.data.sequences._BLOCK_BYTES", 64)
    text = "".join(f"{user} {' '.join(str((user * 7 + k) % 50) for k in range(9))}\n"
                   for user in range(40))  # fmt: skip
    path = tmp_path / f"train.txt.{packing}"
    codec = {"gz": "gzip", "zst": "zstd"}[packing]
    with pa.CompressedOutputStream(str(path), codec) as stream:
        stream.write(text.encode())
    log = prepare(path, tmp_path / "log", DataConfig(format="sequences", negatives=1))
    assert log.stats["negatives"]["positives"] == 360


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"0 1 2\n1 \xff 3\n", "line 2 of"),
        (b"0\n1\n", "no rows"),
        (b"0 1\n1 1\n", "no items to draw"),
    ],
)
def test_broken_sequences(tmp_path: Path, text: bytes, told: str) -> None:
    (tmp_path / "t.txt").write_bytes(text)
    out = bitfold(
        "prepare", tmp_path / "t.txt", "--format", "sequences", "--negatives", 1, "--split",
        "random:1,0,0", "--out", tmp_path / "log",
    )  # fmt: skip
    refused(out, told)
    assert not (tmp_path / "log").exists()


def test_a_line_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitfold.data.sequences.LINE_BYTES", 100)
    with pytest.raises(BitfoldError, match=r"line 2 of .* does not end"):
        sequences(tmp_path, "0 1 2\n1 " + "2 " * 100)


def test_sequences_without_negatives_name_the_option(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text(TRAIN)
    out = bitfold("prepare", tmp_path / "t.txt", "--format", "sequences", "--out", tmp_path / "log")
    refused(out, "--negatives 4")


def test_train_on_a_file_of_sequences_and_score_it(tmp_path: Path) -> None:
    lines = [f"u{u} " + " ".join(f"i{(u * 3 + k * k) % 20}" for k in range(6)) for u in range(30)]
    (tmp_path / "train.txt").write_text("\n".join(lines) + "\n")
    run = tmp_path / "run"
    out = bitfold(
        "train", tmp_path / "train.txt", "--format", "sequences", "--negatives", 2, "--split",
        "last:1,1", *TRAINING, "--budget", "1KiB", "--out", run,
    )  # fmt: skip
    assert out.code == 0, out.err
    (tmp_path / "new.csv").write_text("user,item\nu1,i3\nu999,i4\n")
    out = bitfold("predict", run, tmp_path / "train.txt", "--out", tmp_path / "scores.csv")
    assert out.code == 0, out.err
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 1 + 180


def test_prepare_needs_no_torch(tmp_path: Path) -> None:
    sequences(tmp_path)
    code = process("prepare", tmp_path / "train.txt", "--format", "sequences", "--negatives", 2,
                   "--split", "last:1,1", "--out", tmp_path / "other").code  # fmt: skip
    assert code == 0


def test_damaged_counts_of_negatives_are_told(tmp_path: Path) -> None:
    import json

    log = sequences(tmp_path)
    path = log.path / "stats.json"
    text = json.loads(path.read_text())
    del text["negatives"]["drawn"]
    path.write_text(json.dumps(text))
    with pytest.raises(BitfoldError, match=r"stats\.json"):
        _ = PreparedLog(log.path).stats
