"""Click models whose cold ids lean on prototypes: what is kept, what trains, what serves."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce

import bitfold
from bitfold import export, lite
from bitfold.data.field_map import UNSEEN
from bitfold.data.prepare import prepare
from bitfold.data.prepared import PreparedLog
from bitfold.errors import BitfoldError, BudgetTooSmall
from bitfold.files import read_tensors, write_tensors
from bitfold.nets.cold import ColdIds, cold_bytes, contexts, places_of
from bitfold.nets.cold_heads import learned_weights, relation_loss
from bitfold.nets.model import ClickModel
from bitfold.runs.cold import ColdConfig
from bitfold.runs.cold_file import load_cold
from bitfold.runs.config import RunConfig
from bitfold.runs.folder import load
from bitfold.runs.run import Run
from bitfold.runs.teaching import TeacherConfig
from bitfold.training import train
from bitfold.training.cold import ColdTraining, check_beside
from bitfold.training.rows import TrainingRows
from click_log import DATA, TINY, columns, write
from command import bitfold as command
from command import refused
from interrupting import Stop, stopped_after

COLD = ColdConfig("remarnet", "item")
FULL = replace(TINY, method="full", budget=None)


def log_columns(rows: int = 2000) -> dict[str, list[str]]:
    """A log most of whose items have few clicks."""
    table = columns(rows)
    item = np.minimum(np.random.default_rng(1).geometric(0.03, rows), 150)
    return table | {"item": [f"i{value}" for value in item]}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a log, hashed (`log`) and dense (`dense`), and a run of it (`run`)."""
    folder = tmp_path_factory.mktemp("cold")
    raw = [write(folder / "clicks.csv", log_columns())]
    prepare(raw, folder / "log", DATA)
    prepare(raw, folder / "dense", replace(DATA, ids="vocabulary"))
    train([folder / "log"], None, FULL, folder / "run", cold=COLD)
    return folder


def weights(run: Path) -> dict[str, Tensor]:
    found = dict(read_tensors(run / "weights.safetensors")[0])
    if (run / "cold.safetensors").exists():
        more = read_tensors(run / "cold.safetensors")[0]
        found |= {f"cold.{name}": each for name, each in more.items()}
    return found


def equal(one: Path, other: Path) -> bool:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


class Total(nn.Module):
    """A network whose logit is the sum of all numbers."""

    def forward(self, vectors: Tensor, numeric: Tensor) -> Tensor:
        found: Tensor = vectors.sum((1, 2)) + numeric.sum(1)
        return found


def small(bits: int = 8) -> ColdIds:
    """Ids 3 and 7 of field 1, with 1 and 5 clicks, and prototypes (1, 0) and (0, -1)."""
    return ColdIds.of(
        1, bits, torch.tensor([3, 7]), torch.tensor([1, 5]),
        torch.tensor([[2.0, 2.0], [3.0, -3.0]]), torch.tensor([1.0, 0.0]),
        torch.tensor([0.5, 0.25]), dense=True,
    )  # fmt: skip


class TestServing:
    vectors = torch.tensor([
        [[1.0, 1.0], [4.0, 4.0], [1.0, 3.0]],
        [[3.0, 0.0], [9.0, 0.0], [3.0, 0.0]],
        [[3.0, 0.0], [2.0, 0.0], [3.0, 0.0]],
    ])  # fmt: skip
    numeric = torch.tensor([[0.5], [0.0], [0.25]])
    ids = torch.tensor([3, 4, 7])

    def test_what_a_row_serves_is_as_by_hand(self) -> None:
        cold = small()
        cold.weights[0] = torch.tensor([0.5, 2.0, 0.1])  # one click
        cold.weights[3] = torch.tensor([0.25, -1.0, 0.0])  # five
        plain = Total()(self.vectors, self.numeric)
        torch.testing.assert_close(plain, torch.tensor([14.5, 15.0, 8.25]))
        found = cold(plain, self.vectors, self.ids, self.numeric, Total())
        # Row 0: with the mean vector (.5, .25) in place of (4, 4) the logit is 7.25. Its context
        # is (1, 2) - (1, 0) = (0, 2), the prototype (1, 1), whose cosine is 1 / sqrt 2.
        first = 7.25 + 0.5 * (14.5 - 7.25) + 2.0 / math.sqrt(2) + 0.1
        # Row 2: the mean logit is 7, the context (2, 0), the prototype (1, -1).
        last = 7.0 + 0.25 * (8.25 - 7.0) - 1.0 / math.sqrt(2)
        torch.testing.assert_close(found, torch.tensor([first, 15.0, last]))

    def test_before_weights_are_learned_all_is_plain(self) -> None:
        plain = Total()(self.vectors, self.numeric)
        found = small()(plain, self.vectors, self.ids, self.numeric, Total())
        torch.testing.assert_close(found, plain)

    def test_without_own_and_prototype_it_is_the_mean_id(self) -> None:
        cold = small()
        cold.weights.zero_()
        found = cold(torch.zeros(3), self.vectors, self.ids, self.numeric, Total())
        torch.testing.assert_close(found, torch.tensor([7.25, 0.0, 7.0]))

    def test_rows_of_other_ids_are_left_to_the_bit(self) -> None:
        cold, ids = small(), torch.tensor([1, 4, 8])
        cold.weights.fill_(7.0)
        plain = torch.tensor([0.1, 0.2, 0.3])
        assert torch.equal(cold(plain, self.vectors, ids, self.numeric, Total()), plain)

    def test_a_context_that_is_the_mean_has_no_relation(self) -> None:
        vectors = torch.tensor([[[1.0, 0.0], [5.0, 5.0], [1.0, 0.0]]])
        _, relation = small().heads(vectors, torch.tensor([0]), torch.zeros(1, 1), Total())
        assert relation.tolist() == [0.0]

    def test_there_may_be_no_cold_id(self) -> None:
        none = torch.empty(0, dtype=torch.int64)
        cold = ColdIds.of(
            1, 4, none, none, torch.empty(0, 2), torch.zeros(2), torch.zeros(2), dense=False
        )
        assert cold.bytes == cold_bytes(0, 2, 4, dense=False) == 64
        plain = torch.ones(3)
        assert torch.equal(cold(plain, self.vectors, self.ids, self.numeric, Total()), plain)

    @given(
        st.sets(st.integers(-(2**63), 2**63 - 1), max_size=30),
        st.lists(st.integers(-(2**63), 2**63 - 1), max_size=30),
    )
    def test_places_are_those_of_the_keys(self, keys: set[int], asked: list[int]) -> None:
        rising = sorted(keys)
        asked = [*asked, *rising]
        found = places_of(
            torch.tensor(rising, dtype=torch.int64), torch.tensor(asked, dtype=torch.int64)
        )
        assert found.tolist() == [rising.index(each) if each in keys else -1 for each in asked]

    @pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
    @pytest.mark.parametrize("dim", [1, 3, 16])
    @pytest.mark.parametrize("dense", [False, True])
    def test_prototypes_keep_their_direction(self, bits: int, dim: int, dense: bool) -> None:
        count = 9
        drawn = torch.randn(count, dim, generator=torch.Generator().manual_seed(dim))
        cold = ColdIds.of(
            0, bits, torch.arange(count), torch.ones(count, dtype=torch.int64), drawn,
            torch.zeros(dim), torch.zeros(dim), dense=dense,
        )  # fmt: skip
        assert cold.bytes == cold_bytes(count, dim, bits, dense=dense)
        found = cold.prototypes(torch.arange(count))
        torch.testing.assert_close(found.norm(dim=1), torch.ones(count))
        cosines = nn.functional.cosine_similarity(found, drawn)
        assert float(cosines.min()) > {1: 0.4, 2: 0.8, 3: 0.95, 4: 0.99, 8: 0.9999}[bits]
        if bits == 1:
            assert torch.equal(found > 0, drawn > 0)


class TestHeads:
    def test_the_relation_loss_is_the_loop_over_rows(self) -> None:
        generator = torch.Generator().manual_seed(0)
        found = torch.randn(12, 3, generator=generator, dtype=torch.float64)
        ids = torch.tensor([5, 5, 5, 2, 2, 9, 9, 9, 9, 1, 7, 7])
        labels = torch.tensor([1, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 0], dtype=torch.float64)
        rows = torch.rand(12, generator=generator, dtype=torch.float64)
        centred = found - found.mean(0)
        kept, cosines = [], []
        for row in range(12):
            others = [r for r in range(12) if r != row and ids[r] == ids[row] and labels[r]]
            if others:
                prototype = torch.stack([centred[r] for r in others]).mean(0)
                cosines.append(nn.functional.cosine_similarity(centred[row], prototype, dim=0))
                kept.append(row)
        assert kept == [0, 1, 2, 4, 5, 6, 7, 8]  # not 3 and 9, whose ids have one click, nor 7's
        for counted in (None, rows):
            mine = (torch.ones(12, dtype=torch.float64) if counted is None else rows)[kept]
            rate = (mine * labels[kept]).sum() / mine.sum()
            logits = torch.logit(rate) + torch.stack(cosines) / 0.5
            losses = bce(logits, labels[kept], reduction="none")
            expected = (mine * losses).sum() / mine.sum()
            torch.testing.assert_close(relation_loss(found, ids, labels, 0.5, counted), expected)

    def test_gradients_reach_those_that_prototypes_are_made_of(self) -> None:
        found = torch.randn(3, 2, generator=torch.Generator().manual_seed(1)).requires_grad_()
        labels = torch.tensor([1.0, 0.0, 1.0])
        relation_loss(found, torch.tensor([1, 1, 2]), labels, 0.5).backward()
        assert found.grad is not None
        assert bool((found.grad[:2].abs().sum(1) > 0).all())

    def test_where_no_row_is_left_there_is_no_loss(self) -> None:
        found = torch.randn(3, 2).requires_grad_()
        loss = relation_loss(found, torch.tensor([1, 2, 3]), torch.ones(3), 0.5)
        loss.backward()
        assert found.grad is not None
        assert (float(loss.detach()), float(found.grad.abs().max())) == (0.0, 0.0)

    def test_weights_are_where_the_loss_is_flat(self) -> None:
        draw = torch.Generator().manual_seed(2)
        parts = torch.randn(400, 3, generator=draw, dtype=torch.float64)
        where = torch.randint(3, (400,), generator=draw)  # nobody has 5 to 8 clicks
        labels = (parts[:, 2] + 0.3 * torch.randn(400, generator=draw) > 0).float()
        found = learned_weights(parts, labels, where, 2.0)
        assert found[3].tolist() == [1.0, 0.0, 0.0]
        assert float(found[:3, 1].min()) > 0.5  # the relation says all, the plain logit nothing
        assert float(found[:3, 0].max()) < 0.5
        again = found.double().requires_grad_()
        own, lean, level = again[where].unbind(1)
        logits = parts[:, 0] + own * (parts[:, 1] - parts[:, 0]) + lean * parts[:, 2] + level
        plain = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
        loss = bce(logits, labels.double(), reduction="sum") + (again - plain).square().sum()
        (slope,) = torch.autograd.grad(loss, again)
        assert float(slope.abs().max()) < 0.05

    def test_a_strong_pull_leaves_all_plain(self) -> None:
        parts = torch.randn(50, 3, generator=torch.Generator().manual_seed(3))
        found = learned_weights(parts, torch.ones(50), torch.zeros(50).long(), 1e9)
        expected = torch.tensor([[1.0, 0.0, 0.0]] * 4)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


class Logits(nn.Module):
    """A model that is called with ids and numbers."""

    def __init__(self, model: ClickModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, numeric: Tensor) -> Tensor:
        return self.model.logits(ids, None, numeric)


def clicked(run: Run, log: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Ids of the item, labels and contexts of the training rows, by a run's model."""
    parts = [
        (batch.ids[:, 1], batch.labels, contexts(run.model.vectors(batch.ids), 1))
        for batch in TrainingRows(PreparedLog(log), run.dense).batches("train", 8192)
    ]
    ids, labels, found = (torch.cat(each) for each in zip(*parts, strict=True))
    return ids, labels, found


class TestRun:
    def test_cold_ids_and_prototypes_are_those_of_the_log(self, place: Path) -> None:
        run = load(place / "run")
        cold = run.model.cold
        assert cold is not None
        ids, labels, found = clicked(run, place / "log")
        counts = dict(zip(*ids[labels > 0.5].unique(return_counts=True), strict=True))
        few = {int(key): int(count) for key, count in counts.items() if count <= 8}
        assert dict(zip(cold.keys.tolist(), cold.clicks.tolist(), strict=True)) == few
        assert 20 < len(few) < len(counts)
        torch.testing.assert_close(cold.centre, found.mean(0))
        for at, key in enumerate(cold.keys.tolist()):
            mean = found[(ids == key) & (labels > 0.5)].mean(0) - found.mean(0)
            cosine = nn.functional.cosine_similarity(
                cold.prototypes(torch.tensor([at])), mean, dim=1
            )
            assert float(cosine) > 0.98

    def test_the_mean_vector_is_that_of_warm_ids(self, place: Path) -> None:
        run = load(place / "run")
        assert run.model.cold is not None
        ids, labels, _ = clicked(run, place / "log")
        keys, counts = ids[labels > 0.5].unique(return_counts=True)
        warm = keys[counts > 8]
        asked = torch.zeros(len(warm), 3, dtype=torch.int64)
        asked[:, 1] = warm
        expected = run.model.embeddings(asked)[:, 1].mean(0)
        torch.testing.assert_close(run.model.cold.mean, expected)

    def test_rows_of_warm_and_of_new_ids_are_as_without(self, place: Path) -> None:
        run = load(place / "run")
        rows = [{"user": "u1", "item": f"i{n}", "city": "c1", "price": 2.0} for n in range(200)]
        leant = run.predict(rows)
        cold, run.model.cold = run.model.cold, None
        assert cold is not None
        plain = run.predict(rows)
        (batch,) = run.batches(rows)
        is_cold = (cold.places(batch.ids[:, 1].contiguous()) >= 0).numpy()
        assert (leant == plain).tolist() != [True] * len(rows)
        assert (leant[~is_cold] == plain[~is_cold]).all()
        assert (leant[is_cold] != plain[is_cold]).mean() > 0.9

    def test_a_tracer_sees_rows_that_lean(self, place: Path) -> None:
        model = load(place / "run").model
        assert model.cold is not None
        ids = torch.tensor([[1, each, 2] for each in (int(model.cold.keys[3]), 2, 0, 5)])
        given = ids, torch.randn(4, 1, generator=torch.Generator().manual_seed(0))
        traced = torch.export.export(Logits(model), given, strict=False).module()
        torch.testing.assert_close(traced(*given), Logits(model)(*given))

    def test_an_exported_file_leans(self, place: Path, tmp_path: Path) -> None:
        """By its own runtime, for rows of cold ids, of others, and of values never met."""
        run = load(place / "run")
        export(run, tmp_path / "model.onnx", text=True)
        rows = [{"user": "u1", "item": f"i{n}", "city": "c1", "price": 2.0} for n in range(150)]
        found = lite.load(tmp_path / "model.onnx").scores([*rows, {"item": "never met"}])
        np.testing.assert_allclose(found[:-1], run.predict(rows), atol=1e-6)
        assert 0 < found[-1] < 1

    def test_a_row_scores_alone_as_among_others(self, place: Path) -> None:
        run = load(place / "run")
        rows = [{"user": "u1", "item": f"i{n}", "city": "c1", "price": 2.0} for n in range(150)]
        alone = np.concatenate([run.predict([row]) for row in rows])
        np.testing.assert_allclose(run.predict(rows), alone, rtol=1e-5)

    def test_figures_are_those_of_the_model_that_leans(self, place: Path) -> None:
        run = load(place / "run")
        again = run.evaluate(PreparedLog(place / "log"))
        assert again["auc"] == pytest.approx(run.metrics["auc"], abs=1e-6)
        assert again["logloss"] == pytest.approx(run.metrics["logloss"], abs=1e-6)
        rows = run.metrics["cold"]["by_clicks"]
        assert rows.keys() <= {"1", "2", "3-4", "5-8"}
        assert all(0 <= each["auc"] <= 1 and 0 <= each["plain_auc"] <= 1 for each in rows.values())
        assert sum(each["rows"] for each in rows.values()) < 300

    @pytest.mark.parametrize("log", ["log", "dense"])
    @pytest.mark.parametrize(("method", "budget"), [("hash", "1.5x"), ("auto", "1.5x")])
    def test_all_bytes_are_counted_and_held(
        self, place: Path, tmp_path: Path, log: str, method: str, budget: str
    ) -> None:
        words = replace(TINY, method=method, budget=budget, epochs=1)
        run = load(train([place / log], None, words, tmp_path / "run", cold=COLD).path)
        kept = read_tensors(tmp_path / "run" / "cold.safetensors")[0]
        size = sum(each.nbytes for each in kept.values())
        served = sum(each.nbytes for each in run.model.embeddings.state_dict().values())
        assert run.metrics["cold"]["bytes"] == size
        assert run.metrics["bytes"] == served + size
        assert kept["keys"].dtype is (torch.int32 if log == "dense" else torch.int64)
        fields = run.schema.embedding_fields()
        assert run.metrics["bytes"] <= sum(f.size * 4 * 4 for f in fields) / 1.5

    def test_a_budget_that_is_too_small_says_the_least(self, place: Path, tmp_path: Path) -> None:
        words = replace(TINY, budget="1000")
        with pytest.raises(BudgetTooSmall, match=r"prototypes of .* ids take") as found:
            train([place / "log"], None, words, tmp_path / "run", cold=COLD)
        assert not (tmp_path / "run").exists()
        least = found.value.minimum
        words = replace(words, budget=str(least), epochs=1)
        done = train([place / "log"], None, words, tmp_path / "run", cold=COLD)
        assert done.metrics["bytes"] <= least
        again = replace(words, budget=str(least - 1))
        with pytest.raises(BudgetTooSmall):
            train([place / "log"], None, again, tmp_path / "less", cold=COLD)

    def test_fewer_bits_take_fewer_bytes(self, place: Path, tmp_path: Path) -> None:
        words = replace(FULL, epochs=1)
        two = replace(COLD, cold_bits=2)
        done = train([place / "log"], None, words, tmp_path / "run", cold=two)
        found = done.metrics["cold"]
        kept = read_tensors(done.path / "cold.safetensors")[0]
        assert found["bytes"] == sum(each.nbytes for each in kept.values())
        assert found["bytes"] == cold_bytes(found["ids"], 4, 2, dense=True)

    @pytest.mark.parametrize("network", ["lr", "deepfm", "dcnv2", "dlrm"])
    @pytest.mark.parametrize("method", ["full", "binary-code"])
    def test_every_network_has_both_heads(
        self, place: Path, tmp_path: Path, network: str, method: str
    ) -> None:
        budget = None if method == "full" else "2000"
        words = replace(TINY, network=network, method=method, budget=budget, epochs=1)
        run = load(train([place / "log"], None, words, tmp_path / "run", cold=COLD).path)
        assert np.isfinite(run.predict(ROWS)).all()
        found = torch.tensor(
            [list(each.values()) for each in run.metrics["cold"]["weights"].values()]
        )
        assert found.shape == (4, 3)
        assert not torch.equal(found, torch.tensor([[1.0, 0.0, 0.0]] * 4))

    def test_bags_beside_the_field(self, tmp_path: Path) -> None:
        reading = replace(DATA, fields=("item", "tags", "user"), multi={"tags": "|"})
        raw = [write(tmp_path / "clicks.csv", log_columns())]
        run = load(train(raw, reading, FULL, tmp_path / "run", cold=COLD).path)
        assert run.model.cold is not None
        assert run.model.cold.field == 0
        rows = [{"user": "u1", "item": f"i{n}", "tags": "t1|t2", "price": 1} for n in range(150)]
        leant = run.predict(rows)
        run.model.cold = None
        assert 0 < (leant != run.predict(rows)).sum() < 150

    @pytest.mark.parametrize("ids", ["vocabulary", "hashed"])
    def test_values_that_share_one_id_have_no_prototype(self, tmp_path: Path, ids: str) -> None:
        table = columns(900)
        for row in range(5):  # five values that come once, all clicked in training
            table["item"][row], table["part"][row], table["rating"][row] = f"x{row}", "train", "5"
        reading = replace(DATA, ids=ids, min_count=2, split="column:part")
        raw = [write(tmp_path / "clicks.csv", table)]
        run = load(train(raw, reading, replace(FULL, epochs=1), tmp_path / "run", cold=COLD).path)
        assert run.model.cold is not None
        (batch,) = run.batches([{"user": "u1", "item": "x1", "city": "c1", "price": 1.0}])
        assert batch.ids[0, 1] == UNSEEN
        assert len(run.model.cold.keys) > 5
        assert UNSEEN not in run.model.cold.keys.tolist()

    def test_rows_may_have_weights(self, tmp_path: Path) -> None:
        raw = [write(tmp_path / "clicks.csv", log_columns())]
        reading = replace(DATA, weight="weight")
        done = train(raw, reading, replace(FULL, epochs=1), tmp_path / "run", cold=COLD)
        assert done.metrics["cold"]["by_clicks"]

    def test_the_seed_decides_everything(self, place: Path, tmp_path: Path) -> None:
        again = train([place / "log"], None, FULL, tmp_path / "again", cold=COLD)
        assert equal(again.path, place / "run")
        plain = replace(COLD, cold_margin=0.0, cold_relation=0.0)
        for heads in (replace(plain, cold_margin=0.5), replace(plain, cold_relation=0.3)):
            out = tmp_path / f"{heads.cold_margin}"
            assert not equal(train([place / "log"], None, FULL, out, cold=heads).path, again.path)

    def test_without_heads_the_training_is_the_plain_one(self, place: Path, tmp_path: Path) -> None:
        served = replace(COLD, cold_margin=0.0, cold_relation=0.0)
        one = train([place / "log"], None, FULL, tmp_path / "served", cold=served).path
        other = train([place / "log"], None, FULL, tmp_path / "plain").path
        ours = {k: v for k, v in weights(one).items() if not k.startswith("cold.")}
        theirs = weights(other)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
        assert "cold" not in json.loads((other / "metrics.json").read_text())
        assert "cold_ids" not in json.loads((other / "config.json").read_text())

    @pytest.mark.parametrize("method", ["hash", "cce"])
    def test_a_stopped_training_goes_on_to_the_bit(
        self, place: Path, tmp_path: Path, method: str
    ) -> None:
        words = replace(
            TINY, method=method, budget="1x", checkpoint_steps=2, batch_size=128, dropout=0.1
        )
        whole = train([place / "log"], None, words, tmp_path / "whole", cold=COLD).path
        with stopped_after(5):
            train([place / "log"], None, words, tmp_path / "run", cold=COLD)
        other = replace(COLD, cold_margin=0.2)
        with pytest.raises(BitfoldError, match="begun with another cold_margin"):
            train([place / "log"], None, words, tmp_path / "run", cold=other, resume=True)
        assert equal(train(None, None, None, tmp_path / "run", resume=True).path, whole)

    def test_one_that_is_stopped_before_prototypes_makes_them(
        self, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def stop(*_: object) -> None:
            raise Stop

        monkeypatch.setattr(ColdTraining, "learned", stop)
        with pytest.raises(Stop):
            train([place / "log"], None, FULL, tmp_path / "run", cold=COLD)
        monkeypatch.undo()
        done = train([place / "log"], None, FULL, tmp_path / "run", cold=COLD, resume=True)
        assert equal(done.path, place / "run")

    def test_a_run_goes_on_without_its_prototypes(self, place: Path, tmp_path: Path) -> None:
        done = train([place / "log"], None, None, tmp_path / "on", from_run=place / "run")
        run = load(done.path)
        assert run.model.cold is None
        assert not (tmp_path / "on" / "cold.safetensors").exists()

    def test_a_copy_is_the_run(self, place: Path, tmp_path: Path) -> None:
        run = load(place / "run")
        rows = [{"user": "u1", "item": f"i{n}", "city": "c1", "price": 2.0} for n in range(150)]
        copy = load(run.save(tmp_path / "copy"))
        assert (copy.predict(rows) == run.predict(rows)).all()


ROWS = [{"user": "u1", "item": f"i{n}", "city": "c1", "price": 2.0} for n in range(0, 200, 9)]


class TestBadInput:
    @pytest.mark.parametrize(
        ("words", "text"),
        [
            ({"cold": "remarnets", "cold_field": "item"}, "unknown cold"),
            ({"cold": "remarnet"}, "nobody says whose ids are cold"),
            ({"cold_field": "item"}, "no cold ids to set options of"),
            ({"cold_bits": 2}, "no cold ids to set options of"),
            ({"cold": "remarnet", "cold_field": "item", "cold_bits": 9}, "cold_bits is out of"),
            ({"cold": "remarnet", "cold_field": "item", "cold_bits": True}, "cold_bits is out of"),
            ({"cold": "remarnet", "cold_field": "item", "cold_margin": -1}, "cold_margin is out"),
            (
                {"cold": "remarnet", "cold_field": "item", "cold_relation": math.nan},
                "cold_relation is out of range",
            ),
        ],
    )
    def test_options(self, words, text) -> None:  # type: ignore[no-untyped-def]
        with pytest.raises(BitfoldError, match=text):
            ColdConfig(**words)

    @pytest.mark.parametrize(
        ("reading", "words", "field", "text"),
        [
            ({}, {}, "itme", "did you mean 'item'"),
            (
                {"fields": ("item", "tags"), "multi": {"tags": "|"}},
                {},
                "tags",
                "have no prototypes",
            ),
            ({"fields": ("item",)}, {}, "item", "have no context"),
            ({"split": "random:0.8,0,0.2"}, {}, "item", "learned on a validation part"),
            ({}, {"embedding_sets": 2}, "item", "embedding sets have a vector of an id each"),
        ],
    )
    def test_logs_and_trainings(self, tmp_path: Path, reading, words, field, text) -> None:  # type: ignore[no-untyped-def]
        raw = [write(tmp_path / "clicks.csv", log_columns(300))]
        cold = replace(COLD, cold_field=field)
        with pytest.raises(BitfoldError, match=text):
            train(
                raw, replace(DATA, **reading), replace(FULL, **words), tmp_path / "run", cold=cold
            )
        assert not (tmp_path / "run").exists()

    def test_what_prototypes_cannot_be_beside(self, place: Path, tmp_path: Path) -> None:
        log, out = [place / "log"], tmp_path / "run"
        with pytest.raises(BitfoldError, match="are not counted any more"):
            train(log, None, None, out, from_run=place / "run", cold=COLD)
        with pytest.raises(BitfoldError, match="a teacher tells nothing"):
            train(log, None, FULL, out, taught=TeacherConfig(str(place / "run")), cold=COLD)
        config = RunConfig(DATA, FULL, cold=COLD)
        with pytest.raises(BitfoldError, match="of the rows of one process"):
            check_beside(config, 2)
        check_beside(config, 1)
        check_beside(RunConfig(DATA, FULL), 2)
        assert not out.exists()

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            ({"keys": torch.tensor([3.0])}, "other tensors"),
            ({"codes": torch.zeros(1, dtype=torch.uint8)}, "other tensors"),
            ({"weights": torch.zeros(4, 2)}, "other tensors"),
            ({"more": torch.zeros(1)}, "other tensors"),
            ({"mean": torch.full((4,), math.nan)}, "not finite"),
            ({"clicks": None}, "cannot be"),
            ({"keys": None}, "cannot be"),
        ],
    )
    def test_a_file_that_was_changed(self, place: Path, tmp_path: Path, change, text) -> None:  # type: ignore[no-untyped-def]
        run = load(place / "run")
        tensors = dict(read_tensors(place / "run" / "cold.safetensors")[0])
        for name, value in change.items():
            if value is None:
                value = torch.zeros_like(tensors[name])
            tensors[name] = value
        write_tensors(tmp_path / "cold.safetensors", tensors)
        with pytest.raises(BitfoldError, match=r"is damaged[\s\S]*" + text):
            load_cold(tmp_path / "cold.safetensors", run.schema, run.config)


class TestCommand:
    def test_from_a_log_to_scores(self, place: Path, tmp_path: Path) -> None:
        out = tmp_path / "run"
        words = "--label rating>=4 --fields user,item,city --numeric price --group user"
        words += " --split random:0.7,0.15,0.15 --width 4 --hidden 8 --epochs 1 --method auto"
        words += " --budget 1x --cold remarnet --cold-field item --cold-bits 3"
        done = command("train", place / "clicks.csv", *words.split(), "--out", out)
        assert done.code == 0, done.err
        assert "cold item by remarnet" in " ".join(done.out.split())
        saved = json.loads((out / "config.json").read_text())
        assert saved["cold_ids"] == {
            "cold": "remarnet", "cold_field": "item", "cold_margin": 0.1, "cold_relation": 0.1,
            "cold_bits": 3,
        }  # fmt: skip
        assert command("train", "--resume", "--out", out).code == 0
        assert command("predict", out, place / "clicks.csv", "--out", tmp_path / "s.csv").code == 0
        assert len((tmp_path / "s.csv").read_text().splitlines()) == 2001
        found = command("evaluate", out, place / "clicks.csv", "--json")
        assert json.loads(found.out)["rows"] == 2000
        told = " ".join(command("inspect", out).out.split())
        assert "cold item by remarnet" in told
        assert f"cold bytes {load(out).metrics['cold']['bytes']}" in told.replace(",", "")
        on = command("train", place / "clicks.csv", "--from", out, "--out", tmp_path / "on")
        assert on.code == 0, on.err
        assert load(tmp_path / "on").model.cold is None

    def test_mistakes(self, place: Path, tmp_path: Path) -> None:
        words = ["train", place / "log", "--out", tmp_path / "run"]
        refused(command(*words, "--cold", "remarnet"), "--cold-field")
        refused(command(*words, "--cold-field", "item"), "--cold remarnet")
        refused(command(*words, "--cold", "remarnet", "--cold-field", "itme"), "'item'")
        assert not (tmp_path / "run").exists()

    def test_in_python(self, tmp_path: Path) -> None:
        run = bitfold.train(
            log_columns(600), label="rating>=4", fields="user,item,city", method="full", width=4,
            hidden=[8], epochs=1, split="random:0.6,0.2,0.2", cold="remarnet", cold_field="item",
        )  # fmt: skip
        assert run.model.cold is not None
        assert "cold item by remarnet" in repr(run)
