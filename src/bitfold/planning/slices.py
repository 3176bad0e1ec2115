"""Which rows of a pool share a centre and a step when its numbers are kept in few bits."""

from bitfold.address.program import Program

SMALL = 64  # rows: below, a slice of few bits weighs less than its own centres and steps


def slices_of(program: Program, fusion: str) -> tuple[int, ...]:
    """The first row of each run of rows of the first pool that shares a centre and a step.

    Rows that one lookup reads are in one run: its slice. Slices that overlap are one; a small one
    goes with its neighbour where both play the same part in the fusion: the first factor of a
    product lives around 0, the later ones around 1.

    Example:
        >>> from bitfold.address import Lookup, Raw
        >>> whole, first = Lookup(Raw(), 7, 0), Lookup(Raw(), 100, 7)
        >>> second = Lookup(Raw(), 10, 107, divisor=100)
        >>> slices_of(Program(1, ((whole,), (first, second)), 117), "product")
        (0, 107)
        >>> beside = Lookup(Raw(), 500, 0, pool=1)
        >>> slices_of(Program(1, ((whole, beside),), 7, (500,)), "sum")
        (0,)
    """
    parts: dict[tuple[int, int], set[bool]] = {}
    for lookups, terms in zip(program.fields, program.terms, strict=True):
        for position, lookup in enumerate(lookups):
            if lookup.pool:
                continue
            place = lookup.base, lookup.base + lookup.span
            later = fusion == "product" and position % terms > 0
            parts.setdefault(place, set()).add(later)
    runs: list[tuple[int, int, set[bool]]] = []
    for (base, end), roles in sorted(parts.items()):
        if runs:
            start, reach, before = runs[-1]
            small = min(reach - start, end - base) < SMALL
            if base < reach or (small and before == roles):
                runs[-1] = start, max(reach, end), before | roles
                continue
        runs.append((base, end, set(roles)))
    starts = [start for start, _, _ in runs]
    return (0, *starts[1:])
