"""The hidden model of a synthetic log, drawn from its seed: a few numbers a field, none an id."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bitfold.data.synth import kernels
from bitfold.data.synth.clock import DAY, LASTING

if TYPE_CHECKING:
    from bitfold.data.synth.log import SynthConfig

Arrays = dict[str, NDArray[Any]]

TIME_START = 1_700_000_000
_HEAD = 1024
_CLUSTERS = 64
_NUMERIC_LIKE = 256  # a numeric field counts as much as a field of so many ids
_PILOT_FIRST = 1 << 62  # the pilot's rows lie where no log's rows do
_PILOT_ROWS = 1 << 16
_PILOT_PIECE = 1 << 12
_SIXTHS = (-1.5341, -0.8122, -0.2533, 0.2533, 0.8122, 1.5341)  # even quantiles of a normal


class Truth:
    """Everything hidden of one log. Columns C are its F fields and then its G bag fields."""

    def __init__(self, config: "SynthConfig") -> None:
        self.config = config
        raw = np.random.Philox(config.seed)

        def bits(*shape: int) -> NDArray[np.uint64]:
            return np.asarray(raw.random_raw(int(np.prod(shape))), np.uint64).reshape(shape)

        def normal(*shape: int) -> NDArray[np.float64]:
            u = (bits(12, *shape) >> np.uint64(11)).astype(np.float64) * 2.0**-53
            return np.asarray(u.sum(axis=0) - 6.0)

        sizes = np.array(config.sizes + (config.bag_ids,) * config.bags, np.int64)
        columns = len(sizes)
        self.keys = bits(columns + config.bags + config.numeric)
        self.label_keys = bits(2)
        self.words = id_words(sizes, bits(columns, kernels.WORDS))
        self.clusters = normal(columns, _CLUSTERS, kernels.LATENTS + 2) * config.cluster**0.5
        self.slots, self.starts = zipf_tables(sizes, config.zipf)
        self.strength = sizes.astype(np.float64) ** -config.fade
        self.dirs = 0.5 * normal(config.numeric, kernels.LATENTS)
        self.numeric_linear = 0.5 * normal(config.numeric)
        spread = np.concatenate(
            [np.repeat(self.strength, kernels.LATENTS), np.ones(config.numeric)]
        )
        self.hidden_in = normal(len(spread), kernels.HIDDEN) * 2.0 / np.sqrt((spread**2).sum())
        self.hidden_bias = normal(kernels.HIDDEN)
        self.hidden_out = normal(kernels.HIDDEN)
        self.clock_keys = bits(columns, 3)  # last: a log without days is what it always was
        self.clock = np.zeros((columns, 2))
        if config.days:
            self.clock[sizes >= LASTING, 0] = config.drift
            self.clock[sizes >= LASTING, 1] = 1 / config.lifetime if config.lifetime else 0.0
        self.means, self.scales, self.bias = self._scale()

    def _scale(self) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        """Fix the parts' spreads and the bias on rows that belong to no log."""
        config = self.config
        pieces = range(_PILOT_FIRST, _PILOT_FIRST + _PILOT_ROWS, _PILOT_PIECE)
        parts = np.concatenate([self._draw(first, _PILOT_PIECE)[0] for first in pieces], axis=1)
        means, deviation = parts.mean(axis=1), parts.std(axis=1)
        wanted = np.array([config.linear, config.pairs, config.hidden])
        scales = np.divide(wanted, deviation, out=np.zeros(3), where=deviation > 0)
        # The parts are not independent: without this, seeds would differ in how much can be known.
        spread = (scales @ (parts - means[:, None])).std()
        scales *= np.sqrt((wanted**2).sum()) / spread if spread > 0 else 1.0
        logit = scales @ (parts - means[:, None])
        low, high = -60.0, 60.0
        for _ in range(60):
            bias = (low + high) / 2
            noisy = (logit + bias + config.noise * quantile for quantile in _SIXTHS)
            mean = np.mean([1.0 / (1.0 + np.exp(-x)) for x in noisy])
            low, high = (bias, high) if mean < config.positive else (low, bias)
        return means, scales, bias

    def _draw(self, first: int, count: int) -> tuple[NDArray[np.float64], Arrays]:
        config = self.config
        arrays: Arrays = {
            "ids": np.empty((config.fields, count), np.int64),
            "bag_ids": np.empty((config.bags, count, kernels.MAX_BAG), np.int64),
            "bag_lengths": np.empty((config.bags, count), np.int64),
            "numeric": np.empty((config.numeric, count), np.float32),
        }
        parts = np.empty((3, count))
        fill: Any = kernels.rows
        fill(
            np.uint64(first), self.keys, self.words, self.slots, self.starts, self.clusters,
            (1.0 - config.cluster) ** 0.5, self.strength, self.dirs, self.numeric_linear,
            self.hidden_in, self.hidden_bias, self.hidden_out,
            config.days / config.rows if first < _PILOT_FIRST else 0.0, self.clock, self.clock_keys,
            *arrays.values(), parts,
        )  # fmt: skip
        return parts, arrays

    def rows(self, first: int, count: int) -> Arrays:
        """Rows `first` to `first + count - 1`: the arrays of a `Chunk`."""
        parts, arrays = self._draw(first, count)
        logit, probability = np.empty(count), np.empty(count)
        label = np.empty(count, np.int8)
        draw: Any = kernels.labels
        draw(
            np.uint64(first), *self.label_keys, parts, self.means, self.scales, self.bias,
            float(self.config.noise), logit, probability, label,
        )  # fmt: skip
        return arrays | {
            "label": label,
            "time": times(first, count, self.config.seconds_a_row),
            "logit": logit,
            "probability": probability,
        }


def id_words(sizes: NDArray[np.int64], random: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """What the kernels know of each column's ids: sizes, and keys from `random[C, words]`."""
    words = random.copy()
    for c, size in enumerate(sizes.tolist()):
        width = max(int(size - 1).bit_length(), 1)
        mask = np.uint64((1 << width) - 1)
        words[c, kernels.SIZE] = size
        words[c, kernels.MASK] = mask
        words[c, kernels.SHIFT] = (width + 1) // 2
        words[c, kernels.KEY_ADD] &= mask
        words[c, kernels.KEY_MUL1] |= np.uint64(1)
        words[c, kernels.KEY_MUL2] |= np.uint64(1)
        words[c, kernels.CLUSTERS] = max(min(_CLUSTERS, size // 4), 1)
    return words


def zipf_tables(
    sizes: NDArray[np.int64], power: float
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Tables that ranks are drawn from, `[C, S]` and `[C, S + 1]`, with S slots.

    The first 1024 ranks have a slot and their exact share each. The others are cut into slots whose
    ends grow evenly in ratio: a slot has the integral's share, its ranks are alike.
    """
    slots = kernels.SLOTS
    table = np.zeros((len(sizes), slots), np.uint64)
    starts = np.zeros((len(sizes), slots + 1), np.uint64)
    for c, size in enumerate(sizes.tolist()):
        head = min(size, _HEAD)
        shares = np.zeros(slots)
        shares[:head] = np.arange(1, head + 1, dtype=np.float64) ** -power
        ends = np.arange(slots + 1).clip(max=size)
        if size > head:
            ends[head:] = np.rint(np.geomspace(head, size, slots + 1 - head)).astype(np.int64)
            edges = ends[head:] + 0.5
            flat = abs(power - 1.0) < 1e-9
            below = np.log(edges) if flat else edges ** (1.0 - power) / (1.0 - power)
            shares[head:] = np.diff(below)
        starts[c] = ends.astype(np.uint64)
        share, alias = _alias_table(shares)
        keep = np.rint(share * 2**kernels.KEEP_BITS).astype(np.uint64)
        table[c] = keep | alias.astype(np.uint64) << np.uint64(32)
    return table, starts


def _alias_table(shares: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Walker's tables: slot i stands for itself with chance `share[i]`, else for `alias[i]`."""
    share = shares / shares.mean()
    alias = np.arange(len(shares), dtype=np.int64)
    small = [i for i, s in enumerate(share) if s < 1.0]
    large = [i for i, s in enumerate(share) if s >= 1.0]
    while small and large:
        low, high = small.pop(), large[-1]
        alias[low] = high
        share[high] -= 1.0 - share[low]
        if share[high] < 1.0:
            small.append(large.pop())
    left = small + large  # by rounding; an empty slot among them must stay empty
    share[left] = shares[left] > 0
    alias[left] = shares.argmax()
    return share, alias


def times(first: int, count: int, seconds: float) -> NDArray[np.int64]:
    """Seconds since 1970, in the rows' order: `seconds` a row, busier by day than by night."""
    even = np.arange(first, first + count, dtype=np.float64) * seconds
    turn = 2.0 * np.pi / DAY
    return TIME_START + (even - 0.6 / turn * np.sin(even * turn)).astype(np.int64)
