"""Methods: named recipes, one file each. `registry.py` lists them."""

from bitfold.method.base import Method
from bitfold.method.registry import MethodInfo, load_plugin, methods

__all__ = ["Method", "MethodInfo", "load_plugin", "methods"]
