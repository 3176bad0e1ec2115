"""A run: a trained model and all it needs to score raw rows, in one folder.

    RUN/config.json          the words it was trained with
    RUN/schema.json          how raw rows become ids and numbers (vocabulary.safetensors beside)
    RUN/dense.safetensors    the map to dense ids, where the method needed one of its own
    RUN/plan.json            where the embeddings keep every number
    RUN/weights.safetensors  the serving weights
    RUN/metrics.json         what it is worth
    RUN/manifest.json        the format's version and each file's SHA-256; written last

A folder without a manifest is not a run: it is a training that has not ended. There is no pickle.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from bitfold.files import read_json, read_tensors, sha256, write_json, write_tensors
from bitfold.model import ClickModel
from bitfold.networks import build_network, network_options
from bitfold.plan_format import Plan
from bitfold.training.config import TrainConfig

if TYPE_CHECKING:
    from bitfold.data.batch import Batch
    from bitfold.data.frames import Data
    from bitfold.data.single import RowEncoder

KIND = "bitfold run"
FORMAT = 1
CONFIG, PLAN, WEIGHTS = "config.json", "plan.json", "weights.safetensors"
METRICS, MANIFEST, DENSE = "metrics.json", "manifest.json", "dense.safetensors"
PARTS = (CONFIG, "schema.json", "vocabulary.safetensors", DENSE, PLAN, WEIGHTS, METRICS)


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

        return {
            "kind": KIND,
            "format": FORMAT,
            "bitfold": bitfold.__version__,
            "paths": list(self.paths),
            "from_run": self.from_run,
            "data": to_json(self.data),
            "train": to_json(self.train),
        }

    @classmethod
    def from_json(cls, words: Mapping[str, Any]) -> "RunConfig":
        """Read what `to_json` wrote."""
        try:
            return cls(
                from_json(DataConfig, words["data"]),
                from_json(TrainConfig, words["train"]),
                tuple(words["paths"]),
                words["from_run"],
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise BitfoldError(
                "the run's config.json is damaged",
                got=f"{type(error).__name__}: {error}",
                expected="the words that train wrote",
            ) from None


@dataclass(frozen=True)
class Run:
    """A trained model with all that it needs to score raw rows; `bitfold.load` reads one.

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
        self, data: "Data", batch_size: int = 8192, *, fields_only: bool = False
    ) -> Iterator["Batch"]:
        """Raw rows as the model takes them, in the input's order.

        Args:
            data: as for `predict`.
            batch_size: B; the last batch may be smaller.
            fields_only: leave out labels, weights and groups, whatever they hold.
        """
        from bitfold.data.raw import read_batches

        for batch in read_batches(
            data, self.schema, batch_size, fields_only=fields_only, encoder=self._encoder
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

    def predict(self, data: "Data", batch_size: int = 8192) -> npt.NDArray[np.float32]:
        """Probabilities `[B]` of raw rows, in the input's order.

        Only the fields and the numeric columns are needed; what else there is is not looked at.
        The types come from the values themselves and from the run's schema, never from the other
        rows: a row has the same score alone and among others.

        Args:
            data: files (paths or patterns); or rows in memory: a pandas or Polars frame, an Arrow
                table, columns by name, one dictionary, or any iterable of dictionaries. None, NaN
                and a key that is not there are missing values.
            batch_size: rows that are scored at once.

        Raises:
            BitfoldError: a column is missing, or holds what cannot be read.

        Example:
            >>> import bitfold
            >>> rows = {"user": [1, 2, 3, 4] * 50, "clicked": [0, 1, 1, 0] * 50}
            >>> run = bitfold.train(rows, label="clicked", fields="user", method="full", width=4)
            >>> run.predict([{"user": 1}, {"user": "new"}, {"user": None}]).shape
            (3,)
        """
        from bitfold.predict import scores

        parts = list(scores(self, data, batch_size))
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def evaluate(self, data: "Data", part: str = "test") -> dict[str, float]:
        """What the run is worth on a log; see `bitfold.evaluate.evaluate`."""
        from bitfold.evaluate import evaluate

        return evaluate(self, data, part)

    def save(self, out: str | Path) -> Path:
        """Copy the run's folder, such as a temporary one that goes when the run does.

        Args:
            out: a folder that does not exist yet.

        Raises:
            BitfoldError: it exists, cannot be written, or the run's files were changed meanwhile.
        """
        out = Path(out)
        if out.exists():
            raise BitfoldError(f"{out} exists", got="a folder in the way", fix="name another")
        verify(self.path)
        part = out.with_name(f".{out.name}.{os.getpid()}.part")
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(self.path, part)
            part.rename(out)
        except (OSError, shutil.Error) as error:
            raise BitfoldError(f"cannot write {out}", got=str(error)) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return out

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
        schema.save(folder)
        if dense is not None:
            dense.save(folder / DENSE)
    except OSError as error:
        raise BitfoldError(f"cannot write {folder}", got=error.strerror or str(error)) from error
    write_json(folder / PLAN, plan.to_json())
    write_tensors(folder / WEIGHTS, served.state_dict())
    write_json(folder / METRICS, metrics)
    names = sorted(file.name for file in folder.iterdir() if _belongs(file))
    files = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)}
        for name in names
    }
    manifest = {
        "kind": KIND,
        "format": FORMAT,
        "bitfold": bitfold.__version__,
        "files": files,
    }
    write_json(folder / MANIFEST, manifest)


def _belongs(file: Path) -> bool:
    """Whether a file is one that a run is made of; somebody may have put others beside them."""
    return file.is_file() and file.name in PARTS


def is_run(folder: Path) -> bool:
    """Whether `folder` holds a run, finished or not."""
    for name in (MANIFEST, CONFIG):
        try:
            if read_json(folder / name).get("kind") == KIND:
                return True
        except (BitfoldError, OSError):
            continue
    return False


def is_complete(folder: Path) -> bool:
    """Whether the run in `folder` has ended."""
    return (folder / MANIFEST).is_file()


def verify(folder: Path) -> None:
    """Check that a run is whole.

    Raises:
        BitfoldError: not a run, not finished, of a newer format, truncated or changed.
    """
    if not is_complete(folder):
        unfinished = (folder / CONFIG).is_file()
        raise BitfoldError(
            f"{folder} is not a finished run",
            got="a training that has not ended" if unfinished else "no manifest.json",
            expected="a folder that train has finished",
            fix="go on with --resume" if unfinished else "check the path",
        )
    manifest = read_json(folder / MANIFEST)
    version = manifest.get("format")
    if manifest.get("kind") != KIND or not isinstance(version, int):
        raise BitfoldError(f"{folder} is not a run", got="another manifest", expected=KIND)
    if version > FORMAT:
        raise BitfoldError(
            f"{folder} is of a newer format",
            got=f"format {version}, written by bitfold {manifest.get('bitfold')}",
            expected=f"format {FORMAT} or older",
            fix="install a newer bitfold",
        )
    files = manifest.get("files")
    if not isinstance(files, dict) or not {CONFIG, PLAN, WEIGHTS, METRICS} <= files.keys():
        raise BitfoldError(
            f"the manifest of {folder} is damaged", got="an incomplete list of files"
        )
    for name, seal in files.items():
        file = folder / Path(name).name
        if not file.is_file():
            raise BitfoldError(
                f"the run {folder} lacks {name}", got="no such file", fix="copy the whole folder"
            )
        size = file.stat().st_size
        if size != seal["bytes"]:
            raise BitfoldError(
                f"{file} is not what was saved",
                got=f"{size:,} bytes",
                expected=f"{seal['bytes']:,} bytes",
                fix="copy the run again",
            )
        if sha256(file) != seal["sha256"]:
            raise BitfoldError(
                f"{file} is not what was saved",
                got="another SHA-256",
                expected=seal["sha256"],
                fix="copy the run again; a run's files must not be edited",
            )


def load(path: str | Path, device: torch.device | str = "cpu") -> Run:
    """Read a run, every file checked against its manifest.

    Raises:
        BitfoldError: `path` is no finished run, is damaged, was changed, or is of a newer format.
    """
    folder = Path(path)
    verify(folder)
    config = RunConfig.from_json(read_json(folder / CONFIG))
    schema = Schema.load(folder)
    dense = Vocabulary.load(folder / DENSE) if (folder / DENSE).is_file() else None
    plan = Plan.from_json(read_json(folder / PLAN))
    collection = EmbeddingCollection.from_plan(plan, mode=config.train.bags)
    model = build_model(collection.serving(), schema, config.train, seed=0)
    tensors, _ = read_tensors(folder / WEIGHTS)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise BitfoldError(
            f"the weights of {folder} are not those of its plan",
            got=str(error).splitlines()[-1].strip(),
            expected="tensors of the planned names and shapes",
        ) from None
    model.to(device).eval().requires_grad_(False)
    return Run(folder, model, schema, config, read_json(folder / METRICS), plan, dense)
