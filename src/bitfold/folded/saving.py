"""Folded models on the disk: the plans travel with the weights.

    FOLDER/model.safetensors   the state dict, plans included, sealed by a digest
    FOLDER/plans.json          the same plans, for people

A state dict of `torch.save` has the plans too: `load_model` reads any of them.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bitfold.embedding.building import built
from bitfold.errors import BitfoldError
from bitfold.files import read_notes, read_tensors, write_json, write_tensors
from bitfold.folded.constructing import Made
from bitfold.folded.exchange import MIN_ROWS, put_beside
from bitfold.folded.faces import Folded, folded_from
from bitfold.folded.finding import FoundTable, find_tables
from bitfold.folded.inputs import show_inputs
from bitfold.folded.joint import Joint
from bitfold.folded.record import PLAN, Recorded, read_record
from bitfold.outputs import Kind, new_folder
from bitfold.weights.torch_file import HOLDERS, read_state

WEIGHTS, PLANS = "model.safetensors", "plans.json"
FOLDED = Kind("folded model", (WEIGHTS, PLANS), lambda folder: (folder / WEIGHTS).is_file())
_FORMAT = "bitfold folded model 1"
_SAME = "same"
"""The note that says which names of a state dict are one tensor."""
_KEY = f".joint.{PLAN}"


def save(model: nn.Module, folder: str | Path, *, force: bool = False) -> Path:
    """Write a model's state dict and its plans into a new folder, whole or not at all.

    Save `bitfold.serving(model)` for the least bytes, the model itself to train on.

    Args:
        model: a folded model, or any other with embeddings of bitfold.
        folder: where.
        force: replace a folded model that is there.

    Raises:
        BitfoldError: the folder is there or cannot be written; the state is not all tensors.

    Example:
        >>> import tempfile
        >>> from bitfold.folded import fold
        >>> def make():
        ...     return nn.Sequential(nn.Embedding(50_000, 16), nn.Linear(16, 1))
        >>> model = fold(make(), "50x").model.eval()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     again = load_model(save(model, Path(folder, "model")), make)
        >>> torch.equal(again(torch.tensor([49_999])), model(torch.tensor([49_999])))
        True
    """
    state = model.state_dict()
    other = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if other:
        raise BitfoldError(
            "this model's state has more than tensors",
            got=", ".join(other[:5]),
            expected="a state dict of tensors",
            fix="torch.save(model.state_dict(), file); load_model reads that too",
        )
    tensors, same = _once(state)
    plans = {
        name.removesuffix(_KEY): read_record(value, name).plan.to_json()
        for name, value in state.items()
        if name.endswith(_KEY)
    }
    with new_folder(folder, FOLDED, force=force) as making:
        notes = {"format": _FORMAT}
        notes |= {f"{_SAME} {name}": first for name, first in same.items()}
        write_tensors(making / WEIGHTS, tensors, notes, seal=True)
        write_json(making / PLANS, {"version": 1, "plans": plans})
    return Path(folder)


def load_model(
    source: str | Path | Mapping[str, Any],
    make: Callable[[], nn.Module],
    *,
    device: torch.device | str | None = None,
) -> nn.Module:
    """The folded model of a checkpoint: built by `make`, folded as the checkpoint says, loaded.

    The full tables never get memory.

    Args:
        source: a folder of `bitfold.save`; a file of `torch.save` or safetensors with a state dict,
            also under the key `state_dict` or `model`; or a state dict.
        make: builds the model as it was before it was folded.
        device: where it goes; the CPU if None.

    Returns:
        The model in evaluation mode; `.train()` it to go on, unless it was packed.

    Raises:
        BitfoldError: the checkpoint is damaged or of another model; it says what differs.
    """
    state = _state(source)
    records = {
        name.removesuffix(_KEY): read_record(value, name)
        for name, value in state.items()
        if name.endswith(_KEY)
    }
    if not records:
        raise BitfoldError(
            "this checkpoint has no plan of folded tables",
            got=f"{len(state)} names, such as {next(iter(state), 'none')}",
            expected=f"a name that ends in {_KEY}",
            fix="load_state_dict into the model that it was saved from",
        )
    sizes = [f.num_embeddings or 1 for each in records.values() for f in each.plan.fields]
    with Made(min(sizes)) as made:
        model = make()
    made.forget()
    tables = {name: table for table in find_tables(model) for name in table.modules}
    joints = [_fold_as(owner, each, tables) for owner, each in records.items()]
    unique = {id(table): table for table in tables.values()}.values()
    whole = [table for table in unique if not isinstance(table.first, Folded)]
    joints = list({id(each): each for each in joints}.values())
    put_beside([each for each in whole if not each.left and each.rows < MIN_ROWS], joints)
    show_inputs(model, joints)
    for module in model.modules():  # those that were not folded
        for name, weight in module._parameters.items():
            if weight is not None and weight.is_meta:
                empty = torch.empty_like(weight, device="cpu")
                module._parameters[name] = nn.Parameter(empty, weight.requires_grad)
    try:
        model.load_state_dict(dict(state))
    except RuntimeError as error:
        raise BitfoldError(
            "the checkpoint is of another model than make() builds",
            got="; ".join(line.strip() for line in str(error).splitlines()[1:4]),
            expected="the names and shapes of this model",
        ) from None
    return model.to(device or "cpu").eval()


def _once(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Each tensor once, and which other names are the same tensor."""
    kept: dict[str, Tensor] = {}
    same: dict[str, str] = {}
    first: dict[Any, str] = {}
    for name, value in state.items():
        where = value.data_ptr(), tuple(value.shape), value.stride(), value.dtype, value.device
        if value.numel() and where in first:
            same[name] = first[where]
        else:
            first[where] = name
            kept[name] = value.clone() if _is_part(value) else value
    return kept, same


def _is_part(value: Tensor) -> bool:
    """Whether a tensor is a view of a larger memory, which would be written whole."""
    return value.untyped_storage().nbytes() != value.numel() * value.element_size()


def _state(source: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """The state dict that is meant."""
    if isinstance(source, Mapping):
        return _named(source, "this mapping")
    path = Path(source)
    if path.is_dir():
        return _sealed(path / WEIGHTS)
    if path.suffix == ".safetensors":
        ours = read_notes(path).get("format") == _FORMAT
        return _sealed(path) if ours else dict(read_tensors(path)[0])
    return read_state(path)


def _named(found: Mapping[str, Any], where: object) -> dict[str, Any]:
    """A state dict, or the one that lies in a checkpoint under a usual name."""
    for key in HOLDERS:
        inner = found.get(key)
        if isinstance(inner, Mapping):
            return dict(inner)
    return dict(found)


def _sealed(path: Path) -> dict[str, Any]:
    tensors, notes = read_tensors(path, sealed=True)
    found: dict[str, Any] = dict(tensors)
    for note, first in notes.items():
        what, _, name = note.partition(" ")
        if what == _SAME:
            found[name] = found[first]
    return found


def _fold_as(owner: str, record: Recorded, tables: Mapping[str, FoundTable]) -> Joint:
    """Fold tables of a fresh model as a checkpoint says."""
    plan = record.plan
    chosen = []
    for field in plan.fields:
        table = tables.get(field.name)
        shape = None if table is None else (table.rows, table.width)
        if table is None or shape != (field.num_embeddings, plan.embedding_dim):
            raise BitfoldError(
                f"the model that make() builds has another table at {field.name!r}",
                got="none" if shape is None else f"{shape[0]} rows of {shape[1]}",
                expected=f"{field.num_embeddings} rows of {plan.embedding_dim}",
                fix="make the model as it was before it was folded, with the same options",
            )
        chosen.append(table)
    if isinstance(chosen[0].first, Folded):  # a module in two places has its state there twice
        return chosen[0].first.joint
    embedder = built(plan, 0, "cpu", chosen[0].first.sparse)
    joint = Joint(embedder.serving() if record.packed else embedder)
    first = True
    for number, table in enumerate(chosen):
        for module in table.modules.values():
            folded_from(module, joint, number, owner=first)
            first = False
    return joint
