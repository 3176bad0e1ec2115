"""A retriever on the disk: towers, the vectors of users and items, an index, in one folder.

RUN/config.json          the options it was trained with
RUN/schema.json          how raw rows become ids and numbers (vocabulary.safetensors and
                         known.safetensors beside)
RUN/dense.safetensors    the map to dense ids, where the method needed one of its own
RUN/plan.json            where the embeddings keep every number
RUN/weights.safetensors  the serving weights
RUN/items.safetensors    the items: ids, vectors in few bits
RUN/users.safetensors    the users: ids, vectors in float32
RUN/index.faiss          the approximate index, if there is one
RUN/metrics.json         what it is worth
RUN/manifest.json        the format's version and each file's SHA-256; written last
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

import bitfold
from bitfold.config import from_json, to_json
from bitfold.data.config import DataConfig
from bitfold.data.folder import PREPARED
from bitfold.data.newness import KNOWN_FILE
from bitfold.data.schema import SCHEMA_FILE, VOCABULARY_FILE, Schema
from bitfold.data.vocabulary import Vocabulary
from bitfold.embedding import EmbeddingCollection
from bitfold.files import atomic, read_tensors, write_json, write_tensors
from bitfold.method.registry import PluginFile
from bitfold.outputs import Kind
from bitfold.planning.plan import Plan
from bitfold.records import Form, broken, checked, read_object, record, sealed
from bitfold.retrieval.index import Approximate, Exact, Index
from bitfold.retrieval.lowbit import LowBit
from bitfold.retrieval.options import RetrieveConfig
from bitfold.retrieval.positives import Layout
from bitfold.retrieval.retriever import Retriever
from bitfold.retrieval.towers import TwoTowers, build_towers
from bitfold.runs.manifest import (
    AGAIN,
    CHECKPOINT,
    CONFIG,
    DENSE,
    LOG,
    MANIFEST,
    METRICS,
    PLAN,
    WEIGHTS,
    Digest,
    is_complete,
    is_run,
    verify,
    write_manifest,
)
from bitfold.runs.plugins import check_plugins

__all__ = ["RETRIEVER", "RunConfig", "above", "is_complete", "load", "save", "whole"]

KIND = "bitfold retriever"
FORM = Form(KIND, 1, "kind", "format", sealed_from=1, fix=AGAIN)
ITEMS, USERS, INDEX = "items.safetensors", "users.safetensors", "index.faiss"
NEEDED = (CONFIG, PLAN, WEIGHTS, METRICS, SCHEMA_FILE, ITEMS, USERS)
PARTS = (*NEEDED, VOCABULARY_FILE, KNOWN_FILE, DENSE, INDEX, MANIFEST)
COMMAND = "retrieve"

RETRIEVER = Kind(
    "retriever",
    (*PARTS, f"{CHECKPOINT}/*.safetensors", *PREPARED.within(LOG)),
    lambda folder: is_run(folder, KIND),
)
"""A retriever's folder as an output, the work of a training that goes on included."""


class _Plugin(msgspec.Struct, forbid_unknown_fields=True):
    path: str
    sha256: Digest
    methods: tuple[str, ...]


class _Config(msgspec.Struct, forbid_unknown_fields=True):
    kind: str
    format: int
    bitfold: str
    paths: tuple[str, ...]
    data: dict[str, Any]
    retrieve: dict[str, Any]
    plugins: tuple[_Plugin, ...] = ()


@dataclass(frozen=True)
class RunConfig:
    """The options of a retriever.

    Args:
        data: how its log was read.
        retrieve: how it was trained.
        paths: the log.
        plugins: the plugin files that were loaded.
    """

    data: DataConfig
    retrieve: RetrieveConfig
    paths: tuple[str, ...] = ()
    plugins: tuple[PluginFile, ...] = ()

    def save(self, folder: Path) -> None:
        """Write config.json."""
        value = FORM.head() | {
            "bitfold": bitfold.__version__,
            "paths": list(self.paths),
            "data": to_json(self.data),
            "retrieve": to_json(self.retrieve),
            "plugins": [to_json(file) for file in self.plugins],
        }
        write_json(folder / CONFIG, sealed(value))

    @classmethod
    def load(cls, path: Path) -> "RunConfig":
        """Read config.json.

        Raises:
            BitfoldError: it is missing, damaged, changed, or of a newer format.
        """
        found = record(checked(path, FORM), _Config, path, fix="train anew")
        return cls(
            from_json(DataConfig, found.data, path),
            from_json(RetrieveConfig, found.retrieve, path),
            found.paths,
            tuple(PluginFile(each.path, each.sha256, each.methods) for each in found.plugins),
        )


def above(collection: torch.nn.Module, layout: Layout, config: RetrieveConfig) -> TwoTowers:
    """Fresh towers of a configuration above given embeddings."""
    return build_towers(
        collection,
        layout,
        config.width,
        pooling=config.pooling,
        hidden=config.hidden,
        dropout=config.dropout,
        unit=config.similarity == "cosine",
        seed=config.seed,
        prior=config.popularity * config.temperature,
    )


def save(
    folder: Path,
    *,
    model: TwoTowers,
    schema: Schema,
    plan: Plan,
    metrics: Mapping[str, Any],
    dense: Vocabulary | None,
    items: tuple[Tensor, LowBit],
    users: tuple[Tensor, Tensor],
    index: Index,
) -> None:
    """Complete a retriever whose config.json is there; the manifest comes last.

    Args:
        folder: where.
        model: the trained towers, above their serving embeddings.
        schema: of the log.
        plan: of the embeddings.
        metrics: what it is worth.
        dense: the map to dense ids, if there is one.
        items: ids int64 `[I]`, and vectors.
        users: hashed users int64 `[U]`, and vectors `[U, D]`.
        index: what is searched.
    """
    names = schema.save(folder)
    if dense is not None:
        dense.save(folder / DENSE)
        names.append(DENSE)
    write_json(folder / PLAN, plan.to_json())
    write_tensors(folder / WEIGHTS, model.state_dict())
    ids, rows = items
    notes = {"bits": str(rows.bits), "width": str(rows.width)}
    write_tensors(folder / ITEMS, {"ids": ids, "codes": rows.codes, "steps": rows.steps}, notes)
    write_tensors(folder / USERS, {"ids": users[0], "vectors": users[1]})
    if isinstance(index, Approximate):
        with atomic(folder / INDEX) as part:
            part.write_bytes(index.content.tobytes())
        names.append(INDEX)
    write_json(folder / METRICS, metrics)
    write_manifest(folder, [*names, CONFIG, PLAN, WEIGHTS, ITEMS, USERS, METRICS], FORM)


def whole(folder: Path) -> Any:
    """The files of a finished retriever, each found to be what was saved.

    Raises:
        BitfoldError: it is no retriever, not finished, or not what was saved.
    """
    return verify(folder, FORM, NEEDED, COMMAND)


def load(path: str | Path) -> Retriever:
    """Read a retriever, every file checked against its manifest.

    Raises:
        BitfoldError: `path` is no finished retriever, is damaged, was changed, or is of a newer
            format; or its index needs faiss, which is not installed.
    """
    import numpy as np

    folder = Path(path)
    files = whole(folder)
    config = RunConfig.load(files.path(CONFIG))
    schema = Schema.load(folder, files.path)
    dense = Vocabulary.load(files.path(DENSE)) if DENSE in files else None
    plan = Plan.from_json(read_object(files.path(PLAN), fix=AGAIN), files.path(PLAN))
    check_plugins(folder, config.plugins, {plan.method, *(each.method for each in plan.groups)})
    layout = Layout.of(schema, dense, config.retrieve.history)
    collection = EmbeddingCollection.from_plan(plan, seed=0)
    model = above(collection.serving(), layout, config.retrieve)
    shapes = {name: tuple(each.shape) for name, each in model.state_dict().items()}
    model.load_state_dict(read_tensors(files.path(WEIGHTS), shapes=shapes)[0])
    rows, ids = _items(files.path(ITEMS))
    users, _ = read_tensors(files.path(USERS))
    index: Index = Exact(rows)
    if INDEX in files:
        content = np.frombuffer(files.path(INDEX).read_bytes(), np.uint8)
        index = Approximate.load(content, config.retrieve.index_effort)
    return Retriever(
        path=folder,
        model=model.eval().requires_grad_(False),
        layout=layout,
        config=config.retrieve,
        metrics=read_object(files.path(METRICS), fix=AGAIN),
        plan=plan,
        item_ids=ids,
        rows=rows,
        user_ids=users["ids"],
        user_vectors=users["vectors"],
        index=index,
    )


def _items(path: Path) -> tuple[LowBit, Tensor]:
    tensors, notes = read_tensors(path)
    try:
        bits, width = int(notes["bits"]), int(notes["width"])
        rows = LowBit(tensors["codes"], tensors["steps"], width, bits)
        if len(tensors["ids"]) != len(rows.codes):
            raise ValueError("ids of other rows")
    except (KeyError, ValueError) as error:
        raise broken(path, error, "items and their vectors", AGAIN) from None
    return rows, tensors["ids"]
