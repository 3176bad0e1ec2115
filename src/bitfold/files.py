"""Files that are whole or not there: atomic writes, checksums, JSON and safetensors.

A file is written under a temporary name beside its place, flushed to the disk, and renamed. A
process that dies at any moment leaves the old file or the new one, never a part.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from bitfold.errors import BitfoldError
from bitfold.records import DIGEST, file_size, read_object, unreadable

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


def cannot_write(out: str | Path, error: OSError) -> BitfoldError:
    """The one message for a system that refuses an output."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return BitfoldError(
        f"the disk is full: cannot write {out}" if full else f"cannot write {out}",
        got=error.strerror or str(error),
        expected="room on the disk" if full else "a place that may be written",
        fix="free some space, or name an output elsewhere; what stood there is as it was",
    )


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
        BitfoldError: the file is missing, may not be read, is damaged, or holds something else.
    """
    return read_object(path)


def write_tensors(
    path: Path,
    tensors: Mapping[str, "Tensor"],
    notes: Mapping[str, str] | None = None,
    *,
    seal: bool = False,
) -> None:
    """Write tensors as one safetensors file, atomically; `notes` go into its header.

    With `seal`, so does a digest of the tensors and the notes, which `read_tensors` then checks.
    """
    import safetensors
    import safetensors.torch

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = dict(notes or {})
    if seal:
        header[DIGEST] = tensor_digest(plain, header)
    with atomic(path) as part:
        try:
            safetensors.torch.save_file(plain, part, metadata=header)
        except safetensors.SafetensorError as error:
            raise OSError(str(error)) from error


def read_tensors(
    path: Path,
    *,
    sealed: bool = False,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    fix: str | None = None,
) -> tuple[dict[str, "Tensor"], dict[str, str]]:
    """The tensors and the notes of a safetensors file.

    Args:
        path: the file.
        sealed: check the digest that the file was written with.
        shapes: those that the tensors must have, checked before any is read.
        fix: what to do about a damaged file.

    Raises:
        BitfoldError: the file is missing, may not be read, is truncated, damaged, or not what was
            saved.
    """
    with _opened(path, fix) as file:
        notes = file.metadata() or {}
        names = list(file.keys())
        if shapes is not None:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in names}
            _check_shapes(path, found, shapes)
        tensors = {name: file.get_tensor(name) for name in names}
    if sealed:
        check_seal(path, tensors, notes)
    return tensors, notes


def read_notes(path: Path, *, fix: str | None = None) -> dict[str, str]:
    """The notes of a safetensors file alone; whoever reads its tensors checks its digest.

    Raises:
        BitfoldError: the file is missing, may not be read, or is damaged; `fix` is what to do then.
    """
    with _opened(path, fix) as file:
        return dict(file.metadata() or {})


@contextlib.contextmanager
def _opened(path: Path, fix: str | None = None) -> Iterator[Any]:
    """A safetensors file; what is wrong with it while it is read is told in our words."""
    import safetensors

    file_size(path)  # a missing file, and one that may not be read, are told as such
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            yield file
    except PermissionError as error:
        raise unreadable(path, error) from None
    except BitfoldError:
        raise
    except (
        safetensors.SafetensorError, OSError, ValueError, TypeError, KeyError, RuntimeError,
        AttributeError, OverflowError,
    ) as error:  # fmt: skip
        got = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise BitfoldError(
            f"{path} is damaged", got=got, expected="a whole safetensors file", fix=fix
        ) from None


def check_seal(path: Path, tensors: Mapping[str, "Tensor"], notes: dict[str, str]) -> None:
    """Raise unless the tensors and notes of a file are those that its digest was made of.

    The digest is taken out of the notes.
    """
    if notes.pop(DIGEST, None) != tensor_digest(tensors, notes):
        raise BitfoldError(
            f"{path} is not what was saved",
            got="another digest of its tensors",
            expected="the file as bitfold wrote it",
            fix="train anew with --force",
        )


def _check_shapes(
    path: Path, found: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]]
) -> None:
    for name in [*wanted, *found]:
        if found.get(name) != wanted.get(name):
            raise BitfoldError(
                f"{path} does not hold the weights that are expected there",
                got=f"{name}: {_shape(found.get(name))}",
                expected=_shape(wanted.get(name)),
                fix="copy the whole folder again",
            )


def _shape(shape: tuple[int, ...] | None) -> str:
    return "no such tensor" if shape is None else f"shape {list(shape)}"


def tensor_digest(tensors: Mapping[str, "Tensor"], notes: Mapping[str, str]) -> str:
    """The XXH3-128 of tensors, their names, types and shapes, and some notes."""
    import torch

    digest = xxhash.xxh3_128()
    digest.update(json.dumps(sorted(notes.items())).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        if tensor.numel():
            content: Any = tensor.reshape(-1).view(torch.uint8).numpy()
            digest.update(content)
    return digest.hexdigest()
