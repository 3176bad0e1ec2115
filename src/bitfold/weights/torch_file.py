"""Files of `torch.save`: weights alone, by torch's own restricted reader, mapped and not copied.

The reader builds tensors and plain values; a pickle that names anything else is refused, and
nothing of it is run. What a training saved beside the weights is told from them: Lightning's
`state_dict`, `{"model": ...}`, and whatever an optimizer keeps.
"""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bitfold.errors import BitfoldError
from bitfold.records import file_size, unreadable
from bitfold.weights.tensors import EXPONENTS, StoredTensor, Words

HOLDERS = (
    "state_dict", "model_state_dict", "model_state", "model", "module", "network", "net", "weights",
)  # fmt: skip
"""Keys under which trainings keep the model's weights, the likeliest first."""

_BESIDE = re.compile(r"optim|sched|scaler|callback|loops|hyper_?param|hparams", re.IGNORECASE)
"""Keys of what is no weight, where no key says which are."""


def read_torch(path: Path) -> tuple[list[StoredTensor], int]:
    """The weights of a file of torch, and the bytes of tensors that are none.

    Raises:
        BitfoldError: the file is missing, damaged, needs code to be read, or holds no tensor.
    """
    import torch

    value = _read(path)
    every = list(_tensors(value, torch.Tensor))
    found = [_tensor(name or "tensor", each) for name, each in _weights(path, value).items()]
    places = {each.place for each in found}
    beside = {each.place: each.bytes for each in (_tensor(name, one) for name, one in every)}
    return found, sum(size for place, size in beside.items() if place not in places)


def read_state(path: Path) -> dict[str, Any]:
    """The weights of a file of torch by name: a model's state dict, mapped and not copied.

    Raises:
        BitfoldError: as `read_torch`.
    """
    return _weights(path, _read(path))


def _read(path: Path) -> Any:
    file_size(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old files, which are read all the same
            return _loaded(path)
    except PermissionError as error:
        raise unreadable(path, error) from None
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle raises whatever it meets
        raise _refusal(path, error) from None


def _weights(path: Path, value: Any) -> dict[str, Any]:
    import torch

    found = dict(_tensors(_held(value, torch.Tensor), torch.Tensor))
    if not found:
        raise BitfoldError(
            f"{path} holds no weights",
            got=_about(value),
            expected="a state dict, or a checkpoint that holds one",
            fix="torch.save(model.state_dict(), path) writes one",
        )
    return found


def _loaded(path: Path) -> Any:
    """What the file holds; a file of before torch 1.6 cannot be mapped, and is read whole."""
    import torch

    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)


def _refusal(path: Path, error: Exception) -> BitfoldError:
    """What to say of a file that torch's reader refuses."""
    text = str(error)
    needs = re.search(r"GLOBAL ([\w.]+)", text)
    if needs or "TorchScript" in text:
        return BitfoldError(
            f"{path} holds more than weights, and reading that would run code",
            got=f"a pickle that needs {needs[1]}" if needs else "a TorchScript archive",
            expected="tensors, numbers, texts and collections of them",
            fix="where you trust the file, load it and save its weights alone: "
            "torch.save(model.state_dict(), 'weights.pt')",
        )
    said = re.search(r"Unsupported \w+[^\n]*", text)
    first = next(iter(text.strip().splitlines()), type(error).__name__)
    return BitfoldError(
        f"{path} cannot be read",
        got=(said[0] if said else first)[:200],
        expected="a whole file of torch.save",
        fix="copy or download it again; `torch.load(path, weights_only=True)` must read it",
    )


def _held(value: Any, kind: type[Any]) -> Any:
    """The part of a checkpoint that holds the model's weights."""
    while isinstance(value, Mapping) and not any(isinstance(each, kind) for each in value.values()):
        for key in HOLDERS:
            if isinstance(value.get(key), Mapping) and next(_tensors(value[key], kind), None):
                value = value[key]
                break
        else:
            return {key: each for key, each in value.items() if not _BESIDE.search(str(key))}
    return value


def _tensors(value: Any, kind: type[Any]) -> Iterator[tuple[str, Any]]:
    """Every tensor inside of mappings and lists, in order, by its dotted name."""
    seen: set[int] = set()
    stack: list[tuple[str, Any]] = [("", value)]
    while stack:
        name, each = stack.pop()
        if isinstance(each, kind):
            yield name, each
            continue
        if not isinstance(each, Mapping | list | tuple) or id(each) in seen:
            continue
        seen.add(id(each))  # a collection may hold itself
        items = each.items() if isinstance(each, Mapping) else enumerate(each)
        inner = [(f"{name}.{key}" if name else str(key), item) for key, item in items]
        stack += reversed(inner)


def _about(value: Any) -> str:
    """What something is, in few words."""
    if isinstance(value, Mapping):
        keys = ", ".join(map(str, list(value)[:5]))
        return f"a dictionary of {len(value)} entries: {keys}"[:200]
    return type(value).__name__


def _tensor(name: str, tensor: Any) -> StoredTensor:
    import torch

    shape, dtype = tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")
    size = tensor.numel() * tensor.element_size()
    place: Any = id(tensor)  # of what has no numbers in the file
    read = None
    if tensor.layout is torch.strided and tensor.device.type == "cpu" and size:
        start = tensor.untyped_storage().data_ptr()
        place = (start, tensor.storage_offset(), shape, tensor.stride(), dtype)
        if dtype in EXPONENTS and len(shape) == 2:
            read = _reader(tensor.detach(), dtype)
    return StoredTensor(name, shape, dtype, size, place, read)


def _reader(tensor: Any, dtype: str) -> Callable[[int, int], Words]:
    import torch

    word = EXPONENTS[dtype][0]
    signed = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.uint8}[word().itemsize]

    def read(start: int, stop: int) -> Words:
        found: Words = tensor[start:stop].contiguous().view(signed).numpy().view(word)
        return found

    return read
