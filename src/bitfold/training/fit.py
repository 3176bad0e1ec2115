"""The whole job of `bitfold train`: from a log to a run."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import bitfold
from bitfold.config import to_json
from bitfold.data.config import DataConfig
from bitfold.data.formats import with_defaults
from bitfold.data.frames import MemoryLog
from bitfold.data.manifest import MANIFEST_FILE
from bitfold.data.newness import watch_log
from bitfold.data.prepared import PreparedLog
from bitfold.data.vocabulary import Vocabulary
from bitfold.embedding import EmbeddingCollection
from bitfold.errors import BitfoldError, Diverged
from bitfold.method.planner import plan as make_plan
from bitfold.nets.model import ClickModel
from bitfold.notes import note
from bitfold.optim import RowOptimizer
from bitfold.outputs import Work
from bitfold.planning.budget import full_bytes
from bitfold.progress import Progress, silent
from bitfold.ranking import Ranking, check_rank
from bitfold.records import file_digest
from bitfold.runs import folder as runs
from bitfold.runs.config import RunConfig
from bitfold.runs.ids import same_ids
from bitfold.runs.manifest import CHECKPOINT, LOG, LOGS, METRICS, is_complete, read_metrics, verify
from bitfold.runs.options import TrainConfig
from bitfold.runs.popularity import MOST_IDS, popularity
from bitfold.runs.run import Run
from bitfold.runs.scoring import EVALUATION_ROWS, score
from bitfold.training import checkpoint, folder
from bitfold.training.checkpoint import Position
from bitfold.training.counting import LogStatistics
from bitfold.training.lifecycle import Lifecycle
from bitfold.training.logs import TrainingLog
from bitfold.training.loop import Logits, Trainer, make_optimizers
from bitfold.training.memory import check_memory
from bitfold.training.parts import check_parts
from bitfold.training.processes import agreed, make_fabric, place_of_process, together
from bitfold.training.resolve import Paths, agree, check_options, run_config
from bitfold.training.rows import TrainingRows, needs_map

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class RunResult:
    """What a training gave.

    Args:
        path: the run's folder.
        metrics: what metrics.json holds.
        epochs: passes over the training part.
    """

    path: Path
    metrics: dict[str, Any]

    @property
    def epochs(self) -> int:
        """Passes over the training part."""
        return int(self.metrics["epochs"])


def train(
    data_paths: Paths | None,
    data_config: DataConfig | None,
    train_config: TrainConfig | None,
    out: str | Path,
    *,
    resume: bool = False,
    force: bool = False,
    from_run: str | Path | None = None,
    floors: bool = True,
    progress: Progress | None = None,
) -> RunResult:
    """Train a click model on a log, and leave a run in `out`.

    Args:
        data_paths: raw files (paths or patterns), rows in memory, or one prepared log. Raw rows are
            prepared into `out/log` first.
        data_config: how raw rows are read; None for a prepared log, or with `from_run`.
        train_config: how the model is trained; None for the options of `from_run` or of the run
            that is resumed, or else the defaults.
        out: the run's folder.
        resume: go on with the training in `out`, if one was begun; the first three arguments
            may then be None.
        force: replace a run that is in `out`, when the new one is whole. Until then the training
            is in a hidden folder beside it, and `resume` goes on with it.
        from_run: a run to go on from: its schema reads the new rows, its weights are the start.
        floors: measure the popularity of ids beside the model: one more pass over the log, where
            the fields have at most 4 M distinct ids together.
        progress: told of the rows done, with `loss`, `rows_per_second` and `valid_auc`.

    Returns:
        The folder and the metrics. The same options, data and threads give the same weights, bit
        for bit, whether the training was interrupted or not.

    Raises:
        BitfoldError: options, data, budget or `out` that cannot be; what was in `out` is as it was.
    """
    out = Path(out)
    tell = progress or silent
    with _early_group(train_config) as group:
        config = None
        if group is None or group.is_global_zero:
            begun = folder.under_way(out) if resume else out
            config = run_config(data_paths, data_config, train_config, begun, resume, from_run)
            if config is None:
                folder.complete(out)
        if group is not None:
            config = group.broadcast(config)
        if config is None:
            return _finished(out)
        base = runs.load(config.from_run) if config.from_run else None
        if base is not None:
            config = agree(config, base)
        check_options(config.train)
        fabric = make_fabric(config.train)
        memory = data_paths if isinstance(data_paths, MemoryLog) else None
        with together(fabric):
            if group is None:  # the processes that were started just now have asked for it
                fabric.broadcast(config)
            _train(out, config, base, fabric, tell, memory, floors, resume=resume, force=force)
    return _finished(out)


@contextmanager
def _early_group(words: TrainConfig | None) -> Iterator["Fabric | None"]:
    """The processes that torchrun, or the first of them, has started; None without others.

    The first one alone looks at the folder, since looking puts in order what a killed process left.
    """
    found = place_of_process()
    if found is None or found.world == 1:
        yield None
        return
    words = words or TrainConfig()
    fabric = make_fabric(replace(words, devices=agreed(words.devices)))
    with together(fabric):
        yield fabric


def _train(
    out: Path,
    config: RunConfig,
    base: Run | None,
    fabric: "Fabric",
    tell: Progress,
    memory: MemoryLog | None,
    floors: bool,
    *,
    resume: bool,
    force: bool,
) -> None:
    """Claim the folder, and train in it."""
    tell = tell if fabric.is_global_zero else silent
    with contextlib.ExitStack() as stack:
        work: Work | None = None
        if fabric.is_global_zero:
            work = stack.enter_context(folder.claim(out, config, resume=resume, force=force))
            folder.sweep(work.folder)
        place = Path(fabric.broadcast(str(work.folder if work else "")))
        try:
            with together(fabric):
                if not is_complete(place):
                    _Job(place, config, base, fabric, tell, memory, floors, out.name).run()
        except (BitfoldError, OSError) as error:
            # What diverged once diverges again, so there would be nothing to resume.
            kept = checkpoint.exists(place / CHECKPOINT)
            if work is not None and (isinstance(error, Diverged) or (work.fresh and not kept)):
                work.discard()
            raise
        if work is not None:
            folder.tidy(work.folder, keep_log=config.train.keep_log)
            work.finish()
        fabric.barrier()


@dataclass
class _Job:
    """One training, from the claimed folder to the finished run."""

    out: Path
    config: RunConfig
    base: Run | None
    fabric: "Fabric"
    progress: Progress
    memory: MemoryLog | None = None
    floors: bool = True
    name: str = "run"
    lines: TrainingLog | None = None

    def run(self) -> None:
        log = self._open_log()
        if self.config.data != log.schema.config:
            self.config = replace(self.config, data=log.schema.config)
            if self.fabric.is_global_zero:
                folder.write_config(self.out, self.config)
        if self.config.train.ranking is not None:
            check_rank(log.schema.config, self.config.train.ranking)
        dense = self._dense(log)
        rows = TrainingRows(log, dense)
        notes = check_parts(log, self.fabric.world_size)
        for text in notes:
            note(text)
        devices = [self.fabric.device] if self.fabric.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices=devices):
                torch.manual_seed(self.config.train.seed + self.fabric.global_rank)
                model, position = self._train(rows)
            metrics = self._measure(model, rows, position)
            if self.lines is not None:
                self.lines.result(to_json(self.config.train), metrics)
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
        if self.config.train.ranking is not None:  # before the log is read
            check_rank(with_defaults(self.config.data), self.config.train.ranking)
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

    def _build(self, rows: TrainingRows) -> ClickModel:
        words, schema = self.config.train, rows.log.schema
        if self.base is not None:
            collection = self.base.model.embeddings.resume()  # type: ignore[operator]
            model = runs.build_model(collection, schema, words, seed=words.seed)
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
        plan = make_plan(fields, words.vector_width, stats=LogStatistics(rows), **settled)
        check_memory(plan)
        collection = EmbeddingCollection.from_plan(plan, seed=words.seed, mode=words.bags)
        return runs.build_model(collection, schema, words, seed=words.seed)

    def _train(self, rows: TrainingRows) -> tuple[ClickModel, Position]:
        fabric, words = self.fabric, self.config.train
        model = self._build(rows)
        optimizers = make_optimizers(model, words)
        module, *fabric_optimizers = fabric.setup(Logits(model), *optimizers)
        if fabric.world_size == 1:
            for optimizer in optimizers:
                if isinstance(optimizer, RowOptimizer):
                    optimizer.into_backward(model.embeddings)
        place, position = self.out / CHECKPOINT, Position()
        place.mkdir(exist_ok=True)
        life = self._life(model, optimizers, rows)
        if checkpoint.exists(place):
            position, random = checkpoint.load(place, model, optimizers)
            life.at(position.step, position.epoch)
            _check_log(rows.log, position)
            _set_random(fabric, random)
        position.log_digest = _identity(rows.log)
        lines = None
        if fabric.is_global_zero:
            lines = TrainingLog(
                self.out / LOGS,
                position.log_size,
                position.step,
                kind=words.log,
                name=self.name,
            )
            self.lines = lines
        Trainer(
            fabric=fabric,
            model=model,
            optimizers=optimizers,
            module=module,
            fabric_optimizers=fabric_optimizers,
            rows=rows,
            config=words,
            folder=place,
            position=position,
            lines=lines,
            progress=self.progress,
            negative_rate=rows.log.schema.config.negative_rate,
            life=life,
        ).run()
        if fabric.is_global_zero:  # the process that kept them, measures and saves
            checkpoint.load_best(place, position, model)
        return model, position

    def _life(
        self,
        model: ClickModel,
        optimizers: Sequence[torch.optim.Optimizer],
        rows: TrainingRows,
    ) -> Lifecycle:
        """What drives the embedders, prepared."""
        words = self.config.train
        # The rows of an earlier run were trained on a log that is not here.
        fresh = self.base is None
        fill = fresh and words.unseen != "initial"
        life = Lifecycle(model, optimizers, fill_unseen=fill, epochs=words.epochs)
        life.refuse_processes(self.fabric.world_size)
        if fresh and life.needs_statistics:
            life.prepare(LogStatistics(rows))
        return life

    def _measure(self, model: ClickModel, rows: TrainingRows, position: Position) -> dict[str, Any]:
        """The figures of metrics.json."""
        schema, collection = rows.log.schema, model.embeddings
        assert isinstance(collection, EmbeddingCollection)
        part = next((name for name in ("test", "valid") if rows.count(name)), None)
        figures: dict[str, Any] = dict.fromkeys(("auc", "logloss", "gauc", "calibration", "ece"))
        if part is not None and self.fabric.is_global_zero:
            scores = score(
                model,
                rows.batches(part, EVALUATION_ROWS),
                negative_rate=schema.config.negative_rate,
                device=self.fabric.device,
                stage=part,
                total=rows.count(part),
                progress=self.progress,
            )
            figures = dict(scores.summary(schema.config.negative_rate))
            figures["constant_logloss"] = scores.constant_logloss(schema.config.negative_rate)
            figures |= self._beside(model, rows, part)
        size = sum(collection.bytes("serving").values())
        plan = collection.plan
        best = position.valid[position.best_epoch - 1]
        names = ("auc", "logloss", "gauc", "calibration", "ece")
        return figures | {
            "bytes": size,
            "ratio": full_bytes(plan.fields, plan.embedding_dim) / size if size else None,
            "training_bytes": position.training_bytes,
            "map_bytes": schema.map_bytes + (rows.dense.bytes if rows.dense else 0),
            "network_bytes": sum(t.nbytes for t in model.network.state_dict().values()),
            "rows_per_second": position.rows_per_second,
            "epochs": position.epoch,
            "best_epoch": position.best_epoch,
            "seconds": position.seconds,
            "part": part,
            "valid": {name: best.get(name) for name in names} if "auc" in best else None,
            "rows": {name: rows.count(name) for name in ("train", "valid", "test")},
            "seed": self.config.train.seed,
            "versions": _versions(),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }

    def _beside(self, model: ClickModel, rows: TrainingRows, part: str) -> dict[str, Any]:
        """The model's ranking, if one is asked for, and the floors that it has to beat."""
        words = self.config.train.ranking
        found: dict[str, Any] = {}
        ids = sum(info.distinct for info in rows.log.schema.fields)
        counted = self.floors and ids <= MOST_IDS
        popular = popularity(rows.log, part, self.progress) if counted else None
        if words is not None:
            ranking = Ranking.of(rows.log, part, words, self.progress)
            device = self.fabric.device
            found["ranking"] = ranking.by_model(
                model, dense=rows.dense, device=device, progress=self.progress
            )
            if self.floors:
                popular = (popular or {"field": words.field}) | {"ranking": ranking.by_popularity()}
        return found | ({"floors": {"popularity": popular}} if popular else {})


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


def _versions() -> dict[str, str]:
    return {"bitfold": bitfold.__version__, "torch": torch.__version__}


def _finished(out: Path) -> RunResult:
    return RunResult(out, read_metrics(verify(out).path(METRICS)))


def _set_random(fabric: "Fabric", random: dict[str, torch.Tensor]) -> None:
    """Put back the random state of this process."""
    for name, states in random.items():
        state = states if states.dim() == 1 else states[fabric.global_rank]
        state = state.clone()  # torch reads the state from its storage's start, and aligned
        if name == "cuda":
            torch.cuda.set_rng_state(state, fabric.device)
        else:
            torch.set_rng_state(state)
