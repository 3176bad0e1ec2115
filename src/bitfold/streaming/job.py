"""One stream, from the claimed folder to the finished run."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import bitfold
from bitfold.data.prepared import PreparedLog, is_prepared
from bitfold.data.schema import Schema
from bitfold.embedding import EmbeddingCollection
from bitfold.errors import BitfoldError, remedied
from bitfold.method.auto import Auto
from bitfold.method.registry import method_kind
from bitfold.method.sets import plan_sets
from bitfold.nets.model import ClickModel
from bitfold.notes import note
from bitfold.optim import RowOptimizer
from bitfold.planning.budget import full_bytes
from bitfold.planning.field import Field
from bitfold.planning.plan import Plan
from bitfold.progress import Progress
from bitfold.runs import folder as runs
from bitfold.runs.config import RunConfig
from bitfold.runs.manifest import CHECKPOINT, LOG
from bitfold.streaming.aligned import Beside, plan_aligned
from bitfold.streaming.config import StreamConfig
from bitfold.streaming.cutting import Source
from bitfold.streaming.folder import ANEW, OTHERS
from bitfold.streaming.record import Course, Line, Record
from bitfold.streaming.strategies import make_strategy
from bitfold.streaming.training import StreamPosition, StreamTrainer
from bitfold.streaming.watching import Watched
from bitfold.streaming.windows import Window, Windows, other_log
from bitfold.training import checkpoint
from bitfold.training.counting import LogStatistics
from bitfold.training.job import set_random
from bitfold.training.lifecycle import Lifecycle
from bitfold.training.loop import Logits
from bitfold.training.memory import check_memory
from bitfold.training.optimizers import make_optimizers, moves_rows
from bitfold.training.phases import ONLY, Stage, begun, stages
from bitfold.training.rows import TrainingRows, needs_map

if TYPE_CHECKING:
    from lightning_fabric import Fabric

SOME_EPOCHS = 100  # more than any method has phases


@dataclass
class StreamJob:
    """One stream, in a folder that is held."""

    out: Path
    config: RunConfig
    stream: StreamConfig
    record: Record
    source: Source
    fabric: "Fabric"
    progress: Progress
    trainer: StreamTrainer | None = None
    empty: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Score and train on window after window, and save the run."""
        check_method(self.config.train.method, self.config.train.set)
        devices = [self.fabric.device] if self.fabric.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.config.train.seed)
            began = time.perf_counter()
            self._go_through()
        if self.trainer is None or self.trainer.position.step == 0:
            raise BitfoldError("the log has no rows", got="no window", expected="at least one row")
        at = self.trainer.position
        at.finished, at.seconds = True, at.seconds + time.perf_counter() - began
        self._save(self.trainer)

    def _go_through(self) -> None:
        """All windows that are left."""
        windows = Windows(
            self.source, self.config.data, self.stream.rule, self.out / LOG, self.progress
        )
        (self.out / CHECKPOINT).mkdir(exist_ok=True)
        if checkpoint.exists(self.out / CHECKPOINT):
            with remedied(ANEW, *OTHERS):
                windows.schema = schema = Schema.load(self.out)
                self.trainer = self._resumed(schema, windows.place(0))
        trained = 0 if self.trainer is None else self.trainer.position.epoch
        names: list[str] = []
        for window in windows.after(trained):
            names.append(window.span.name)
            if len(names) <= trained:
                self._check_trained(window)
                if len(names) == trained:
                    self._write(names)
                continue
            if self.trainer is None:
                assert window.log is not None, "the first window has rows"
                self.trainer = self._begun(window.log)
            self._tell(window, self.trainer.window(window))
            if window.log is None:
                continue
            self._write(names)
            keep = self.config.train.keep_log
            if not keep and not (window.span.number == 0 and self.trainer.life.needs_statistics):
                windows.remove(window.span.number)
        self._tell_empty()
        if len(names) > trained:
            self._write(names)
        if len(names) < trained:
            raise other_log(f"{len(names):,} windows", f"{trained:,} or more")

    def _begun(self, log: PreparedLog) -> StreamTrainer:
        """A fresh model, planned by the first window."""
        words, schema = self.config.train, log.schema
        stats = LogStatistics(TrainingRows(log))
        living = {"living": True} if words.method == Auto.name else {}
        settled: dict[str, Any] = {
            "method": words.method, "budget": words.budget, "seed": words.seed, **living,
            **words.set,
        }  # fmt: skip
        if self.stream.memory == "aligned":
            plan = begun(plan_aligned(schema, words, self.stream, stats=stats, **settled))
        else:
            plan = begun(
                plan_sets(
                    schema.embedding_fields(), words.vector_width, words.embedding_sets,
                    stats=stats, **settled,
                )
            )  # fmt: skip
        phases = stages(plan, SOME_EPOCHS)
        if len(phases) > 1:
            raise BitfoldError(
                f"method {plan.method!r} trains in phases, over rows that are there from the start",
                got=", ".join(each.phase.name for each in phases),
                expected="a method that plans once, since a stream has no second epoch",
                fix="take another --method; `bitfold methods` lists them",
            )
        check_memory(plan)
        schema.save(self.out)
        return self._made(schema, plan, stats)

    def _resumed(self, schema: Schema, first: Path) -> StreamTrainer:
        """The model as the checkpoint has it."""
        place = self.out / CHECKPOINT
        plan = checkpoint.plan_of(place)
        if plan is None:
            raise BitfoldError(
                f"{place} is damaged", got="no plan", expected="a checkpoint of a stream",
                fix=checkpoint.ANEW,
            )  # fmt: skip
        stats = LogStatistics(TrainingRows(PreparedLog(first))) if is_prepared(first) else None
        trainer = self._made(schema, plan, stats)
        trainer.position, random = checkpoint.load(
            place, trainer.model, trainer.optimizers, trainer.watched, StreamPosition
        )
        trainer.life.at(trainer.position.step, trainer.position.epoch)
        set_random(self.fabric, random)
        return trainer

    def _made(self, schema: Schema, plan: Plan, stats: LogStatistics | None) -> StreamTrainer:
        fabric, words = self.fabric, self.config.train
        collection = EmbeddingCollection.from_plan(plan, seed=words.seed, mode=words.bags)
        model = runs.build_model(collection, schema, words, seed=words.seed)
        optimizers = make_optimizers(model, words)
        module, *fabric_optimizers = fabric.setup(Logits(model), *optimizers)
        if moves_rows(model.embeddings):
            for optimizer in optimizers:
                if isinstance(optimizer, RowOptimizer):
                    optimizer.into_backward(model.embeddings)
        # What the first window lacks may come tomorrow: no row is taken for one that nobody reads.
        life = Lifecycle(model, optimizers, fill_unseen=False)
        if life.needs_statistics:
            if stats is None:
                raise BitfoldError(
                    "the first window is gone, which the embeddings were prepared by",
                    got=f"no {self.out / LOG / '00000'}",
                    expected="the folder of the stream as it was left",
                    fix=checkpoint.ANEW,
                )
            life.prepare(stats)
        watched = Watched(life.embedders, sum(info.distinct for info in schema.fields))
        life.watch = watched.moved
        strategy = make_strategy(self.stream, schema, words.seed)
        watched.add_module("strategy", strategy)  # what it keeps goes into the checkpoint
        course = _course(plan, words.budget, words.seed, model)
        course.strategy, course.memory = self.stream.strategy, self.stream.memory
        if course.memory == "aligned":
            beside = Beside.of(model.network, strategy)
            course.budget_bytes = None if plan.budget is None else plan.budget + beside.total
        self.record.courses = [course]
        return StreamTrainer(
            fabric=fabric,
            model=model,
            optimizers=optimizers,
            module=module,
            fabric_optimizers=fabric_optimizers,
            rows=None,  # type: ignore[arg-type]  # each window brings its own
            config=words,
            folder=self.out / CHECKPOINT,
            position=StreamPosition(),
            lines=None,
            progress=self.progress,
            life=life,
            stage=Stage(ONLY, words.epochs),
            plan=plan,
            negative_rate=schema.config.negative_rate,
            watched=watched,
            schema=schema,
            strategy=strategy,
            aligned=course.memory == "aligned",
        )

    def _check_trained(self, window: Window) -> None:
        """Raise unless a window of the log has as many rows as were trained on."""
        assert self.trainer is not None
        before = self.trainer.position.valid[window.span.number]["rows"]
        if before != window.rows:
            raise other_log(f"{window.rows:,} rows of {window.span.name}", f"{before:,.0f}")

    def _tell(self, window: Window, line: Mapping[str, Any]) -> None:
        """A window is over: say so, with its figures; what it lacks is worth a note."""
        name = window.span.name
        if not window.rows:
            self.empty.append(name)
            return
        self._tell_empty()
        if line["scored"] and line["auc"] is None:
            nothing = line["logloss"] is None
            note(f"{name} {'weighs nothing' if nothing else 'holds one class only'}: it has no AUC")
        if not line["scored"]:
            note(f"{name} is the first window: it is trained on, and its rows are not scored")
        facts: dict[str, Any] = {"window": name}
        for figure in ("auc", "new_values", "churn", "bytes"):
            if line.get(figure) is not None:
                facts[figure] = line[figure]
        self.progress(WINDOWS, window.span.number + 1, None, **facts)

    def _tell_empty(self) -> None:
        """Say which windows before this one have no rows."""
        if self.empty:
            more = f", and {len(self.empty) - 1:,} after it" if len(self.empty) > 1 else ""
            note(f"{self.empty[0]} has no rows{more}")
            self.empty.clear()

    def _write(self, names: list[str]) -> None:
        """Write stream.json with all windows that are over."""
        assert self.trainer is not None
        figures = self.trainer.position.valid
        (course,) = self.record.courses
        course.lines = [Line.of(*each) for each in zip(names, figures, strict=True)]
        self.record.save(self.out)

    def _save(self, trainer: StreamTrainer) -> None:
        """Complete the run."""
        assert trainer.schema is not None
        collection = trainer.model.embeddings
        assert isinstance(collection, EmbeddingCollection)
        self.record.finished = True
        self.record.save(self.out)
        plan = collection.plan
        runs.save(
            self.out,
            model=trainer.model,
            schema=trainer.schema,
            plan=plan,
            metrics=_metrics(self.record.courses[0], trainer, plan),
        )


WINDOWS = "windows"
"""The stage of progress that counts windows."""


def check_method(method: str, options: Mapping[str, Any]) -> None:
    """Raise for a method that cannot take ids that nobody knows yet.

    Raises:
        BitfoldError: it needs a map of all ids.
    """
    if not needs_map(method, [Field("any")], options):
        return
    names = [field for field in ("map",) if hasattr(method_kind(method), field)]
    raise BitfoldError(
        f"method {method!r} needs a map of all ids, and a stream does not know tomorrow's",
        got=f"method {method}",
        expected="a method for hashed ids, such as binary-code, hash or cafe",
        fix="take another --method"
        + (
            "; or say --set map=true: ids of the first window get rows of their own, others share"
            if names
            else ""
        ),
    )


def _course(plan: Plan, budget: str | None, seed: int, model: ClickModel) -> Course:
    size = sum(tensor.nbytes for tensor in model.network.state_dict().values())
    options: dict[str, Any] = {
        name: value if isinstance(value, str | int | float | bool | None) else str(value)
        for name, value in plan.options.items()
    }
    return Course(plan.method, budget, plan.budget, seed, options, size)


def _metrics(course: Course, trainer: StreamTrainer, plan: Plan) -> dict[str, Any]:
    """The figures of metrics.json: those of a stream are means over its windows."""
    at, last = trainer.position, course.lines[-1]
    assert trainer.schema is not None
    size = next((line.bytes for line in reversed(course.lines) if line.bytes is not None), None)
    return {
        "auc": course.auc,
        "logloss": course.logloss,
        "bytes": size,
        "ratio": full_bytes(plan.set_fields, plan.embedding_dim) / size if size else None,
        "training_bytes": next(
            (line.training_bytes for line in reversed(course.lines) if line.training_bytes), None
        ),
        "map_bytes": trainer.schema.map_bytes,
        "network_bytes": course.network_bytes,
        "rows_per_second": at.rows_per_second,
        "epochs": at.epoch,
        "best_epoch": at.epoch,
        "seconds": at.seconds,
        "part": "stream",
        "rows": {"train": sum(line.rows for line in course.lines), "valid": 0, "test": 0},
        "windows": len(course.lines),
        "last_window": last.window,
        "seed": trainer.config.seed,
        "versions": {"bitfold": bitfold.__version__, "torch": torch.__version__},
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
