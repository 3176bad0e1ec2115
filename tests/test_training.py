import csv
import importlib.util
import json
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

import bitfold
from bitfold import files
from bitfold.comparison.floors import nonsense
from bitfold.data.prepare import prepare
from bitfold.embedding import EmbeddingCollection
from bitfold.errors import BitfoldError, BudgetTooSmall, UnknownName
from bitfold.files import read_tensors
from bitfold.nets.model import click_loss
from bitfold.training import TrainConfig, train
from bitfold.training.rows import ahead
from click_log import DATA, TINY, columns, write

FIGURES = {
    "auc", "logloss", "gauc", "calibration", "ece", "bytes", "ratio", "training_bytes",
    "rows_per_second", "epochs", "seconds",
}  # fmt: skip


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write(tmp_path_factory.mktemp("raw") / "clicks.csv", columns())


@pytest.fixture(scope="module")
def log(raw, tmp_path_factory):
    return prepare([raw], tmp_path_factory.mktemp("prepared") / "log", DATA).path


def weights(run):
    return read_tensors(run / "weights.safetensors")[0]


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def lines(run):
    with (run / "logs" / "training.csv").open() as file:
        return list(csv.DictReader(file))


def test_raw_rows_become_a_run(raw, tmp_path):
    seen = []
    result = train(
        [raw], DATA, TINY, tmp_path / "run", progress=lambda stage, *_, **__: seen.append(stage)
    )
    assert {file.name for file in (tmp_path / "run").iterdir()} == {
        "config.json", "schema.json", "plan.json", "weights.safetensors", "metrics.json",
        "manifest.json", "logs", "known.safetensors",
    }  # fmt: skip
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics == result.metrics
    assert metrics.keys() >= FIGURES
    assert metrics["auc"] > 0.6
    assert metrics["bytes"] == sum(
        tensor.nbytes
        for name, tensor in weights(tmp_path / "run").items()
        if name.startswith("embeddings.")
    )
    assert metrics["ratio"] == pytest.approx(2, rel=0.02)
    # Adam: the weights, their gradients and two moments; the fingerprint has neither.
    assert metrics["training_bytes"] >= 4 * (metrics["bytes"] - 8) + 8
    assert metrics["rows"]["train"] + metrics["rows"]["valid"] + metrics["rows"]["test"] == 2000
    assert {"epoch 1/2", "epoch 2/2", "validation", "test"} <= set(seen)
    assert len([line for line in lines(tmp_path / "run") if line["valid_auc"]]) == 2
    assert list((tmp_path / "run" / "logs").glob("events.out.tfevents.*"))


def test_few_bits_are_trained_as_floats_and_said_to_be(log, tmp_path):
    def metrics(name, **options):
        words = replace(TINY, method="full", budget=None, set=options)
        return train([log], None, words, tmp_path / name).metrics

    whole, few = metrics("whole"), metrics("few", bits="4")
    low = metrics("low", bits="4", low_precision="true")
    assert few["bytes"] < whole["bytes"] / 5
    assert few["training_bytes"] >= whole["training_bytes"]
    assert low["training_bytes"] < few["training_bytes"] - 3 / 4 * whole["bytes"]


def test_speed_leaves_out_the_first_steps_which_compile(log, tmp_path, monkeypatch):
    from bitfold.training import loop

    clock = [0.0]
    step = loop.Trainer._step

    def slow_at_first(self, batch):
        clock[0] += 100.0 if self.steps < loop.WARM_UP else 1.0
        return step(self, batch)

    monkeypatch.setattr(loop.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(loop.Trainer, "_step", slow_at_first)
    result = train([log], None, replace(TINY, batch_size=100, epochs=1), tmp_path / "run")
    steps = -(-result.metrics["rows"]["train"] // 100)
    timed = result.metrics["rows"]["train"] - 100 * loop.WARM_UP
    assert result.metrics["rows_per_second"] == pytest.approx(timed / (steps - loop.WARM_UP))
    # A training of first steps alone has their speed.
    result = train([log], None, replace(TINY, batch_size=1000, epochs=1), tmp_path / "short")
    steps = -(-result.metrics["rows"]["train"] // 1000)
    rows = result.metrics["rows"]["train"]
    assert result.metrics["rows_per_second"] == pytest.approx(rows / (100.0 * steps))


def test_the_same_words_give_the_same_weights(log, tmp_path):
    words = replace(TINY, dropout=0.3)
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        train([log], None, replace(words, seed=seed), tmp_path / name)
    one, again, other = (weights(tmp_path / name) for name in ("one", "same", "other"))
    assert same(one, again)
    assert not same(one, other)


def test_training_leaves_the_global_random_state_alone(log, tmp_path):
    torch.manual_seed(9)
    before = torch.get_rng_state()
    train([log], None, replace(TINY, epochs=1, dropout=0.1), tmp_path / "run")
    assert torch.equal(before, torch.get_rng_state())


def test_the_best_epoch_is_kept(log, tmp_path):
    words = replace(TINY, budget="1x", epochs=12, patience=2, lr=0.1)
    metrics = train([log], None, words, tmp_path / "run").metrics
    aucs = [float(line["valid_auc"]) for line in lines(tmp_path / "run") if line["valid_auc"]]
    assert metrics["epochs"] == len(aucs) < 12, "it should have stopped early"
    assert metrics["best_epoch"] == int(np.argmax(aucs)) + 1 == len(aucs) - 2
    assert metrics["valid"]["auc"] == pytest.approx(max(aucs), abs=1e-5)
    # The weights that were saved are those of the best epoch.
    again = bitfold.load(tmp_path / "run").evaluate(log, "valid")
    assert again["auc"] == pytest.approx(metrics["valid"]["auc"], abs=1e-9)


class Told:
    """Keeps what progress tells."""

    def __init__(self):
        self.calls = []

    def __call__(self, stage, done, total=None, **facts):
        self.calls.append((stage, done, total, facts))


@pytest.mark.parametrize("log_steps", [1, 6, 1000])  # an epoch has six steps
def test_each_epoch_ends_with_its_own_loss_and_auc(log, tmp_path, log_steps):
    words = replace(TINY, budget="1x", epochs=9, patience=2, lr=0.1, log_steps=log_steps)
    told = Told()
    train([log], None, words, tmp_path / "run", progress=told)
    ends = [
        (stage, facts)
        for stage, done, total, facts in told.calls
        if stage.startswith("epoch") and done == total
    ]
    valid = [line for line in lines(tmp_path / "run") if line["valid_auc"]]
    assert [stage for stage, _ in ends] == [f"epoch {n + 1}/9" for n in range(len(valid))]
    best = 0.0
    for (_, facts), line in zip(ends, valid, strict=True):
        best = max(best, float(line["valid_auc"]))
        assert facts["valid_auc"] == pytest.approx(float(line["valid_auc"]), abs=1e-4)
        assert facts["best_auc"] == pytest.approx(best, abs=1e-4)
        assert facts["loss"] == pytest.approx(float(line["loss"]), abs=1e-4)
        assert facts["loss"] > 0.3
    assert ends[-1][1]["valid_auc"] < ends[-1][1]["best_auc"]


def test_the_loss_of_weighted_rows_is_their_weighted_mean(tmp_path):
    # Rows of weight 0 do not count, wherever they lie.
    table = columns(600)
    table["weight"] = ["0" if row % 3 else "1" for row in range(600)]
    raw = write(tmp_path / "clicks.csv", table)
    data = replace(DATA, weight="weight", split="random:1,0,0")
    words = replace(TINY, epochs=1, lr=1e-12, batch_size=7)
    train([raw], data, words, tmp_path / "weighted")
    few = {name: values[::3] for name, values in table.items()}
    write(raw, few)
    train([raw], data, words, tmp_path / "few")
    losses = [float(lines(tmp_path / name)[-1]["loss"]) for name in ("weighted", "few")]
    assert losses[0] == pytest.approx(losses[1], abs=2e-3)


def test_finite_nonsense_is_said(log, tmp_path):
    words = replace(TINY, lr=3.0, budget="1x")
    metrics = train([log], None, words, tmp_path / "run").metrics
    assert metrics["logloss"] > 1.2 * metrics["constant_logloss"] > 0.7
    assert "far above" in nonsense(metrics)[0]
    good = train([log], None, TINY, tmp_path / "good").metrics
    assert nonsense(good) == []


def scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    found = {tag: events.Scalars(tag)[-1].value for tag in events.Tags()["scalars"]}
    return found, events.summary_metadata


def test_tensorboard_has_the_options_and_the_result(raw, log, tmp_path):
    metrics = train([log], None, TINY, tmp_path / "run").metrics
    found, metadata = scalars(tmp_path / "run" / "logs")
    assert found["result/auc"] == pytest.approx(metrics["auc"])
    assert found["result/bytes"] == metrics["bytes"]
    assert 0 < found["valid_gauc"] < 1
    assert any("hparams" in tag for tag in metadata)
    # Without a group there is no GAUC to draw.
    train([raw], replace(DATA, group=None), TINY, tmp_path / "no")
    found, _ = scalars(tmp_path / "no" / "logs")
    assert "valid_auc" in found
    assert "valid_gauc" not in found
    assert {line["valid_gauc"] for line in lines(tmp_path / "no")} == {""}


def test_no_log_but_the_csv_file(log, tmp_path):
    train([log], None, replace(TINY, log="none"), tmp_path / "run")
    assert [file.name for file in (tmp_path / "run" / "logs").iterdir()] == ["training.csv"]


MLFLOW = """
import json, pathlib
def tell(*what):
    with pathlib.Path(__file__).with_name("told").open("a") as file:
        file.write(json.dumps(what) + "\\n")
def start_run(run_name, nested): tell("start", run_name)
def log_metrics(figures, step=None): tell("metrics", figures, step)
def log_params(words): tell("params", words)
def end_run(status): tell("end", status)
"""


def test_mlflow_gets_options_and_figures(log, tmp_path, monkeypatch):
    if importlib.util.find_spec("mlflow") is None:
        with pytest.raises(BitfoldError, match="pip install mlflow"):
            train([log], None, replace(TINY, log="mlflow"), tmp_path / "run")
        assert not (tmp_path / "run").exists()
    # The package is large: what it would be told is enough here.
    (tmp_path / "mlflow.py").write_text(MLFLOW)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)
    metrics = train([log], None, replace(TINY, log="mlflow"), tmp_path / "run").metrics
    monkeypatch.delitem(sys.modules, "mlflow")
    told = [json.loads(line) for line in (tmp_path / "told").read_text().splitlines()]
    assert (told[0], told[-1]) == (["start", "run"], ["end", "FINISHED"])
    params = next(line[1] for line in told if line[0] == "params")
    assert params["method"] == "hash"
    assert params["hidden"] == "8"
    assert told[-2][1]["result_auc"] == metrics["auc"]
    assert [line[2] for line in told if line[0] == "metrics"][:-1] == [6, 12]


def test_a_batch_larger_than_the_log(log, tmp_path):
    metrics = train([log], None, replace(TINY, batch_size=10**6), tmp_path / "run").metrics
    assert [line["step"] for line in lines(tmp_path / "run")] == ["1", "2"]
    assert metrics["rows"]["train"] == int(lines(tmp_path / "run")[0]["rows"])


def test_no_patience_trains_to_the_end(log, tmp_path):
    words = replace(TINY, budget="1x", epochs=5, patience=0, lr=0.1)
    assert train([log], None, words, tmp_path / "run").epochs == 5


@pytest.mark.parametrize("network", ["lr", "deepfm", "dcnv2", "dlrm"])
def test_every_network_learns(log, tmp_path, network):
    words = replace(TINY, network=network, epochs=4, budget="1x", lr=0.03)
    metrics = train([log], None, words, tmp_path / "run").metrics
    assert metrics["auc"] > 0.62
    assert bitfold.load(tmp_path / "run").plan.embedding_dim == (1 if network == "lr" else 4)


@pytest.mark.parametrize(
    ("network", "embeddings"),
    [(name, "same") for name in ("adam", "adamw", "adagrad", "sgd")]
    + [("adam", name) for name in ("lazy-adam", "rowwise-adagrad", "adagrad", "sgd")],
)
def test_every_optimizer_learns_and_decays(log, tmp_path, network, embeddings):
    words = replace(TINY, optimizer=network, embedding_optimizer=embeddings, lr=0.05, epochs=1)
    train([log], None, words, tmp_path / "plain")
    train([log], None, replace(words, embedding_decay=0.5), tmp_path / "decayed")
    norm = {
        name: weights(tmp_path / name)["embeddings.embedder.pool.weight"].norm()
        for name in ("plain", "decayed")
    }
    assert norm["decayed"] < norm["plain"]


def test_the_embeddings_have_a_rate_of_their_own(log, tmp_path):
    moved = {}
    for name in ("lazy-adam", "same"):
        words = replace(TINY, embedding_optimizer=name, embedding_lr=1e-12, epochs=1)
        train([log], None, words, tmp_path / name)
        run = bitfold.load(tmp_path / name)
        fresh = EmbeddingCollection.from_plan(run.plan, seed=words.seed).state_dict()
        pool = weights(tmp_path / name)["embeddings.embedder.pool.weight"]
        moved[name] = (pool - fresh["embedder.pool.weight"]).abs().max()
    assert max(moved.values()) < 1e-6


def test_bf16_trains_and_serves_in_float32(log, tmp_path):
    metrics = train(
        [log], None, replace(TINY, precision="bf16", epochs=3), tmp_path / "run"
    ).metrics
    assert metrics["auc"] > 0.6
    floats = [t for t in weights(tmp_path / "run").values() if t.is_floating_point()]
    assert {t.dtype for t in floats} == {torch.float32}


def test_a_full_table_on_hashed_ids_gets_a_map(raw, log, tmp_path):
    words = replace(TINY, method="full", budget=None)
    metrics = train([log], None, words, tmp_path / "run").metrics
    run = bitfold.load(tmp_path / "run")
    distinct = [len(field.keys) for field in run.dense.maps]
    assert distinct == [60, 40, 5]
    assert metrics["bytes"] == sum(2 + n for n in distinct) * 4 * 4
    assert metrics["map_bytes"] == sum(distinct) * 12
    assert metrics["ratio"] == 1
    table = columns(10)
    table["user"][3] = "never seen"
    assert np.isfinite(run.predict(table)).all()


def test_bags_of_values(raw, tmp_path):
    data = replace(DATA, fields=("user", "tags"), multi={"tags": "|"})
    for mode in ("mean", "sum"):
        words = replace(TINY, bags=mode)
        assert train([raw], data, words, tmp_path / mode).metrics["auc"] > 0.5
        assert bitfold.load(tmp_path / mode).model.embeddings.mode == mode


def test_the_loss_weighs_its_rows():
    logits, labels = torch.tensor([0.3, -1.0, 2.0]), torch.tensor([1.0, 0.0, 0.0])
    repeated = click_loss(logits[[0, 0, 1, 2]], labels[[0, 0, 1, 2]], None)
    weighted = click_loss(logits, labels, torch.tensor([2.0, 1.0, 1.0]))
    torch.testing.assert_close(weighted, repeated)
    assert click_loss(logits, labels, torch.zeros(3)) == 0


def test_weights_change_what_is_learned(raw, log, tmp_path):
    train([raw], replace(DATA, weight="weight"), TINY, tmp_path / "weighted")
    train([log], None, TINY, tmp_path / "plain")
    assert not same(weights(tmp_path / "weighted"), weights(tmp_path / "plain"))


def test_predictions_are_corrected_for_negatives_left_out(tmp_path):
    table = columns(12_000, seed=1)
    labels = np.array([int(rating) >= 4 for rating in table["rating"]])
    kept = labels | (np.random.default_rng(0).random(len(labels)) < 0.25)
    sampled = {name: [v for v, k in zip(c, kept, strict=True) if k] for name, c in table.items()}
    raw = write(tmp_path / "sampled.csv", sampled)
    data = replace(DATA, negative_rate=0.25)
    words = replace(TINY, budget="1x", epochs=3)
    metrics = train([raw], data, words, tmp_path / "run").metrics
    run = bitfold.load(tmp_path / "run")
    assert metrics["calibration"] == pytest.approx(1, abs=0.1)
    # On rows that were not down-sampled the mean prediction is the mean label.
    assert run.predict(table).mean() == pytest.approx(labels.mean(), abs=0.06)
    plain = train([raw], DATA, words, tmp_path / "plain")
    assert bitfold.load(plain.path).predict(table).mean() > labels.mean() + 0.1


def test_without_a_test_part_the_valid_part_is_measured(raw, tmp_path):
    data = replace(DATA, split="random:0.8,0.2,0")
    metrics = train([raw], data, TINY, tmp_path / "run").metrics
    assert metrics["part"] == "valid"
    assert metrics["auc"] == pytest.approx(metrics["valid"]["auc"])


def test_without_other_parts_all_epochs_are_trained(raw, tmp_path):
    data = replace(DATA, split="random:1,0,0")
    metrics = train([raw], data, TINY, tmp_path / "run").metrics
    assert (metrics["part"], metrics["auc"], metrics["valid"]) == (None, None, None)
    assert metrics["epochs"] == metrics["best_epoch"] == 2


def test_a_kept_log_is_a_prepared_log(raw, tmp_path):
    train([raw], DATA, replace(TINY, keep_log=True), tmp_path / "run")
    again = train([tmp_path / "run" / "log"], None, TINY, tmp_path / "again")
    assert same(weights(tmp_path / "run"), weights(again.path))


def test_a_run_in_the_way(log, tmp_path):
    train([log], None, TINY, tmp_path / "run")
    before = weights(tmp_path / "run")
    with pytest.raises(BitfoldError, match="--force"):
        train([log], None, replace(TINY, seed=1), tmp_path / "run")
    assert same(before, weights(tmp_path / "run"))
    train([log], None, replace(TINY, seed=1), tmp_path / "run", force=True)
    assert not same(before, weights(tmp_path / "run"))


def test_other_things_in_the_way_are_never_removed(log, tmp_path):
    (tmp_path / "letters.txt").write_text("dear")
    for force in (False, True):
        with pytest.raises(BitfoldError, match="is no run"):
            train([log], None, TINY, tmp_path, force=force)
    assert (tmp_path / "letters.txt").read_text() == "dear"


@pytest.mark.parametrize(
    ("words", "error", "match"),
    [
        ({"method": "binary-cod"}, UnknownName, "did you mean 'binary-code'"),
        ({"set": {"block": "3"}}, UnknownName, "unknown option of method 'hash'"),
        ({"network_set": {"linaer": "false"}}, UnknownName, "did you mean 'linear'"),
        ({"network_set": {"linear": "often"}}, BitfoldError, "true or false"),
        ({"budget": "8"}, BudgetTooSmall, "bytes or more"),
        ({"budget": "0"}, BitfoldError, "above zero"),
        ({"budget": "ten"}, BitfoldError, "malformed budget"),
        ({"device": "abacus"}, BitfoldError, "cannot be used"),
        ({"lr": 1e9, "optimizer": "sgd", "network": "dcnv2"}, BitfoldError, "diverged"),
    ],
)
def test_a_mistake_leaves_nothing(log, tmp_path, words, error, match):
    with pytest.raises(error, match=match):
        train([log], None, replace(TINY, **words), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("width", 0),
        ("epochs", 0),
        ("batch_size", -1),
        ("batch_size", 2.5),
        ("lr", 0),
        ("lr", float("nan")),
        ("dropout", 1),
        ("weight_decay", -1e-3),
        ("seed", -1),
        ("seed", 2**63),
        ("lr", float("inf")),
        ("lr", -0.1),
        ("lr", 10**400),
        ("embedding_lr", float("nan")),
        ("embedding_decay", -1e-9),
        ("weight_decay", float("inf")),
        ("patience", -1),
        ("patience", 1.5),
        ("log_steps", 0),
        ("hidden", (8, 0)),
        ("hidden", ("a",)),
        ("network", "deepfn"),
        ("optimizer", "adma"),
        ("precision", "16"),
        ("bags", "median"),
    ],
)
def test_words_out_of_range(word, value):
    with pytest.raises(BitfoldError, match=word):
        TrainConfig(**{word: value})


def test_a_validation_part_of_one_class(tmp_path):
    table = columns(500)
    for row in range(500):
        if table["part"][row] == "valid":
            table["rating"][row] = "5"
    raw = write(tmp_path / "clicks.csv", table)
    with pytest.raises(BitfoldError, match="one class"):
        train([raw], replace(DATA, split="column:part"), TINY, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_full_disk(log, tmp_path, monkeypatch):
    import safetensors.torch

    def no_room(*args, **kwargs):
        args[1].write_bytes(b"half")
        raise safetensors.SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", no_room)
    with pytest.raises(BitfoldError, match="cannot write") as raised:
        train([log], None, TINY, tmp_path / "run")
    assert "No space left" in str(raised.value)
    assert not (tmp_path / "run").exists()
    with pytest.raises(BitfoldError, match="cannot write"):
        files.write_tensors(tmp_path / "x.safetensors", {"a": torch.zeros(1)})
    assert list(tmp_path.iterdir()) == []


class TestFromRun:
    """`train --from`: the next day's log."""

    @pytest.fixture(scope="class")
    @classmethod
    def first(cls, raw, tmp_path_factory):
        words = replace(TINY, epochs=4, budget="1x", lr=0.03)
        return train([raw], DATA, words, tmp_path_factory.mktemp("days") / "one").path

    @pytest.fixture(scope="class")
    @classmethod
    def next_day(cls, tmp_path_factory):
        table = columns(800, seed=7)
        table["price"] = [str(3 * float(price)) for price in table["price"]]
        return write(tmp_path_factory.mktemp("days") / "two.csv", table)

    def test_it_goes_on_from_the_weights(self, first, next_day, tmp_path):
        words = replace(TINY, epochs=1, budget="1x", lr=1e-12)
        second = train([next_day], DATA, words, tmp_path / "two", from_run=first).path
        table = columns(50, seed=3)
        old, new = bitfold.load(first), bitfold.load(second)
        # The same constants and weights: the next day's other prices change nothing.
        np.testing.assert_allclose(new.predict(table), old.predict(table), atol=1e-6)
        assert new.schema.numeric == old.schema.numeric
        assert new.config.from_run == str(first)

    def test_the_words_are_the_runs_unless_said(self, first, next_day, tmp_path):
        second = train([next_day], None, None, tmp_path / "two", from_run=first)
        assert bitfold.load(second.path).config.train == bitfold.load(first).config.train
        assert not same(weights(first), weights(second.path))

    def test_words_that_disagree(self, first, next_day, tmp_path):
        words = replace(TINY, budget="1x")
        for data, train_words, match in (
            (DATA, replace(words, width=8), "another width"),
            (DATA, replace(words, hidden=(9,)), "another hidden"),
            (replace(DATA, hash_seed=1), words, "another hash_seed"),
            (replace(DATA, fields=("user", "item")), words, "another fields"),
        ):
            with pytest.raises(BitfoldError, match=match):
                train([next_day], data, train_words, tmp_path / "two", from_run=first)
        assert not (tmp_path / "two").exists()

    def test_a_prepared_log_of_other_constants(self, first, next_day, tmp_path):
        other = prepare([next_day], tmp_path / "log", DATA)
        with pytest.raises(BitfoldError, match="prepared from other rows"):
            train([other.path], None, None, tmp_path / "two", from_run=first)

    def test_a_full_table_keeps_its_map(self, raw, next_day, tmp_path):
        words = replace(TINY, method="full", budget=None)
        train([raw], DATA, words, tmp_path / "one")
        second = train([next_day], None, None, tmp_path / "two", from_run=tmp_path / "one").path
        maps = [bitfold.load(run).dense.maps for run in (tmp_path / "one", second)]
        assert all(np.array_equal(a.keys, b.keys) for a, b in zip(*maps, strict=True))


def test_a_damaged_prepared_log_is_not_taken_for_raw_rows(raw, tmp_path):
    log = prepare([raw], tmp_path / "log", DATA).path
    (log / "schema.json").write_text("{")
    with pytest.raises(BitfoldError, match=r"schema\.json has 1 bytes"):
        train([log], None, TINY, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_rows_are_read_ahead_in_order_and_errors_come_through():
    def items():
        yield from range(20)
        raise BitfoldError("the shard is broken")

    reader = ahead(items())
    assert [next(reader) for _ in range(20)] == list(range(20))
    with pytest.raises(BitfoldError, match="the shard is broken"):
        next(reader)
    reader = ahead(iter(range(10**9)))
    assert [next(reader) for _ in range(3)] == [0, 1, 2]
    reader.close()
    assert not any(thread.name == "bitfold-read-ahead" for thread in threading.enumerate())
