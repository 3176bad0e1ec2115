"""Distillation: the loss, learned targets, and trainings that a run teaches."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as bce

import bitfold
from bitfold.data.batch import Batch
from bitfold.data.prepare import prepare
from bitfold.errors import BitfoldError
from bitfold.files import read_tensors
from bitfold.nets.building import NETWORKS, build_network
from bitfold.nets.label_generator import LabelGenerator, Rows, meta_loss
from bitfold.runs.teaching import TeacherConfig
from bitfold.training import train
from bitfold.training.distilling import HELD, held_out
from click_log import DATA, TINY, columns, write
from command import bitfold as command
from command import process, refused
from interrupting import stopped_after

FULL = replace(TINY, method="full", budget=None)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a log, a full table trained on it (`full`), and a plain student (`plain`)."""
    folder = tmp_path_factory.mktemp("distilling")
    prepare([write(folder / "clicks.csv", columns())], folder / "log", DATA)
    train([folder / "log"], None, FULL, folder / "full")
    train([folder / "log"], None, TINY, folder / "plain")
    return folder


def weights(run: Path) -> dict[str, Tensor]:
    return read_tensors(run / "weights.safetensors")[0]


def equal(one: Path, other: Path) -> bool:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def taught(place: Path, out: Path, share: float = 0.5, *, meta: bool = False, **words) -> Path:
    teacher = TeacherConfig(str(place / "full"), share, meta)
    words = replace(TINY, **words)
    return train([place / "log"], None, words, out, taught=teacher).path


class TestLoss:
    labels = torch.tensor([1.0, 0.0, 1.0])
    student = torch.tensor([0.3, -2.0, 1.5])
    teacher = torch.tensor([2.0, -1.0, -0.5])

    def test_it_is_a_mix_of_labels_and_teacher(self) -> None:
        hard, soft = bce(self.student, self.labels), bce(self.student, self.teacher.sigmoid())
        found = bitfold.distill(self.student, self.labels, self.teacher, 0.3)
        torch.testing.assert_close(found, 0.7 * hard + 0.3 * soft)

    def test_without_a_share_it_is_the_log_loss(self) -> None:
        found = bitfold.distill(self.student, self.labels, self.teacher, 0.0)
        assert torch.equal(found, bce(self.student, self.labels))

    def test_a_student_that_agrees_gets_no_gradient(self) -> None:
        for temperature in (1.0, 3.0):
            student = self.teacher.clone().requires_grad_()
            bitfold.distill(student, self.labels, self.teacher, 1.0, temperature).backward()
            assert student.grad is not None
            assert float(student.grad.abs().max()) < 1e-6

    def test_at_a_high_temperature_it_is_the_difference_of_logits(self) -> None:
        student = self.student.clone().requires_grad_()
        bitfold.distill(student, self.labels, self.teacher, 1.0, 1e3).backward()
        expected = (self.student - self.teacher) / 4 / 3
        torch.testing.assert_close(student.grad, expected, rtol=1e-2, atol=1e-4)

    def test_rows_count_by_their_weights(self) -> None:
        rows = torch.tensor([1.0, 0.0, 2.0])
        found = bitfold.distill(self.student, self.labels, self.teacher, weights=rows)
        again = [tensor[[0, 2, 2]] for tensor in (self.student, self.labels, self.teacher)]
        torch.testing.assert_close(found, bitfold.distill(*again))

    def test_the_teacher_gets_no_gradient(self) -> None:
        student, teacher = self.student.clone().requires_grad_(), self.teacher.clone()
        bitfold.distill(student, self.labels, teacher.requires_grad_()).backward()
        assert teacher.grad is None

    @pytest.mark.parametrize(
        ("words", "text"),
        [
            ({"share": 1.1}, "share is out of range"),
            ({"share": float("nan")}, "share is out of range"),
            ({"temperature": 0.0}, "temperature is out of range"),
            ({"temperature": float("inf")}, "temperature is out of range"),
            ({"teacher_logits": torch.zeros(3, 1)}, "different shapes"),
            ({"weights": torch.ones(2)}, "different shapes"),
        ],
    )
    def test_what_cannot_be(self, words, text) -> None:
        given = {"student_logits": self.student, "labels": self.labels}
        given |= {"teacher_logits": self.teacher}
        with pytest.raises(BitfoldError, match=text):
            bitfold.distill(**given | words)


def drawn(rows: int, numeric: int, seed: int, *, weighted: bool) -> Rows:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    labels = (normal(rows) > 0).double()
    return Rows(
        normal(rows, 3, 4), normal(rows, numeric), labels, 2 * normal(rows),
        normal(rows).exp() if weighted else None,
    )  # fmt: skip


class TestMetaLoss:
    @pytest.mark.parametrize("weighted", [False, True])
    @pytest.mark.parametrize("name", NETWORKS)
    def test_its_gradient_is_that_of_finite_differences(self, name: str, weighted: bool) -> None:
        # The loss after the step is written here anew, from plain steps of PyTorch.
        words = {} if name == "lr" else {"hidden": (5,)}
        network = build_network(name, 3, 4, 2, **words).double()
        generator = LabelGenerator(0.4, hidden=3).double()
        with torch.no_grad():
            for weight in generator.parameters():
                weight.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
        rows, held = drawn(12, 2, 1, weighted=weighted), drawn(7, 2, 2, weighted=weighted)
        before = {key: each.clone() for key, each in network.state_dict().items()}
        rate = 0.7

        def mean(logits: Tensor, targets: Tensor, count: Tensor | None) -> Tensor:
            losses = bce(logits, targets, reduction="none")
            return losses.mean() if count is None else (losses * count).sum() / count.sum()

        def after() -> float:
            moved = build_network(name, 3, 4, 2, **words).double()
            moved.load_state_dict(before)
            logits = moved(rows.vectors, rows.numeric)
            with torch.no_grad():
                targets = generator(rows.labels, rows.teacher, logits)
            mean(logits, targets, rows.weights).backward()
            torch.optim.SGD(moved.parameters(), lr=rate).step()
            with torch.no_grad():
                return float(mean(moved(held.vectors, held.numeric), held.labels, held.weights))

        loss = meta_loss(network, generator, rows, held, rate)
        assert float(loss.detach()) == pytest.approx(after(), rel=1e-5)
        weights = list(generator.parameters())
        grads = torch.autograd.grad(loss, weights)
        step, largest = 1e-3, 0.0
        for weight, grad in zip(weights, grads, strict=True):
            for place in range(weight.numel()):
                flat = weight.data.view(-1)
                kept, ends = float(flat[place]), []
                for sign in (1, -1):
                    flat[place] = kept + sign * step
                    ends.append(after())
                flat[place] = kept
                found = (ends[0] - ends[1]) / (2 * step)
                assert found == pytest.approx(float(grad.view(-1)[place]), rel=2e-3, abs=2e-6)
                largest = max(largest, abs(found))
        assert largest > 1e-4
        assert all(torch.equal(before[key], each) for key, each in network.state_dict().items())
        assert all(weight.grad is None for weight in network.parameters())

    def test_it_finds_that_a_teacher_lies(self) -> None:
        # Held-out labels follow the vector; one teacher tells its sign, the other the contrary.
        for says in (4.0, -4.0):
            network = build_network("deepfm", 1, 1, 0, fm=False, deep=False)
            generator = LabelGenerator(0.5)
            optimizer = torch.optim.Adam(generator.parameters(), lr=0.02)
            draw = torch.Generator().manual_seed(0)
            for _ in range(200):
                vectors = torch.randn(64, 1, 1, generator=draw)
                truth = vectors[:, 0, 0].sign()
                noise = (torch.rand(64, generator=draw) < 0.5).float()  # labels that tell nothing
                numeric = torch.empty(64, 0)
                rows = Rows(vectors, numeric, noise, says * truth)
                held = Rows(vectors, numeric, (truth > 0).float(), says * truth)
                optimizer.zero_grad()
                meta_loss(network, generator, rows, held, 0.5).backward()
                optimizer.step()
            labels, teacher = torch.tensor([0.0, 1.0]), torch.full((2,), 3.0)
            with torch.no_grad():
                trusted = generator(labels, teacher, torch.zeros(2))
                plain = LabelGenerator(0.5)(labels, teacher, torch.zeros(2))
            assert bool((trusted > plain).all() if says > 0 else (trusted < plain).all())

    def test_a_generator_starts_as_plain_distillation(self) -> None:
        labels, teacher = torch.tensor([0.0, 1.0, 1.0] * 3), torch.randn(9)
        found = LabelGenerator(0.3)(labels, teacher, torch.randn(9))
        torch.testing.assert_close(found, 0.7 * labels + 0.3 * teacher.sigmoid())

    @pytest.mark.parametrize("share", [0.0, 1.0])
    def test_it_starts_between_labels_and_teacher(self, share: float) -> None:
        with pytest.raises(BitfoldError, match="between labels and teacher"):
            LabelGenerator(share)


class TestHeldOut:
    ids = torch.randint(-(2**63), 2**63 - 1, (4096, 3), generator=torch.Generator().manual_seed(0))
    numeric = torch.randn(4096, 2, generator=torch.Generator().manual_seed(1))

    def test_one_row_in_so_many(self) -> None:
        count = int(held_out(Batch(self.ids, None, self.numeric)).sum())
        assert abs(count - 4096 / HELD) < 4 * (4096 / HELD) ** 0.5
        small = self.ids.remainder(50)  # dense ids, many rows alike
        count = int(held_out(Batch(small, None, torch.empty(4096, 0))).sum())
        assert abs(count - 4096 / HELD) < 4 * (4096 / HELD) ** 0.5

    def test_the_row_alone_decides(self) -> None:
        order = torch.randperm(4096, generator=torch.Generator().manual_seed(2))
        whole = held_out(Batch(self.ids, None, self.numeric))
        turned = held_out(Batch(self.ids[order], None, self.numeric[order]))
        assert torch.equal(whole[order], turned)
        part = held_out(Batch(self.ids[:7], None, self.numeric[:7]))
        assert torch.equal(whole[:7], part)

    def test_bags_of_one_are_ids(self) -> None:
        rows = Batch(self.ids, None, self.numeric)
        bags = Batch(self.ids.T.flatten(), torch.arange(3 * 4096 + 1), self.numeric)
        assert torch.equal(held_out(rows), held_out(bags))

    def test_every_column_counts(self) -> None:
        whole = held_out(Batch(self.ids, None, self.numeric))
        turned = self.ids.flip(1)
        assert not torch.equal(whole, held_out(Batch(turned, None, self.numeric)))
        assert not torch.equal(whole, held_out(Batch(self.ids, None, self.numeric + 1)))


class TestTraining:
    def test_a_teacher_changes_the_student(self, place: Path, tmp_path: Path) -> None:
        assert not equal(place / "plain", taught(place, tmp_path / "run"))

    def test_without_a_share_it_is_plain_training(self, place: Path, tmp_path: Path) -> None:
        assert equal(place / "plain", taught(place, tmp_path / "run", 0.0))

    def test_with_the_whole_share_the_labels_do_not_count(
        self, place: Path, tmp_path: Path
    ) -> None:
        # A student as large as its teacher comes near its scores, and not nearer to the labels.
        run = taught(place, tmp_path / "run", 1.0, method="full", budget=None, epochs=6)
        rows = columns(400, seed=5)
        teacher, plain = bitfold.load(place / "full"), bitfold.load(place / "plain")
        theirs = teacher.predict(rows)
        far = [abs(each.predict(rows) - theirs).mean() for each in (bitfold.load(run), plain)]
        assert far[0] < far[1] / 2

    @pytest.mark.parametrize("meta", [False, True])
    def test_stopped_and_resumed_it_ends_with_the_same_weights(
        self, place: Path, tmp_path: Path, meta: bool
    ) -> None:
        words = {"checkpoint_steps": 2, "dropout": 0.1, "batch_size": 128}
        whole = taught(place, tmp_path / "whole", meta=meta, **words)
        with stopped_after(5):
            taught(place, tmp_path / "run", meta=meta, **words)
        teacher = TeacherConfig(str(place / "full"), 0.5, meta)
        again = [place / "log"], None, replace(TINY, **words), tmp_path / "run"
        assert equal(whole, train(*again, resume=True, taught=teacher).path)

    def test_learned_targets_move_and_repeat(self, place: Path, tmp_path: Path) -> None:
        words = {"batch_size": 128, "checkpoint_steps": 0}
        with stopped_after(8):  # the first epoch's checkpoint is there
            taught(
                place, tmp_path / "stopped", meta=True, epochs=8, **words | {"checkpoint_steps": 8}
            )
        state = read_tensors(tmp_path / "stopped" / "checkpoint" / "state.safetensors")[0]
        assert float(state["targets.out.weight"].abs().max()) > 1e-4
        one, two = (taught(place, tmp_path / name, meta=True, **words) for name in "ab")
        assert equal(one, two)
        assert not equal(one, taught(place, tmp_path / "soft", **words))

    def test_held_out_rows_teach_the_student_nothing(self, place: Path, tmp_path: Path) -> None:
        """Another label of a held-out row moves the generator, and no weight of the first step."""
        from bitfold.training.distilling import Teaching

        run = bitfold.load(place / "full")
        teaching = Teaching(run, TeacherConfig(str(place / "full"), 0.5, True), seed=0, lr=0.1)
        log = bitfold.data.prepared.PreparedLog(place / "log")
        batch = next(iter(log.batches("train", 512)))
        theirs = batch if run.dense is None else run.dense.apply(batch)
        held = held_out(batch)
        assert 0 < int(held.sum()) < 512
        assert batch.labels is not None
        learned = teaching.learned(batch)
        assert torch.equal(learned.weights == 0, held)  # type: ignore[operator]
        other = torch.where(held, 1 - batch.labels, batch.labels)
        logits = torch.zeros(512, requires_grad=True)

        class Student(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.network = build_network("lr", 3, 4, 1)

            def forward(self, *_: object) -> Tensor:
                self.network(torch.ones(512, 3, 4), batch.numeric)
                return logits

        student, found = Student(), []
        for labels in (batch.labels, other):
            rows = replace(learned, labels=labels)
            teaching.loss(student, student, rows, theirs).backward()  # type: ignore[arg-type]
            assert logits.grad is not None
            assert float(logits.grad[held].abs().max()) == 0
            assert float(logits.grad[~held].abs().min()) > 0
            found.append(teaching.generator.out.weight.clone())  # type: ignore[union-attr]
        assert not torch.equal(*found)

    def test_from_python_with_a_run(self, place: Path, tmp_path: Path) -> None:
        teacher = bitfold.load(place / "full")
        words = {name: getattr(TINY, name) for name in ("method", "budget", "width", "epochs")}
        words |= {"hidden": TINY.hidden, "batch_size": 256, "lr": TINY.lr, "device": "cpu"}
        run = bitfold.train(
            place / "log", tmp_path / "run", teacher=teacher, teacher_share=0.5, **words
        )
        assert equal(run.path, taught(place, tmp_path / "same"))
        assert run.config.taught.teacher == str(place / "full")
        assert "taught by" in repr(run)
        again = bitfold.train(place / "log", tmp_path / "run", resume=True)
        assert again.metrics == run.metrics
        # The teacher does not teach on: what goes on from a run says it again.
        more = bitfold.train(place / "log", tmp_path / "more", from_run=run, epochs=1)
        assert more.config.taught == TeacherConfig()

    @pytest.mark.parametrize("meta", [False, True])
    def test_bags_weights_and_a_student_of_dense_ids(self, tmp_path: Path, meta: bool) -> None:
        data = replace(DATA, fields=("user", "tags"), multi={"tags": "|"}, weight="weight")
        prepare([write(tmp_path / "clicks.csv", columns(700))], tmp_path / "log", data)
        # Here the teacher takes hashed ids and the student dense ones.
        train([tmp_path / "log"], None, TINY, tmp_path / "full")
        words = {"method": "full", "budget": None, "checkpoint_steps": 1}
        whole = taught(tmp_path, tmp_path / "whole", meta=meta, **words)
        with stopped_after(2):
            taught(tmp_path, tmp_path / "run", meta=meta, **words)
        teacher = TeacherConfig(str(tmp_path / "full"), 0.5, meta)
        again = [tmp_path / "log"], None, replace(TINY, **words), tmp_path / "run"
        assert equal(whole, train(*again, resume=True, taught=teacher).path)

    def test_a_run_goes_on_with_a_teacher(self, place: Path, tmp_path: Path) -> None:
        teacher = TeacherConfig(str(place / "full"))
        start = {"from_run": place / "plain"}
        plain = train([place / "log"], None, None, tmp_path / "plain", **start)
        other = train([place / "log"], None, None, tmp_path / "taught", taught=teacher, **start)
        assert not equal(plain.path, other.path)


class TestCommand:
    def test_end_to_end(self, place: Path, tmp_path: Path) -> None:
        run, words = tmp_path / "run", ("--config", place / "plain" / "config.json")
        said = ("train", place / "log", *words, "--teacher", place / "full", "--out", run)
        done = command(*said, "--teacher-share", 0.5)
        assert done.code == 0, done.err
        assert "taught by" in " ".join(done.out.split())  # a terminal breaks lines
        assert equal(run, taught(place, tmp_path / "same"))
        config = json.loads((run / "config.json").read_text())
        assert config["taught"] == {
            "teacher": str(place / "full"), "teacher_share": 0.5, "teacher_meta": False,
        }  # fmt: skip
        assert len(config["teacher_digest"]) == 32
        assert "taught by" in " ".join(command("inspect", run).out.split())
        assert command("train", "--out", run, "--resume").code == 0
        again = ("train", place / "log", "--config", run / "config.json", "--out")
        assert command(*again, tmp_path / "again").code == 0
        assert equal(run, tmp_path / "again")
        # Raw files that are read as the teacher's were are the same log.
        raw = ("train", place / "clicks.csv", *said[2:-1], tmp_path / "raw")
        assert command(*raw).code == 0
        assert equal(run, tmp_path / "raw")
        # The student alone scores: nothing of the teacher is read.
        scored = tmp_path / "scores.csv"
        assert command("predict", run, place / "clicks.csv", "--out", scored).code == 0

    def test_a_run_without_a_teacher_is_as_it_was(self, place: Path) -> None:
        config = json.loads((place / "plain" / "config.json").read_text())
        assert not {"taught", "teacher_digest"} & config.keys()

    @pytest.mark.parametrize(
        ("words", "texts"),
        [
            (("--teacher-share", 0.3), ("there is no teacher", "--teacher")),
            (("--teacher-meta",), ("there is no teacher",)),
            (("--teacher", "nowhere"), ("is not a finished run",)),
            (("--teacher", "log"), ("is not a finished run",)),
            (("--teacher", "full", "--teacher-share", 1.5), ("teacher_share is out of range",)),
            (("--teacher", "full", "--teacher-share", 1, "--teacher-meta"), ("learned",)),
            (("--teacher", "full", "--teacher-meta", "--network", "lr"), ("another network",)),
        ],
    )
    def test_what_cannot_be(self, place: Path, tmp_path: Path, words, texts) -> None:
        words = [place / word if word in ("full", "log") else word for word in words]
        refused(command("train", place / "log", *words, "--out", tmp_path / "run"), *texts)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("other", "text"),
        [
            ({"fields": ("user", "item")}, "with another fields"),
            ({"hash_seed": 7}, "with another hash_seed"),
            ({"ids": "vocabulary"}, "with another ids"),
            ({"label": "rating>=3"}, "with another label"),
            ({"split": "random:0.5,0.3,0.2"}, "from other rows"),
        ],
    )
    def test_a_log_of_another_schema(self, place: Path, tmp_path: Path, other, text) -> None:
        data = replace(DATA, **other)
        prepare([place / "clicks.csv"], tmp_path / "log", data)
        before = sorted(tmp_path.iterdir())
        said = ("train", tmp_path / "log", "--teacher", place / "full", "--out", tmp_path / "run")
        refused(command(*said), text, "than the teacher's", "train the teacher on this log")
        assert sorted(tmp_path.iterdir()) == before

    def test_a_teacher_is_not_written_over(self, place: Path) -> None:
        before = weights(place / "full")
        said = ("train", place / "log", "--teacher", place / "full", "--out")
        refused(command(*said, place / "full", "--force"), "the output is its own input")
        refused(command(*said, place / "full" / "run"), "lies inside an input")
        assert weights(place / "full").keys() == before.keys()

    def test_a_training_is_resumed_with_its_teacher_alone(
        self, place: Path, tmp_path: Path
    ) -> None:
        with stopped_after(3):
            taught(place, tmp_path / "run", checkpoint_steps=1)
        again = ("train", place / "log", "--out", tmp_path / "run", "--resume")
        refused(command(*again, "--teacher", place / "plain"), "another teacher")
        refused(command(*again, "--teacher-share", 0.4), "another teacher_share")
        refused(command(*again, "--teacher-meta"), "another teacher_meta")
        done = command(*again)
        assert done.code == 0, done.err
        assert equal(tmp_path / "run", taught(place, tmp_path / "same", checkpoint_steps=1))

    def test_a_teacher_that_is_gone_or_another(self, place: Path, tmp_path: Path) -> None:
        shutil.copytree(place / "full", tmp_path / "full")
        shutil.copy(place / "clicks.csv", tmp_path)
        prepare([tmp_path / "clicks.csv"], tmp_path / "log", DATA)
        run = taught(tmp_path, tmp_path / "run", checkpoint_steps=1)
        with stopped_after(3):
            taught(tmp_path, tmp_path / "stopped", checkpoint_steps=1)
        shutil.rmtree(tmp_path / "full")
        again = ("train", tmp_path / "log", "--resume", "--out")
        assert command(*again, run).code == 0  # it is whole
        refused(command(*again, tmp_path / "stopped"), "is not a finished run")
        shutil.copytree(place / "plain", tmp_path / "full")
        refused(command(*again, tmp_path / "stopped"), "not the one that this training began with")
        # The same run at another place is the same teacher.
        done = command(*again, tmp_path / "stopped", "--teacher", place / "full")
        assert done.code == 0, done.err
        assert equal(run, tmp_path / "stopped")

    def test_two_processes_are_taught_what_one_is(self, place: Path, tmp_path: Path) -> None:
        plain = {"optimizer": "sgd", "embedding_optimizer": "sgd", "lr": 0.1, "patience": 0}
        one = taught(place, tmp_path / "one", 0.7, **plain)
        words = [f"--{name.replace('_', '-')}={value}" for name, value in plain.items()]
        said = ("train", place / "log", "--config", place / "plain" / "config.json", *words)
        said += ("--devices", 2, "--batch-size", TINY.batch_size // 2)
        said += ("--teacher", place / "full", "--teacher-share", 0.7)
        done = process(*said, "--out", tmp_path / "two")
        assert done.code == 0, done.err
        ours, theirs = weights(one), weights(tmp_path / "two")
        for name in ours:
            torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=2e-6)
        refused(process(*said, "--teacher-meta", "--out", tmp_path / "meta"), "one process")
        assert not (tmp_path / "meta").exists()
