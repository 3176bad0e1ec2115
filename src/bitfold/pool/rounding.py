"""Rounding to few bits: codes and their values, the same to the bit everywhere.

A column's `2**bits` values lie evenly around a centre, as many below it as above:

    lowest = centre - step * (2**bits - 1) / 2
    code   = clamp(round((x - lowest) * inverse), 0, 2**bits - 1)         what is kept
    value  = lowest + step * code

with `inverse = 1 / step`, 0 where the step is 0: then every value is the centre. Centres and steps
are numbers of float16, computed with in float32. So both products with a step are exact, each sum
rounds once, and no compiler can make other numbers of them by fusing product and sum; between the
third product and a sum stands the rounding. What is not a number stays so.

Shapes: R rows, w columns, S slices: runs of rows that share centres, and steps by column.
"""

import torch
from torch import Tensor

from bitfold.address.words import down, exporting, up
from bitfold.errors import BitfoldError
from bitfold.kernels.reading import OF_LARGEST, row_bytes
from bitfold.planning.spec import FEW_BITS

# The even steps that lose the least of a Gaussian, in deviations (Max, IRE Transactions on
# Information Theory 6, 1960; for 8 bits by minimizing the same integral).
OF_DEVIATION = {8: 0.0308, 4: 0.335, 3: 0.586, 2: 0.996, 1: 1.596}
SAMPLE = 16_384  # rows of a slice whose mean and deviation stand for all
MOST = torch.finfo(torch.float16).max


def check_bits(bits: int) -> None:
    """Raise unless numbers can be kept in so many bits."""
    if bits not in FEW_BITS:
        raise BitfoldError("bits of a number", got=bits, expected=" or ".join(map(str, FEW_BITS)))


def as_half(values: Tensor) -> Tensor:
    """The nearest float16; numbers beyond its range become its largest."""
    return values.float().clamp(-MOST, MOST).half()


def scales_of(rows: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Centres and steps `[w]`, float16, of a slice's rows `[n, w]`: mean and deviation by column.

    Of many rows `SAMPLE` evenly spaced ones stand for all, so that the time has a bound.

    Example:
        >>> centre, step = scales_of(torch.tensor([[1.0], [3.0]]), bits=1)
        >>> centre.item(), step.item()
        (2.0, 1.595703125)
    """
    if not len(rows):
        nothing = as_half(rows.new_zeros(rows.shape[1]))
        return nothing, nothing
    sample = rows.detach()[:: max(1, -(-len(rows) // SAMPLE))].double()
    variance, mean = torch.var_mean(sample, 0, correction=0)
    return as_half(mean), as_half(variance.sqrt() * OF_DEVIATION[bits])


def row_steps(numbers: Tensor, centre: Tensor, bits: int) -> Tensor:
    """A step of its own for each row `[..., w]`: float16 `[..., 1]`.

    It follows from the row's largest distance from the centre, which is the same number in
    whatever order it is looked for; a deviation's last bit would depend on the order of a sum.
    """
    farthest = (numbers.float() - centre.float()).abs().amax(-1, keepdim=True)
    return as_half(farthest * OF_LARGEST[bits])


def lowest_of(centre: Tensor, step: Tensor, bits: int) -> Tensor:
    """The value of code 0, float32."""
    return centre.float() - step.float() * (((1 << bits) - 1) / 2)


def _codes(numbers: Tensor, lowest: Tensor, step: Tensor, bits: int) -> Tensor:
    """Codes as float32; not a number where there is none."""
    step = step.float()
    inverse = torch.where(step > 0, 1 / step, 0.0)
    return ((numbers.float() - lowest) * inverse).round().clamp(0, (1 << bits) - 1)


def values_of(codes: Tensor, centre: Tensor, step: Tensor, bits: int) -> Tensor:
    """The values of codes `[..., w]`, float32.

    Example:
        >>> values_of(torch.tensor([0, 1, 2, 3]), torch.tensor(1.0), torch.tensor(0.5), bits=2)
        tensor([0.2500, 0.7500, 1.2500, 1.7500])
    """
    return lowest_of(centre, step, bits) + step.float() * codes.float()


def rounded(numbers: Tensor, centre: Tensor, step: Tensor, bits: int) -> Tensor:
    """Numbers `[..., w]` as they come back from `bits` bits, in float32.

    Example:
        >>> rounded(torch.tensor([0.9, 1.1, 9.0]), torch.tensor(1.0), torch.tensor(0.5), bits=2)
        tensor([0.7500, 1.2500, 1.7500])
    """
    lowest = lowest_of(centre, step, bits)
    return lowest + step.float() * _codes(numbers, lowest, step, bits)


def codes_of(numbers: Tensor, centre: Tensor, step: Tensor, bits: int) -> Tensor:
    """The codes of numbers `[..., w]`, uint8.

    Raises:
        BitfoldError: for what is not a number, which no code stands for.
    """
    codes = _codes(numbers, lowest_of(centre, step, bits), step, bits)
    if not codes.is_meta and bool(codes.isnan().any()):
        raise BitfoldError(
            "weights that are not numbers cannot be packed",
            got=f"{int(codes.isnan().sum())} of {codes.numel()} not a number",
            expected="finite weights",
            fix="train with a smaller learning rate",
        )
    return codes.to(torch.uint8)


def pack(codes: Tensor, bits: int) -> Tensor:
    """Codes `[..., w]` as bytes `[..., ceil(w * bits / 8)]`, uint8: the first code lowest.

    Example:
        >>> pack(torch.tensor([[1, 2, 3]], dtype=torch.uint8), bits=4)
        tensor([[33,  3]], dtype=torch.uint8)
    """
    width, device = codes.shape[-1], codes.device
    places = torch.arange(bits, dtype=torch.uint8, device=device)
    flat = ((codes.unsqueeze(-1) >> places) & 1).flatten(-2)
    wide = torch.nn.functional.pad(flat, (0, 8 * row_bytes(width, bits) - width * bits))
    weight = 1 << torch.arange(8, dtype=torch.uint8, device=device)
    eights = wide.reshape(*wide.shape[:-1], -1, 8)
    return (eights * weight).sum(-1, dtype=torch.uint8)


def unpack(packed: Tensor, width: int, bits: int) -> Tensor:
    """The codes `[..., w]`, uint8, that `pack` wrote.

    Example:
        >>> unpack(torch.tensor([[33, 3]], dtype=torch.uint8), width=3, bits=4)
        tensor([[1, 2, 3]], dtype=torch.uint8)
    """
    if exporting() and 8 % bits == 0:
        return _unpack_exported(packed, width, bits)
    first = torch.arange(width, device=packed.device) * bits
    kind = torch.int64 if exporting() else torch.int16  # which has what words are written with
    place, shift = down(first, 3), (first & 7).to(kind)
    pair = packed[..., place].to(kind)
    if bits & (bits - 1):  # a code may lie in two bytes
        after = torch.nn.functional.pad(packed, (0, 1))[..., place + 1]
        pair = pair + up(after.to(kind), 8)
    return (down(pair, shift) & ((1 << bits) - 1)).to(torch.uint8)


def _unpack_exported(packed: Tensor, width: int, bits: int) -> Tensor:
    """The same where bytes have whole codes: each byte's are read from a table of all bytes.

    Runtimes read a table several times as quickly as they divide.
    """
    if bits == 8:
        return packed
    shifts, mask = range(0, 8, bits), (1 << bits) - 1
    table = [[byte >> shift & mask for shift in shifts] for byte in range(256)]
    codes = torch.tensor(table, dtype=torch.uint8, device=packed.device)
    found = torch.nn.functional.embedding(packed.long(), codes).flatten(-2)
    return found[..., :width]
