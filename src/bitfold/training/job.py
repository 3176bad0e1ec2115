"""One training, from the claimed folder to the finished run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bitfold.data.formats import with_defaults
from bitfold.data.manifest import MANIFEST_FILE
from bitfold.data.memory_log import MemoryLog
from bitfold.data.newness import watch_log
from bitfold.data.prepared import PreparedLog
from bitfold.data.vocabulary import Vocabulary
from bitfold.embedding import EmbeddingCollection
from bitfold.errors import BitfoldError
from bitfold.method.sets import plan_sets
from bitfold.nets.model import ClickModel
from bitfold.notes import note
from bitfold.optim import RowOptimizer
from bitfold.planning.plan import Plan
from bitfold.progress import Progress
from bitfold.ranking import check_rank
from bitfold.records import file_digest
from bitfold.runs import folder as runs
from bitfold.runs.cold import check_cold
from bitfold.runs.config import RunConfig
from bitfold.runs.ids import same_ids
from bitfold.runs.manifest import CHECKPOINT, LOG, LOGS
from bitfold.runs.run import Run
from bitfold.training import checkpoint, folder
from bitfold.training.checkpoint import Position
from bitfold.training.cold import ColdTraining
from bitfold.training.counting import LogStatistics
from bitfold.training.distilling import Teaching
from bitfold.training.lifecycle import Lifecycle
from bitfold.training.logs import TrainingLog
from bitfold.training.loop import Logits, Trainer
from bitfold.training.measuring import measure
from bitfold.training.memory import check_memory
from bitfold.training.optimizers import make_optimizers, moves_rows
from bitfold.training.parts import check_parts
from bitfold.training.phases import Stage, begun, ended, next_collection, stage_at, stages
from bitfold.training.rows import TrainingRows, needs_map

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass
class Job:
    """One training, from the claimed folder to the finished run."""

    out: Path
    config: RunConfig
    base: Run | None
    fabric: "Fabric"
    progress: Progress
    memory: MemoryLog | None = None
    floors: bool = True
    name: str = "run"
    teaching: Teaching | None = None
    lines: TrainingLog | None = None
    cold: ColdTraining | None = None

    def run(self) -> None:
        """Train, measure, and save the run."""
        log = self._open_log()
        if self.config.data != log.schema.config:
            self.config = replace(self.config, data=log.schema.config)
            if self.fabric.is_global_zero:
                folder.write_config(self.out, self.config)
        if self.config.train.ranking is not None:
            check_rank(log.schema.config, self.config.train.ranking)
        if self.teaching is not None:
            self.teaching.check(log.schema)
        check_cold(log.schema.config, self.config.cold)
        dense = self._dense(log)
        rows = TrainingRows(log, dense)
        self.cold = ColdTraining.of(rows, self.config.cold, self.fabric.device)
        notes = check_parts(log, self.fabric.world_size)
        for text in notes:
            note(text)
        devices = [self.fabric.device] if self.fabric.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices=devices):
                torch.manual_seed(self.config.train.seed + self.fabric.global_rank)
                model, position = self._train(rows)
            if self.cold is not None:
                model.cold = self.cold.learned(model, rows, self.fabric.device, self.progress)
            metrics = measure(
                model, rows, position, config=self.config.train, fabric=self.fabric,
                progress=self.progress, floors=self.floors,
            )  # fmt: skip
            if self.lines is not None:
                self.lines.result(self.config.options(), metrics)
        finally:
            if self.lines is not None:
                self.lines.close()
        if self.fabric.is_global_zero:
            runs.save(
                self.out,
                model=model,
                schema=log.schema,
                plan=model.embeddings.plan,  # type: ignore[arg-type]
                metrics=metrics,
                dense=dense,
            )
        self.fabric.barrier()

    def _open_log(self) -> PreparedLog:
        """The prepared log: given, or the run's own."""
        from bitfold.data.folder import looks_prepared
        from bitfold.data.prepare import prepare
        from bitfold.data.prepared import is_prepared

        paths = self.config.paths
        if len(paths) == 1 and looks_prepared(Path(paths[0])):
            log = PreparedLog(paths[0])
            if self.base is not None:
                same_ids(log.schema, self.base.schema)
                watch_log(log, "train", self.base.schema)
            return log
        reading = with_defaults(self.config.data)  # before the log is read
        check_cold(reading, self.config.cold)
        if self.config.train.ranking is not None:
            check_rank(reading, self.config.train.ranking)
        own = self.out / LOG
        if self.fabric.is_global_zero and not is_prepared(own):
            schema = None if self.base is None else self.base.schema
            rows = paths if self.memory is None else self.memory
            prepare(
                rows, own, self.config.data, schema=schema, force=True, progress=self._preparing
            )
        self.fabric.barrier()
        return PreparedLog(own)

    def _preparing(self, stage: str, rows: int, done: int, total: int) -> None:
        self.progress(f"preparing: {stage}", done, total, rows=rows)

    def _dense(self, log: PreparedLog) -> Vocabulary | None:
        """The map to dense ids, for a method that cannot take hashed ones."""
        if self.base is not None:
            return self.base.dense
        train = self.config.train
        if not needs_map(train.method, log.schema.embedding_fields(), train.set):
            return None
        return Vocabulary.fit(log, log.schema.config.min_count)

    def _build(self, rows: TrainingRows, stats: LogStatistics) -> ClickModel:
        words, schema = self.config.train, rows.log.schema
        if self.base is not None:
            collection = self.base.model.embeddings.resume()  # type: ignore[operator]
            model = self._above(collection, rows)
            model.network.load_state_dict(self.base.model.network.state_dict())
            return model
        fields = schema.embedding_fields()
        if rows.dense is not None:
            fields = rows.dense.fields(fields)
        settled: dict[str, Any] = {
            "method": words.method,
            "budget": words.budget,
            "seed": words.seed,
            **words.set,
        }
        if self.cold is not None:
            plan = self.cold.plan(fields, words.vector_width, stats=stats, **settled)
        else:
            plan = plan_sets(
                fields, words.vector_width, words.embedding_sets, stats=stats, **settled
            )
        check_memory(plan)
        collection = EmbeddingCollection.from_plan(begun(plan), seed=words.seed, mode=words.bags)
        return self._above(collection, rows)

    def _train(self, rows: TrainingRows) -> tuple[ClickModel, Position]:
        """Train through the phases of the method; most have one."""
        place, words = self.out / CHECKPOINT, self.config.train
        place.mkdir(exist_ok=True)
        stats, resumes = LogStatistics(rows), checkpoint.exists(place)
        model, position = self._build(rows, stats), Position()
        course = stages(_collection(model).plan, words.epochs)
        plan = checkpoint.plan_of(place) if resumes else None
        if plan is not None:
            again = EmbeddingCollection.from_plan(plan, seed=words.seed, mode=words.bags)
            model = self._above(again, rows)
        while True:
            stage = stage_at(course, _collection(model).plan)
            trainer = self._trainer(model, rows, stats, position, stage, plan)
            if resumes:
                position, random = checkpoint.load(place, model, trainer.optimizers, trainer.beside)
                trainer.position, resumes = position, False
                _check_log(rows.log, position)
                set_random(self.fabric, random)
            trainer.life.at(position.step, position.epoch)
            position.log_digest = _identity(rows.log)
            trainer.lines = self.lines = self.lines or self._open_lines(position)
            trainer.run()
            if stage.last:
                break
            trainer.decide()
            plan, before = ended(_collection(model), stage.phase), model
            begins = course[course.index(stage) + 1].phase
            after = next_collection(_collection(model), plan, begins, seed=words.seed)
            model = self._above(after, rows)
            if begins.start == "carry":
                model.network.load_state_dict(before.network.state_dict())
            position.best_auc, position.worse_epochs = None, 0  # of other weights
        if self.fabric.is_global_zero:  # the process that kept them, measures and saves
            checkpoint.load_best(place, position, model)
        embedder = _collection(model).embedder
        embedder.plan = replace(embedder.plan, phase=stage.phase.name or embedder.plan.phase)
        return model, position

    def _above(self, collection: EmbeddingCollection, rows: TrainingRows) -> ClickModel:
        """A fresh network above embeddings."""
        words = self.config.train
        return runs.build_model(collection, rows.log.schema, words, seed=words.seed)

    def _trainer(
        self,
        model: ClickModel,
        rows: TrainingRows,
        stats: LogStatistics,
        position: Position,
        stage: Stage,
        plan: Plan | None,
    ) -> Trainer:
        fabric, words = self.fabric, self.config.train
        optimizers = make_optimizers(model, words)
        module, *fabric_optimizers = fabric.setup(Logits(model), *optimizers)
        if fabric.world_size == 1 and moves_rows(model.embeddings):
            for optimizer in optimizers:
                if isinstance(optimizer, RowOptimizer):
                    optimizer.into_backward(model.embeddings)
        return Trainer(
            fabric=fabric,
            model=model,
            optimizers=[*optimizers, *(self.teaching.optimizers if self.teaching else ())],
            module=module,
            fabric_optimizers=fabric_optimizers,
            rows=rows,
            config=words,
            folder=self.out / CHECKPOINT,
            position=position,
            lines=self.lines,
            progress=self.progress,
            negative_rate=rows.log.schema.config.negative_rate,
            life=self._life(model, optimizers, stats, rows.count("train")),
            stage=stage,
            plan=plan,
            teaching=self.teaching,
            cold=self.cold,
        )

    def _open_lines(self, position: Position) -> TrainingLog | None:
        """The training log, from where the position is."""
        if not self.fabric.is_global_zero:
            return None
        kind = self.config.train.log
        return TrainingLog(
            self.out / LOGS, position.log_size, position.step, kind=kind, name=self.name
        )

    def _life(
        self,
        model: ClickModel,
        optimizers: Sequence[torch.optim.Optimizer],
        stats: LogStatistics,
        rows: int,
    ) -> Lifecycle:
        """What drives the embedders, prepared for epochs of so many rows."""
        words = self.config.train
        # The rows of an earlier run were trained on a log that is not here.
        fresh = self.base is None
        fill = fresh and words.unseen != "initial"
        steps = -(-rows // (words.batch_size * self.fabric.world_size))
        life = Lifecycle(
            model, optimizers, fill_unseen=fill, epochs=words.epochs, epoch_steps=steps
        )
        life.refuse_processes(self.fabric.world_size)
        if fresh and life.needs_statistics:
            life.prepare(stats)
        return life


def _collection(model: ClickModel) -> EmbeddingCollection:
    """A model's embeddings."""
    found = model.embeddings
    assert isinstance(found, EmbeddingCollection), "it was built so"
    return found


def _identity(log: PreparedLog) -> str:
    """What tells a prepared log from another: its manifest has the digests of all its files."""
    return file_digest(log.path / MANIFEST_FILE)


def _check_log(log: PreparedLog, position: Position) -> None:
    """Raise unless a checkpoint was trained on this very log."""
    if position.log_digest not in (None, _identity(log)):
        raise BitfoldError(
            "the prepared log is not the one that this training began with",
            got=f"{log.path}, prepared from other rows or with other options",
            expected="the log as it was",
            fix="put the old log back, or train anew with --force",
        )


def set_random(fabric: "Fabric", random: dict[str, torch.Tensor]) -> None:
    """Put back the random state of this process."""
    for name, states in random.items():
        state = states if states.dim() == 1 else states[fabric.global_rank]
        state = state.clone()  # torch reads the state from its storage's start, and aligned
        if name == "cuda":
            torch.cuda.set_rng_state(state, fabric.device)
        else:
            torch.set_rng_state(state)
