"""Sizes of ids: distributions by rank, dealt as whole pieces under one total."""

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Integers = NDArray[np.int64]

LEAST = 1e-290  # of the most that is wanted: what is over can be divided by it


def ranked(shares: Numbers, level: float, shape: float) -> Numbers:
    """What ids want: a power of their rank, of mean `level` over even shares.

    Args:
        shares: the share of ids that are less frequent, between 0 and 1, descending.
        level: the mean.
        shape: the power; 0: all alike.

    Example:
        >>> ranked(np.array([0.75, 0.25]), 2.0, 1.0).tolist()
        [3.0, 1.0]
    """
    wanted: Numbers = level * (1 + shape) * shares**shape
    return wanted


def even_shares(count: int) -> Numbers:
    """The shares of `count` ids below the middle of each, descending.

    Example:
        >>> even_shares(4).tolist()
        [0.875, 0.625, 0.375, 0.125]
    """
    shares: Numbers = 1 - (np.arange(count) + 0.5) / count
    return shares


def dealt(wanted: Numbers, most: int, total: int) -> Integers:
    """Whole pieces of ids in proportion to what they want; what is over goes to the others.

    An id that wants no less than another gets no fewer pieces, if it comes first among equals.

    Args:
        wanted: `[n]`, 0 or more; only proportions count.
        most: pieces that an id may have.
        total: of all pieces; all are dealt, unless all that want any have the most.

    Example:
        >>> dealt(np.array([8.0, 2.0, 1.0, 0.0]), most=4, total=7).tolist()
        [4, 2, 1, 0]
    """
    wants = np.flatnonzero(wanted > 0)
    sizes = np.zeros(len(wanted), np.int64)
    if len(wants) * most <= total:
        sizes[wants] = most
        return sizes
    some = np.maximum(wanted[wants] / wanted.max(), LEAST)
    falling = np.sort(some)[::-1]
    left = np.cumsum(falling[::-1])[::-1]  # what those from the k-th on want
    unit = (total - most * np.arange(len(falling))) / left
    full = int(np.argmax(unit * falling <= most))  # so many have the most
    parts = np.minimum(some * max(unit[full], 0.0), most)
    whole = np.floor(parts + 1e-9).astype(np.int64)
    over = total - int(whole.sum())
    whole[np.argsort(whole - parts, kind="stable")[:over]] += 1
    sizes[wants] = np.minimum(whole, most)
    return sizes


def group_means(frequencies: Numbers, groups: int) -> Numbers:
    """The mean frequency of `groups` groups of ids, as even as they come, frequent ones first.

    Args:
        frequencies: descending; a group of none has mean 0.
        groups: how many.

    Example:
        >>> group_means(np.array([9.0, 7.0, 2.0, 2.0, 1.0]), 2).tolist()
        [6.0, 1.5]
    """
    parts = np.array_split(frequencies, groups)
    return np.array([part.mean() if len(part) else 0.0 for part in parts])
