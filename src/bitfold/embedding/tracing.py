"""`torch.fx.symbolic_trace`: our modules are leaves of a graph, as those of `torch.nn` are."""

from typing import Any

from torch import nn
from torch.fx import Proxy

from bitfold.errors import BitfoldError


def as_leaf(module: nn.Module, *given: Any) -> Any:
    """The call of `module` as one node of the graph that is being traced; None outside of one.

    torch takes a module for a leaf by the name of its package, so that ours make the node
    themselves when they are called on a proxy.

    Raises:
        BitfoldError: if the module itself is traced, and no model around it.
    """
    if not any(isinstance(each, Proxy) for each in given):
        return None
    tracer: Any = next(each.tracer for each in given if isinstance(each, Proxy))
    if tracer.root is module:
        raise BitfoldError(
            "an embedding of bitfold is a leaf of a traced graph",
            got=f"symbolic_trace of {type(module).__name__} itself",
            expected="a model that holds it",
            fix="trace nn.Sequential(module) instead",
        )
    while given and given[-1] is None:
        given = given[:-1]
    return tracer.create_proxy("call_module", tracer.path_of_module(module), given, {})
