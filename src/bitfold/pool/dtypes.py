"""Types of the numbers while they are trained, by the names that plans give them."""

import torch

from bitfold.errors import BitfoldError

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def dtype_name(dtype: torch.dtype | str | None) -> str:
    """The name of a floating dtype; None means torch's default."""
    found = torch.get_default_dtype() if dtype is None else dtype
    name = str(found).removeprefix("torch.")
    if name not in DTYPES:
        raise BitfoldError(
            "an embedding holds floating numbers", got=name, expected=" or ".join(DTYPES)
        )
    return name
