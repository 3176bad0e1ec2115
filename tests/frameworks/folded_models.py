"""What all frameworks' tests look at: which weights move, and what comes back from the disk."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

import bitfold

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "frameworks"


def moved(before: dict[str, torch.Tensor], model: nn.Module) -> set[str]:
    """The names of parameters that training changed."""
    return {
        name for name, value in model.named_parameters() if not torch.equal(value, before[name])
    }


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of all parameters."""
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def saved_and_loaded(model: nn.Module, make: Callable[[], nn.Module], folder: Path) -> nn.Module:
    """The model in a new object: saved, made anew unfolded, folded as it was, loaded."""
    bitfold.save(model, folder / "folded")
    return bitfold.load_model(folder / "folded", make)
