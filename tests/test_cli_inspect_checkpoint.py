"""`bitfold inspect CHECKPOINT`: every form of file, what is a table, what it costs, mistakes."""

import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn

import bitfold as package
from bitfold.weights.inspection import READ_BELOW
from bitfold.weights.suggestion import LOST
from command import bitfold, process, refused

DOCS = Path(__file__).resolve().parents[1] / "docs"


class Model(nn.Module):
    """A wide-and-deep model as people write it."""

    def __init__(self, users=3000, items=2000):
        super().__init__()
        names = {"user_id": users, "item_id": items, "day": 7}
        self.embedding_dict = nn.ModuleDict({n: nn.Embedding(v, 8) for n, v in names.items()})
        self.linear = nn.ModuleDict({"embedding_user_id": nn.Embedding(users, 1)})
        self.tower = nn.Sequential(nn.Linear(24, 4000), nn.ReLU(), nn.Linear(4000, 1, bias=False))


TABLES = [
    "embedding_dict.user_id.weight",
    "embedding_dict.item_id.weight",
    "linear.embedding_user_id.weight",
    "embedding_dict.day.weight",
]


def figures(*args):
    got = bitfold("inspect", *args, "--json")
    assert got.code == 0, got.err
    return json.loads(got.out)


def names(found):
    return [each["name"] for each in found["tables"]]


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return Model().state_dict()


@pytest.fixture
def saved(state, tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(state, path)
    return path


def forms(state, path):
    """The same weights as trainings save them."""
    moments = {"state": {0: {"exp_avg": torch.zeros(3000, 8)}}, "param_groups": [{"lr": 0.1}]}
    yield "plain.pt", lambda to: torch.save(state, to)
    yield "old.bin", lambda to: torch.save(state, to, _use_new_zipfile_serialization=False)
    yield "x.safetensors", lambda to: save_file(state, to)
    lightning = {"epoch": 3, "state_dict": state, "optimizer_states": [moments], "loops": {}}
    yield "lightning.ckpt", lambda to: torch.save(lightning, to)
    nested = {"model": {"state_dict": state}, "optimizer": moments, "best": 0.8}
    yield "nested.pth", lambda to: torch.save(nested, to)
    parts = {"net": None, "deep": state, "optim": moments}
    yield "parts.PT", lambda to: torch.save(parts, to)


def test_every_form_of_a_checkpoint_tells_the_same(state, tmp_path):
    total = sum(each.numel() * 4 for each in state.values())
    for name, write in forms(state, tmp_path):
        write(tmp_path / name)
        found = figures(tmp_path / name)
        prefix = "deep." if name == "parts.PT" else ""
        assert names(found) == [prefix + each for each in TABLES], name
        assert found["bytes"] == total, name
        assert found["format"] == ("safetensors" if "safetensors" in name else "torch")
        beside = name in ("lightning.ckpt", "nested.pth", "parts.PT")
        assert found["beside"] == beside * 3000 * 8 * 4, name
        assert [each["rows"] for each in found["tables"]] == [3000, 2000, 3000, 7]
        assert [each["width"] for each in found["tables"]] == [8, 8, 1, 8]
        assert found["table_bytes"] == (5007 * 8 + 3000) * 4
        assert found["others"]["bytes"] == total - found["table_bytes"]
        assert found["others"]["largest"][0]["name"] == prefix + "tower.0.weight"
        shares = [each["share"] for each in found["tables"]]
        assert sum(shares) + found["others"]["share"] == pytest.approx(1)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_folder_of_shards(state, tmp_path, kind):
    first = dict(list(state.items())[:2])
    rest = dict(list(state.items())[2:])
    stem = "model.safetensors" if kind == "safetensors" else "pytorch_model.bin"
    held = {}
    for number, part in enumerate((first, rest)):
        name = f"part-{number}.{kind}"
        (save_file if kind == "safetensors" else torch.save)(part, tmp_path / name)
        held |= dict.fromkeys(part, name)
    index = tmp_path / f"{stem}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": held}))
    (tmp_path / "config.json").write_text("{}")  # as Hugging Face has it: this is no run
    found = figures(tmp_path)
    assert names(found) == TABLES
    assert found["bytes"] == sum(each.numel() * 4 for each in state.values())
    index.write_text(json.dumps({"weight_map": held | {"more.weight": "part-0." + kind}}))
    refused(bitfold("inspect", tmp_path), "is not whole", "more.weight")
    index.write_text(json.dumps({"weight_map": {"a": f"../{tmp_path.name}/part-0.{kind}"}}))
    refused(bitfold("inspect", tmp_path), "outside of its folder")
    index.write_text(json.dumps({"weight_map": held | {"a": f"part-2.{kind}"}}))
    refused(bitfold("inspect", tmp_path), f"part-2.{kind}")
    index.unlink()
    save_file(state, tmp_path / "model.safetensors")
    assert names(figures(tmp_path)) == TABLES


def test_what_is_a_table_and_what_is_a_layer(tmp_path):
    tables = {
        "wte.weight": (100, 64),
        "bert.embeddings.word_embeddings.weight": (500, 32),
        "ebc.embedding_bags.top_query.weight": (50, 16),
        "userEmb.weight": (30, 8),
        "lookup": (20, 4),
        "linear_model.embedding.user.weight": (10, 1),
        "user_bag.weight": (1000, 16),  # by its shape alone
    }
    layers = {
        "embedding.proj.weight": (640, 16),
        "time_embed.0.weight": (1280, 32),  # it has a bias
        "lm_head.weight": (5000, 16),
        "deep.0.weight": (4000, 16),  # it has a bias, too
        "deep.1.weight": (400, 4000),
        "user_small.weight": (999, 16),
        "user_wide.weight": (1599, 160),
        "embedding.patch": (3, 16, 16),
    }
    biases = {"time_embed.0.bias": (1280,), "deep.0.bias": (4000,)}
    state = {n: torch.ones(s) for n, s in (tables | layers | biases).items()}
    state["embedding.steps"] = torch.ones(4, 4, dtype=torch.int64)
    save_file(state, tmp_path / "m.safetensors")
    found = figures(tmp_path / "m.safetensors")
    assert set(names(found)) == set(tables)
    chosen = figures(tmp_path / "m.safetensors", "--tables", r"^lm_head|_small\b")
    assert set(names(chosen)) == {"lm_head.weight", "user_small.weight"}
    got = bitfold("inspect", tmp_path / "m.safetensors", "--tables", "nothing")
    refused(got, "no table is found", "lm_head.weight [5000, 16]")
    got = bitfold("inspect", tmp_path / "m.safetensors", "--tables", "steps")  # integers
    refused(got, "no table is found")
    refused(bitfold("inspect", tmp_path / "m.safetensors", "--tables", "("), "cannot be read")


def test_tied_weights_are_one_table(tmp_path):
    model = nn.ModuleDict({"head": nn.Linear(8, 500, bias=False), "emb": nn.Embedding(500, 8)})
    model["head"].weight = model["emb"].weight
    torch.save(model.state_dict(), tmp_path / "a.pt")
    save_model(model, tmp_path / "b.safetensors")
    for name in ("a.pt", "b.safetensors"):
        found = figures(tmp_path / name)
        (table,) = found["tables"]
        assert (table["name"], table["also"]) == ("emb.weight", ["head.weight"])
        assert found["bytes"] == table["bytes"] == 500 * 8 * 4
        assert "emb.weight shares its numbers with head.weight" in " ".join(found["notes"])
    whole = torch.randn(600, 4)  # views of one storage that are not the same numbers
    torch.save({"emb_a": whole[:500], "emb_b": whole[500:]}, tmp_path / "views.pt")
    assert names(figures(tmp_path / "views.pt")) == ["emb_a", "emb_b"]


KINDS = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e5m2]


@pytest.mark.parametrize("dtype", [*KINDS, torch.float8_e4m3fn])
def test_rows_of_zeros_and_nan_are_counted_in_every_type(dtype, tmp_path):
    table = torch.linspace(-1, 1, 40 * 6).reshape(40, 6)
    table[3] = table[39] = 0.0
    table[5], table[5, 1] = 0.0, -0.0
    table[7, 5] = table[8, 0] = float("nan")
    if dtype is not torch.float8_e4m3fn:
        table[9, 2], table[10, 3] = float("inf"), float("-inf")
    table[11, 0] = 0.0
    table = table.to(dtype)
    broken = 2 if dtype is torch.float8_e4m3fn else 4
    empty, narrow = torch.zeros(0, 6, dtype=dtype), torch.zeros(3, 0, dtype=dtype)
    state = {"emb.weight": table, "emb_empty": empty, "emb_narrow": narrow}
    state["bias"] = torch.ones(5, dtype=dtype)  # lies before the table
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state | {"emb.weight": table.T.contiguous().T}, tmp_path / "a.pt")
    for name in ("a.safetensors", "a.pt"):
        found = figures(tmp_path / name)
        first, *empties = found["tables"]
        assert (first["zero_rows"], first["nonfinite_rows"]) == (3, broken)
        assert first["dtype"] == str(dtype).removeprefix("torch.")
        assert first["bytes"] == 240 * dtype.itemsize
        assert [(each["rows"], each["bytes"]) for each in empties] == [(0, 0), (3, 0)]
        told = " ".join(found["notes"])
        assert f"emb.weight has {broken} rows that hold NaN" in told
        assert "emb_empty is empty" in told
        assert ("ratios are to float32" in told) == (dtype is not torch.float32)
        assert {*found["costs"][0]["kept"]} == {"emb.weight"}
        assert "zero_rows" not in figures(tmp_path / name, "--quick")["tables"][0]


def test_only_empty_tables(tmp_path):
    save_file({"emb.weight": torch.zeros(0, 8)}, tmp_path / "a.safetensors")
    found = figures(tmp_path / "a.safetensors")
    assert found["costs"] == []
    assert found["suggestion"] is None
    assert "too small" in bitfold("inspect", tmp_path / "a.safetensors").out


def test_a_ratio_costs_what_a_collection_takes(saved):
    found = figures(saved)
    assert [each["ratio"] for each in found["costs"]] == [2, 10, 50, 100, 1000]
    tables = [package.Table(each["name"], each["width"], each["rows"]) for each in found["tables"]]
    full = sum(each.num_embeddings * each.embedding_dim * 4 for each in tables)
    assert found["full_bytes"] == full
    for each in found["costs"]:
        assert each["budget"] == full // each["ratio"]
        if each["bytes"] is None:
            assert each["least"] >= each["budget"]
            continue
        made = package.TableCollection(tables, budget=each["budget"])
        assert each["bytes"] == sum(plan.bytes for plan in made.plans) <= each["budget"]
    whole, tenth = found["costs"][:2]
    assert (whole["own"], whole["bits"]) == (1, [8])
    assert tenth["kept"]["embedding_dict.day.weight"]["own"]
    least = found["least"]
    package.TableCollection(tables, budget=least)
    with pytest.raises(package.BudgetTooSmall):
        package.TableCollection(tables, budget=least - 1)


def test_a_budget_is_suggested_that_can_be(saved, tmp_path):
    found = figures(saved)
    assert found["suggestion"]["code"] == 'bitfold.fold(model, budget="10x")'
    assert found["suggestion"]["bytes"] == found["costs"][1]["budget"]
    state = {"emb.weight": torch.randn(1000, 16).half()}
    save_file(state, tmp_path / "half.safetensors")  # 10x of what is no question of its type
    made = figures(tmp_path / "half.safetensors")["suggestion"]
    assert made["code"] == "bitfold.fold(model, budget=6400)"
    save_file({"emb.weight": torch.randn(8, 8)}, tmp_path / "small.safetensors")
    small = figures(tmp_path / "small.safetensors")
    assert small["suggestion"] is None or small["suggestion"]["budget"] == "2x"
    save_file({"emb.weight": torch.randn(1, 2)}, tmp_path / "tiny.safetensors")
    assert figures(tmp_path / "tiny.safetensors")["suggestion"] is None


def test_what_is_said_of_our_boards_is_what_the_boards_say():
    text = (DOCS / "results.md").read_text(encoding="utf-8")
    part = text.split("## What a budget alone gives")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in part.splitlines()]
    dense = re.compile(r"^(Frappe|MovieLens-1M, seven fields$|Gowalla)")
    lost = {ratio: [] for ratio in LOST}
    for row in rows:
        if row and dense.match(row[0]) and row[1].removesuffix("x").isdigit():
            lost[int(row[1].removesuffix("x"))].append(float(row[5].split()[0]))
    assert all(len(each) == 3 for each in lost.values())
    assert {ratio: -min(each) for ratio, each in lost.items()} == LOST


@pytest.fixture
def ids():
    rng = np.random.default_rng(3)
    user = np.minimum(rng.zipf(1.3, 5000), 2500)
    return {"user_id": user, "item_id": rng.integers(0, 1500, 5000), "price": rng.random(5000)}


def checked_use(used, ids, rows):
    """The figures of use against a count of one's own."""
    values, counts = np.unique(ids[(ids >= 0) & (ids < rows)], return_counts=True)
    falling = np.sort(counts)[::-1]
    assert used["reads"] == counts.sum()
    assert used["rows_read"] == len(values)
    assert used["never"] == pytest.approx(1 - len(values) / rows)
    assert used["hot"] == pytest.approx(falling[: rows // 100].sum() / counts.sum())
    assert used["once"] == pytest.approx((counts == 1).mean())
    assert falling[: used["half"]].sum() * 2 >= counts.sum()
    assert falling[: used["half"] - 1].sum() * 2 < counts.sum()
    assert used["outside"] == len(ids) - counts.sum()


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_how_a_log_of_ids_reads_the_rows(saved, ids, tmp_path, kind):
    path = tmp_path / f"log.{kind}"
    ids["item_id"][:20] = 2000  # no row of the table
    frame = pl.DataFrame(ids)
    (frame.write_parquet if kind == "parquet" else frame.write_csv)(path)
    found = figures(saved, "--log", path)
    used = {each["name"]: each.get("usage") for each in found["tables"]}
    for name, rows in ((TABLES[0], 3000), (TABLES[1], 2000), (TABLES[2], 3000)):
        field = "item_id" if "item" in name else "user_id"
        assert used[name]["field"] == field
        checked_use(used[name], ids[field], rows)
    assert used[TABLES[3]] is None
    told = " ".join(found["notes"])
    assert f"no field of the log reads {TABLES[3]}" in told
    assert "20 values of item_id are no row of" in told
    read = found["full_bytes"]
    for each in found["tables"]:
        if "usage" in each:
            read -= (each["rows"] - each["usage"]["rows_read"]) * each["width"] * 4
    assert found["suggestion"]["bytes"] == read // 10 < found["costs"][1]["budget"]
    assert "never reads" in " ".join(found["suggestion"]["why"])
    shown = bitfold("inspect", saved, "--log", path).out
    assert "How the log reads them" in shown
    said = figures(saved, "--log", path, "--map", "day=item_id")  # a table by its last part
    assert said["tables"][3]["usage"]["outside"] > 4000


def test_lists_and_missing_ids_of_a_log_count_value_by_value(tmp_path):
    save_file({"emb_tags": torch.randn(50, 4)}, tmp_path / "a.safetensors")
    rows = [[1, 2, None], [], None, [2, 49, 50]]
    pl.DataFrame({"tags": rows}, schema={"tags": pl.List(pl.Int64)}).write_parquet(
        tmp_path / "log.parquet"
    )
    used = figures(tmp_path / "a.safetensors", "--log", tmp_path / "log.parquet")["tables"][0]
    assert (used["usage"]["reads"], used["usage"]["rows_read"]) == (4, 3)
    assert used["usage"]["outside"] == 1


def found_rows(log):
    """How many rows the training part has."""
    return json.loads(bitfold("inspect", log, "--quick", "--json").out)["rows"]["train"]


def test_a_prepared_log_reads_the_rows(ids, tmp_path):
    frame = pl.DataFrame(ids).with_columns(click=pl.Series([0, 1, 1, 0] * 1250))
    frame.write_csv(tmp_path / "raw.csv")
    reading = ("--label", "click", "--fields", "user_id,item_id", "--split", "random:0.8,0.1,0.1")
    for kind in ("dense", "hashed"):
        got = bitfold("prepare", tmp_path / "raw.csv", *reading, "--ids", kind, "--out",
                      tmp_path / kind)  # fmt: skip
        assert got.code == 0, got.err
    save_file(Model().state_dict(), tmp_path / "m.safetensors")
    found = figures(tmp_path / "m.safetensors", "--log", tmp_path / "dense")
    rows = found_rows(tmp_path / "dense")
    read = [each["usage"]["reads"] for each in found["tables"] if "usage" in each]
    assert read == [rows, rows, rows]
    assert "the field item_id 1,500 ids" in " ".join(found["notes"])
    got = bitfold("inspect", tmp_path / "m.safetensors", "--log", tmp_path / "hashed")
    refused(got, "ids that are rows of a table", "hashed ids")


def test_mistakes_of_a_log(saved, ids, tmp_path):
    path = tmp_path / "log.parquet"
    pl.DataFrame(ids).rename({"user_id": "u", "item_id": "i"}).write_parquet(path)
    refused(bitfold("inspect", saved, "--log", path), "named like a field", "--map embedding_dict")
    refused(bitfold("inspect", saved, "--log", path, "--map", "day=x"), "unknown field 'x'")
    refused(bitfold("inspect", saved, "--log", path, "--map", "dya=u"), "unknown table 'dya'")
    refused(bitfold("inspect", saved, "--log", path, "--map", "day"), "TABLE=FIELD")
    twice = ("--map", "day=u", "--map", "day=i")
    refused(bitfold("inspect", saved, "--log", path, *twice), "twice")
    refused(bitfold("inspect", saved, "--map", "day=u"), "no --log")
    refused(bitfold("inspect", saved, "--log", tmp_path / "none"), "no such file")
    refused(bitfold("inspect", saved, "--log", saved), "is no log")
    path.write_bytes(path.read_bytes()[:-100])
    refused(bitfold("inspect", saved, "--log", path), "cannot be read")
    (tmp_path / "a.csv").write_text("user_id\n1\nx\n")
    refused(bitfold("inspect", saved, "--log", tmp_path / "a.csv"), "no column of integers")


class Evil:
    """A pickle of it makes a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def test_code_in_a_checkpoint_is_never_run(tmp_path):
    mark = tmp_path / "run"
    evil = {"emb.weight": torch.zeros(10, 4), "x": Evil(mark)}
    torch.save(evil, tmp_path / "new.pt")
    torch.save(evil, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.save(nn.Embedding(4, 2), tmp_path / "module.pth")
    torch.save({"emb.weight": torch.zeros(4, 2), "best": np.float64(1)}, tmp_path / "numpy.ckpt")
    for name, needs in {
        "new.pt": "posix.system",
        "old.pt": "posix.system",
        "module.pth": "torch.nn.modules.sparse.Embedding",
        "numpy.ckpt": "scalar",
    }.items():
        got = bitfold("inspect", tmp_path / name)
        refused(got, "would run code", needs, "torch.save(model.state_dict()")
    with (tmp_path / "bare.bin").open("wb") as file:
        pickle.dump(Evil(mark), file)
    refused(bitfold("inspect", tmp_path / "bare.bin"), "cannot be read")
    assert not mark.exists()


def test_files_that_are_damaged_or_no_checkpoint(state, saved, tmp_path):
    torch.save(state, tmp_path / "m.pt")
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for path in (saved, tmp_path / "m.pt", tmp_path / "old.pt"):
        content = path.read_bytes()
        for length in (0, 1, 9, 30, len(content) // 2, len(content) - 9):
            path.write_bytes(content[:length])
            refused(bitfold("inspect", path), path.name, "expected:")
    for name, value, told in (
        ("text.pt", None, "begins with"),
        ("none.pt", {"epoch": 1}, "holds no weights"),
        ("list.pt", [1, 2], "holds no weights"),
        ("flat.pt", {"w": torch.zeros(4)}, "no matrix of floating numbers"),
    ):
        if value is None:
            (tmp_path / name).write_text("user,item\n1,2\n")
        else:
            torch.save(value, tmp_path / name)
        refused(bitfold("inspect", tmp_path / name), told)
    header = b'{"a":{"dtype":"F32","shape":[9,9],"data_offsets":[0,4]}}'
    (tmp_path / "lie.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"1234")
    refused(bitfold("inspect", tmp_path / "lie.safetensors"), "no whole safetensors file")
    refused(bitfold("inspect", tmp_path / "gone.pt"), "does not exist")
    (tmp_path / "folder.pt").mkdir()
    refused(bitfold("inspect", tmp_path / "folder.pt"), "neither a prepared log nor a run")


def test_a_collection_that_holds_itself(tmp_path):
    held = {"emb.weight": torch.zeros(20, 4)}
    held["again"] = held
    torch.save(held, tmp_path / "a.pt")
    assert names(figures(tmp_path / "a.pt")) == ["emb.weight"]
    torch.save(torch.zeros(2000, 4), tmp_path / "bare.pt")
    assert names(figures(tmp_path / "bare.pt")) == ["tensor"]


def test_names_are_not_obeyed(tmp_path):
    torch.save({"emb\x1b[31m.weight": torch.zeros(20, 4)}, tmp_path / "a.pt")
    for more in ((), ("--json",)):
        got = bitfold("inspect", tmp_path / "a.pt", *more)
        assert got.code == 0, got.err
        assert "\x1b" not in got.out + got.err


def test_options_that_go_with_other_paths(saved, tmp_path):
    refused(bitfold("inspect", saved, "--width", 4), "--width does not go with")
    refused(bitfold("inspect", saved, "--rows", "--quick"), "contradict")


@pytest.fixture
def huge(tmp_path):
    """A table of 10 GB that takes no place on the disk."""
    rows, width = 40_000_000, 64
    size = rows * width * 4
    about = {
        "emb_user.weight": {"dtype": "F32", "shape": [rows, width], "data_offsets": [0, size]},
        "fc.weight": {"dtype": "F32", "shape": [2, 64], "data_offsets": [size, size + 512]},
    }
    header = json.dumps(about).encode()
    path = tmp_path / "huge.safetensors"
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size + 512)
    if path.stat().st_blocks * 512 > 1 << 20:
        pytest.skip("SPARSE FILES MISSING: this file system has none")
    return path


def test_a_huge_table_is_told_of_by_its_header(huge):
    script = (
        "import json, resource, sys\n"
        "from pathlib import Path\n"
        "from bitfold.weights.inspection import inspect\n"
        "import bitfold.method.shares\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "found = inspect(Path(sys.argv[1]))\n"
        "print(json.dumps({'grown': peak() - before, 'found': found}))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, huge], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    found = got["found"]
    assert found["tables"][0]["bytes"] == 40_000_000 * 64 * 4 > READ_BELOW
    assert "zero_rows" not in found["tables"][0]
    assert "--rows reads them" in " ".join(found["notes"])
    assert got["grown"] < 64 << 10  # KiB: nothing of the table
    assert found["suggestion"]["bytes"] == 1_024_000_000


def test_reading_safetensors_loads_no_torch(saved):
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from bitfold.weights.opening import open_weights\n"
        "from bitfold.weights.tables import find_tables\n"
        "from bitfold.weights.rows import count_rows\n"
        "tables = find_tables(open_weights(Path(sys.argv[1])))\n"
        "assert len(tables) == 4\n"
        "assert count_rows(tables[0], print) == {'zero_rows': 0, 'nonfinite_rows': 0}\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script, saved], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_command_and_the_function_tell_the_same(saved, tmp_path):
    got = process("inspect", saved, "--json", cwd=tmp_path)
    assert got.code == 0
    found = package.inspect(saved, progress=False)
    assert dict(found) == json.loads(got.out)
    assert found.to_frame()["name"].to_list() == TABLES
    for text in ("user_id", "10x", "bitfold.fold"):
        assert text in repr(found)
        assert text in found._repr_html_()
    shown = bitfold("inspect", saved)
    for text in (*TABLES, "everything else", "What a ratio keeps", "least that is possible"):
        assert text in shown.out, text
    assert 'bitfold.fold(model, budget="10x")' in shown.out.splitlines()[-3:][0]


def test_the_function_refuses_what_does_not_go_together(saved, ids):
    for words, told in (
        ({"width": 8}, "width"),
        ({"label": "click"}, "label"),
        ({"map": {"day": "user"}}, "no log"),
    ):
        with pytest.raises(package.BitfoldError, match=told):
            package.inspect(saved, **words)
    rows = {"user": [1, 2] * 5, "clicked": [0, 1] * 5}
    with pytest.raises(package.BitfoldError, match="tables is an option for a checkpoint"):
        package.inspect(rows, label="clicked", fields="user", tables="x")
    assert package.inspect(saved, tables="day").records()[0]["rows"] == 7
