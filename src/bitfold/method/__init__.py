"""Methods: named recipes, one file each. `names.py` lists them, `registry.py` loads them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bitfold.method.base import Method
    from bitfold.method.registry import MethodInfo, load_plugin, methods

__all__ = ["Method", "MethodInfo", "load_plugin", "methods"]


def __getattr__(name: str) -> Any:
    """Load a name when it is asked for: completing a method's name needs no torch."""
    if name not in __all__:
        raise AttributeError(f"module 'bitfold.method' has no attribute {name!r}")
    home = "base" if name == "Method" else "registry"
    return getattr(import_module(f"bitfold.method.{home}"), name)
