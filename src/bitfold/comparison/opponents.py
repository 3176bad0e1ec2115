"""Equal bytes: the hash trick that weighs what a method weighs.

A budget is a ceiling. A method that cannot fill it (its rows come in powers of two, say) is held
against a hash trick of its own size: one that is compared anyway if its bytes are within
`tolerance`, else one more line whose budget is the method's bytes, such as `359,000 B`.
"""

from collections.abc import Callable, Mapping

Key = tuple[str, str]


def opponents(
    sizes: Mapping[Key, int],
    hash_name: str,
    tolerance: float,
    weigh: Callable[[str], int | None],
) -> tuple[dict[Key, Key], list[str]]:
    """Which line of the hash trick faces each method and budget, and the lines to add.

    Args:
        sizes: the serving bytes of each (method, budget), full tables left out.
        hash_name: the entry of `--methods` that is the hash trick.
        tolerance: the share by which the bytes of two lines may differ and still be called equal.
        weigh: the bytes that the hash trick takes of a budget; None if it cannot be built.

    Returns:
        The facing (method, budget) of each key, and the budgets to run the hash trick at besides.

    Example:
        >>> sizes = {("hash", "1KB"): 1000, ("skip", "1KB"): 700, ("tight", "1KB"): 996}
        >>> facing, more = opponents(sizes, "hash", 0.01, weigh=lambda budget: 698)
        >>> facing[("tight", "1KB")], facing[("skip", "1KB")], more
        (('hash', '1KB'), ('hash', '700 B'), ['700 B'])
    """
    known = {budget: size for (name, budget), size in sizes.items() if name == hash_name}
    facing: dict[Key, Key] = {}
    more: list[str] = []
    for (name, budget), size in sizes.items():
        if name == hash_name:
            continue
        found = _nearest(known, size, tolerance, first=budget)
        if found is None:
            text = f"{size:,} B"
            weight = weigh(text)
            if weight is None:
                continue
            # Rows are whole: the nearest hash trick may be one that is there already.
            found = next((other for other, bytes in known.items() if bytes == weight), None)
            if found is None:
                found = text
                known[text] = weight
                more.append(text)
        facing[name, budget] = (hash_name, found)
    return facing, more


def _nearest(known: Mapping[str, int], size: int, tolerance: float, first: str) -> str | None:
    """The budget whose bytes are nearest to `size`, if near enough; `first` if it is."""

    def away(budget: str) -> float:
        return abs(known[budget] - size) / max(known[budget], size)

    if first in known and away(first) <= tolerance:
        return first
    best = min(known, key=away, default=None)
    return best if best is not None and away(best) <= tolerance else None
