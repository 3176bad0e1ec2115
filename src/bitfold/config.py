"""The options of a configuration: one declaration serves Python, JSON and the command line.

A configuration is a frozen dataclass whose fields are declared with `option`. The command
takes each of them (`batch_size` becomes `--batch-size`), and `to_json` / `from_json`
carry it through a file.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_type_hints

from bitfold.errors import BitfoldError, unknown_name

T = TypeVar("T")
Scalar = str | int | float | bool | None

MOST_WHOLE = 2**31 - 1
"""The largest whole number of an option; a seed may be larger."""

LEAST_NUMBER, MOST_NUMBER = 1.2e-38, 3e38
"""The range of float32, which weights have, but for 0 and what is not normal."""

RENAMED = {"embedding": "method"}
"""Options that had another name once: files and command lines that say it are still read."""


def renamed(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of an older file under the names that they have today.

    Example:
        >>> renamed({"embedding": "hash", "width": 8})
        {'method': 'hash', 'width': 8}
    """
    return {RENAMED.get(name, name): value for name, value in options.items()}


def option(
    default: Any = dataclasses.MISSING,
    *,
    help: str,
    metavar: str | None = None,
    choices: tuple[str, ...] | None = None,
    texts: tuple[str, ...] = (),
) -> Any:
    """Declare one option of a configuration.

    Args:
        default: its value when it is not said; without one the option is required.
        help: one sentence for `--help`; it says when to change the option.
        metavar: how the value is shown in `--help`, such as `FRACTIONS`.
        choices: the values allowed.
        texts: for a number, the texts allowed beside numbers.
    """
    metadata = {"help": help, "metavar": metavar, "choices": choices, "texts": texts}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def check_choices(config: Any) -> None:
    """Raise `UnknownName` for an option whose value is not among its choices."""
    for field in dataclasses.fields(config):
        choices = field.metadata.get("choices")
        value = getattr(config, field.name)
        if choices and value is not None and value not in choices:
            raise unknown_name(field.name, str(value), choices)


def check_whole(config: Any, name: str, least: int, most: int = MOST_WHOLE) -> None:
    """Raise unless an option is a whole number of a range."""
    value = getattr(config, name)
    right = isinstance(value, int) and not isinstance(value, bool)
    if not right or not least <= value <= most:
        too_large = right and value > most
        raise BitfoldError(
            f"{name} is out of range",
            got=repr(value),
            expected=f"at most {most:,}" if too_large else f"a whole number, {least} or more",
        )


def check_number(
    config: Any, name: str, *, above: float | None = None, below: float | None = None
) -> None:
    """Raise unless an option is a number that float32 holds, 0 or more, or as is said."""
    value = getattr(config, name)
    right = isinstance(value, int | float) and not isinstance(value, bool)
    # Weights are float32: what is larger is infinite there, and what is smaller is 0.
    if right and (value == 0 or LEAST_NUMBER <= abs(value) <= MOST_NUMBER):
        right = value >= 0 if above is None else value > above
        if right and (below is None or value < below):
            return
    least = "0 or more" if above is None else f"above {above}"
    most = "" if below is None else f", below {below}"
    small = right and 0 < value < LEAST_NUMBER
    held = f"; {LEAST_NUMBER:g} is the least that float32 has" if small else ""
    raise BitfoldError(
        f"{name} is out of range", got=repr(value), expected=f"a number {least}{most}{held}"
    )


def to_json(config: Any) -> dict[str, Any]:
    """The options of `config` as plain JSON values (tuples become lists)."""
    out: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        out[field.name] = list(value) if isinstance(value, tuple) else value
    return out


def from_json(kind: type[T], options: Mapping[str, Any], where: object = "the configuration") -> T:
    """Build a configuration of `kind` from JSON values; `where` is what an error calls them.

    Raises:
        UnknownName: an option that `kind` does not have.
        BitfoldError: an option is missing, of the wrong type, or out of range.
    """
    from bitfold.records import broken, record

    if not isinstance(options, Mapping):
        raise broken(where, type(options).__name__, "options by name", "write it again")
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for said, value in options.items():
        name = said if said in fields else RENAMED.get(said, said)
        if name not in fields:
            raise unknown_name("option", name, fields)
        hint = hints[name]
        # Options of methods and networks may have been given as numbers.
        hint = dict[str, Scalar] if hint == dict[str, str] else hint
        values[name] = record(value, hint, f"the option {name} of {where}")
    required = [
        name
        for name, field in fields.items()
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    missing = [name for name in required if name not in values]
    if missing:
        raise BitfoldError(
            f"the configuration lacks {', '.join(missing)}",
            got=", ".join(values) or "no options",
            expected=f"at least {', '.join(required)}",
        )
    try:
        return kind(**values)
    except (TypeError, OverflowError, AttributeError) as error:
        raise broken(where, error, f"options of a {kind.__name__}", "write it again") from None


def parse_options(kind: type[T], options: Mapping[str, Any], what: str = "option") -> T:
    """Build a configuration of `kind` from values or from text such as a command line gives.

    Args:
        kind: a frozen dataclass of options whose types are bool, int, float or str, or None.
        options: values of those types, or text: `"3"`, `"true"`, `"none"`.
        what: how an unknown option is called in the error.

    Raises:
        UnknownName: for an option that `kind` does not have.
        BitfoldError: for text that is not of the option's type.
    """
    hints = get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for name, value in options.items():
        if name not in names:
            raise unknown_name(what, name, names)
        values[name] = _parse(name, hints[name], value)
    return kind(**values)


def _parse(name: str, hint: Any, value: Any) -> Any:
    kinds = get_args(hint) or (hint,)
    if isinstance(value, str) and value.strip().lower() == "none" and type(None) in kinds:
        return None
    if value is None:
        if type(None) in kinds:
            return None
    elif isinstance(value, str) and str not in kinds:
        text = value.strip().lower()
        if bool in kinds and text in ("true", "false", "yes", "no", "1", "0"):
            return text in ("true", "yes", "1")
        for number in (int, float):
            if number in kinds:
                try:
                    return number(text)
                except ValueError:
                    continue
    elif isinstance(value, bool):
        if bool in kinds:
            return value
    elif any(
        kind is not bool and kind is not type(None) and isinstance(value, kind) for kind in kinds
    ):
        return value
    elif isinstance(value, int) and float in kinds and abs(value) <= MOST_NUMBER:
        return float(value)
    expected = " or ".join("none" if kind is type(None) else kind.__name__ for kind in kinds)
    raise BitfoldError(f"{name} has a value of the wrong type", got=repr(value), expected=expected)
