"""All that a training of towers needs to go on as if it had never stopped.

As `bitfold.training.checkpoint`: one sealed file replaces the one before in one rename, and the
best weights so far lie in a file of their own that is written before the checkpoint that names it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from bitfold.files import check_seal, read_tensors, remove_parts, write_tensors
from bitfold.planning.plan import Plan
from bitfold.records import Count, Number, broken, build, inside, parse_object
from bitfold.retrieval.memory import Memory
from bitfold.training.checkpoint import (
    ANEW,
    FILE,
    BestFile,
    exists,
    load_weights,
    plan_of,
    put_states,
    shapes_of,
    write_parts,
)

__all__ = ["Position", "exists", "load", "load_best", "plan_of", "save", "save_best"]

FORMAT = "1"


@dataclass
class Position:
    """Where a training stands.

    `epoch` and `batch` name the next batch; `loss` and `rows` are summed over the epoch so far.
    """

    epoch: Count = 0
    batch: Count = 0
    step: Count = 0
    seconds: Number = 0.0
    step_seconds: Number = 0.0
    loss: Number = 0.0
    rows: Count = 0
    all_rows: Count = 0
    best: Number | None = None
    best_epoch: Count = 0
    worse_epochs: Count = 0
    training_bytes: Count = 0
    finished: bool = False
    best_file: BestFile | None = None
    log_digest: str | None = None
    valid: list[dict[str, Number | None]] = field(default_factory=list)


def save(
    folder: Path,
    position: Position,
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    memory: Memory | None,
    plan: Plan | None = None,
) -> None:
    """Write the checkpoint in `folder`, and remove what it no longer names."""
    more = {
        "memory": memory.tensors() if memory else {},
        "random": {"cpu": torch.get_rng_state()},
    }
    write_parts(folder, {"towers": FORMAT}, position, model, optimizers, more, plan)


def save_best(folder: Path, position: Position, model: nn.Module) -> None:
    """Keep the model's weights as the best so far; the next checkpoint names them."""
    position.best_file = f"best-{position.best_epoch}.safetensors"
    write_tensors(folder / position.best_file, model.state_dict(), seal=True)


def load_best(folder: Path, position: Position, model: nn.Module) -> None:
    """Put the best weights into the model; nothing happens if none were kept."""
    if position.best_file is not None:
        path = inside(folder, position.best_file, fix=ANEW)
        tensors, _ = read_tensors(path, sealed=True, shapes=shapes_of(model))
        load_weights(model, tensors)


def load(
    folder: Path,
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    memory: Memory | None,
) -> Position:
    """Bring the model, the optimizers, the memory and the random state to the checkpoint.

    Raises:
        BitfoldError: the checkpoint is damaged, of a newer format, or of another model.
    """
    remove_parts(folder)
    path = folder / FILE
    tensors, notes = read_tensors(path, fix=ANEW)
    if notes.get("towers") != FORMAT:
        raise broken(path, f"format {notes.get('towers')}"[:80], f"format {FORMAT}", ANEW)
    check_seal(path, tensors, notes)
    parts: dict[str, dict[str, Tensor]] = {
        name: {} for name in ("model", "optimizer", "memory", "random")
    }
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    found = parse_object(notes.get("position", "").encode(), path, fix=ANEW)
    position = build(found, Position, path, fix=ANEW)
    load_weights(model, parts["model"])
    scalars = parse_object(notes.get("optimizer", "").encode(), path, fix=ANEW)
    put_states(optimizers, parts["optimizer"], scalars, path)
    if memory is not None:
        memory.load(parts["memory"])
    torch.set_rng_state(parts["random"]["cpu"].clone())
    return position
