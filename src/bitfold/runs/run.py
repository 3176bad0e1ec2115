"""A run: a trained model and all it needs to score raw rows, in one folder.

    RUN/config.json          the words it was trained with
    RUN/schema.json          how raw rows become ids and numbers (vocabulary.safetensors and
                             known.safetensors beside)
    RUN/dense.safetensors    the map to dense ids, where the method needed one of its own
    RUN/plan.json            where the embeddings keep every number
    RUN/weights.safetensors  the serving weights
    RUN/metrics.json         what it is worth
    RUN/manifest.json        the format's version and each file's SHA-256; written last

A folder without a manifest is not a run: it is a training that has not ended. There is no pickle.
"""

import shutil
import weakref
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

import bitfold
from bitfold.config import from_json
from bitfold.data.config import DataConfig
from bitfold.data.schema import Schema
from bitfold.data.vocabulary import Vocabulary
from bitfold.embedding import EmbeddingCollection
from bitfold.errors import BitfoldError
from bitfold.files import read_tensors, write_json, write_tensors
from bitfold.nets.model import ClickModel
from bitfold.nets.networks import build_network, network_options
from bitfold.planning.plan import Plan, dtype_size
from bitfold.records import broken, checked, file_size, read_object, record, sealed
from bitfold.remote import fetched, is_remote, local_path, near
from bitfold.runs.manifest import (
    AGAIN,
    CONFIG,
    DENSE,
    KIND,
    MANIFEST,
    METRICS,
    PARTS,
    PLAN,
    RUN,
    WEIGHTS,
    is_complete,
    is_run,
    read_metrics,
    verify,
    write_manifest,
)
from bitfold.showing import Shown
from bitfold.terminal import printable
from bitfold.training.config import TrainConfig

if TYPE_CHECKING:
    from bitfold.data.batch import Batch
    from bitfold.data.frames import Data
    from bitfold.data.single import RowEncoder
    from bitfold.ranking import RankConfig


@dataclass(frozen=True)
class RunConfig:
    """The words of a run.

    Args:
        data: how its log was read.
        train: how it was trained.
        paths: the log.
        from_run: the run it went on from, if any.
    """

    data: DataConfig
    train: TrainConfig
    paths: tuple[str, ...] = ()
    from_run: str | None = None

    def to_json(self) -> dict[str, Any]:
        """What config.json holds."""
        from bitfold.config import to_json

        return RUN.head() | {
            "bitfold": bitfold.__version__,
            "paths": list(self.paths),
            "from_run": self.from_run,
            "data": to_json(self.data),
            "train": to_json(self.train),
        }

    def save(self, path: Path) -> None:
        """Write config.json."""
        write_json(path, sealed(self.to_json()))

    @classmethod
    def load(cls, path: Path) -> "RunConfig":
        """Read config.json.

        Raises:
            BitfoldError: it is missing, damaged, changed, or of a newer format.
        """
        return cls.from_json(checked(path, RUN), path)

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: object = "config.json") -> "RunConfig":
        """Read what `to_json` wrote; `where` is what an error calls it."""
        found = record(values, _Config, where, fix="train anew")
        return cls(
            from_json(DataConfig, found.data, where),
            from_json(TrainConfig, found.train, where),
            found.paths,
            found.from_run,
        )


class _Config(msgspec.Struct, forbid_unknown_fields=True):
    """What config.json holds; the options are read one by one."""

    kind: str
    format: int
    bitfold: str
    paths: tuple[str, ...]
    from_run: str | None
    data: dict[str, Any]
    train: dict[str, Any]


@dataclass(frozen=True, repr=False)
class Run(Shown):
    """A trained model with all that it needs to score raw rows; `bitfold.load` reads one.

    `to_frame()` has one row of options and figures, so that frames of several runs can be joined.

    Args:
        path: its folder.
        model: a `ClickModel` in evaluation mode.
        schema: how raw rows become batches.
        config: the words it was trained with.
        metrics: the figures of metrics.json.
        plan: where the embeddings keep every number.
        dense: the map from hashed to dense ids, where the method needed one.
    """

    path: Path
    model: ClickModel
    schema: Schema
    config: RunConfig
    metrics: dict[str, Any]
    plan: Plan
    dense: Vocabulary | None = None

    def batches(
        self, data: "Data", batch_size: int = 8192, *, fields_only: bool = False, **reading: Any
    ) -> Iterator["Batch"]:
        """Raw rows as the model takes them, in the input's order.

        Args:
            data: as for `predict`.
            batch_size: B; the last batch may be smaller.
            fields_only: leave out labels, weights and groups, whatever they hold.
            reading: as for `predict`.
        """
        from bitfold.data.asked import reading_config
        from bitfold.data.raw import read_batches

        config = reading_config(self.schema.config, reading) if reading else None
        with near(data) as source:
            for batch in read_batches(
                source,
                self.schema,
                batch_size,
                fields_only=fields_only,
                encoder=self._encoder,
                reading=config,
            ):
                yield batch if self.dense is None else self.dense.apply(batch)

    @cached_property
    def _encoder(self) -> "RowEncoder":
        """What turns a few rows into ids, made once."""
        from bitfold.data.single import RowEncoder

        return RowEncoder(self.schema)

    @cached_property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return next(self.model.parameters()).device

    def predict(
        self, data: "Data", batch_size: int = 8192, **reading: Any
    ) -> npt.NDArray[np.float32]:
        """Probabilities `[B]` of raw rows, in the input's order.

        Only the fields and the numeric columns are needed; what else there is is not looked at.
        The types come from the values themselves and from the run's schema, never from the other
        rows: a row has the same score alone and among others.

        Args:
            data: files (paths or patterns); or rows in memory: a pandas or Polars frame, an Arrow
                table, columns by name, one dictionary, or any iterable of dictionaries. None, NaN
                and a key that is not there are missing values.
            batch_size: rows that are scored at once.
            reading: how files are read, if not as the run's log was: `format`, `separator`,
                `header`, `columns`, `missing`, `quote`, as for `bitfold predict`.

        Raises:
            BitfoldError: a column is missing, or holds what cannot be read.

        Example:
            >>> import bitfold
            >>> rows = {"user": [1, 2, 3, 4] * 50, "clicked": [0, 1, 1, 0] * 50}
            >>> run = bitfold.train(rows, label="clicked", fields="user", method="full", width=4)
            >>> run.predict([{"user": 1}, {"user": "new"}, {"user": None}]).shape
            (3,)
        """
        from bitfold.runs.predict import scores

        parts = list(scores(self, data, batch_size, **reading))
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def evaluate(
        self,
        data: "Data",
        part: str = "test",
        *,
        ranking: "RankConfig | None" = None,
        **reading: Any,
    ) -> dict[str, Any]:
        """What the run is worth on a log; see `bitfold.runs.evaluate.evaluate`."""
        from bitfold.runs.evaluate import evaluate

        return evaluate(self, data, part, ranking=ranking, **reading)

    def save(self, out: str | Path) -> Path:
        """Copy the run's folder, such as a temporary one that goes when the run does.

        Args:
            out: a folder that does not exist yet.

        Raises:
            BitfoldError: it exists, cannot be written, or the run's files were changed meanwhile.
        """
        from bitfold.outputs import new_folder
        from bitfold.training.folder import RUN as KIND_OF_RUN

        out = Path(out)
        if out.exists():
            raise BitfoldError(f"{out} exists", got="a folder in the way", fix="name another")
        verify(self.path)
        with new_folder(out, KIND_OF_RUN, inputs=[self.path]) as place:
            shutil.copytree(self.path, place, dirs_exist_ok=True)
        return out

    def records(self) -> list[dict[str, Any]]:
        """One row: the options that tell runs apart, and the figures."""
        words = self.config.train
        row: dict[str, Any] = {"run": str(self.path), "method": words.method}
        row |= {"budget": words.budget, "width": words.vector_width, "network": words.network}
        row["seed"] = words.seed
        plain = (int, float, str, type(None))
        return [row | {k: v for k, v in self.metrics.items() if isinstance(v, plain)}]

    def _title(self) -> str:
        auc = self.metrics.get("auc")
        words = self.config.train
        quality = "" if auc is None else f", AUC {auc:.4f}"
        return (
            f"Run {self.path}: {words.method}, {self.metrics.get('bytes', 0):,} bytes, "
            f"{words.network}{quality}"
        )

    def __repr__(self) -> str:
        return f"<{printable(self._title())}>"

    @cached_property
    def negative_rate(self) -> float | None:
        """The share of negatives that the training log kept; predictions are corrected for it."""
        return self.schema.config.negative_rate


def build_model(
    embeddings: nn.Module, schema: Schema, config: TrainConfig, *, seed: int
) -> ClickModel:
    """The model of a configuration, above given embeddings."""
    network = build_network(
        config.network,
        len(schema.fields),
        config.vector_width,
        len(schema.numeric_names),
        seed=seed,
        **config.network_options(tuple(network_options(config.network))),
    )
    return ClickModel(embeddings, network)


def save(
    folder: Path,
    *,
    model: ClickModel,
    schema: Schema,
    plan: Plan,
    metrics: Mapping[str, Any],
    dense: Vocabulary | None = None,
) -> None:
    """Complete a run whose config.json is there; the manifest comes last.

    Raises:
        BitfoldError: the disk refuses.
    """
    embeddings = model.embeddings
    assert isinstance(embeddings, EmbeddingCollection)
    served = ClickModel(embeddings.serving(), model.network)
    try:
        names = schema.save(folder)
        if dense is not None:
            dense.save(folder / DENSE)
            names.append(DENSE)
    except OSError as error:
        raise BitfoldError(f"cannot write {folder}", got=error.strerror or str(error)) from error
    write_json(folder / PLAN, plan.to_json())
    write_tensors(folder / WEIGHTS, served.state_dict())
    write_json(folder / METRICS, metrics)
    write_manifest(folder, [*names, CONFIG, PLAN, WEIGHTS, METRICS])


def load(path: str | Path, device: torch.device | str = "cpu") -> Run:
    """Read a run, every file checked against its manifest.

    Args:
        path: its folder, also one with a scheme such as `s3://`.
        device: where the model goes.

    Raises:
        BitfoldError: `path` is no finished run, is damaged, was changed, or is of a newer format.
    """
    if is_remote(path):
        with ExitStack() as stack:
            run = load(stack.enter_context(fetched([path]))[0], device)
            weakref.finalize(run, stack.pop_all().close)  # the copy goes with the run
        return run
    folder = Path(local_path(path) if isinstance(path, str) else path)
    files = verify(folder)
    config = RunConfig.load(files.path(CONFIG))
    schema = Schema.load(folder, files.path)
    dense = Vocabulary.load(files.path(DENSE)) if DENSE in files else None
    plan = Plan.from_json(read_object(files.path(PLAN), fix=AGAIN), files.path(PLAN))
    _check_fields(folder, schema, dense, plan)
    weights = files.path(WEIGHTS)
    shapes = _shapes(folder, plan, schema, config.train, weights)
    tensors, _ = read_tensors(weights, shapes=shapes)
    collection = EmbeddingCollection.from_plan(plan, seed=0, mode=config.train.bags)
    model = build_model(collection.serving(), schema, config.train, seed=0)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise BitfoldError(
            f"the weights of {folder} are not those of its plan",
            got=str(error).splitlines()[-1].strip(),
            expected="tensors of the planned names and shapes",
        ) from None
    model.to(device).eval().requires_grad_(False)
    return Run(folder, model, schema, config, read_metrics(files.path(METRICS)), plan, dense)


def _check_fields(folder: Path, schema: Schema, dense: Vocabulary | None, plan: Plan) -> None:
    """Raise unless the plan's fields are those that rows are read into."""
    fields = schema.embedding_fields()
    if dense is not None and len(dense.maps) != len(fields):
        raise broken(f"the run {folder}", "a map of other fields", "that of its schema", AGAIN)
    fields = fields if dense is None else dense.fields(fields)
    read = [(each.name, each.num_embeddings) for each in fields]
    planned = [(each.name, each.num_embeddings) for each in plan.fields]
    if read != planned:
        raise broken(f"the run {folder}", "a plan of other fields", "those of its schema", AGAIN)


def _shapes(
    folder: Path, plan: Plan, schema: Schema, config: TrainConfig, weights: Path
) -> dict[str, tuple[int, ...]]:
    """The shapes of the run's weights, by name; nothing of their size is allocated.

    Raises:
        BitfoldError: the run cannot be that large: its file of weights is smaller.
    """
    needed = plan.program.rows * (plan.embedding_dim // plan.program.chunks)
    held = file_size(weights)
    if needed * dtype_size(plan.dtype) > held:
        raise BitfoldError(
            f"the weights of {folder} are not those of its plan",
            got=f"{held:,} bytes in {WEIGHTS}",
            expected=f"{needed * dtype_size(plan.dtype):,} bytes for the embeddings alone",
            fix=AGAIN,
        )
    with torch.device("meta"):
        collection = EmbeddingCollection.from_plan(plan, seed=0, mode=config.bags)
        model = build_model(collection.serving(), schema, config, seed=0)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


__all__ = [
    "CONFIG", "DENSE", "KIND", "MANIFEST", "METRICS", "PARTS", "PLAN", "WEIGHTS", "Run",
    "RunConfig", "build_model", "is_complete", "is_run", "load", "read_metrics", "save", "verify",
]  # fmt: skip
