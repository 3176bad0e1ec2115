"""Whether a plan's tables fit this machine's memory, before anything is allocated."""

import resource
from pathlib import Path
from typing import TYPE_CHECKING

from bitfold.errors import BitfoldError
from bitfold.planning.budget import format_bytes

if TYPE_CHECKING:
    from bitfold.planning.plan import Plan


def available_bytes() -> int | None:
    """Bytes that this process may still take: what the machine has free, within its own limit.

    None where the system does not tell.
    """
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        sizes = {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines}
        free = sizes["MemAvailable"] + sizes.get("SwapFree", 0)
        used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, KeyError, IndexError):
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        free = min(free, limit - used * resource.getpagesize())
    return max(free, 0)


def check_memory(plan: "Plan") -> None:
    """Raise unless the plan's tables fit.

    Dense ids need a row for each number up to the largest: one id of 10**13 asks for terabytes.

    Raises:
        BitfoldError: naming the field with the largest id, and hashed ids as the way out.
    """
    free = available_bytes()
    if free is None or plan.bytes <= free:
        return
    dense = [field for field in plan.fields if field.num_embeddings is not None]
    largest = max(dense, key=lambda field: field.num_embeddings or 0, default=None)
    where = (
        f"; the largest id of {largest.name!r} is {(largest.num_embeddings or 1) - 1:,}"
        if largest is not None
        else ""
    )
    raise BitfoldError(
        "the embedding tables do not fit this machine's memory",
        got=f"{plan.bytes:,} bytes ({format_bytes(plan.bytes)}){where}",
        expected=f"at most {free:,} bytes, which are free",
        fix="say --ids hashed or --ids vocabulary if ids are not numbered 0, 1, 2, ...; or give a "
        "smaller --budget",
    )
