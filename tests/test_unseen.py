"""Ids that training lacks: counted, and given the mean where they have a row of their own."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bitfold import BitfoldError, Field
from bitfold.address import Lookup, Program, Raw
from bitfold.cli.compared import unseen_note
from bitfold.data.config import DataConfig
from bitfold.data.field_map import MISSING, UNSEEN
from bitfold.data.prepare import prepare
from bitfold.data.prepared import PreparedLog
from bitfold.data.vocabulary import Vocabulary
from bitfold.embedding import EmbeddingCollection
from bitfold.files import read_tensors
from bitfold.planning.statistics import Counted
from bitfold.training import TrainConfig, train
from bitfold.training.counting import LogStatistics
from bitfold.training.lifecycle import Lifecycle
from bitfold.training.loop import Trainer
from bitfold.training.rows import TrainingRows
from bitfold.training.unseen import unseen_shares
from command import READING, TRAINING, bitfold, refused, write_ratings
from test_compare import board_of

DENSE = [Field("user", 6), Field("item", 400), Field("age", 3)]
WORDS = TrainConfig(
    method="full", width=4, hidden=(8,), epochs=2, batch_size=16, lr=0.02, device="cpu"
)


def collection(method: str, fields: list[Field] = DENSE, **options: Any) -> EmbeddingCollection:
    return EmbeddingCollection(fields, 4, method=method, **options)


@pytest.mark.parametrize(
    ("method", "options", "fields"),
    [
        ("full", {}, (0, 1, 2)),
        ("hash", {"budget": 2000}, (0, 2)),  # the folded field's rows are shared
        ("binary-code", {"budget": 2000}, (0, 2)),
        ("binary-code", {"budget": 2000, "sharing": "fields", "fusion": "concat"}, (0, 2)),
        ("multi-hash", {"budget": 10**6, "fusion": "concat"}, (0, 1, 2)),
        ("multi-hash", {"budget": 400, "allocation": 0.5}, ()),  # small fields too are folded
    ],
)
def test_which_fields_have_a_row_for_each_id(
    method: str, options: dict[str, Any], fields: tuple[int, ...]
) -> None:
    embedder = collection(method, **options).embedder
    assert embedder.own_rows() == fields
    readers: Counter[int] = Counter()
    program = embedder.plan.program
    for number, field in enumerate(DENSE):
        for value in range(field.num_embeddings or 0):
            readers.update(set(program.cells_int(number, value)))
    for number in fields:
        for value in range(DENSE[number].num_embeddings or 0):
            assert all(readers[cell] == 1 for cell in program.cells_int(number, value))


def test_rows_that_fields_share_are_nobodys_own() -> None:
    def whole(size: int, base: int) -> tuple[Lookup, ...]:
        return (Lookup(Raw(), size, base),)

    assert Program(1, (whole(4, 0), whole(4, 2), whole(2, 8)), 10).own_rows([4, 4, 2]) == (2,)
    inside = (whole(10, 0), whole(1, 1), whole(2, 5), whole(3, 10))
    assert Program(1, inside, 13).own_rows([10, 1, 2, 3]) == (3,)
    assert Program(1, (whole(4, 0), whole(4, 0)), 4).own_rows([4, 4]) == ()
    assert Program(1, (whole(4, 0), whole(4, 4)), 8).own_rows([5, None]) == ()


def test_hashed_ids_have_no_row_of_their_own() -> None:
    fields = [Field("user", distinct=6), Field("item", 4)]
    assert collection("hash", fields, budget=4000).embedder.own_rows() == (1,)


def settle(tables: EmbeddingCollection, counts: dict[int, Tensor]) -> None:
    """End an epoch of a training part with these counts."""
    names = [field.name for field in tables.fields]
    life = Lifecycle(tables)
    life.prepare(
        Counted({names[i]: (np.arange(len(each)), each.numpy()) for i, each in counts.items()})
    )
    life.epoch_ended()


def test_unseen_ids_get_the_mean_of_the_seen_whatever_their_counts() -> None:
    tables = collection("full", [Field("user", 4), Field("item", 3), Field("age", 2)])
    before = tables.embedder.pool.weight.detach().clone()  # type: ignore[union-attr]
    counts = {
        0: torch.tensor([9, 0, 1, 0]),
        1: torch.tensor([1, 2, 3]),  # nothing is unseen
        2: torch.tensor([0, 0]),  # nothing is seen: there is no mean
    }
    settle(tables, counts)
    found = tables(torch.tensor([[row, row % 3, row % 2] for row in range(4)]))
    mean = (before[0] + before[2]) / 2
    torch.testing.assert_close(found[:, 0], torch.stack([before[0], mean, before[2], mean]))
    torch.testing.assert_close(tables.embedder.pool.weight[4:], before[4:])  # type: ignore[index, union-attr]


def test_concatenated_rows_are_filled_chunk_by_chunk() -> None:
    tables = collection("multi-hash", [Field("user", 4)], budget=10**6, fusion="concat")
    vectors = tables(torch.arange(4)[:, None])[:, 0].detach()
    settle(tables, {0: torch.tensor([1, 1, 0, 1])})
    filled = tables(torch.arange(4)[:, None])[:, 0].detach()
    expected = vectors.clone()
    expected[2] = vectors[[0, 1, 3]].mean(0)
    torch.testing.assert_close(filled, expected)


def write_log(folder: Path, ids: str = "dense", missing: bool = False, **words: Any) -> PreparedLog:
    """Users 0..5; 4 comes in valid and test alone, 5 in test alone. Item 2 comes once."""
    lines = ["user,item,clicked,part"]
    lines += [f"{row % 4},{row % 2 if row else 2},{int(row % 4 < 2)},train" for row in range(120)]
    for row in range(24):
        lines.append(f"{row % 5},{row % 2},{int(row % 4 < 2)},valid")
        lines.append(f"{row % 6},{row % 2},{int(row % 4 < 2)},test")
    if missing:
        lines.append(",1,0,train")
    (folder / "raw.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    config = DataConfig(
        label="clicked", fields=("user", "item"), split="column:part", ids=ids, **words
    )
    return prepare(folder / "raw.csv", folder / "log", config)


def table_of(run: Path) -> list[Tensor]:
    """The rows of each field."""
    weights = read_tensors(run / "weights.safetensors")[0]
    (name,) = (name for name in weights if name.endswith("pool.weight"))
    plan = json.loads((run / "plan.json").read_text())
    return list(weights[name].split([field["num_embeddings"] for field in plan["fields"]]))


def trained(log: PreparedLog, out: Path, **words: Any) -> list[Tensor]:
    train([log.path], None, replace(WORDS, **words), out)
    return table_of(out)


def mean_of(rows: Tensor, *seen: int) -> Tensor:
    return rows[list(seen)].mean(0)


def test_shares_of_a_prepared_log(tmp_path: Path) -> None:
    assert unseen_shares(write_log(tmp_path)) == [
        {
            "field": "user",
            "valid": pytest.approx(4 / 24, abs=1e-6),
            "test": pytest.approx(8 / 24, abs=1e-6),
        },
        {"field": "item", "valid": 0, "test": 0},
    ]


def test_dense_ids_that_training_lacks_have_the_mean(tmp_path: Path) -> None:
    log = write_log(tmp_path)
    user, _ = trained(log, tmp_path / "run")
    torch.testing.assert_close(user[4], mean_of(user, 0, 1, 2, 3))
    torch.testing.assert_close(user[5], user[4])
    assert not torch.equal(user[0], user[1])
    as_drawn, _ = trained(log, tmp_path / "initial", unseen="initial")
    assert not torch.allclose(as_drawn[4], as_drawn[5])
    assert as_drawn[4].abs().max() < 0.1  # what it was drawn with, std .01


@pytest.mark.parametrize("ids", ["hashed", "vocabulary"])
def test_a_vocabularys_row_of_unseen_values_has_the_mean(tmp_path: Path, ids: str) -> None:
    """The full table maps hashed ids itself; both ways unseen values share row 0, missing row 1."""
    log = write_log(tmp_path, ids)
    user, item = trained(log, tmp_path / "run")
    assert len(user) == 2 + 4
    torch.testing.assert_close(user[UNSEEN], mean_of(user, 2, 3, 4, 5))
    torch.testing.assert_close(user[MISSING], user[UNSEEN])  # no value was missing
    torch.testing.assert_close(item[UNSEEN], mean_of(item, 2, 3, 4))


def test_rows_of_rare_and_of_missing_values_are_trained_and_stay(tmp_path: Path) -> None:
    log = write_log(tmp_path, "vocabulary", missing=True, min_count=2)
    sizes = {0: 6, 1: 4}
    stats = LogStatistics(TrainingRows(log))
    user, item = (stats.counts(f, np.arange(sizes[i])) for i, f in enumerate(("user", "item")))
    assert user.tolist() == [0, 1, 30, 30, 30, 30]
    assert item[UNSEEN] == 1  # item 2 is rarer than min_count
    user, item = trained(log, tmp_path / "run")
    torch.testing.assert_close(user[UNSEEN], mean_of(user, 1, 2, 3, 4, 5))
    assert not torch.allclose(item[UNSEEN], mean_of(item, 2, 3))


def test_counts_go_through_the_map_that_the_table_uses(tmp_path: Path) -> None:
    log = write_log(tmp_path, "hashed")
    rows = TrainingRows(log, Vocabulary.fit(log))
    stats = LogStatistics(rows)
    assert stats.counts("user", np.arange(6)).tolist() == [0, 0, 30, 30, 30, 30]
    assert stats.distinct("user") == 4
    ids, counts = stats.top("user", 3)
    assert (ids.tolist(), counts.tolist()) == ([2, 3, 4], [30, 30, 30])


def test_validation_sees_what_serving_sees(tmp_path: Path) -> None:
    """The epoch is chosen by the table that is served: the figures of valid agree."""
    log = write_log(tmp_path)
    result = train([log.path], None, WORDS, tmp_path / "run")
    from bitfold.runs.folder import load

    assert (
        load(tmp_path / "run").evaluate(log.path, "valid")["auc"] == result.metrics["valid"]["auc"]
    )


def test_a_stopped_training_goes_on_to_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = write_log(tmp_path)
    words = {"checkpoint_steps": 3, "embedding_decay": 1e-3}
    whole = trained(log, tmp_path / "whole", **words)
    real, steps = Trainer._step, []

    def dying(self: Trainer, batch: Any) -> Tensor:
        steps.append(1)
        if len(steps) == 13:  # in the second epoch
            raise KeyboardInterrupt
        return real(self, batch)

    monkeypatch.setattr(Trainer, "_step", dying)
    with pytest.raises(KeyboardInterrupt):
        trained(log, tmp_path / "run", **words)
    train([log.path], None, replace(WORDS, **words), tmp_path / "run", resume=True)  # type: ignore[arg-type]
    for one, other in zip(whole, table_of(tmp_path / "run"), strict=True):
        assert torch.equal(one, other)


def test_rows_of_an_earlier_run_are_left_as_it_trained_them(tmp_path: Path) -> None:
    """The next day's log lacks users whom the day before knew well."""
    first = write_log(tmp_path)
    before, _ = trained(first, tmp_path / "run")
    lines = (tmp_path / "raw.csv").read_text().splitlines()
    kept = [line for line in lines if not line.startswith("3,") or "train" not in line]
    (tmp_path / "raw.csv").write_text("\n".join(kept) + "\n", encoding="utf-8")
    second = prepare(tmp_path / "raw.csv", tmp_path / "next", first.schema.config)
    train([second.path], None, WORDS, tmp_path / "run2", from_run=tmp_path / "run")
    after, _ = table_of(tmp_path / "run2")
    assert torch.equal(after[3], before[3])
    assert not torch.equal(after[0], before[0])


def test_the_word_on_the_command_line(tmp_path: Path) -> None:
    ratings = write_ratings(tmp_path / "ratings.csv", users=300)
    words = ("--methods", "full", "--seeds", 1, "--no-floors")
    line = ("compare", ratings, *READING, *TRAINING, *words)
    got = bitfold(*line, "--out", tmp_path / "board")
    assert got.code == 0, got.err
    board: dict[str, Any] = board_of(tmp_path / "board")
    shares = {row["field"]: row["test"] for row in board["unseen"]}
    assert list(shares) == ["user", "item", "age"]
    assert shares["user"] > 0.05
    assert f"unseen ids in test: user {shares['user']:.1%}" in got.out
    assert bitfold(*line, "--unseen", "initial", "--out", tmp_path / "other").code == 0
    other: dict[str, Any] = board_of(tmp_path / "other")
    assert board["results"][0]["logloss"] != other["results"][0]["logloss"]
    refused(bitfold(*line, "--unseen", "maen", "--out", tmp_path / "no"), "did you mean 'mean'")
    with pytest.raises(BitfoldError, match="did you mean 'initial'"):
        TrainConfig(unseen="inital")


def test_the_note_names_the_worst_fields() -> None:
    rows = [{"field": f"f{n}", "valid": 0.0, "test": n / 100} for n in range(8)]
    assert unseen_note(rows) == (
        "unseen ids in test: f7 7.0%, f6 6.0%, f5 5.0%, f4 4.0%, f3 3.0%, 2 more fields"
    )
    assert unseen_note(rows[:1]) == "unseen ids in test: none"
    assert unseen_note([{"field": "a", "valid": 0.1, "test": None}]) == "unseen ids in test: none"
