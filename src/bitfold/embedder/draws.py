"""Seeds of fresh weights."""

import torch

from bitfold.address.mixing import derive_salt


def drawn_seed(generator: torch.Generator | None) -> int:
    """A seed, drawn from a generator, or from torch's own."""
    return int(torch.empty((), dtype=torch.int64, device="cpu").random_(generator=generator))


def part_seed(seed: int | None, number: int) -> int | None:
    """The seed of one of several groups: of one seed, their first rows would be alike.

    Example:
        >>> part_seed(7, 0) != part_seed(7, 1), part_seed(None, 1)
        (True, None)
    """
    return None if seed is None else derive_salt(seed, number) >> 1
