"""Codes and their blocks: an id's bits, and which block each bit is dealt to.

Source: Yan et al., "Binary Code based Hash Embedding for Web-scale Applications", CIKM 2021,
section 3.2. A code of `S` bits is dealt into `M` blocks:

- *succession*: runs of neighbouring bits; block 0 holds the lowest.
- *skip*: block `m` takes bits `m, m + M, m + 2M, ...`; a bit's weight is its rank in its block.

Skip is a permutation of the code followed by succession, so everything after the permutation
is shared. The permutation is linear over bytes: eight small tables apply it to any code.
"""

import numpy as np
from numpy.typing import NDArray

MOST_CODE_BITS = 64


def block_lengths(bits: int, blocks: int) -> tuple[int, ...]:
    """Bits in each of `blocks` blocks of a `bits`-bit code; the same for both strategies.

    The last block is shorter when it must be: it is never padded.

    Example:
        >>> block_lengths(24, 5)
        (5, 5, 5, 5, 4)
    """
    return tuple((bits - m + blocks - 1) // blocks for m in range(blocks))


def succession_lengths(bits: int, block_bits: int) -> tuple[int, ...]:
    """Bits in each block when every block but the last holds `block_bits`.

    Example:
        >>> succession_lengths(24, 7)
        (7, 7, 7, 3)
    """
    whole, rest = divmod(bits, block_bits)
    return (block_bits,) * whole + ((rest,) if rest else ())


def skip_destinations(bits: int, blocks: int) -> tuple[int, ...]:
    """Where skip sends each bit: bit `i` of the code becomes bit `skip_destinations(...)[i]`.

    Block 0 fills the lowest bits of the permuted code, then block 1, and so on.

    Example:
        >>> skip_destinations(5, 2)  # block 0 takes bits 0, 2, 4; block 1 takes bits 1, 3
        (0, 3, 1, 4, 2)
    """
    starts, start = [], 0
    for length in block_lengths(bits, blocks):
        starts.append(start)
        start += length
    return tuple(starts[i % blocks] + i // blocks for i in range(bits))


def byte_tables(bits: int, blocks: int) -> NDArray[np.int64]:
    """Tables `[8, 256]` whose entries, summed over a code's bytes, give the permuted code."""
    tables = np.zeros((MOST_CODE_BITS // 8, 256), dtype=np.uint64)
    values = np.arange(256, dtype=np.uint64)
    for source, destination in enumerate(skip_destinations(bits, blocks)):
        byte, bit = divmod(source, 8)
        tables[byte] |= ((values >> np.uint64(bit)) & np.uint64(1)) << np.uint64(destination)
    return tables.view(np.int64)


def deal_skip(code: int, bits: int, blocks: int) -> int:
    """The permuted code, one bit at a time: the definition that the tables are tested against."""
    return sum(
        ((code >> source) & 1) << destination
        for source, destination in enumerate(skip_destinations(bits, blocks))
    )


def undeal_skip(dealt: int, bits: int, blocks: int) -> int:
    """The code that `deal_skip` permuted.

    Example:
        >>> undeal_skip(deal_skip(0b10110, 5, 2), 5, 2) == 0b10110
        True
    """
    return sum(
        ((dealt >> destination) & 1) << source
        for source, destination in enumerate(skip_destinations(bits, blocks))
    )
