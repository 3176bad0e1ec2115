"""JSON files of ours, read into typed, validated records.

A file is read in a fixed order, so that the first thing that is wrong is what is told:

1. its size, its text (UTF-8), its JSON: no NaN, no key twice, nothing nested thousands deep;
2. what it calls itself: the kind of file, and then the format's version, before anything else;
3. its digest over the content, if it has one;
4. its record: every key of the right type and within its range.

Rules. *Unknown keys* are refused in whatever decides an id, a weight or a score (schemas, plans,
configurations, manifests, checkpoints): a newer bitfold may mean something by them. They are
ignored in what is only shown (figures, statistics, results). *A file without a digest* is read
only if its version had none. `msgspec` does the decoding: it names the path of what is wrong
(`$.fields[2].distinct`), and has no dependencies.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar, get_type_hints

import msgspec
import xxhash
from msgspec import Meta

from bitfold.errors import BitfoldError

T = TypeVar("T")

MOST_BYTES = 256 << 20
"""The largest JSON file that is read: no record of ours comes near."""

MOST_DEEP = 64
"""Objects and lists within one another."""

DIGEST = "digest"
"""The key of a file's digest over all its other keys."""

CHECK_PATH = "check the path"
"""The remedy of a file that is not there."""

_BLOCK = 1 << 20

Count = Annotated[int, Meta(ge=0, le=2**53)]
"""A number of rows, bytes or ids."""

Name = Annotated[str, Meta(min_length=1, max_length=10_000, pattern=r"^[^\x00-\x1f\x7f]*$")]
"""The name of a column, method or file, without control characters."""

Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$")]
"""An XXH3-128 in hexadecimal."""

Number = Annotated[float, Meta(ge=-1.7976931348623157e308, le=1.7976931348623157e308)]
"""A finite number."""


class MissingFile(BitfoldError):
    """A file that is not there."""


@dataclass(frozen=True)
class Form:
    """What a file of ours calls itself.

    Args:
        kind: the value of its key `kind_key`.
        version: the newest version that is known here, at `version_key`.
        sealed_from: the version from which it has a digest; None if it never has one.
        bare: whether version 1 did not say its kind.
        fix: what to do about a broken one.
    """

    kind: str
    version: int
    kind_key: str = "kind"
    version_key: str = "format"
    sealed_from: int | None = None
    bare: bool = False
    fix: str = "write it again"

    def head(self) -> dict[str, Any]:
        """The keys that a new file begins with."""
        return {self.kind_key: self.kind, self.version_key: self.version}


def read_object(path: Path, *, fix: str = "write it again") -> dict[str, Any]:
    """A file's JSON object, within the limits of this module.

    Raises:
        BitfoldError: it is missing, may not be read, is too large, or is no JSON object.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise broken(path, "a file of more than 256 MiB", "JSON as bitfold writes it", fix)
        data = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None
    return parse_object(data, path, fix=fix)


def parse_object(data: bytes, where: object, *, fix: str = "write it again") -> dict[str, Any]:
    """The JSON object in some bytes; `where` is what an error calls them."""
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_once_each, parse_constant=_no_constant
        )
        _check_values(value)
        # Half a surrogate pair is text that nothing can print or write again.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise broken(where, "JSON nested too deep", "JSON as bitfold writes it", fix) from None
    except ValueError as error:  # JSONDecodeError, UnicodeError and ours
        got = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise broken(where, got, "JSON as bitfold writes it", fix) from None
    if not isinstance(value, dict):
        raise broken(where, f"JSON, but a {type(value).__name__}", "a JSON object", fix)
    return value


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key[:50]!r} twice in one object")
            seen.add(key)
    return out


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text}, which is no JSON")


def _check_values(value: Any) -> None:
    """Refuse nesting, integers and floats beyond what any record holds."""
    level: list[Any] = [value]
    for _ in range(MOST_DEEP):
        following: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                following += each.values()
            elif isinstance(each, list):
                following += each
            elif isinstance(each, float) and each in (float("inf"), float("-inf")):
                raise ValueError("a number beyond what 64 bits hold")
            elif isinstance(each, int) and not -(2**63) <= each < 2**64:
                raise ValueError("an integer beyond what 64 bits hold")
        if not following:
            return
        level = following
    raise ValueError("JSON nested too deep")


def checked(path: Path, form: Form) -> dict[str, Any]:
    """A file's object whose kind, version and digest are right; its digest is left out."""
    return checked_object(read_object(path, fix=form.fix), form, path)


def checked_object(value: dict[str, Any], form: Form, path: object) -> dict[str, Any]:
    """As `checked`, of an object that was read already; `path` is what an error calls it."""
    version = check_form(value, form, path)
    seal = value.pop(DIGEST, None)
    if seal is None and (form.sealed_from is None or version < form.sealed_from):
        return value
    if seal != content_digest(value):
        raise BitfoldError(
            f"{path} is not what was saved",
            got="no digest" if seal is None else "a digest of another content",
            expected="the file as bitfold wrote it; it must not be edited",
            fix=form.fix,
        )
    return value


def check_form(value: Mapping[str, Any], form: Form, where: object) -> int:
    """The version of an object that calls itself what `form` says.

    Raises:
        BitfoldError: it is something else, or of a newer version.
    """
    kind, version = value.get(form.kind_key), value.get(form.version_key)
    if form.bare and kind is None and version in (None, 1):
        return 1
    if kind != form.kind:
        raise BitfoldError(
            f"{where} is no {form.kind} file",
            got=f"no {form.kind_key}" if kind is None else f"{form.kind_key} {str(kind)[:80]!r}",
            expected=f"{form.kind_key} {form.kind!r}",
            fix="check the path, or " + form.fix,
        )
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise broken(where, f"{form.version_key} {version!r}"[:80], "a version, from 1", form.fix)
    if version > form.version:
        by = value.get("bitfold")
        raise BitfoldError(
            f"{where} is of a newer format",
            got=f"version {version}" + (f", written by bitfold {by}"[:80] if by else ""),
            expected=f"version {form.version} or older",
            fix="install a newer bitfold",
        )
    return version


def record(value: Any, kind: type[T], where: object, *, fix: str = "write it again") -> T:
    """A value as a record of type `kind`; `where` is what an error calls it."""
    try:
        return msgspec.convert(value, type=kind)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, BitfoldError):
            raise error.__cause__ from None
        raise broken(where, error, "what bitfold writes", fix) from None
    except (RecursionError, OverflowError, ValueError) as error:
        raise broken(where, error, "what bitfold writes", fix) from None


@cache
def strict(kind: type[Any]) -> type[msgspec.Struct]:
    """A record of a dataclass's fields that refuses unknown keys.

    Example:
        >>> @dataclass(frozen=True)
        ... class Point:
        ...     x: int
        >>> record({"x": 1}, strict(Point), "a point").x
        1
    """
    hints = get_type_hints(kind, include_extras=True)
    fields: list[Any] = []
    for field in dataclasses.fields(kind):
        if field.default is not dataclasses.MISSING:
            default: Any = field.default
        elif field.default_factory is not dataclasses.MISSING:
            default = msgspec.field(default_factory=field.default_factory)
        else:
            fields.append((field.name, hints[field.name]))
            continue
        fields.append((field.name, hints[field.name], default))
    return msgspec.defstruct(kind.__name__, fields, kw_only=True, forbid_unknown_fields=True)


def build(value: Any, kind: type[T], where: object, *, fix: str = "write it again") -> T:
    """A dataclass out of a JSON object: types checked, unknown keys refused."""
    form: Any = strict(kind)  # type: ignore[arg-type]
    found = record(value, form, where, fix=fix)
    try:
        return kind(**{name: getattr(found, name) for name in found.__struct_fields__})
    except (TypeError, OverflowError) as error:
        raise broken(where, error, "what bitfold writes", fix) from None


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with the digest of its content as a last key.

    Example:
        >>> sealed({"rows": 3})["digest"]
        'c77e19c2434b17ba07267a6cfb3144a2'
    """
    plain = {key: item for key, item in value.items() if key != DIGEST}
    return plain | {DIGEST: content_digest(json.loads(json.dumps(plain)))}


def content_digest(value: Any) -> str:
    """The XXH3-128 of a JSON value, however it is indented and its keys are ordered."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return xxhash.xxh3_128_hexdigest(text.encode())


def file_digest(path: Path) -> str:
    """The XXH3-128 of a file's bytes, in hexadecimal.

    Raises:
        BitfoldError: the file is missing, or may not be read.
    """
    digest = xxhash.xxh3_128()
    try:
        with path.open("rb", buffering=0) as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise unreadable(path, error) from None
    return digest.hexdigest()


def file_size(path: Path) -> int:
    """Bytes of a regular file.

    Raises:
        BitfoldError: it is missing, is no regular file, or may not be reached.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise unreadable(path, error) from None
    if not path.is_file():
        raise BitfoldError(f"{path} is no file", got="a folder or a device", expected="a file")
    return found.st_size


def inside(folder: Path, name: str, *, fix: str = "write it again") -> Path:
    """The path of a file that lies in `folder`, links followed.

    Raises:
        BitfoldError: the name leads out of the folder, by `..`, as a whole path or by a link.
    """
    path = folder / name
    try:
        within = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):
        within = False
    if not within or Path(name).is_absolute() or ".." in Path(name).parts:
        raise BitfoldError(
            f"a file that {folder} names lies outside of it",
            got=repr(name)[:200],
            expected="a file in the folder",
            fix=fix,
        )
    return path


def unreadable(path: object, error: OSError) -> BitfoldError:
    """Why a file cannot be read, as the system says it."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return MissingFile(
            f"{path} is missing", got="no such file", expected="a file", fix=CHECK_PATH
        )
    if isinstance(error, PermissionError):
        return BitfoldError(
            f"{path} may not be read",
            got=error.strerror or "no permission",
            expected="a file that this user may read",
            fix="ask its owner, or change its permissions (chmod +r)",
        )
    return BitfoldError(
        f"{path} cannot be read", got=error.strerror or str(error), expected="a file"
    )


def broken(where: object, got: object, expected: str, fix: str) -> BitfoldError:
    """A file that does not hold what it should."""
    text = str(got)
    return BitfoldError(f"{where} is damaged", got=text[:300], expected=expected, fix=fix)
