"""Safetensors files by their header: names, types and places, and rows where they are asked for.

The library checks the header against the file, so that no tensor lies outside of it or over
another. Torch is not loaded.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bitfold.errors import BitfoldError
from bitfold.records import file_size, unreadable
from bitfold.weights.tensors import EXPONENTS, StoredTensor, Words

TYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "F8_E5M2": "float8_e5m2", "F8_E4M3": "float8_e4m3fn", "BOOL": "bool",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8",
}  # fmt: skip


def read_safetensors(path: Path) -> list[StoredTensor]:
    """The tensors of a safetensors file; nothing but its header is read.

    A name that `safetensors.torch.save_model` left out, since it shares its numbers with another,
    is there again.

    Raises:
        BitfoldError: the file is missing, may not be read, or is damaged.
    """
    from safetensors import SafetensorError, safe_open

    file_size(path)
    try:
        with safe_open(path, framework="numpy") as file:
            notes = file.metadata() or {}
        header, start = _header(path)
    except PermissionError as error:
        raise unreadable(path, error) from None
    except (SafetensorError, OSError, ValueError) as error:
        got = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise BitfoldError(
            f"{path} is no whole safetensors file",
            got=got,
            expected="a file that safetensors wrote, as long as its header says",
            fix="copy or download it again",
        ) from None
    header.pop("__metadata__", None)
    found = [_tensor(path, start, name, about) for name, about in header.items()]
    named = {each.name: each for each in found}
    for name, kept in notes.items():
        if name not in named and kept in named:
            first = named[kept]
            found.append(
                StoredTensor(name, first.shape, first.dtype, first.bytes, first.place, first.read)
            )
    return found


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The header of a file that the library found right, and where the numbers begin."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(length)), 8 + length


def _tensor(path: Path, start: int, name: str, about: dict[str, Any]) -> StoredTensor:
    shape = tuple(about["shape"])
    dtype = TYPES.get(about["dtype"], about["dtype"].lower())
    begin, end = about["data_offsets"]
    read = None
    if dtype in EXPONENTS and len(shape) == 2:
        read = _reader(path, start + begin, shape[1], dtype)
    place = (os.fspath(path), name) if begin == end else (os.fspath(path), begin)
    return StoredTensor(name, shape, dtype, end - begin, place, read)


def _reader(path: Path, base: int, width: int, dtype: str) -> Callable[[int, int], Words]:
    """Rows of a table that begins at byte `base`; the file is read, not mapped."""
    word = np.dtype(EXPONENTS[dtype][0]).newbyteorder("<")

    def read(start: int, stop: int) -> Words:
        count = (stop - start) * width
        words = np.fromfile(path, word, count, offset=base + start * width * word.itemsize)
        return words.reshape(stop - start, width)

    return read
