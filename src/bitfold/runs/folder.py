"""A run on the disk: a trained model and all it needs to score raw rows, in one folder.

    RUN/config.json          the options it was trained with
    RUN/schema.json          how raw rows become ids and numbers (vocabulary.safetensors and
                             known.safetensors beside)
    RUN/dense.safetensors    the map to dense ids, where the method needed one of its own
    RUN/cold.safetensors     the ids with few clicks and their prototypes, where there are such
    RUN/plan.json            where the embeddings keep every number
    RUN/weights.safetensors  the serving weights
    RUN/metrics.json         what it is worth
    RUN/manifest.json        the format's version and each file's SHA-256; written last

A folder without a manifest is not a run: it is a training that has not ended. There is no pickle.
"""

import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bitfold.data.schema import Schema
from bitfold.data.vocabulary import Vocabulary
from bitfold.embedding import EmbeddingCollection
from bitfold.errors import BitfoldError
from bitfold.files import read_tensors, write_json, write_tensors
from bitfold.nets.building import build_network, network_options
from bitfold.nets.model import ClickModel
from bitfold.planning.plan import Plan
from bitfold.records import broken, file_size, read_object
from bitfold.remote import fetched, is_remote, local_path
from bitfold.runs.cold_file import load_cold, save_cold
from bitfold.runs.config import RunConfig
from bitfold.runs.manifest import (
    AGAIN,
    COLD,
    CONFIG,
    DENSE,
    METRICS,
    PLAN,
    WEIGHTS,
    read_metrics,
    verify,
    write_manifest,
)
from bitfold.runs.options import TrainConfig
from bitfold.runs.plugins import check_plugins
from bitfold.runs.run import Run


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
        sets=config.embedding_sets,
        **config.network_options(tuple(network_options(config.network))),
    )
    return ClickModel(embeddings, network, config.embedding_sets)


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
    served = ClickModel(embeddings.serving(), model.network, model.sets)
    try:
        names = schema.save(folder)
        if dense is not None:
            dense.save(folder / DENSE)
            names.append(DENSE)
    except OSError as error:
        raise BitfoldError(f"cannot write {folder}", got=error.strerror or str(error)) from error
    if model.cold is not None:
        save_cold(folder / COLD, model.cold)
        names.append(COLD)
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
    _check_fields(folder, schema, dense, plan, config.train.embedding_sets)
    check_plugins(folder, config.plugins, {plan.method, *(each.method for each in plan.groups)})
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
    if config.cold.on:
        model.cold = load_cold(files.path(COLD), schema, config)
    model.to(device).eval().requires_grad_(False)
    metrics = read_metrics(files.path(METRICS))
    return Run(folder, model, schema, config, metrics, plan, dense, files.digest)


def _check_fields(
    folder: Path, schema: Schema, dense: Vocabulary | None, plan: Plan, sets: int
) -> None:
    """Raise unless the plan's fields are those that rows are read into, in so many sets."""
    fields = schema.embedding_fields()
    if dense is not None and len(dense.maps) != len(fields):
        raise broken(f"the run {folder}", "a map of other fields", "that of its schema", AGAIN)
    fields = fields if dense is None else dense.fields(fields)
    read = [(each.name, each.num_embeddings) for each in fields]
    planned = [(each.name, each.num_embeddings) for each in plan.set_fields]
    if plan.sets != sets:
        raise broken(f"the run {folder}", f"a plan of {plan.sets} sets", f"of {sets}", AGAIN)
    if read != planned:
        raise broken(f"the run {folder}", "a plan of other fields", "those of its schema", AGAIN)


def _shapes(
    folder: Path, plan: Plan, schema: Schema, config: TrainConfig, weights: Path
) -> dict[str, tuple[int, ...]]:
    """The shapes of the run's weights, by name; nothing of their size is allocated.

    Raises:
        BitfoldError: the run cannot be that large: its file of weights is smaller.
    """
    held = file_size(weights)
    if plan.bytes > held:
        raise BitfoldError(
            f"the weights of {folder} are not those of its plan",
            got=f"{held:,} bytes in {WEIGHTS}",
            expected=f"{plan.bytes:,} bytes for the embeddings alone",
            fix=AGAIN,
        )
    with torch.device("meta"):
        collection = EmbeddingCollection.from_plan(plan, seed=0, mode=config.bags)
        model = build_model(collection.serving(), schema, config, seed=0)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
