"""The cold ids of a run on the disk: cold.safetensors."""

from pathlib import Path

import torch

from bitfold.data.schema import Schema
from bitfold.files import read_tensors, write_tensors
from bitfold.nets.cold import ENDS, MOST, PLAIN, ColdIds, key_type
from bitfold.records import broken
from bitfold.runs.config import RunConfig
from bitfold.runs.manifest import AGAIN


def save_cold(path: Path, cold: ColdIds) -> None:
    """Write cold ids and their prototypes."""
    write_tensors(path, cold.state_dict(), {"format": "1"})


def load_cold(path: Path, schema: Schema, config: RunConfig) -> ColdIds:
    """Read cold ids of a run.

    Args:
        path: the file.
        schema: the run's.
        config: the run's; it says the field and the bits.

    Raises:
        BitfoldError: the file is missing or damaged, or is not of these options.
    """
    tensors, _ = read_tensors(path)
    words, dim = config.cold, config.train.vector_width
    field = str(words.cold_field)
    keys = tensors.get("keys", torch.empty(0))
    count = keys.numel()
    wanted = {
        "keys": ((count,), (key_type(dense=True), key_type(dense=False))),
        "clicks": ((count,), (torch.uint8,)),
        "codes": ((-(-count * dim * words.cold_bits // 8),), (torch.uint8,)),
        "centre": ((dim,), (torch.float32,)),
        "mean": ((dim,), (torch.float32,)),
        "weights": ((len(ENDS), len(PLAIN)), (torch.float32,)),
    }
    found = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    right = found.keys() == wanted.keys() and all(
        found[name][0] == shape and found[name][1] in types
        for name, (shape, types) in wanted.items()
    )
    if not right or field not in schema.field_names:
        raise broken(path, "other tensors", "the cold ids of the run's options", AGAIN)
    clicks = tensors["clicks"]
    rising = bool((keys[1:] > keys[:-1]).all())
    if not rising or (count and not 1 <= int(clicks.min()) <= int(clicks.max()) <= MOST):
        raise broken(path, "ids or clicks that cannot be", f"rising ids of 1 to {MOST}", AGAIN)
    if not all(bool(tensors[name].isfinite().all()) for name in ("centre", "mean", "weights")):
        raise broken(path, "numbers that are not finite", "finite ones", AGAIN)
    return ColdIds(schema.field_names.index(field), words.cold_bits, **tensors)
