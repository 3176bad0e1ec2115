"""Vectors in few bits, each with a step of its own.

A row is `round(v / step)` in `bits` bits, symmetric around 0, and its step as float16: the largest
number of the row is the largest code. Rows need no training, and a row alone can be read.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from bitfold.errors import BitfoldError


@dataclass(frozen=True)
class LowBit:
    """I rows of D numbers.

    Args:
        codes: uint8 `[I, D]` with 8 bits, `[I, ceil(D / 2)]` with 4 (the even number in the low
            half); float32 `[I, D]` with 32.
        steps: float16 `[I]`; empty with 32 bits.
        width: D.
        bits: 32, 8 or 4.

    Example:
        >>> rows = LowBit.of(torch.tensor([[7.0, -7.0, 1.2]]), 4)
        >>> rows.read(), rows.bytes
        (tensor([[ 7., -7.,  1.]]), 4)
    """

    codes: Tensor
    steps: Tensor
    width: int
    bits: int

    @classmethod
    def of(cls, vectors: Tensor, bits: int) -> "LowBit":
        """Round rows `[I, D]` to so many bits.

        Raises:
            BitfoldError: numbers so large that float16 has no step for them.
        """
        vectors = vectors.detach().float()
        if bits == 32:
            return cls(vectors.clone(), torch.zeros(0, dtype=torch.float16), vectors.shape[1], 32)
        most = 2 ** (bits - 1) - 1
        steps = (vectors.abs().amax(1) / most).half()
        if not bool(steps.isfinite().all()):
            raise BitfoldError(
                f"vectors cannot be kept in {bits} bits",
                got=f"a number of size {float(vectors.abs().max()):g}",
                expected=f"{most * torch.finfo(torch.float16).max:,.0f} at most",
                fix="train with a lower lr or with --similarity cosine, or say --index-bits 32",
            )
        # A row of zeros, or so small that float16 has no step for it, is zero.
        divisor = torch.where(steps > 0, steps.float(), torch.ones(()))
        codes = (vectors / divisor[:, None]).round().clamp(-most, most) * (steps > 0)[:, None]
        packed = (codes + most).to(torch.uint8)
        if bits == 4:
            if packed.shape[1] % 2:
                packed = torch.nn.functional.pad(packed, (0, 1))
            packed = packed[:, ::2] | (packed[:, 1::2] << 4)
        return cls(packed.contiguous(), steps, vectors.shape[1], bits)

    def read(self, start: int = 0, stop: int | None = None) -> Tensor:
        """Rows as float32 `[stop - start, D]`."""
        codes = self.codes[start:stop]
        if self.bits == 32:
            return codes
        if self.bits == 4:
            codes = torch.stack([codes & 15, codes >> 4], dim=2).flatten(1)[:, : self.width]
        centred = codes.float() - float(2 ** (self.bits - 1) - 1)
        return centred * self.steps[start:stop].float()[:, None]

    @property
    def bytes(self) -> int:
        """Of codes and steps."""
        return self.codes.nbytes + self.steps.nbytes
