"""Checkpoints: all that training needs to go on as if it had never stopped.

A checkpoint is one safetensors file: the model, the optimizers' states, the random state, and in
its header the position as JSON. It replaces the one before in one rename, so a process that is
killed while writing leaves the old one whole. The best weights so far lie in a file of their own
that is written before the checkpoint that names it. Each file has a digest of its tensors and its
notes (XXH3-128); checkpoints of format 2 have none.
"""

import dataclasses
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

import torch
from msgspec import Meta
from torch import Tensor, nn

from bitfold.errors import BitfoldError
from bitfold.files import (
    check_seal,
    read_notes,
    read_tensors,
    remove_parts,
    without_nan,
    write_tensors,
)
from bitfold.planning.plan import Plan
from bitfold.records import Count, Number, broken, build, inside, parse_object

FORMAT = 3
OLDEST = 3  # parameters were counted otherwise before, and losses not weighted
FILE = "state.safetensors"
ANEW = "train anew with --force"


BestFile = Annotated[str, Meta(pattern=r"^best-[0-9]{1,9}\.safetensors$")]


@dataclass
class Position:
    """Where training stands, apart from tensors.

    `epoch` and `batch` name the next batch; `step` counts all steps; `rows` and `step_seconds`
    those trained so far, of which `warm_rows` and `warm_seconds` are those of each process's first
    steps; `seconds` the whole time, validation included. Losses are summed over
    rows, each times its weight, in the epoch and since the last line of the log.
    `sealed`: the best weights have a digest. `log_digest`: of the prepared log's manifest.
    The best epoch is that of the phase, where a method trains in several.
    """

    epoch: Count = 0
    batch: Count = 0
    step: Count = 0
    rows: Count = 0
    seconds: Number = 0.0
    step_seconds: Number = 0.0
    warm_rows: Count = 0
    warm_seconds: Number = 0.0
    epoch_loss: Number = 0.0
    epoch_rows: Count = 0
    epoch_weight: Number = 0.0
    window_loss: Number = 0.0
    window_weight: Number = 0.0
    best_auc: Number | None = None
    best_epoch: Count = 0
    worse_epochs: Count = 0
    training_bytes: Count = 0
    log_size: Count = 0
    log_digest: str | None = None
    finished: bool = False
    best_file: BestFile | None = None
    valid: list[dict[str, Number | None]] = field(default_factory=list)
    sealed: bool = True

    @property
    def rows_per_second(self) -> float:
        """Rows trained a second, without the first steps, which compile the kernels."""
        rows, seconds = self.rows - self.warm_rows, self.step_seconds - self.warm_seconds
        if rows == 0:  # nothing but first steps
            rows, seconds = self.rows, self.step_seconds
        return rows / max(seconds, 1e-9)


P = TypeVar("P", bound=Position)


def save(
    folder: Path,
    position: Position,
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    random: dict[str, Tensor],
    plan: Plan | None = None,
    beside: nn.Module | None = None,
) -> None:
    """Write the checkpoint in `folder`, and remove what it no longer names.

    A plan is kept where it is not the one that training began with; a module `beside` the model,
    such as a generator of targets, where there is one (its optimizer is among the others).
    """
    more = {"random": random}
    if beside is not None:
        more["targets"] = beside.state_dict()
    write_parts(folder, {"format": str(FORMAT)}, position, model, optimizers, more, plan)


class Standing(Protocol):
    """What a position of any training tells a checkpoint."""

    best_file: str | None


def write_parts(
    folder: Path,
    kind: dict[str, str],
    position: Standing,
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    more: Mapping[str, Mapping[str, Tensor]],
    plan: Plan | None,
) -> None:
    """Write a checkpoint in `folder`, and remove the weights that it no longer names.

    Args:
        folder: of the training.
        kind: the name of its format, and its version.
        position: a dataclass.
        model: its weights are the part `model`.
        optimizers: their states are the part `optimizer`.
        more: further parts.
        plan: the model's, where it is kept.
    """
    held, scalars = states_of(optimizers)
    parts = {"model": model.state_dict(), "optimizer": held, **more}
    tensors = {f"{part}.{name}": each for part, own in parts.items() for name, each in own.items()}
    notes = {
        **kind,
        "position": json.dumps(without_nan(dataclasses.asdict(position))),  # type: ignore[call-overload]
        "optimizer": json.dumps(scalars),
    }
    if plan is not None:
        notes["plan"] = json.dumps(plan.to_json())
    write_tensors(folder / FILE, tensors, notes, seal=True)
    for old in folder.glob("best-*.safetensors"):
        if old.name != position.best_file:
            old.unlink(missing_ok=True)


def save_best(folder: Path, position: Position, model: nn.Module) -> None:
    """Keep the model's weights as the best so far; the next checkpoint names them."""
    position.sealed = True
    position.best_file = f"best-{position.best_epoch}.safetensors"
    write_tensors(folder / position.best_file, model.state_dict(), {"format": "3"}, seal=True)


def load_best(folder: Path, position: Position, model: nn.Module) -> None:
    """Put the best weights into the model; nothing happens if none were kept."""
    if position.best_file is not None:
        path = inside(folder, position.best_file, fix=ANEW)
        tensors, _ = read_tensors(path, sealed=position.sealed, shapes=shapes_of(model))
        load_weights(model, tensors)


def exists(folder: Path) -> bool:
    """Whether there is a checkpoint to go on from."""
    return (folder / FILE).is_file()


def plan_of(folder: Path) -> Plan | None:
    """The plan of the checkpoint's model, where an earlier phase has ended in it.

    Raises:
        BitfoldError: the checkpoint is damaged.
    """
    path = folder / FILE
    text = read_notes(path, fix=ANEW).get("plan")
    if text is None:
        return None
    return Plan.from_json(parse_object(text.encode(), path, fix=ANEW), path)


def load(
    folder: Path,
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    beside: nn.Module | None = None,
    kind: type[P] = Position,  # type: ignore[assignment]
) -> tuple[P, dict[str, Tensor]]:
    """Bring the model and the optimizers to the checkpoint; returns the position, which is of a
    `kind` of its own where the loop is, and the random state.

    Raises:
        BitfoldError: the checkpoint is damaged, of a newer format, or of another model.
    """
    remove_parts(folder)
    path = folder / FILE
    tensors, notes = read_tensors(path, fix=ANEW)
    try:
        version = int(notes.get("format", ""))
    except ValueError:
        version = 0
    if not OLDEST <= version <= FORMAT:
        newer = version > FORMAT
        raise BitfoldError(
            "the checkpoint is of another format",
            got=f"format {notes.get('format')}"[:80],
            expected=f"{OLDEST} to {FORMAT}",
            fix="install a newer bitfold"
            if newer
            else f"resume with the one that wrote it, or {ANEW}",
        )
    if version >= 3:
        check_seal(path, tensors, notes)
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}, "random": {}}
    parts |= {"targets": {}} if beside is not None else {}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        if part not in parts:
            raise broken(path, f"a tensor {name!r}"[:80], "the tensors of a checkpoint", ANEW)
        parts[part][rest] = tensor
    found = parse_object(notes.get("position", "").encode(), path, fix=ANEW)
    position = build(found, kind, path, fix=ANEW)
    position.sealed = position.sealed and version >= 3
    load_weights(model, parts["model"])
    if beside is not None:
        load_weights(beside, parts["targets"])
    scalars = parse_object(notes.get("optimizer", "").encode(), path, fix=ANEW)
    put_states(optimizers, parts["optimizer"], scalars, path)
    done = position.epoch
    if (
        done != len(position.valid)
        or position.best_epoch > done
        or (position.best_epoch == 0) != (done == 0)
        or (position.finished and done == 0)
    ):
        got = f"{done} epochs, {len(position.valid)} measured, the best {position.best_epoch}"
        raise broken(path, got, "as many as were measured, and the best of them", ANEW)
    return position, parts["random"]


def states_of(
    optimizers: Sequence[torch.optim.Optimizer],
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What optimizers keep of their parameters, as `OPTIMIZER.PARAMETER.NAME`: tensors, numbers."""
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, Any] = {}
    for which, optimizer in enumerate(optimizers):
        for number, state in optimizer.state_dict()["state"].items():
            for key, value in state.items():
                held = tensors if isinstance(value, Tensor) else scalars
                held[f"{which}.{number}.{key}"] = value
    return tensors, scalars


def put_states(
    optimizers: Sequence[torch.optim.Optimizer],
    tensors: Mapping[str, Tensor],
    scalars: Mapping[str, Any],
    path: Path,
) -> None:
    """Give optimizers what `states_of` found; `path` is what an error calls it.

    Raises:
        BitfoldError: the states are of other optimizers or parameters.
    """
    states: list[dict[int, dict[str, Any]]] = [{} for _ in optimizers]
    try:
        for name, value in [*tensors.items(), *scalars.items()]:
            which, number, key = name.split(".", 2)
            states[int(which)].setdefault(int(number), {})[key] = value
        for optimizer, state in zip(optimizers, states, strict=True):
            _check_state(optimizer, state)
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": state, "param_groups": groups})
    except BitfoldError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, RuntimeError, AttributeError) as error:
        raise broken(path, error, "the optimizers' states", ANEW) from None


def load_weights(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put weights into the model."""
    try:
        model.load_state_dict(tensors)
    except (RuntimeError, BitfoldError) as error:
        raise BitfoldError(
            "the checkpoint is of another model",
            got=str(error).splitlines()[-1].strip(),
            expected="the weights of this configuration",
            fix=f"resume with the same options, or {ANEW}",
        ) from None


def _check_state(optimizer: torch.optim.Optimizer, state: dict[int, dict[str, Any]]) -> None:
    """Raise unless every tensor of an optimizer's state is as large as its parameter, a row of it,
    or one number: kernels take their sizes from the parameter.
    """
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    for number, values in state.items():
        parameter = parameters[number] if 0 <= number < len(parameters) else None
        for key, value in values.items():
            if parameter is None:
                raise ValueError(f"a state of parameter {number}, of {len(parameters)}")
            if isinstance(value, Tensor) and tuple(value.shape) not in (
                (), (1,), tuple(parameter.shape), tuple(parameter.shape[:1])
            ):  # fmt: skip
                raise ValueError(f"{key} of shape {list(value.shape)} for {list(parameter.shape)}")
        wanted = _state_names(optimizer)
        if wanted and values.keys() != wanted:
            raise ValueError(f"{', '.join(values)} of parameter {number}")


def _state_names(optimizer: torch.optim.Optimizer) -> set[str]:
    """What one of PyTorch's optimizers keeps of a parameter; ours check their states themselves."""
    kind = type(optimizer)
    if not kind.__module__.startswith("torch.optim"):
        return set()
    parameter = nn.Parameter(torch.zeros(1))
    parameter.grad = torch.zeros(1)
    known = inspect.signature(kind.__init__).parameters
    said = {name: value for name, value in optimizer.defaults.items() if name in known}
    probe = kind([parameter], **said)
    probe.step()
    return set(probe.state[parameter])


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shapes of a model's state, by name."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
