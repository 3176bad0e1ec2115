"""Seeds of fresh weights."""

import torch


def drawn_seed(generator: torch.Generator | None) -> int:
    """A seed, drawn from a generator, or from torch's own."""
    return int(torch.empty((), dtype=torch.int64, device="cpu").random_(generator=generator))
