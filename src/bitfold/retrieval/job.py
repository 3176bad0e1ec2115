"""The whole job of `bitfold retrieve`: from a log to a retriever."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bitfold import outputs
from bitfold.config import to_json
from bitfold.data.config import DataConfig
from bitfold.data.folder import looks_prepared
from bitfold.data.formats import with_defaults
from bitfold.data.manifest import MANIFEST_FILE
from bitfold.data.memory_log import MemoryLog
from bitfold.data.prepared import PreparedLog
from bitfold.data.vocabulary import Vocabulary
from bitfold.embedding import EmbeddingCollection
from bitfold.errors import BitfoldError, Diverged, memory_told
from bitfold.files import remove_parts
from bitfold.method.planner import plan as make_plan
from bitfold.method.registry import plugin_files, recipe_meant
from bitfold.notes import note
from bitfold.optim import RowOptimizer
from bitfold.planning.budget import full_bytes
from bitfold.planning.plan import Plan
from bitfold.progress import Progress, silent
from bitfold.ranking.scoring import Ranking
from bitfold.records import file_digest
from bitfold.retrieval import checkpoint, folder
from bitfold.retrieval.by_clicks import by_clicks
from bitfold.retrieval.checkpoint import Position
from bitfold.retrieval.folder import RETRIEVER, RunConfig, above, is_complete
from bitfold.retrieval.index import Exact, build_index, faiss
from bitfold.retrieval.loop import Trainer
from bitfold.retrieval.lowbit import LowBit
from bitfold.retrieval.measuring import (
    asked_vectors,
    item_vectors,
    measure,
    measure_index,
    overlap,
    user_vectors,
)
from bitfold.retrieval.memory import Memory, made
from bitfold.retrieval.options import RetrieveConfig
from bitfold.retrieval.positives import Layout, Positives
from bitfold.retrieval.remarnet import among, check_held_out, leaned
from bitfold.retrieval.retriever import Retriever
from bitfold.retrieval.towers import TwoTowers
from bitfold.runs.manifest import CHECKPOINT, CONFIG, LOG
from bitfold.runs.plugins import check_plugins
from bitfold.training.counting import LogStatistics
from bitfold.training.lifecycle import Lifecycle
from bitfold.training.memory import check_memory
from bitfold.training.optimizers import make_optimizers, moves_rows
from bitfold.training.phases import begun, ended, next_collection, stage_at, stages
from bitfold.training.rows import TrainingRows, needs_map

Paths = str | Path | Sequence[str | Path] | MemoryLog
FREE = ("checkpoint_steps", "keep_log")
"""Options that change no weight and no figure."""

NEGATIVES = 1
"""For raw files of positives alone: what preparing draws beside them; no tower reads it."""


def retrieve(
    data_paths: Paths,
    data_config: DataConfig | None,
    config: RetrieveConfig | None,
    out: str | Path,
    *,
    resume: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> Retriever:
    """Train two towers on a log, index its items, and leave a retriever in `out`.

    Args:
        data_paths: raw files (paths or patterns), rows in memory, or one prepared log.
        data_config: how raw rows are read.
        config: how the towers are trained, indexed and measured.
        out: the retriever's folder.
        resume: go on with the training in `out`, if one was begun.
        force: replace a retriever that is in `out`, when the new one is whole.
        progress: told of the positives done, with `loss` and the validation figure.

    Returns:
        The retriever. The same options, data and threads give the same vectors, bit for bit,
        whether the training was interrupted or not.

    Raises:
        BitfoldError: options, data, budget or `out` that cannot be; what was in `out` is as it was.
    """
    out = Path(out)
    config = config or RetrieveConfig()
    recipe_meant(config.method, config.set)
    if config.index != "exact":
        faiss()  # before hours of training
    asked, memory = _asked(data_paths, data_config or DataConfig(), config)
    outputs.refuse_overlap(out, asked.paths)
    with outputs.work(
        out, RETRIEVER, asked.save, resume=resume, force=force, ended=is_complete
    ) as work:
        place = work.folder
        if not work.fresh:
            _check_same(RunConfig.load(place / CONFIG), asked, whole=is_complete(place))
        for each in (place, place / CHECKPOINT):
            remove_parts(each)
        outputs.sweep(place)
        try:
            if not is_complete(place):
                with memory_told(), torch.random.fork_rng(devices=[]):
                    torch.manual_seed(config.seed)
                    _Job(place, asked, memory, progress or silent).run()
        except (BitfoldError, OSError) as error:
            kept = checkpoint.exists(place / CHECKPOINT)
            if isinstance(error, Diverged) or (work.fresh and not kept):
                work.discard()
            raise
        shutil.rmtree(place / CHECKPOINT, ignore_errors=True)
        if not config.keep_log:
            shutil.rmtree(place / LOG, ignore_errors=True)
        work.finish()
    return folder.load(out)


def _asked(
    paths: Paths, reading: DataConfig, config: RetrieveConfig
) -> tuple[RunConfig, MemoryLog | None]:
    """What is asked for, with the options of reading that raw positives need."""
    memory = paths if isinstance(paths, MemoryLog) else None
    if isinstance(paths, MemoryLog):
        reading = _positive(reading)
        named: tuple[str, ...] = (paths.fingerprint(reading),)
    else:
        several = [paths] if isinstance(paths, str | Path) else list(paths)
        named = tuple(os.path.abspath(path) for path in several)  # noqa: PTH100
        if len(named) == 1 and looks_prepared(Path(named[0])):
            reading = PreparedLog(named[0]).schema.config
        else:
            reading = _positive(reading)
    return RunConfig(reading, config, named, plugin_files()), memory


def _positive(reading: DataConfig) -> DataConfig:
    """Options of reading for which a log of positives alone is enough."""
    found = with_defaults(reading)
    if found.label is None and not found.negatives and found.item is not None:
        return replace(reading, negatives=NEGATIVES)
    return reading


def _check_same(begun: RunConfig, asked: RunConfig, *, whole: bool) -> None:
    """Raise unless two configurations give the same vectors."""
    pairs: list[tuple[str, Any, Any]] = [("paths", begun.paths, asked.paths)]
    for old, new in ((begun.retrieve, asked.retrieve), (begun.data, asked.data)):
        was, now = to_json(old), to_json(new)
        pairs += [(name, was[name], now[name]) for name in was if name not in FREE]
    for name, was, now in pairs:
        if was != now:
            raise BitfoldError(
                f"the training to resume was begun with another {name}",
                got=now,
                expected=was,
                fix=f"say {name} as it was, or start anew with --force",
            )
    check_plugins("the training", begun.plugins, [begun.retrieve.method], same=not whole)


@dataclass
class _Job:
    """One training, from the claimed folder to the finished retriever."""

    out: Path
    config: RunConfig
    memory: MemoryLog | None
    progress: Progress

    def run(self) -> None:
        """Train, measure, index, and save."""
        words, log = self.config.retrieve, self._open_log()
        fields = log.schema.embedding_fields()
        dense = None
        if needs_map(words.method, fields, words.set):
            dense = Vocabulary.fit(log, log.schema.config.min_count)
            fields = dense.fields(fields)
        layout = Layout.of(log.schema, dense, words.history)
        positives = Positives.of(log, layout, self.progress)
        stats = LogStatistics(TrainingRows(log, dense))
        plan = make_plan(
            fields,
            words.width,
            method=words.method,
            budget=words.budget,
            seed=words.seed,
            stats=stats,
            **words.set,
        )
        check_memory(plan)
        # Made before training: what cannot be ranked is refused before hours of work.
        ranking = self._ranking(log, _measured(log), valid=False)
        model, position = self._train(log, positives, plan, stats)
        self._finish(log, positives, model, position, ranking)

    def _open_log(self) -> PreparedLog:
        """The prepared log: given, or the retriever's own."""
        from bitfold.data.prepare import prepare
        from bitfold.data.prepared import is_prepared
        from bitfold.progress import reading

        paths = self.config.paths
        if self.memory is None and len(paths) == 1 and looks_prepared(Path(paths[0])):
            return PreparedLog(paths[0])
        own = self.out / LOG
        if not is_prepared(own):
            rows = list(paths) if self.memory is None else self.memory
            prepare(rows, own, self.config.data, force=True, progress=reading(self.progress))
        return PreparedLog(own)

    def _ranking(self, log: PreparedLog, part: str, *, valid: bool) -> Ranking | None:
        if not log.rows.get(part):
            return None
        config = self.config.retrieve.ranking(str(log.schema.config.item), valid=valid)
        return Ranking.of(log, part, config, self.progress)

    def _train(
        self, log: PreparedLog, positives: Positives, plan: Plan, stats: LogStatistics
    ) -> tuple[TwoTowers, Position]:
        """Train through the phases of the method; most have one."""
        place, words = self.out / CHECKPOINT, self.config.retrieve
        place.mkdir(exist_ok=True)
        ranking = self._ranking(log, "valid", valid=True)
        if ranking is None:
            note("the validation part is empty: all epochs are trained, the last weights are kept")
        check_held_out(words, ranking)
        resumes, digest = checkpoint.exists(place), file_digest(log.path / MANIFEST_FILE)
        course = stages(plan, words.epochs)
        after = checkpoint.plan_of(place) if resumes else None
        collection = EmbeddingCollection.from_plan(after or begun(plan), seed=words.seed)
        model, position = above(collection, positives.layout, words), Position()
        memory = _memory(words)
        while True:
            stage = stage_at(course, _collection(model).plan)
            optimizers = make_optimizers(model, words.training())
            if moves_rows(model.embeddings):
                for optimizer in optimizers:
                    if isinstance(optimizer, RowOptimizer):
                        optimizer.into_backward(model.embeddings)
            life = Lifecycle(model, optimizers, epochs=words.epochs)
            if life.needs_statistics:
                life.prepare(stats)
            if resumes:
                position, resumes = checkpoint.load(place, model, optimizers, memory), False
                _check_log(log, digest, position)
            life.at(position.step, position.epoch)
            position.log_digest = digest
            Trainer(
                model=model,
                positives=positives,
                ranking=ranking,
                config=words,
                optimizers=optimizers,
                life=life,
                folder=place,
                position=position,
                memory=memory,
                progress=self.progress,
                stage=stage,
                plan=after,
            ).run()
            if stage.last:
                break
            after, before = ended(_collection(model), stage.phase), model
            begins = course[course.index(stage) + 1].phase
            following = next_collection(_collection(model), after, begins, seed=words.seed)
            model, memory = above(following, positives.layout, words), _memory(words)
            if begins.start == "carry":
                model.user.load_state_dict(before.user.state_dict())
                model.item.load_state_dict(before.item.state_dict())
            position.best, position.worse_epochs = None, 0  # of other weights
        checkpoint.load_best(place, position, model)
        embedder = _collection(model).embedder
        embedder.plan = replace(embedder.plan, phase=stage.phase.name or embedder.plan.phase)
        return model, position

    def _finish(
        self,
        log: PreparedLog,
        positives: Positives,
        model: TwoTowers,
        position: Position,
        ranking: Ranking | None,
    ) -> None:
        """Measure, index and save the trained towers, as they serve."""
        words, collection = self.config.retrieve, _collection(model)
        served = TwoTowers(collection.serving(), model.user, model.item, model.prior).eval()
        items, users = item_vectors(served, positives), user_vectors(served, positives)
        _check_vectors(users, items, words)
        metrics: dict[str, Any] = {}
        if words.cold == "remarnet":
            held = self._ranking(log, "valid", valid=True)
            assert held is not None
            items, weights = leaned(served, positives, held, words)
            metrics |= {"cold": weights.figures}
        rows = LowBit.of(items, words.index_bits)
        index = build_index(items, words.index, words.index_bits, words.index_effort)
        if ranking is not None:
            ranked = None
            if words.cold == "remarnet":
                ranked = among(served, positives, ranking, items)
                metrics["by_clicks"] = by_clicks(served, positives, ranking, ranked)
            metrics |= measure(served, positives, ranking, self.progress, ranked)
            metrics["part"] = _measured(log)
            if len(ranking.items.ids) == len(items):
                questions, depth = asked_vectors(served, positives, ranking), max(words.rank_at)
                found = measure_index(ranking, questions, index, depth)
                metrics |= {f"index_{name}": found[name] for name in ranking.config.names}
                some = questions[:: max(len(questions) // 1000, 1)]
                exact = Exact(LowBit.of(items, 32)).search(some, depth)[1]
                metrics["index_overlap"] = overlap(exact, index.search(some, depth)[1])
                popular = ranking.by_popularity()
                metrics["popularity"] = {name: popular[name] for name in ranking.config.names}
        plan = collection.plan
        dense = positives.layout.dense
        metrics |= {
            "bytes": plan.bytes,
            "ratio": full_bytes(plan.fields, words.width) / plan.bytes,
            "towers_bytes": sum(
                each.nbytes
                for tower in (served.user, served.item)
                for each in tower.state_dict().values()
            ),
            "map_bytes": log.schema.map_bytes if dense is None else dense.bytes,
            "index_bytes": index.bytes,
            "item_bytes": rows.bytes,
            "training_bytes": position.training_bytes,
            "rows_per_second": position.all_rows / max(position.step_seconds, 1e-9),
            "epochs": position.epoch,
            "best_epoch": position.best_epoch,
            "seconds": position.seconds,
            "valid": position.valid,
            "seed": words.seed,
        }
        folder.save(
            self.out,
            model=served,
            schema=log.schema,
            plan=plan,
            metrics=metrics,
            dense=dense,
            items=(torch.from_numpy(positives.items.ids), rows),
            users=(torch.from_numpy(positives.users), users),
            index=index,
        )


def _measured(log: PreparedLog) -> str:
    """The part that the trained towers are measured on."""
    return "test" if log.rows.get("test") else "valid"


def _check_vectors(users: torch.Tensor, items: torch.Tensor, config: RetrieveConfig) -> None:
    """Raise where training broke the weights in a step whose own loss did not show it."""
    longest = items.norm(dim=1).max() * users.norm(dim=1).max()  # no score is beyond it
    broken = not bool(longest.isfinite())
    if broken or not bool(items[:, : config.width].any()):
        raise Diverged(
            "training diverged",
            got="scores that are no numbers" if broken else "vectors of items that are all zero",
            expected="finite ones",
            fix=f"lower lr (now {config.lr:g})",
        )


def _memory(config: RetrieveConfig) -> Memory | None:
    return made(
        config.memory,
        config.memory_size,
        walk=config.walk,
        noise=config.noise,
        unit=config.similarity == "cosine",
    )


def _collection(model: TwoTowers) -> EmbeddingCollection:
    found = model.embeddings
    assert isinstance(found, EmbeddingCollection), "it was built so"
    return found


def _check_log(log: PreparedLog, digest: str, position: Position) -> None:
    """Raise unless a checkpoint was trained on this very log."""
    if position.log_digest not in (None, digest):
        raise BitfoldError(
            "the prepared log is not the one that this training began with",
            got=f"{log.path}, prepared from other rows or with other options",
            expected="the log as it was",
            fix="put the old log back, or train anew with --force",
        )
