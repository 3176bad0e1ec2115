"""`bitfold inspect`: every figure against the raw rows, what is left out, and mistakes."""

import json
import random
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from bitfold.cli.inspection import _log_parts, _share
from command import TRAINING, bitfold, process, refused

READING = ("--label", "clicked", "--fields", "user,tags,town", "--multi", "tags=|")
SPLIT = ("--split", "column:part")


def write(path: Path) -> list[dict[str, str]]:
    draw = random.Random(3)
    rows = [
        {
            "user": f"u{min(int(draw.paretovariate(0.6)), 400)}",
            "tags": "|".join(f"t{draw.randrange(30)}" for _ in range(draw.randrange(4))),
            "town": draw.choice(["", "", "", "Bern", "Bonn", "Brno"]),
            "price": draw.choice(["", "1.5", "2.5", "9"]),
            "part": draw.choice(["train", "train", "train", "valid", "test"]),
            "clicked": str(int(draw.random() < 0.3)),
        }
        for _ in range(900)
    ]
    lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return rows


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, str]]]:
    path = tmp_path_factory.mktemp("inspect") / "raw.csv"
    return path, write(path)


@pytest.fixture(scope="module")
def log(raw: tuple[Path, list[dict[str, str]]]) -> Path:
    words = (*READING, *SPLIT, "--numeric", "price", "--cross", "user*town")
    out = raw[0].parent / "log"
    got = bitfold("prepare", raw[0], *words, "--out", out)
    assert got.code == 0, got.err
    return out


def figures(*args: object) -> dict:  # type: ignore[type-arg]
    got = bitfold("inspect", *args, "--json")
    assert got.code == 0, got.err
    made = json.loads(got.out)
    assert isinstance(made, dict)
    return made


def test_every_figure_is_that_of_the_raw_rows(raw: tuple[Path, list[dict]], log: Path) -> None:  # type: ignore[type-arg]
    rows = raw[1]
    got = figures(log, "--width", 4)
    parts = {part: [r for r in rows if r["part"] == part] for part in ("train", "valid", "test")}
    train = parts["train"]
    for part, these in parts.items():
        assert got["rows"][part] == len(these)
        clicks = sum(int(row["clicked"]) for row in these)
        assert got["clicked"][part] == pytest.approx(clicks / len(these))
    user, tags, town, cross = got["fields"]
    assert [field["kind"] for field in got["fields"]] == ["plain", "bag", "plain", "cross"]

    met = Counter(row["user"] for row in train)
    assert user["distinct"] == len(met)
    assert user["once"] == pytest.approx(sum(n == 1 for n in met.values()) / len(met))
    top = met.most_common(20)
    assert user["head"][0]["value"] == top[0][0]
    assert user["head"][0]["share"] == pytest.approx(top[0][1] / len(train))
    assert user["head_share"] == pytest.approx(sum(n for _, n in top) / len(train))
    running, half = 0, 0
    for _, count in met.most_common():
        running, half = running + count, half + 1
        if running >= len(train) / 2:
            break
    assert user["half"] == half
    new = sum(row["user"] not in met for row in parts["test"])
    assert user["unseen"]["test"] == pytest.approx(new / len(parts["test"]), abs=1e-6)

    bags = [[tag for tag in row["tags"].split("|") if tag] for row in train]
    assert tags["bags"]["mean"] == pytest.approx(sum(map(len, bags)) / len(bags))
    assert tags["bags"]["longest"] == max(map(len, bags))
    assert tags["missing"] == pytest.approx(sum(not bag for bag in bags) / len(bags))
    values = Counter(tag for bag in bags for tag in bag)
    assert tags["head"][0]["share"] == pytest.approx(max(values.values()) / sum(values.values()))

    assert town["missing"] == pytest.approx(sum(not row["town"] for row in train) / len(train))
    assert town["full_bytes"] == 4 * 4 * 4  # three towns and the missing one, four numbers each
    assert got["full_bytes"] == sum(field["full_bytes"] for field in got["fields"])
    assert sum(field["share"] for field in got["fields"]) == pytest.approx(1)
    assert cross["distinct"] == len({(row["user"], row["town"]) for row in train})
    (price,) = got["numeric"]
    assert price["missing"] == pytest.approx(sum(not row["price"] for row in train) / len(train))


def test_a_quick_look_reads_no_row(log: Path, tmp_path: Path) -> None:
    copy = tmp_path / "log"
    shutil.copytree(log, copy)
    for shard in copy.glob("*/*.parquet"):
        shard.write_bytes(b"x" * shard.stat().st_size)
    quick, whole = figures(copy, "--quick"), figures(log)
    refused(bitfold("inspect", copy), "is not what was saved")
    assert quick["clicked"] == {"train": whole["clicked"]["train"]}
    for less, more in zip(quick["fields"], whole["fields"], strict=True):
        assert not {"once", "half", "bags"} & less.keys()
        assert less.items() <= more.items()
    assert "head" not in quick["fields"][1]  # how many values the bags hold, nobody has counted


def test_vocabularies_and_buckets(raw: tuple[Path, list], tmp_path: Path) -> None:  # type: ignore[type-arg]
    words = (*READING, "--numeric", "price", "--numeric-transform", "buckets:3")
    more = ("--ids", "vocabulary", "--min-count", 2)
    got = bitfold("prepare", raw[0], *words, *more, "--out", tmp_path / "log")
    assert got.code == 0, got.err
    assert "price" in got.out
    made = figures(tmp_path / "log")
    assert made["map_bytes"] > 0
    user, price = made["fields"][0], made["fields"][3]
    assert user["num_embeddings"] < user["distinct"]
    assert "once" not in user  # the rare ones share an id already
    assert price["kind"] == "bucket"
    assert {each["value"] for each in price["head"]} >= {None, "2.5..9"}
    shown = bitfold("inspect", tmp_path / "log").out
    assert "the map from values to ids" in shown
    assert "(missing)" in shown


def test_the_tables_fit_a_terminal_and_say_all(log: Path) -> None:
    shown = bitfold("inspect", log)
    for text in ("Parts", "Fields", "Skew", "Bags", "Numbers", "unseen in test", "u1", "user*town"):
        assert text in shown.out, text
    screen = Console(width=80, markup=False, highlight=False)
    with screen.capture() as captured:
        for part in _log_parts(figures(log)):
            screen.print(part)
    lines = captured.get().splitlines()
    assert max(map(len, lines)) <= 80
    assert not any(re.search(r"\d…", line) for line in lines), "a figure was cut"
    assert _share(0.00001) == "<0.1%"


def test_progress_is_on_stderr_alone(log: Path, tmp_path: Path) -> None:
    got = process("inspect", log, "--json", cwd=tmp_path)
    assert got.code == 0
    json.loads(got.out)
    assert "reading the log" in got.err


def test_a_run_shows_its_figures_and_its_plan(log: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert bitfold("train", log, *TRAINING, "--budget", "8KiB", "--out", run).code == 0
    shown = bitfold("inspect", run)
    assert shown.code == 0, shown.err
    assert "auc" in shown.out
    assert "radices" in shown.out
    made = figures(run)
    assert made["metrics"] == json.loads((run / "metrics.json").read_text())
    assert [field["name"] for field in made["plan"]["fields"]] == [
        "user",
        "tags",
        "town",
        "user*town",
    ]
    (run / "weights.safetensors").unlink()
    refused(bitfold("inspect", run), "weights.safetensors")


def test_mistakes(raw: tuple[Path, list], log: Path, tmp_path: Path) -> None:  # type: ignore[type-arg]
    refused(bitfold("inspect"), "PATH is missing")
    refused(bitfold("inspect", log.parent / "lgo"), "does not exist", "did you mean", "log")
    refused(bitfold("inspect", raw[0]), "neither a prepared log nor a run", "bitfold prepare")
    refused(bitfold("inspect", tmp_path), "neither a prepared log nor a run")
    refused(bitfold("inspect", log.parent), f"did you mean {log}")
    refused(bitfold("inspect", log, "--width", 0), "width")
    refused(bitfold("inspect", log, "--width", "wide"), "wide")
    copy = tmp_path / "log"
    shutil.copytree(log, copy)
    next(copy.glob("train/*.parquet")).unlink()
    refused(bitfold("inspect", copy), "is not whole")
