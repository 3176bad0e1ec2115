"""What a trained model is worth: the figures of metrics.json."""

import time
from typing import TYPE_CHECKING, Any

import torch

import bitfold
from bitfold.embedding import EmbeddingCollection
from bitfold.nets.model import ClickModel
from bitfold.planning.budget import full_bytes
from bitfold.progress import Progress
from bitfold.ranking import Ranking
from bitfold.runs.options import TrainConfig
from bitfold.runs.popularity import MOST_IDS, popularity
from bitfold.runs.scoring import EVALUATION_ROWS, score
from bitfold.training.checkpoint import Position
from bitfold.training.cold import by_clicks
from bitfold.training.rows import TrainingRows

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def measure(
    model: ClickModel,
    rows: TrainingRows,
    position: Position,
    *,
    config: TrainConfig,
    fabric: "Fabric",
    progress: Progress,
    floors: bool = True,
) -> dict[str, Any]:
    """The figures of metrics.json.

    Args:
        model: with its best weights.
        rows: the log.
        position: where the training ended.
        config: how it was trained.
        fabric: its processes; the first one measures.
        progress: told of the rows done.
        floors: measure the popularity of ids beside it.
    """
    schema, collection = rows.log.schema, model.embeddings
    assert isinstance(collection, EmbeddingCollection)
    part = next((name for name in ("test", "valid") if rows.count(name)), None)
    figures: dict[str, Any] = dict.fromkeys(("auc", "logloss", "gauc", "calibration", "ece"))
    if part is not None and fabric.is_global_zero:
        scores = score(
            model,
            rows.batches(part, EVALUATION_ROWS),
            negative_rate=schema.config.negative_rate,
            device=fabric.device,
            stage=part,
            total=rows.count(part),
            progress=progress,
        )
        figures = dict(scores.summary(schema.config.negative_rate))
        figures["constant_logloss"] = scores.constant_logloss(schema.config.negative_rate)
        figures |= _beside(model, rows, part, config, fabric.device, progress, floors)
    size = sum(collection.bytes("serving").values())
    if model.cold is not None:
        size += model.cold.bytes
        clicks = by_clicks(model, rows, part, fabric.device, progress) if part else {}
        figures["cold"] = {**model.cold.figures, "by_clicks": clicks}
    plan = collection.plan
    best = position.valid[position.best_epoch - 1]
    names = ("auc", "logloss", "gauc", "calibration", "ece")
    return figures | {
        "bytes": size,
        "ratio": full_bytes(plan.set_fields, plan.embedding_dim) / size if size else None,
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
        "seed": config.seed,
        "versions": _versions(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _beside(
    model: ClickModel, rows: TrainingRows, part: str, config: TrainConfig, device: torch.device,
    progress: Progress, floors: bool,
) -> dict[str, Any]:  # fmt: skip
    """The model's ranking, if one is asked for, and the floors that it has to beat."""
    words = config.ranking
    found: dict[str, Any] = {}
    ids = sum(info.distinct for info in rows.log.schema.fields)
    counted = floors and ids <= MOST_IDS
    popular = popularity(rows.log, part, progress) if counted else None
    if words is not None:
        ranking = Ranking.of(rows.log, part, words, progress)
        found["ranking"] = ranking.by_model(
            model, dense=rows.dense, device=device, progress=progress
        )
        if floors:
            popular = (popular or {"field": words.field}) | {"ranking": ranking.by_popularity()}
    return found | ({"floors": {"popularity": popular}} if popular else {})


def _versions() -> dict[str, str]:
    return {"bitfold": bitfold.__version__, "torch": torch.__version__}
