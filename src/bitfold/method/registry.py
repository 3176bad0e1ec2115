"""The list of methods: the built-in ones, and those that others register.

A package registers a method by an entry point of the group `bitfold.methods` that names a
subclass of `Method`; the command also takes `--plugin FILE`.
"""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NamedTuple

from bitfold.config import parse_options
from bitfold.errors import BitfoldError, unknown_name
from bitfold.files import sha256
from bitfold.method.base import Method
from bitfold.method.names import BUILT_IN, GROUP


@dataclass(frozen=True)
class PluginFile:
    """A Python file that methods came from, as a run records it.

    Args:
        path: where it was, absolute.
        sha256: of its bytes, in hexadecimal.
        methods: the names of the methods that it defines.
    """

    path: str
    sha256: str
    methods: tuple[str, ...]


class _Plugin(NamedTuple):
    kind: type[Method]
    file: PluginFile


AUTO, BINARY = "auto", "binary-code"
_plugins: dict[str, _Plugin] = {}


@dataclass(frozen=True)
class MethodInfo:
    """What a method is, for people."""

    summary: str
    when: str
    hashed_ids: bool
    version: int


def _built_in(name: str) -> type[Method]:
    module, _, attribute = BUILT_IN[name].partition(":")
    kind: type[Method] = getattr(importlib.import_module(module), attribute)
    return kind


@cache
def _registered() -> dict[str, type[Method]]:
    kinds = {name: _built_in(name) for name in BUILT_IN}
    for entry in entry_points(group=GROUP):
        _check(entry.name, entry.load(), kinds)
        kinds[entry.name] = entry.load()
    return kinds


def _check(name: str, kind: object, known: dict[str, type[Method]]) -> None:
    if not (isinstance(kind, type) and issubclass(kind, Method)):
        raise BitfoldError(
            f"method {name!r} is not a Method", got=repr(kind), expected="a subclass of Method"
        )
    if name in known or getattr(kind, "name", None) != name:
        raise BitfoldError(
            f"method {name!r} can't be registered",
            got=f"name {getattr(kind, 'name', None)!r}; known: {', '.join(known)}",
            expected="a name of its own, the same in the class and in the registration",
        )


def method_kinds() -> dict[str, type[Method]]:
    """Every method's class by name."""
    return _registered() | {name: plugin.kind for name, plugin in _plugins.items()}


def plugin_files() -> tuple[PluginFile, ...]:
    """The files that were loaded, in their order."""
    return tuple(dict.fromkeys(plugin.file for plugin in _plugins.values()))


def method_kind(name: str) -> type[Method]:
    """The class of the method of that name; `UnknownName` names the nearest."""
    if name in BUILT_IN:  # no other method is imported: a first score waits for it
        return _built_in(name)
    kinds = method_kinds()
    if name not in kinds:
        raise unknown_name("method", name, kinds)
    return kinds[name]


def method_meant(name: str, options: Iterable[str]) -> str:
    """The method that a name and the names of options mean.

    `auto` has few options. With any other, binary-code is meant, the default before it.

    Example:
        >>> method_meant("auto", ["blocks"]), method_meant("auto", ["bits"])
        ('binary-code', 'auto')
    """
    if name != AUTO:
        return name
    return BINARY if set(options) - _option_names(AUTO) else name


def recipe_meant(name: str, options: Mapping[str, Any]) -> Method:
    """The method that a name and options mean, with those options.

    Raises:
        UnknownName: for a method or option that does not exist.
        BitfoldError: for an option that makes no sense.

    Example:
        >>> recipe_meant("auto", {"blocks": "3"}).name
        'binary-code'
    """
    method = method_meant(name, options)
    return parse_options(method_kind(method), options, what=f"option of method {method!r}")


def _option_names(method: str) -> set[str]:
    return {field.name for field in fields(method_kind(method))}


def methods() -> dict[str, MethodInfo]:
    """Every method by name: what it is and when to use it.

    Example:
        >>> methods()["hash"].summary
        'the hash trick: ids that hash alike share one row'
    """
    return {
        name: MethodInfo(kind.summary, kind.when, kind.traits.hashed_ids, kind.version)
        for name, kind in method_kinds().items()
    }


def load_plugin(path: str | Path) -> list[str]:
    """Register every `Method` that a Python file defines; returns their names.

    Raises:
        BitfoldError: if the file is missing or does not run, or defines no method, or one that is
            known already.
    """
    file = Path(path)
    spec = importlib.util.spec_from_file_location(f"bitfold_plugin_{file.stem}", file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise BitfoldError("no plugin there", got=str(path), expected="a Python file (.py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and type hints look their module up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[spec.name]
        raise BitfoldError(
            f"the plugin cannot be read: {type(error).__name__}",
            got=f"{path}: {error}",
            expected="a Python file that runs",
        ) from error
    found = [
        kind
        for kind in vars(module).values()
        if isinstance(kind, type)
        and issubclass(kind, Method)
        and kind.__module__ == module.__name__
        and not inspect.isabstract(kind)
    ]
    if not found:
        raise BitfoldError(
            "the plugin defines no method", got=str(path), expected="a subclass of bitfold.Method"
        )
    names = tuple(str(getattr(kind, "name", None)) for kind in found)
    source = PluginFile(str(file.resolve()), sha256(file), names)
    for name, kind in zip(names, found, strict=True):
        _check(name, kind, method_kinds())
        _plugins[name] = _Plugin(kind, source)
    return list(names)
