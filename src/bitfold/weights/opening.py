"""Which path is a checkpoint, and what reads it: the first bytes say, not the name."""

from pathlib import Path

import msgspec

from bitfold.errors import BitfoldError
from bitfold.records import file_size, read_object, record
from bitfold.weights.tensors import StoredTensor, Weights

SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
SINGLE = ("model.safetensors", "pytorch_model.bin")
"""What a folder of Hugging Face holds: an index of shards, or one file."""


class _Index(msgspec.Struct):
    """An index of shards: which file holds which tensor."""

    weight_map: dict[str, str]


def is_checkpoint(path: Path) -> bool:
    """Whether a path looks like somebody's weights: by its suffix, or by a folder's files."""
    if path.is_dir():
        return any((path / name).is_file() for name in (*INDEXES, *SINGLE))
    return path.suffix.lower() in SUFFIXES


def open_weights(path: Path) -> Weights:
    """The weights of a file, or of a folder as Hugging Face writes it.

    Raises:
        BitfoldError: it is missing, damaged, needs code to be read, or is no checkpoint.
    """
    if not path.is_dir():
        form, tensors, beside = _file(path)
        return Weights(path, form, tuple(tensors), path.stat().st_size, beside)
    for name in INDEXES:
        if (path / name).is_file():
            return _shards(path, path / name)
    for name in SINGLE:
        if (path / name).is_file():
            form, tensors, beside = _file(path / name)
            return Weights(path, form, tuple(tensors), (path / name).stat().st_size, beside)
    raise BitfoldError(
        f"{path} holds no checkpoint",
        got="a folder without " + " or ".join((*INDEXES, *SINGLE)),
        expected="a file of weights, or such a folder",
    )


def _file(path: Path) -> tuple[str, list[StoredTensor], int]:
    size = file_size(path)
    with path.open("rb") as file:
        first = file.read(9)
    if first[8:] == b"{" or path.suffix.lower() == ".safetensors":
        from bitfold.weights.safetensors_file import read_safetensors

        return "safetensors", read_safetensors(path), 0
    if first[:4] == b"PK\x03\x04" or first[:1] == b"\x80":
        from bitfold.weights.torch_file import read_torch

        return "torch", *read_torch(path)
    raise BitfoldError(
        f"{path} is no checkpoint",
        got="an empty file" if not size else f"a file that begins with {first[:8]!r}",
        expected="a file of torch.save or of safetensors",
        fix="torch.save(model.state_dict(), path) writes one",
    )


def _shards(path: Path, index: Path) -> Weights:
    """All shards that an index names, as one."""
    fix = "download the whole folder again"
    held = record(read_object(index), _Index, index, fix=fix).weight_map
    found: list[StoredTensor] = []
    size = beside = 0
    form = ""
    for name in dict.fromkeys(held.values()):
        if Path(name).name != name or name in (".", ".."):
            raise BitfoldError(
                f"{index} names a file outside of its folder", got=name, expected="plain names"
            )
        form, tensors, more = _file(path / name)
        found += tensors
        size += (path / name).stat().st_size
        beside += more
    missing = held.keys() - {each.name for each in found}
    if missing:
        raise BitfoldError(
            f"{path} is not whole",
            got=f"no tensor {min(missing)!r} in {held[min(missing)]}",
            expected=f"the {len(held):,} tensors of {index.name}",
            fix=fix,
        )
    return Weights(path, form, tuple(found), size, beside)
