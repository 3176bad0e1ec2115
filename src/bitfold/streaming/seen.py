"""Which ids were there before: a Bloom filter of a size that is fixed at the beginning.

Source: Bloom, "Space/time trade-offs in hash coding with allowable errors", 1970.
"""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bitfold.data.hashing import mix

if TYPE_CHECKING:
    from bitfold.data.batch import Batch

PROBES = 4
BITS_AN_ID = 12  # at which one new id in 300 passes for a known one
EXPECTED = 16  # times the ids of the first window
LEAST, MOST = 1 << 16, 16 << 20  # bytes

Keys = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]


def filter_bytes(distinct: int) -> int:
    """Bytes of a filter for a stream whose first window has so many ids: a power of two.

    Example:
        >>> filter_bytes(100_000), filter_bytes(10**9)
        (4194304, 16777216)
    """
    wanted = distinct * EXPECTED * BITS_AN_ID // 8
    size = LEAST
    while size < min(wanted, MOST):
        size *= 2
    return size


class Seen:
    """A set of keys that may take a new one for known (one in 300 when as full as expected).

    Args:
        bits: uint8 `[bytes]`, a power of two of them; zeros hold nothing.

    Example:
        >>> seen = Seen(np.zeros(1 << 16, np.uint8))
        >>> seen.add(np.array([1, 2], np.uint64))
        >>> seen.has(np.array([1, 2, 3], np.uint64)).tolist()
        [True, True, False]
    """

    def __init__(self, bits: npt.NDArray[np.uint8]) -> None:
        self.bits = bits
        self._mask = np.uint64(len(bits) * 8 - 1)

    def has(self, keys: Keys) -> Flags:
        """Which keys were added, or look so."""
        found = np.ones(len(keys), bool)
        for places in self._places(keys):
            found &= self.bits[places >> np.uint64(3)] >> (places & np.uint64(7)) & 1 == 1
        return found

    def add(self, keys: Keys) -> None:
        """Add keys."""
        for places in self._places(keys):
            bit = np.left_shift(1, places & np.uint64(7), dtype=np.uint64).astype(np.uint8)
            np.bitwise_or.at(self.bits, places >> np.uint64(3), bit)

    def _places(self, keys: Keys) -> list[Keys]:
        # Two halves of one word give all probes (Kirsch and Mitzenmacher 2006).
        step = (keys >> np.uint64(32)) | np.uint64(1)
        return [(keys + np.uint64(probe) * step) & self._mask for probe in range(PROBES)]


class Newness:
    """Counts what a window holds of ids that no window before it had.

    Args:
        bits: the filter of the windows before; it gets this window's ids at the end.
        fields: names of the fields, in the order of a batch's ids; None for one that is not counted
            (the buckets of a number).
    """

    def __init__(self, bits: npt.NDArray[np.uint8], fields: list[str | None]) -> None:
        self._before, self._now = Seen(bits), Seen(bits.copy())
        self._counted = np.array([name is not None for name in fields])
        self._fields = fields
        self.rows = self.new_rows = self.new_ids = 0
        self.values, self.new_values = np.zeros((2, len(fields)), np.int64)

    def see(self, batch: "Batch") -> None:
        """Count a batch's rows and values."""
        count, rows = len(self._fields), batch.rows
        ids = batch.ids.cpu().numpy()
        if batch.offsets is None:
            field = np.tile(np.arange(count), rows)
            row = np.repeat(np.arange(rows), count)
            ids = ids.reshape(-1)
        else:
            lengths = np.diff(batch.offsets.cpu().numpy())
            bag = np.repeat(np.arange(count * rows), lengths)
            field, row = bag // max(rows, 1), bag % max(rows, 1)
        chosen = self._counted[field]
        ids, field, row = ids[chosen], field[chosen], row[chosen]
        keys = mix(mix(ids) ^ mix(field, 1))
        distinct, places = np.unique(keys, return_inverse=True)
        new = ~self._before.has(distinct)
        fresh = new & ~self._now.has(distinct)
        self._now.add(distinct[fresh])
        self.new_ids += int(fresh.sum())
        lacking = new[places]
        self.values += np.bincount(field, minlength=count)
        self.new_values += np.bincount(field[lacking], minlength=count)
        self.rows += rows
        self.new_rows += len(np.unique(row[lacking]))

    def end(self) -> npt.NDArray[np.uint8]:
        """The filter with this window's ids in it."""
        return self._now.bits

    def figures(self) -> dict[str, float]:
        """Shares of rows and values with a new id, how many new ids, and the share by field."""
        found = {
            "new_rows": self.new_rows / max(self.rows, 1),
            "new_values": int(self.new_values.sum()) / max(int(self.values.sum()), 1),
            "new_ids": self.new_ids,
        }
        each = zip(self._fields, self.new_values.tolist(), self.values.tolist(), strict=True)
        return found | {
            f"{NEW_IN}{name}": new / max(values, 1)
            for name, new, values in each
            if name is not None
        }


NEW_IN = "new:"
"""Before a field's name, in a line's figures."""
