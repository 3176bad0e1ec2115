"""The parts of a log are looked at before the first epoch."""

import re
from dataclasses import replace

import pytest

from bitfold.data.prepare import prepare
from bitfold.errors import BitfoldError
from bitfold.training import train
from bitfold.training.loop import Trainer
from bitfold.training.parts import check_parts
from click_log import DATA, TINY, columns, write
from command import bitfold

SPLIT = replace(DATA, split="column:part")


def table(rows=500):
    return columns(rows)


def of_one_class(part, rating="5"):
    made = table()
    for row, name in enumerate(made["part"]):
        if name == part:
            made["rating"][row] = rating
    return made


def weighted(*, valid=0.0, test=1.0, train=1.0):
    made = table()
    by_part = {"valid": valid, "test": test, "train": train}
    made["weight"] = [str(by_part[name]) for name in made["part"]]
    return made


@pytest.fixture(autouse=True)
def no_epoch(monkeypatch):
    """Whatever is found here is found before training."""

    def never(self):
        raise AssertionError("an epoch began")

    monkeypatch.setattr(Trainer, "_epoch", never)


@pytest.mark.parametrize(
    ("made", "words", "match"),
    [
        (of_one_class("valid"), SPLIT, "validation part holds one class only.*clicked"),
        (of_one_class("valid", "1"), SPLIT, "validation part holds one class only.*unclicked"),
        (weighted(), replace(SPLIT, weight="weight"), "weights of the validation part are zero"),
        (weighted(train=0.0), replace(SPLIT, weight="weight"), "all weights are zero"),
        (
            columns(500) | {"weight": [str(int(r == "5")) for r in columns(500)["rating"]]},
            replace(SPLIT, weight="weight"),
            "training part that weighs more than 0 has one class only",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_at_the_start(tmp_path, caplog, made, words, match):
    raw = write(tmp_path / "clicks.csv", made)
    with pytest.raises(BitfoldError, match=match):
        train([raw], words, TINY, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("made", "words", "match"),
    [
        (table(), replace(DATA, split="random:0.8,0,0.2"), "validation part is empty"),
        (table(), replace(DATA, split="random:0.8,0.2,0"), "test part is empty"),
        (table(), replace(DATA, split="random:1,0,0"), "validation and test parts are empty"),
        (of_one_class("test"), SPLIT, "test part holds one class only.*AUC and GAUC"),
        (
            weighted(valid=1.0, test=0.0),
            replace(SPLIT, weight="weight"),
            "weights of the test part are zero",
        ),
    ],
)
def test_what_cannot_be_measured_is_said_at_the_start(tmp_path, caplog, made, words, match):
    log = prepare([write(tmp_path / "clicks.csv", made)], tmp_path / "log", words)
    notes = check_parts(log)
    assert len(notes) == 1
    assert re.search(match, notes[0])
    with pytest.raises(AssertionError, match="an epoch began"):
        train([log.path], None, TINY, tmp_path / "run")
    assert [record.getMessage() for record in caplog.records] == [f"bitfold: {notes[0]}"]


def test_fewer_rows_than_processes(tmp_path):
    log = prepare([write(tmp_path / "clicks.csv", table(200))], tmp_path / "log", DATA)
    assert check_parts(log, 119) == []
    with pytest.raises(BitfoldError, match="fewer rows than there are processes"):
        check_parts(log, 1000)


def test_the_command_says_it(tmp_path):
    made = weighted(valid=0.0, test=0.0, train=0.0)
    raw = write(tmp_path / "clicks.csv", made)
    line = ("train", raw, "--label", "rating>=4", "--fields", "user,item", "--weight", "weight")
    done = bitfold(*line, "--out", tmp_path / "run")
    assert (done.code, done.out) == (2, "")
    assert "all weights are zero" in done.err
    assert not (tmp_path / "run").exists()
