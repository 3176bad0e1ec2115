"""A stream: cut into windows, scored before it is trained on, gone on with after any end."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bitfold
from bitfold import BitfoldError, stream
from bitfold.streaming.record import read
from command import bitfold as command
from interrupting import stopped_after
from stream_logs import MIDNIGHT, READ, SMALL, figures, outcome, rows_of, write_csv


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("log") / "log.csv", rows_of())


@pytest.fixture(scope="module")
def whole(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    stream(log, out, **READ, **SMALL)
    return out


def test_a_line_a_window(whole: Path) -> None:
    (course,) = read(whole).courses
    assert [line.window for line in course.lines] == [f"2023-11-{day}" for day in range(15, 19)]
    assert [line.rows for line in course.lines] == [160] * 4
    assert [line.scored for line in course.lines] == [False, True, True, True]
    assert course.lines[0].auc is None
    assert course.lines[0].start == MIDNIGHT
    assert course.auc == pytest.approx(np.mean([line.auc for line in course.lines[1:]]))
    for line in course.lines[1:]:
        assert line.auc is not None
        assert line.churn is not None
        assert line.new_values is not None
        assert 0 < line.new_values < line.new_rows <= 1  # type: ignore[operator]
        assert set(line.new_in) == {"user", "item"}
        assert line.bytes is not None
        assert 0 < line.bytes <= 4096
        assert line.training_bytes is not None
        assert line.training_bytes > line.bytes
    assert [line.steps for line in course.lines] == [5, 10, 15, 20]


def test_the_end_is_a_run(whole: Path, log: Path) -> None:
    run = bitfold.load(whole)
    assert run.metrics["part"] == "stream"
    assert run.metrics["auc"] == read(whole).courses[0].auc
    assert (
        sum(each.nbytes for each in run.model.embeddings.state_dict().values())
        == (run.metrics["bytes"])
    )
    assert run.evaluate(log)["auc"] > 0.5
    assert run.predict({"user": ["u1", "never"], "item": ["i1", "i2"]}).shape == (2,)


def test_rows_are_scored_by_what_came_before(log: Path, whole: Path, tmp_path: Path) -> None:
    """A stream of two days ends with the model that scored the third day of four."""
    two = write_csv(tmp_path / "two.csv", rows_of(days=4))
    lines = two.read_text().splitlines()
    two.write_text("\n".join(lines[: 1 + 2 * 160]) + "\n")
    third = tmp_path / "third.csv"
    third.write_text("\n".join([lines[0], *lines[1 + 2 * 160 : 1 + 3 * 160]]) + "\n")
    early = stream(two, tmp_path / "run", **READ, **SMALL)
    found = early.run.evaluate(third)
    line = read(whole).courses[0].lines[2]
    assert found["auc"] == pytest.approx(line.auc, abs=1e-12)
    assert found["logloss"] == pytest.approx(line.logloss, abs=1e-6)


@pytest.mark.parametrize("steps", [1, 7, 10, 13, 19])
def test_a_stream_goes_on_as_if_it_had_not_stopped(
    log: Path, whole: Path, tmp_path: Path, steps: int
) -> None:
    out = tmp_path / "run"
    with stopped_after(steps):
        stream(log, out, checkpoint_steps=3, **READ, **SMALL)
    assert not (out / "manifest.json").exists()
    found = stream(log, out, resume=True, checkpoint_steps=3, **READ, **SMALL)
    assert outcome(out) == outcome(whole)
    assert figures(found.course) == figures(read(whole).courses[0])
    assert not (out / "checkpoint").exists()
    assert not (out / "log").exists()


@pytest.mark.parametrize("method", ["hash", "binary-code", "hot-cold"])
def test_other_methods_go_on_too(log: Path, tmp_path: Path, method: str) -> None:
    how = SMALL | {"method": method, "set": {}}
    stream(log, tmp_path / "whole", **READ, **how)
    with stopped_after(12):
        stream(log, tmp_path / "run", checkpoint_steps=5, **READ, **how)
    stream(log, tmp_path / "run", resume=True, **READ, **how)
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_a_stopped_stream_refuses_others(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with stopped_after(8):
        stream(log, out, checkpoint_steps=3, **READ, **SMALL)
    with pytest.raises(BitfoldError, match="another window"):
        stream(log, out, resume=True, window="6h", **READ, **SMALL)
    with pytest.raises(BitfoldError, match="another lr"):
        stream(log, out, resume=True, **READ, **SMALL | {"lr": 0.5})
    with pytest.raises(BitfoldError, match="--resume to go on"):
        stream(log, out, **READ, **SMALL)


def test_a_log_that_changed_is_refused(tmp_path: Path) -> None:
    log, out = write_csv(tmp_path / "log.csv", rows_of()), tmp_path / "run"
    with stopped_after(8):
        stream(log, out, checkpoint_steps=3, **READ, **SMALL)
    write_csv(log, rows_of(seed=1))
    with pytest.raises(BitfoldError, match="not the one that the stream began with"):
        stream(log, out, resume=True, **READ, **SMALL)


def test_a_training_is_no_stream(log: Path, tmp_path: Path) -> None:
    words = {name: value for name, value in SMALL.items() if name != "set"}
    bitfold.train(log, tmp_path / "run", **READ, **words | {"method": "hash", "epochs": 1})
    with pytest.raises(BitfoldError, match="is no stream"):
        stream(log, tmp_path / "run", resume=True, **READ, **SMALL)


def test_a_stream_is_no_training(log: Path, whole: Path, tmp_path: Path) -> None:
    for out in (whole, tmp_path / "run"):
        if out != whole:
            with stopped_after(8):
                stream(log, out, checkpoint_steps=3, **READ, **SMALL)
        with pytest.raises(BitfoldError, match="is a stream"):
            bitfold.train(log, out, resume=True, progress=False)
    assert command("train", log, "--resume", "--out", tmp_path / "run").code == 2


def test_what_is_not_said_is_as_it_was(log: Path, tmp_path: Path) -> None:
    how = SMALL | {"window": "150r"}
    whole = stream(log, tmp_path / "whole", **READ, **how)
    with stopped_after(8):
        stream(log, tmp_path / "run", checkpoint_steps=3, **READ, **how)
    found = stream(log, tmp_path / "run", resume=True, progress=False)
    assert figures(found.course) == figures(whole.course)


def test_options_come_from_a_file(log: Path, whole: Path, tmp_path: Path) -> None:
    done = command("stream", log, "--config", whole / "config.json", "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert outcome(tmp_path / "run") == outcome(whole)


def test_a_finished_stream_is_given_back(log: Path, whole: Path) -> None:
    before = outcome(whole)
    stream(log, whole, resume=True, **READ, **SMALL)
    assert outcome(whole) == before


def test_windows_of_rows_and_files(tmp_path: Path) -> None:
    rows = rows_of()
    found = stream(rows, **READ, **SMALL, window="200r")
    assert [line.rows for line in found.course.lines] == [200, 200, 200, 40]
    assert found.course.lines[1].window == "rows 201 to 400"
    parts = []
    for day in range(4):
        part = {name: column[160 * day : 160 * (day + 1)] for name, column in rows.items()}
        parts.append(write_csv(tmp_path / f"day-{day}.csv", part))
    by_file = stream(parts, **READ, **SMALL, window="file")
    by_day = stream(rows, **READ, **SMALL)
    assert [line.window for line in by_file.course.lines] == [part.name for part in parts]
    same = ("auc", "logloss", "new_values", "churn", "loss")
    for name in same:
        ours = [getattr(line, name) for line in by_file.course.lines]
        theirs = [getattr(line, name) for line in by_day.course.lines]
        assert ours == theirs, name


def test_rows_of_a_window_may_come_in_any_order() -> None:
    rows = rows_of()
    order = [*range(159, -1, -1), *range(160, 640)]
    mixed = {name: [column[at] for at in order] for name, column in rows.items()}
    found = stream(mixed, **READ, **SMALL)
    assert [line.rows for line in found.course.lines] == [160] * 4


@pytest.mark.parametrize("window", ["1d", "160r"])
def test_rows_of_a_window_that_is_over_are_refused(window: str) -> None:
    rows = rows_of()
    order = [*range(400), 3, *range(400, 640)]
    mixed = {name: [column[at] for at in order] for name, column in rows.items()}
    with pytest.raises(BitfoldError, match=r"(?s)not in time order.*row 401 ") as told:
        stream(mixed, **READ, **SMALL, window=window)
    assert "sort the log" in str(told.value)


def test_an_empty_window_and_one_of_a_single_class() -> None:
    rows = rows_of(days=5)
    kept = [at for at in range(800) if not 320 <= at < 480]
    thin = {name: [column[at] for at in kept] for name, column in rows.items()}
    thin["clicked"][160:320] = [1] * 160
    found = stream(thin, **READ, **SMALL)
    lines = found.course.lines
    assert [line.rows for line in lines] == [160, 160, 0, 160, 160]
    assert lines[1].auc is None
    assert lines[1].logloss is not None
    assert lines[1].scored
    assert lines[2].window == "2023-11-17"
    assert not lines[2].scored
    assert lines[2].bytes is None
    assert lines[3].auc is not None
    assert found.course.auc == pytest.approx((lines[3].auc + lines[4].auc) / 2)  # type: ignore[operator]


def test_a_first_window_of_one_class_goes_on() -> None:
    rows = rows_of(days=3)
    rows["clicked"][:160] = [0] * 160
    assert len(stream(rows, **READ, **SMALL).course.scored) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"time": "moment"}, "moment"),
        ({"time": None}, "windows of time need the time column"),
        ({"window": "soon"}, "the window cannot be read"),
        ({"window": "0d"}, "the window cannot be read"),
        ({"window": "file"}, "rows in memory have no files"),
        ({"window": "1s"}, "the window is too short"),
        ({"passes": 0}, "passes is out of range"),
        ({"split": "random:0.8,0.1,0.1"}, "split is no option of a stream"),
        ({"epochs": 3}, "epochs is no option of a stream"),
        ({"label": None}, "no label is named"),
        ({"method": "full", "budget": None, "set": {}}, "needs a map of all ids"),
        ({"method": "pep", "set": {}}, "needs a map of all ids.*(?s:.)*map=true"),
        ({"budget": "20B"}, "budget"),
        ({"lr": 1e30}, "diverged"),
        ({"devices": 2}, "devices is no option of a stream"),
    ],
)
def test_bad_input(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    rows = rows_of(days=2)
    if change.get("window") == "1s":
        rows["time"] = [MIDNIGHT] * 160 + [MIDNIGHT + 5000] * 160
    with pytest.raises(BitfoldError, match=words):
        stream(rows, tmp_path / "run", **READ | SMALL | change)
    # What was trained on is there to go on with, unless it would end so again.
    assert (tmp_path / "run").exists() == ("window" in change and change["window"] == "1s")


def test_rows_in_memory_that_are_none() -> None:
    with pytest.raises(BitfoldError, match="the log has no rows"):
        stream({name: [] for name in rows_of(days=1)}, **READ, **SMALL)


def test_numbers_may_be_missing_from_a_later_window() -> None:
    """Their buckets are those of the first one."""
    rows = rows_of(days=3)
    rows["price"] = [None if 160 <= row < 320 else row % 17 for row in range(480)]
    options = {"numeric": "price", "numeric_transform": "buckets:4"}
    found = stream(rows, **READ, **SMALL, **options)
    assert [line.auc is not None for line in found.course.lines] == [False, True, True]


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for day in (1, 2):
        (tmp_path / f"day={day}").mkdir()
        write_csv(tmp_path / f"day={day}" / "part.csv", rows_of(days=1, seed=day))
    write_csv(tmp_path / "day=2" / "new\nline.csv", rows_of(days=1, seed=3))
    paths = [tmp_path / "day=1" / "part.csv", *sorted((tmp_path / "day=2").iterdir())[::-1]]
    found = stream(paths, **READ | {"time": None}, **SMALL, window="file")
    names = [line.window for line in found.course.lines]
    assert names[:2] == ["day=1/part.csv", "day=2/part.csv"]
    assert names[2].startswith("day=2/new")
    assert "\n" not in names[2]


def test_only_one_class_in_every_window(tmp_path: Path) -> None:
    rows = rows_of(days=2) | {"clicked": [1] * 320}
    done = command(
        "stream", str(write_csv(tmp_path / "log.csv", rows)), "--label", "clicked", "--fields",
        "user,item", "--time", "time", "--method", "hash", "--budget", "4KiB", "--width", "4",
        "--out", str(tmp_path / "run"),
    )  # fmt: skip
    assert "no window has an AUC: each is of one class; log loss 0." in done.out
    assert read(tmp_path / "run").courses[0].lines[1].constant_logloss == 0
    assert "-0.0" not in (tmp_path / "run" / "stream.json").read_text()


def test_a_window_that_weighs_nothing_is_gone_through(caplog: pytest.LogCaptureFixture) -> None:
    rows = rows_of(days=3) | {"w": [1.0] * 160 + [0.0] * 160 + [2.0] * 160}
    found = stream(rows, **READ, **SMALL, weight="w").course.lines
    assert "2023-11-16 weighs nothing: it has no AUC" in caplog.text
    assert [line.rows for line in found] == [160] * 3
    assert (found[1].auc, found[1].logloss, found[1].loss) == (None, None, None)
    assert found[2].auc is not None
    with pytest.raises(BitfoldError, match="all weights are zero"):
        stream(rows | {"w": [0.0] * 480}, **READ, **SMALL, weight="w")


def test_what_a_stopped_stream_has_lost_is_named(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with stopped_after(12):
        stream(log, out, **READ, **SMALL)
    with pytest.raises(BitfoldError, match="another passes"):
        stream(log, out, resume=True, **READ, **SMALL, passes=2)
    kept = {name: (out / name).read_bytes() for name in ("stream.json", "config.json")}
    (out / "stream.json").write_bytes(kept["stream.json"][:300])
    with pytest.raises(BitfoldError, match=r"begin anew with --force"):
        stream(log, out, resume=True, **READ, **SMALL)
    (out / "stream.json").unlink()
    with pytest.raises(BitfoldError, match=r"put stream.json back, or begin anew"):
        stream(log, out, resume=True, **READ, **SMALL)
    (out / "stream.json").write_bytes(kept["stream.json"])
    (out / "config.json").unlink()
    with pytest.raises(BitfoldError, match=r"no config.json(?s:.)*begin anew with --force"):
        stream(log, out, resume=True, **READ, **SMALL)


@pytest.mark.parametrize("hurt", ["cut", "gone"])
def test_a_damaged_window_is_prepared_anew_and_other_damage_is_told(
    log: Path, whole: Path, tmp_path: Path, hurt: str
) -> None:
    left, out = tmp_path / "left", tmp_path / "run"
    with stopped_after(12):
        stream(log, left, **READ, **SMALL)
    names = [path.relative_to(left) for path in sorted(left.rglob("*")) if path.is_file()]
    windows = [name for name in names if name.parts[0] == "log" and len(name.parts) > 2]
    assert {"log.json", "schema.json", "00000.parquet"} <= {name.name for name in windows}
    for name in [*windows, Path("checkpoint/state.safetensors"), Path("schema.json")]:
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(left, out)
        (out / name).unlink()
        if hurt == "cut":
            content = (left / name).read_bytes()
            (out / name).write_bytes(content[: len(content) // 2])
        if name in windows or (hurt == "gone" and name.parts[0] == "checkpoint"):
            stream(log, out, resume=True, **READ, **SMALL)
            assert outcome(out) == outcome(whole)
        else:
            with pytest.raises(BitfoldError, match="begin anew with --force"):
                stream(log, out, resume=True, **READ, **SMALL)


def test_a_method_of_two_phases_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from bitfold.method.base import Phase
    from bitfold.method.hash import Hash

    two = (Phase("search", 0.5), Phase("retrain", 0.5))
    monkeypatch.setattr(Hash, "phases", lambda self, group: two)
    with pytest.raises(BitfoldError, match="in phases"):
        stream(rows_of(days=2), **READ, **SMALL | {"method": "hash", "set": {}})


def test_passes_train_more_than_once() -> None:
    found = stream(rows_of(days=2), **READ, **SMALL, passes=3)
    assert [line.steps for line in found.course.lines] == [15, 30]


def test_counters_are_days_from_their_beginning() -> None:
    rows = rows_of(days=3)
    rows["time"] = [time - MIDNIGHT for time in rows["time"]]
    found = stream(rows, **READ, **SMALL)
    assert [line.window for line in found.course.lines] == ["day 0", "day 1", "day 2"]


def test_days_may_begin_with_the_log() -> None:
    rows = rows_of(days=2)
    found = stream(rows, **READ, **SMALL, window="1d@first")
    assert found.course.lines[0].start == rows["time"][0]
    assert sum(line.rows for line in found.course.lines) == 320


def test_the_command(log: Path, whole: Path, tmp_path: Path) -> None:
    words = [
        *("stream", log, "--out", tmp_path / "run", "--label", "clicked", "--fields", "user,item"),
        *("--time", "time", "--width", 4, "--hidden", 8, "--batch-size", 32, "--lr", 0.02),
        *("--method", "cafe", "--seed", 3, "--budget", "4KiB", "--set", "every=5"),
        *("--dropout", 0.1),
    ]
    done = command(*words)
    assert done.code == 0, done.err
    assert "2023-11-18" in done.out
    assert "mean AUC" in done.out
    assert outcome(tmp_path / "run") == outcome(whole)
    again = command("stream", "--resume", "--out", tmp_path / "run")
    assert again.code == 0, again.err
    assert again.out == done.out


def test_a_resumed_command_says_nothing_again(log: Path, whole: Path, tmp_path: Path) -> None:
    with stopped_after(9):
        stream(log, tmp_path / "run", checkpoint_steps=3, **READ, **SMALL)
    done = command("stream", "--resume", "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert outcome(tmp_path / "run") == outcome(whole)


def test_a_changed_record_is_refused(log: Path, tmp_path: Path) -> None:
    with stopped_after(9):
        stream(log, tmp_path / "run", checkpoint_steps=3, **READ, **SMALL)
    file = tmp_path / "run" / "stream.json"
    value = json.loads(file.read_text())
    value["passes"] = 2
    file.write_text(json.dumps(value))
    with pytest.raises(BitfoldError, match="not what was saved"):
        stream(log, tmp_path / "run", resume=True, **READ, **SMALL)


def test_bytes_beyond_the_budget_end_a_stream(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bitfold.embedding import EmbeddingCollection

    real = EmbeddingCollection.serving

    def grown(self: EmbeddingCollection) -> EmbeddingCollection:
        made = real(self)
        made.register_buffer("more", torch.zeros(5000, dtype=torch.uint8))
        return made

    monkeypatch.setattr(EmbeddingCollection, "serving", grown)
    with pytest.raises(BitfoldError, match="left its budget in 2023-11-15"):
        stream(log, tmp_path / "run", **READ, **SMALL)


def test_the_page(whole: Path) -> None:
    text = (whole / "stream.html").read_text()
    assert text.count('role="img"') == 8  # four charts, wide and narrow
    for name in ("Quality by window", "Bytes by window", "Churn by window", "11-18"):
        assert name in text
    before = text
    done = command("report", whole)
    assert done.code == 0, done.err
    assert (whole / "stream.html").read_text().count('role="img"') == before.count('role="img"')


def test_several_streams_on_one_page(log: Path, whole: Path, tmp_path: Path) -> None:
    from bitfold.report.stream_page import write_streams_page

    stream(log, tmp_path / "hash", **READ, **SMALL | {"method": "hash", "set": {}})
    page = write_streams_page([whole, tmp_path / "hash"], tmp_path)
    text = page.read_text()
    assert "is best: mean AUC" in text
    assert "hash, window by window" in text
    assert "cafe, window by window" in text
