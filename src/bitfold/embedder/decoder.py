"""Deep hash embedding: hashes of an id make a vector of real numbers, a network decodes it."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bitfold.address.mixing import MIX_VERSION, derive_salt, int64, mix_torch
from bitfold.address.words import run_of
from bitfold.embedder.own import OwnEmbedder
from bitfold.kernels.choice import recorded
from bitfold.planning.plan import Plan

HALF = 0xFFFFFFFF
AT_ONCE = 1 << 23  # hashes that are in memory at a time, where no gradient keeps them
PROBES = 512  # ids whose vectors fresh weights are scaled by


class Decoder(OwnEmbedder):
    """One network for all fields, whose hashes are salted by field.

    Args:
        plan: one group, without an address and pools.
        salt: what the hashes are salted from.
        sizes: how many hashes, the hidden widths, and `D`.
        more: what `OwnEmbedder` takes.

    Shapes:
        int64 `[B, F]` -> hashes `[B, F, k]` -> `[B, F, D]`.
    """

    multiplies = True
    salts: Tensor
    by_field: Tensor

    def __init__(self, plan: Plan, *, salt: int, sizes: tuple[int, ...], **more: Any) -> None:
        self.salt, self.sizes = salt, sizes
        super().__init__(plan, **more)
        words: Any = {"device": more.get("device"), "dtype": self.dtype}
        with torch.inference_mode(False):  # it can be trained wherever it was built
            shapes = [(out, width) for width, out in pairwise(sizes)]
            self.matrices = nn.ParameterList(torch.empty(*shape, **words) for shape in shapes)
            self.biases = nn.ParameterList(torch.empty(out, **words) for out, _ in shapes)
        self.reset_parameters()

    def hashes(self, ids: Tensor, field: Tensor | None = None) -> Tensor:
        """Numbers from -1 to 1, even and independent, `[..., k]` in float32.

        A mixed id is two hashes of 32 bits.
        """
        own = mix_torch(ids, self.by_field if field is None else self.by_field[field], 32, -1, HALF)
        mixed = mix_torch(own.unsqueeze(-1), self.salts, 32, -1, HALF)
        halves = torch.stack([run_of(mixed, 32, HALF), mixed & HALF], -1).flatten(-2)
        return halves[..., : self.sizes[0]].float() * 2.0**-31 - 1

    def vectors(self, ids: Tensor, field: Tensor | None = None) -> Tensor:
        """Vectors of ids; hashes of many ids are not kept where no gradient needs them."""
        if self.salts.device != ids.device:
            self.place_constants(ids.device)
        looked = torch.compiler.is_compiling() or recorded(ids)
        rows = max(1, AT_ONCE // self.sizes[0] // (1 if field is not None else self.num_fields))
        if looked or torch.is_grad_enabled() or len(ids) <= rows:
            return self._decoded(self.hashes(ids, field))
        starts = range(0, len(ids), rows)
        fields = [None if field is None else field[start : start + rows] for start in starts]
        parts = zip(torch.split(ids, rows), fields, strict=True)
        return torch.cat([self._decoded(self.hashes(*part)) for part in parts])

    def _decoded(self, hashes: Tensor) -> Tensor:
        return decode(hashes.to(self.biases[0].dtype), [*self.matrices], [*self.biases])

    def draw(self, std: float, generator: torch.Generator) -> None:
        """Matrices as He draws them; the last is scaled so that vectors have deviation `std`.

        A fresh network gives all ids nearly one vector: its mean over some ids is taken off, and
        what tells them apart has the whole deviation.
        """
        noise = [torch.randn(each.shape, generator=generator, dtype=torch.float32)
                 for each in self.matrices]  # fmt: skip
        matrices = [each * (2 / each.shape[1]) ** 0.5 for each in noise]
        biases = [torch.zeros(len(each), dtype=torch.float32) for each in matrices]
        probes = torch.rand(PROBES, self.sizes[0], generator=generator, dtype=torch.float32) * 2 - 1
        found = decode(probes, matrices, biases)
        matrices[-1] *= std / found.std(0).clamp(min=1e-12)[:, None]
        biases[-1] -= decode(probes, matrices, biases).mean(0)
        for here, drawn in zip([*self.matrices, *self.biases], matrices + biases, strict=True):
            here.copy_(drawn)

    def decides(self) -> Any:
        """The salt, and how hashes are made of it."""
        return [self.salt, self.sizes[0], MIX_VERSION]

    def _constants(self) -> dict[str, Tensor]:
        words = -(-self.sizes[0] // 2)
        return super()._constants() | {
            "by_field": int64([derive_salt(self.salt, 0, f) for f in range(self.num_fields)]),
            "salts": int64([derive_salt(self.salt, 1, word) for word in range(words)]),
        }


def decode(hashes: Tensor, matrices: list[Tensor], biases: list[Tensor]) -> Tensor:
    """A network with mish between its layers.

    Example:
        >>> one = torch.ones(1, 1)
        >>> decode(torch.tensor([[2.0]]), [one, one], [torch.zeros(1), torch.ones(1)])
        tensor([[2.9440]])
    """
    *hidden, last = zip(matrices, biases, strict=True)
    for matrix, bias in hidden:
        hashes = F.mish(F.linear(hashes, matrix, bias))
    return F.linear(hashes, *last)
