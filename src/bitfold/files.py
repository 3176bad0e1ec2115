"""Files that are whole or not there: atomic writes, checksums, JSON and safetensors.

A file is written under a temporary name beside its place, flushed to the disk, and renamed. A
process that dies at any moment leaves the old file or the new one, never a part.
"""

import contextlib
import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitfold.errors import BitfoldError
from bitfold.outputs.place import cannot_write

if TYPE_CHECKING:
    from torch import Tensor

TEMPORARY = ".part"
_PART = re.compile(r"\..+\.\d+\.part")  # as `atomic` names them


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a temporary path to write; on leaving without an error it becomes `path`.

    For files inside a folder that this process holds. An output of its own is made by
    `bitfold.outputs.new_file`, which also holds its place and sweeps up after dead processes.

    Raises:
        BitfoldError: the disk is full, or refuses for another reason; nothing is left behind.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        with whole(part):
            yield part
        part.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise cannot_write(path, error) from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def whole(path: Path) -> Iterator[None]:
    """While the block writes a new file: its mode follows the umask, its bytes reach the disk.

    Libraries that write through a temporary file of theirs would leave it to the owner alone.
    """
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    yield
    if stat.S_IMODE(path.stat().st_mode) != mode:
        path.chmod(mode)
    flush(path)


def flush(path: Path) -> None:
    """Flush a file to the disk, so that its content outlives a power cut."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush a folder's list of names to the disk, so that a rename outlives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_parts(folder: Path) -> None:
    """Remove temporary files that a killed process left in `folder`, which this one holds."""
    for part in folder.glob(f".*{TEMPORARY}"):
        if _PART.fullmatch(part.name):
            part.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def without_nan(value: Any) -> Any:
    """`value` with every float that JSON has no word for (NaN, infinity) replaced by None.

    Example:
        >>> without_nan({"auc": float("nan"), "valid": [1.5]})
        {'auc': None, 'valid': [1.5]}
    """
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically; NaN becomes null."""
    with atomic(path) as part:
        part.write_text(json.dumps(without_nan(value), indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        BitfoldError: the file is missing, damaged, or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BitfoldError(f"{path} is missing", got="no file", expected="a JSON file") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BitfoldError(f"{path} is damaged", got=str(error), expected="JSON") from None
    if not isinstance(value, dict):
        raise BitfoldError(f"{path} is damaged", got=type(value).__name__, expected="an object")
    return value


def write_tensors(
    path: Path, tensors: Mapping[str, "Tensor"], notes: Mapping[str, str] | None = None
) -> None:
    """Write tensors as one safetensors file, atomically; `notes` go into its header."""
    import safetensors
    import safetensors.torch

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic(path) as part:
        try:
            safetensors.torch.save_file(plain, part, metadata=dict(notes or {}))
        except safetensors.SafetensorError as error:
            raise OSError(str(error)) from error


def read_tensors(path: Path) -> tuple[dict[str, "Tensor"], dict[str, str]]:
    """The tensors and the notes of a safetensors file.

    Raises:
        BitfoldError: the file is missing, truncated or damaged.
    """
    import safetensors

    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except FileNotFoundError:
        raise BitfoldError(f"{path} is missing", got="no file") from None
    except (safetensors.SafetensorError, OSError) as error:
        raise BitfoldError(
            f"{path} is damaged", got=str(error), expected="a whole safetensors file"
        ) from None
