"""Minhash: two sets agree in an element of their signatures as often as they overlap.

Source: Broder, "On the Resemblance and Containment of Documents", 1997. An element of a set's
signature is the least hash of its members. Of two sets it is the same with the probability of their
Jaccard overlap, so the share of equal elements estimates that with an error of
sqrt(J (1 - J) / n), at most 1 / (2 sqrt(n)), of n elements. Sets are told in any order and as
often as one likes, and take 8 bytes an element, whatever their size.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bitfold.address.mixing import derive_salt, mix_numpy
from bitfold.planning.statistics import Ids, Occurrences

Words = NDArray[np.uint64]
NOTHING = np.uint64((1 << 64) - 1)
"""The least hash of an empty set."""


class MinHashes:
    """The least hashes of some sets.

    Args:
        sets: how many there are.
        functions: hashes of each member.
        salt: what the hashes follow from; sets of one salt can be compared.

    Example:
        >>> found = MinHashes(2, 400, salt=1)
        >>> members = np.arange(90, dtype=np.uint64)
        >>> found.add(np.repeat([0, 1], [60, 60]), np.concatenate([members[:60], members[30:]]))
        >>> share = (found.least[:, 0] == found.least[:, 1]).mean()
        >>> bool(abs(share - 30 / 90) < 0.1)
        True
    """

    def __init__(self, sets: int, functions: int, salt: int) -> None:
        self.salts = [derive_salt(salt, number) for number in range(functions)]
        self.least = np.full((functions, sets), NOTHING)

    def add(self, sets: Ids, members: Words) -> None:
        """Add a member `[T]` to each of these sets `[T]`."""
        for least, salt in zip(self.least, self.salts, strict=True):
            np.minimum.at(least, sets, mix_numpy(members.view(np.int64), salt))

    def elements(self, power: int, ways: int) -> NDArray[np.int64]:
        """Signatures `[functions / power, sets]`, their elements numbers below `ways`.

        An element is made of `power` least hashes, so that two sets of overlap J agree in it with
        the probability `J**power`, and by chance in one of `ways` of the rest.
        """
        made = []
        for first in range(0, len(self.least), power):
            word = np.zeros(self.least.shape[1], np.uint64)
            for number in range(first, first + power):
                word = mix_numpy((word ^ self.least[number]).view(np.int64), self.salts[number])
            made.append(scaled(word, ways))
        return np.stack(made)


def scaled(words: Words, ways: int) -> NDArray[np.int64]:
    """Mixed words as numbers below `ways`, which is at most 2**32."""
    return ((words >> np.uint64(32)) * np.uint64(ways) >> np.uint64(32)).astype(np.int64)


def add_neighbours(
    hashes: Mapping[str, MinHashes],
    part: Mapping[str, Occurrences],
    members: Mapping[str, Words],
    sets: Mapping[str, Ids],
) -> None:
    """Add to the set of each id of some rows the other ids of its row.

    Only the least hash of a row and the next one are needed: what a row adds to an id's set is the
    least hash of the others, which is the row's least but for the id that has it.

    Args:
        hashes: of the ids of some fields; all of one salt and as many functions.
        part: the rows.
        members: each id as a member of sets `[T]`, for every field.
        sets: the number of each id's own set `[T]`, for the fields of `hashes`.
    """
    every = [each.rows for each in part.values()]
    first = min((int(rows[0]) for rows in every if len(rows)), default=0)
    count = max((int(rows[-1]) + 1 - first for rows in every if len(rows)), default=0)
    one = next(iter(hashes.values()))
    for number, salt in enumerate(one.salts):
        words = {name: mix_numpy(members[name].view(np.int64), salt) for name in part}
        least, second = np.full(count, NOTHING), np.full(count, NOTHING)
        for name, each in part.items():
            np.minimum.at(least, each.rows - first, words[name])
        for name, each in part.items():
            place = each.rows - first
            others = np.where(words[name] == least[place], NOTHING, words[name])
            np.minimum.at(second, place, others)
        for name, into in hashes.items():
            place = part[name].rows - first
            given = np.where(words[name] == least[place], second[place], least[place])
            np.minimum.at(into.least[number], sets[name], given)


def sample(part: Mapping[str, Occurrences], share: float, salt: int) -> dict[str, Occurrences]:
    """Some of the rows, each drawn by its number with the chance `share`."""
    bound, found = np.uint64(min(int(share * 2.0**64), (1 << 64) - 1)), {}
    for name, each in part.items():
        keep = mix_numpy(each.rows, salt) < bound
        found[name] = Occurrences(each.ids[keep], each.rows[keep])
    return found


def hashed(count: int, salts: Sequence[int], ways: int) -> NDArray[np.int64]:
    """Signatures `[E, count]` of ids of which nothing is known: hashes of their numbers."""
    ids = np.arange(count)
    return np.stack([scaled(mix_numpy(ids, salt), ways) for salt in salts])
