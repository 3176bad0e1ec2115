"""Networks by name, with their options."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from bitfold.errors import BitfoldError, unknown_name
from bitfold.nets.expanding import ExpandingNetwork
from bitfold.nets.layers import Network
from bitfold.nets.networks import DLRM, DCNv2, DeepFM, LogisticRegression
from bitfold.nets.sets import SetsNetwork

NETWORKS: dict[str, Callable[..., Network]] = {
    "lr": LogisticRegression,
    "deepfm": DeepFM,
    "dcnv2": DCNv2,
    "dlrm": DLRM,
}


def build_network(
    name: str,
    num_fields: int,
    embedding_dim: int,
    num_numeric: int = 0,
    *,
    seed: int = 0,
    sets: int = 1,
    heads: int | str = 1,
    **options: Any,
) -> nn.Module:
    """A network that turns vectors `[B,M*F,D]` and numeric features `[B,N]` into logits `[B]`.

    Args:
        name: lr, deepfm, dcnv2 or dlrm.
        num_fields: F.
        embedding_dim: D.
        num_numeric: N.
        seed: of the weights; the global random state is left as it was.
        sets: M, embedding sets, each with its own interaction; the network's class says what that
            is.
        heads: more than one: places for so many heads, of which a stream copies one now and then.
        **options: of the network (its class names them), as values or as text (`"false"`,
            `"256,128"`).

    Raises:
        UnknownName: a network or an option that is not there.
        BitfoldError: an option's text that cannot be read.

    Example:
        >>> import torch
        >>> network = build_network("deepfm", 3, 4, hidden=(8,), linear=False)
        >>> network(torch.randn(5, 3, 4), torch.empty(5, 0)).shape
        torch.Size([5])
    """
    if name not in NETWORKS:
        raise unknown_name("network", name, NETWORKS)
    kind = NETWORKS[name]
    defaults = network_options(name)
    values = {}
    for option, value in options.items():
        if option not in defaults:
            raise unknown_name(f"option of network {name}", option, defaults)
        values[option] = _read_option(option, value, defaults[option])
    _check_sizes(values)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = [kind(num_fields, embedding_dim, num_numeric, **values) for _ in range(sets)]
    network = made[0] if sets == 1 else SetsNetwork(made)
    count = _read_option("heads", heads, 1)
    return network if count == 1 else ExpandingNetwork(network, count)


def network_options(name: str) -> Mapping[str, Any]:
    """The options of a network and their defaults.

    Example:
        >>> network_options("dcnv2")["layers"]
        2
    """
    parameters = inspect.signature(NETWORKS[name]).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def _read_option(name: str, value: Any, default: Any) -> Any:
    """An option's value, from text where it comes as text; its default decides the type."""
    text = str(value).strip().lower()
    try:
        if isinstance(default, bool):
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[
                text
            ]
        if isinstance(default, tuple):
            parts = text.split(",") if isinstance(value, str) else value
            return tuple(int(part) for part in parts if str(part).strip())
        return type(default)(value)
    except (KeyError, TypeError, ValueError):
        kind = "true or false" if isinstance(default, bool) else type(default).__name__
        kind = "sizes such as 256,128" if isinstance(default, tuple) else kind
        raise BitfoldError(
            f"cannot read the network's option {name}", got=repr(value), expected=kind
        ) from None


def _check_sizes(options: Mapping[str, Any]) -> None:
    for name in ("hidden", "bottom"):
        if any(size < 1 for size in options.get(name, ())):
            raise BitfoldError(
                f"a layer of {name} has no units", got=options[name], expected="sizes of 1 or more"
            )
    if not 0 <= options.get("dropout", 0.0) < 1:
        raise BitfoldError(
            "dropout is out of range", got=options["dropout"], expected="0 or more, below 1"
        )
