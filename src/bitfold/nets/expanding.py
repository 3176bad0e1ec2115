"""A network whose head is copied now and then: copies stay as they were, the newest goes on.

Source: Zhou et al., A Model or 603 Exemplars, ICLR 2023 (arXiv 2205.13218): shallow blocks are
shared, specialised ones are copied for each task, and a head reads all of them.

Shapes: `B` rows, `F` fields, `D` the width of a vector, `N` numeric features, `K` heads.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bitfold.errors import BitfoldError
from bitfold.nets.layers import Network


class ExpandingNetwork(nn.Module):
    """A network with K heads: one that is trained, and up to K - 1 copies of what it was.

    The interaction is shared, and goes on being trained through all heads. The logit is
    `sum_k mix_k * head_k`, with a learned `mix` `[K]`; heads that are not there yet have none.
    `expand` freezes a copy of the trained head and halves its share between the two, so no score
    changes at that moment. Where all places are taken, the oldest copy gives up its place, and its
    share goes to the head that is trained. All places are there from the beginning: the bytes of
    the state dict never change.

    Args:
        network: whose head is copied.
        heads: K, 2 or more.

    Raises:
        BitfoldError: less than two heads, or a network whose head has no layers.

    Example:
        >>> from bitfold.nets.building import build_network
        >>> network = ExpandingNetwork(build_network("deepfm", 3, 4, hidden=(8,)), 2)
        >>> network.expand()
        >>> network.used
        2
    """

    grown: Tensor

    def __init__(self, network: nn.Module, heads: int) -> None:
        super().__init__()
        if heads < 2:
            raise BitfoldError("too few heads to expand", got=heads, expected="2 or more")
        names = _head_of(network)
        self.heads = heads
        self.network = network
        mix = torch.zeros(heads)
        mix[0] = 1.0
        self.mix = nn.Parameter(mix)
        self.register_buffer("grown", torch.zeros((), dtype=torch.int64))
        held = network.state_dict()
        self._names = {name: f"copies_{name.replace('.', '_')}" for name in names}
        for name, buffer in self._names.items():
            self.register_buffer(buffer, held[name].new_zeros(heads - 1, *held[name].shape))
        # The form of a head, without numbers of its own; in a tuple, so that it is no part of us.
        self._form = (_Head(copy.deepcopy(network).to("meta")).eval(),)

    @property
    def used(self) -> int:
        """The heads that are there: the one that is trained, and its copies."""
        return 1 + min(int(self.grown), self.heads - 1)

    @property
    def copy_bytes(self) -> int:
        """Bytes of the places of all copies, of the shares and of the count."""
        ours = [self.mix, self.grown, *(self.get_buffer(name) for name in self._names.values())]
        return sum(tensor.nbytes for tensor in ours)

    def forward(self, vectors: Tensor, numeric: Tensor) -> Tensor:
        """`[B,F,D]` and `[B,N]` -> logits `[B]`."""
        network: Network = self.network  # type: ignore[assignment]
        found = network.interact(vectors, numeric)
        logits = self.mix[0] * network.decide(found)
        for place in range(self.used - 1):
            logits = logits + self.mix[1 + place] * self._copy(place, found)
        return logits

    @torch.no_grad()
    def expand(self) -> None:
        """Keep the trained head as it is now; the copy that goes on is trained."""
        place = int(self.grown) % (self.heads - 1)
        held = self.network.state_dict()
        for name, buffer in self._names.items():
            self.get_buffer(buffer)[place] = held[name]
        half = self.mix[0] / 2
        self.mix[0] = half + self.mix[1 + place]
        self.mix[1 + place] = half
        self.grown += 1

    def _copy(self, place: int, found: Sequence[Tensor]) -> Tensor:
        tensors = {
            f"network.{name}": self.get_buffer(buffer)[place]
            for name, buffer in self._names.items()
        }
        logits: Tensor = functional_call(self._form[0], tensors, tuple(found))
        return logits


class _Head(nn.Module):
    """The second step of a network alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *found: Tensor) -> Tensor:
        """What `interact` found -> logits `[B]`."""
        network: Network = self.network  # type: ignore[assignment]
        return network.decide(found)


def _head_of(network: nn.Module) -> list[str]:
    """The names of the tensors that belong to a network's head."""
    if isinstance(network, Network):
        trunk = copy.deepcopy(network)
        trunk.drop_head()
        kept = trunk.state_dict()
        found = {name: each for name, each in network.state_dict().items() if name not in kept}
        if any(each.ndim > 1 for each in found.values()):
            return list(found)
    raise BitfoldError(
        "this network has no last layers to copy",
        got=type(network).__name__,
        expected="an MLP of a hidden layer or more, and one embedding set",
        fix="say --network deepfm --hidden 128,64, or another --strategy",
    )
