"""The command that makes a comparison again, out of what compare.json says."""

import dataclasses
import shlex
from typing import Any

from bitfold.comparison.config import CompareConfig
from bitfold.data.config import DataConfig
from bitfold.report.reading import Row
from bitfold.runs.options import TrainConfig

SECTIONS = {"compare": CompareConfig, "train": TrainConfig, "data": DataConfig}
CELL = ("method", "embedding", "budget")  # each cell's own


def command(said: Row, out: str) -> str | None:
    """The whole command line: every option that is not its default. None without compare.json.

    Example:
        >>> said = {"paths": [{"path": "log"}], "train": {"epochs": 3, "lr": 2e-3}}
        >>> command(said, "board")
        'bitfold compare log --epochs 3 --out board'
    """
    if not said.get("paths"):
        return None
    parts = ["bitfold", "compare", *(str(path["path"]) for path in said["paths"])]
    for section, kind in SECTIONS.items():
        parts += options(kind, said.get(section, {}))
    return shlex.join([*parts, "--out", out])


def options(kind: type[Any], values: Row) -> list[str]:
    """The command line's options for the values of a configuration that are not its defaults.

    Example:
        >>> options(TrainConfig, {"epochs": 3, "set": {"blocks": "3"}, "lr": 2e-3})
        ['--set', 'blocks=3', '--epochs', '3']
    """
    parts = []
    for name, value in changed(kind, values).items():
        option = "--" + name.replace("_", "-")
        if isinstance(value, dict):
            for key, item in value.items():
                parts += [option, f"{key}={item}"]
        elif isinstance(value, bool):
            parts.append(option if value else f"--no-{option[2:]}")
        else:
            parts += [option, _text(value)]
    return parts


def changed(kind: type[Any], values: Row) -> dict[str, Any]:
    """The options that are not their defaults, in the order of their declaration."""
    out = {}
    for field in dataclasses.fields(kind):
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        default = list(default) if isinstance(default, tuple) else default
        value = values.get(field.name)
        if field.name not in CELL and value is not None and value != default:
            out[field.name] = value
    return out


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
