"""Checkpoints: all that training needs to go on as if it had never stopped.

A checkpoint is one safetensors file: the model, the optimizers' states, the random state, and in
its header the position as JSON. It replaces the one before in one rename, so a process that is
killed while writing leaves the old one whole. The best weights so far lie in a file of their own
that is written before the checkpoint that names it.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bitfold.errors import BitfoldError
from bitfold.files import read_tensors, remove_parts, write_tensors

FORMAT = 2
FILE = "state.safetensors"


@dataclass
class Position:
    """Where training stands, apart from tensors.

    `epoch` and `batch` name the next batch; `step` counts all steps; `rows` and `step_seconds`
    those trained so far, of which `warm_rows` and `warm_seconds` are those of each process's first
    steps; `seconds` the whole time, validation included. Losses are summed over
    rows, in the epoch and since the last line of the log.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    rows: int = 0
    seconds: float = 0.0
    step_seconds: float = 0.0
    warm_rows: int = 0
    warm_seconds: float = 0.0
    epoch_loss: float = 0.0
    epoch_rows: int = 0
    window_loss: float = 0.0
    window_rows: int = 0
    best_auc: float | None = None
    best_epoch: int = 0
    worse_epochs: int = 0
    training_bytes: int = 0
    log_size: int = 0
    finished: bool = False
    best_file: str | None = None
    valid: list[dict[str, Any]] = field(default_factory=list)

    @property
    def rows_per_second(self) -> float:
        """Rows trained a second, without the first steps, which compile the kernels."""
        rows, seconds = self.rows - self.warm_rows, self.step_seconds - self.warm_seconds
        if rows == 0:  # nothing but first steps
            rows, seconds = self.rows, self.step_seconds
        return rows / max(seconds, 1e-9)


def save(
    folder: Path,
    position: Position,
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    random: dict[str, Tensor],
) -> None:
    """Write the checkpoint in `folder`, and remove what it no longer names."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    scalars: dict[str, Any] = {}
    for which, optimizer in enumerate(optimizers):
        for number, state in optimizer.state_dict()["state"].items():
            for key, value in state.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{which}.{number}.{key}"] = value
                else:
                    scalars[f"{which}.{number}.{key}"] = value
    tensors |= {f"random.{name}": state for name, state in random.items()}
    notes = {
        "format": str(FORMAT),
        "position": json.dumps(dataclasses.asdict(position)),
        "optimizer": json.dumps(scalars),
    }
    write_tensors(folder / FILE, tensors, notes)
    for old in folder.glob("best-*.safetensors"):
        if old.name != position.best_file:
            old.unlink(missing_ok=True)


def save_best(folder: Path, position: Position, model: nn.Module) -> None:
    """Keep the model's weights as the best so far; the next checkpoint names them."""
    position.best_file = f"best-{position.best_epoch}.safetensors"
    write_tensors(folder / position.best_file, model.state_dict())


def load_best(folder: Path, position: Position, model: nn.Module) -> None:
    """Put the best weights into the model; nothing happens if none were kept."""
    if position.best_file is not None:
        tensors, _ = read_tensors(folder / position.best_file)
        model.load_state_dict(tensors)


def exists(folder: Path) -> bool:
    """Whether there is a checkpoint to go on from."""
    return (folder / FILE).is_file()


def load(
    folder: Path, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]
) -> tuple[Position, dict[str, Tensor]]:
    """Bring the model and the optimizers to the checkpoint; returns the position and random state.

    Raises:
        BitfoldError: the checkpoint is damaged, of a newer format, or of another model.
    """
    remove_parts(folder)
    tensors, notes = read_tensors(folder / FILE)
    if notes.get("format") != str(FORMAT):
        raise BitfoldError(
            "the checkpoint is of another format",
            got=notes.get("format"),
            expected=FORMAT,
            fix="resume with the bitfold that wrote it, or train anew with --force",
        )
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}, "random": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    try:
        model.load_state_dict(parts["model"])
    except RuntimeError as error:
        raise BitfoldError(
            "the checkpoint is of another model",
            got=str(error).splitlines()[-1].strip(),
            expected="the weights of this configuration",
            fix="resume with the same words, or train anew with --force",
        ) from None
    states: list[dict[int, dict[str, Any]]] = [{} for _ in optimizers]
    for name, value in [*parts["optimizer"].items(), *json.loads(notes["optimizer"]).items()]:
        which, number, key = name.split(".", 2)
        states[int(which)].setdefault(int(number), {})[key] = value
    for optimizer, state in zip(optimizers, states, strict=True):
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state, "param_groups": groups})
    return Position(**json.loads(notes["position"])), parts["random"]
