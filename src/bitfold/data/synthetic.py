"""The synthetic log: any number of rows and ids, and the best AUC a model could reach is known.

An id's hidden numbers are a hash of the id mixed with a hash of its cluster, so nothing is stored
per id. docs/synthetic.md has the formula, and says what is realistic in it and what is not.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfold.config import to_json, word
from bitfold.errors import BitfoldError

FORMAT_VERSION = 1
MOST_IDS = 2_000_000_000
CHUNK_ROWS = 1 << 18
TIME_START = 1_700_000_000
SECONDS_PER_ROW = 0.5
_DAY = 86_400.0
_PILOT_ROWS = 1 << 16
_PILOT_FIRST = 1 << 62  # the pilot's rows lie where no log's rows do
_HEAD = 1024
_LEAST_IDS = 10
_CLUSTERS = 64


@dataclasses.dataclass(frozen=True)
class SynthConfig:
    """What a synthetic log is made of. The same words make the same log, row for row.

    Raises:
        BitfoldError: a word's value is out of its range.

    Example:
        >>> SynthConfig(rows=1000, fields=4, ids=100_000).sizes
        (100000, 4642, 215, 10)
    """

    rows: int = word(1_200_000, help="Rows of the log.")
    fields: int = word(
        10, help="Categorical fields; field_0 is the user (the group) and the largest."
    )
    ids: int = word(
        2_000_000,
        help="Ids that exist in field_0, up to 2e9; the other fields shrink evenly to 10.",
    )
    zipf: float = word(
        1.0, help="Zipf exponent: an id's share falls with its rank to this power; 0 is even."
    )
    numeric: int = word(2, help="Dense numeric fields (log-normal).")
    bags: int = word(0, help="Multi-valued fields of 1 to 6 ids, written as text joined by '|'.")
    bag_ids: int = word(5_000, help="Ids that exist in each bag field.")
    positive: float = word(0.25, help="Share of clicks, 0 to 1.")
    linear: float = word(0.6, help="Standard deviation of the first-order part of the logit.")
    pairs: float = word(1.0, help="Standard deviation of the factorisation machine's part.")
    hidden: float = word(0.4, help="Standard deviation of the hidden network's part.")
    noise: float = word(
        0.3, help="Standard deviation of the logit's noise, which nobody can learn."
    )
    cluster: float = word(
        0.5, help="Share of an id's hidden variance that its cluster of ids has in common, 0 to 1."
    )
    fade: float = word(
        0.25, help="How fast a field counts less the more ids it has: weight = ids ** -fade."
    )
    seed: int = word(0, help="Another seed makes another log, with other hidden numbers.")

    def __post_init__(self) -> None:
        for name, least, most in (
            ("rows", 1, _PILOT_FIRST),
            ("fields", 1, 10_000),
            ("ids", 2, MOST_IDS),
            ("zipf", 0, 10),
            ("numeric", 0, 10_000),
            ("bags", 0, 10_000),
            ("bag_ids", 2, MOST_IDS),
            ("positive", 0.001, 0.999),
            ("linear", 0, 10),
            ("pairs", 0, 10),
            ("hidden", 0, 10),
            ("noise", 0, 10),
            ("cluster", 0, 1),
            ("fade", 0, 10),
            ("seed", 0, 2**63 - 1),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                raise BitfoldError(
                    f"the synthetic log cannot have this {name}",
                    got=f"{name} {value}",
                    expected=f"{least:,} to {most:,}",
                    fix=f"give another --{name.replace('_', '-')}",
                )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Ids that exist in each field, largest first."""
        least = min(_LEAST_IDS, self.ids)
        steps = max(self.fields - 1, 1)
        return tuple(
            round(self.ids * (least / self.ids) ** (f / steps)) for f in range(self.fields)
        )


DEFAULT = SynthConfig()


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Consecutive rows of a log: R rows, F fields, G bag fields, N numeric fields, L longest bag.

    `logit` is the true logit before noise; `probability` the chance that the label was drawn with.
    """

    first: int
    label: NDArray[np.int8]  # [R]
    time: NDArray[np.int64]  # [R], seconds
    ids: NDArray[np.int64]  # [F, R]
    bag_ids: NDArray[np.int64]  # [G, R, L]; a row's slots beyond its length are not set
    bag_lengths: NDArray[np.int64]  # [G, R]
    numeric: NDArray[np.float32]  # [N, R]
    logit: NDArray[np.float64]  # [R]
    probability: NDArray[np.float64]  # [R]

    @property
    def rows(self) -> int:
        """R."""
        return len(self.label)


@dataclasses.dataclass(frozen=True)
class SynthReport:
    """What `synthesize` wrote; the same words stand in the JSON file beside the log.

    `bayes_auc` is the expected AUC, over these rows, of a scorer that knows the true logit.
    `distinct` counts the ids that appear, per field.
    """

    rows: int
    distinct: dict[str, int]
    bayes_auc: float
    positive_rate: float
    seconds: float


class _Truth:
    """Everything hidden of one log, drawn from the seed: a few numbers per field, none per id."""

    def __init__(self, config: SynthConfig) -> None:
        from bitfold.data import _synth_kernels as kernels

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
        self.words = self._words(sizes, bits(columns, kernels.WORDS))
        self.clusters = np.sqrt(config.cluster) * normal(columns, _CLUSTERS, kernels.LATENTS + 2)
        self.slots, self.starts = _zipf_tables(sizes, config.zipf)
        self.strength = sizes.astype(np.float64) ** -config.fade
        self.dirs = 0.5 * normal(config.numeric, kernels.LATENTS)
        self.numeric_linear = 0.5 * normal(config.numeric)
        spread = np.concatenate(
            [np.repeat(self.strength, kernels.LATENTS), np.ones(config.numeric)]
        )
        self.hidden_in = normal(len(spread), kernels.HIDDEN) * 2.0 / np.sqrt((spread**2).sum())
        self.hidden_bias = normal(kernels.HIDDEN)
        self.hidden_out = normal(kernels.HIDDEN)
        self._scale()

    def _words(self, sizes: NDArray[np.int64], random: NDArray[np.uint64]) -> NDArray[np.uint64]:
        from bitfold.data import _synth_kernels as kernels

        words = random.copy()
        for c, size in enumerate(sizes.tolist()):
            width = max(int(size - 1).bit_length(), 1)
            mask = (1 << width) - 1
            words[c, kernels.SIZE] = size
            words[c, kernels.MASK] = mask
            words[c, kernels.SHIFT] = (width + 1) // 2
            words[c, kernels.KEY_ADD] &= np.uint64(mask)
            words[c, kernels.KEY_MUL1] |= np.uint64(1)
            words[c, kernels.KEY_MUL2] |= np.uint64(1)
            words[c, kernels.CLUSTERS] = max(min(_CLUSTERS, size // 4), 1)
        return words

    def _scale(self) -> None:
        """Fix the parts' spreads and the bias on rows that belong to no log."""
        config = self.config
        parts, chunk = self._draw(_PILOT_FIRST, _PILOT_ROWS)
        del chunk
        wanted = np.array([config.linear, config.pairs, config.hidden])
        self.means = parts.mean(axis=1)
        deviation = parts.std(axis=1)
        self.scales = np.divide(wanted, deviation, out=np.zeros(3), where=deviation > 0)
        logit = self.scales @ (parts - self.means[:, None])
        # Even quantiles of the noise stand in for its draws: the bias is then smooth in the words.
        noise = config.noise * np.array([-1.5341, -0.8122, -0.2533, 0.2533, 0.8122, 1.5341])
        low, high = -60.0, 60.0
        for _ in range(60):
            self.bias = (low + high) / 2
            mean = np.mean([1 / (1 + np.exp(-(logit + self.bias + e))) for e in noise])
            low, high = (self.bias, high) if mean < config.positive else (low, self.bias)

    def _draw(self, first: int, count: int) -> tuple[NDArray[np.float64], dict[str, Any]]:
        from bitfold.data import _synth_kernels as kernels

        config = self.config
        arrays: dict[str, Any] = {
            "ids": np.empty((config.fields, count), np.int64),
            "bag_ids": np.empty((config.bags, count, kernels.MAX_BAG), np.int64),
            "bag_lengths": np.empty((config.bags, count), np.int64),
            "numeric": np.empty((config.numeric, count), np.float32),
        }
        parts = np.empty((3, count))
        fill: Any = kernels.rows
        fill(
            np.uint64(first), self.keys, self.words, self.slots, self.starts,
            self.clusters, np.sqrt(1.0 - config.cluster), self.strength,
            self.dirs, self.numeric_linear, self.hidden_in, self.hidden_bias, self.hidden_out,
            *arrays.values(), parts,
        )  # fmt: skip
        return parts, arrays

    def chunk(self, first: int, count: int) -> Chunk:
        """Rows `first` to `first + count - 1`."""
        from bitfold.data import _synth_kernels as kernels

        parts, arrays = self._draw(first, count)
        label = np.empty(count, np.int8)
        logit, probability = np.empty(count), np.empty(count)
        draw: Any = kernels.labels
        draw(
            np.uint64(first), *self.label_keys, parts, self.means, self.scales, self.bias,
            self.config.noise, logit, probability, label,
        )  # fmt: skip
        return Chunk(
            first=first, label=label, time=_times(first, count), logit=logit,
            probability=probability, **arrays,
        )  # fmt: skip


def _zipf_tables(
    sizes: NDArray[np.int64], power: float
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Tables that ranks are drawn from, `[C, S]` and `[C, S + 1]`, with S slots.

    The first 1024 ranks have a slot and their exact share each. The others are cut into slots whose
    ends grow evenly in ratio: a slot has the integral's share, its ranks are alike.
    """
    from bitfold.data import _synth_kernels as kernels

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
    share[small + large] = shares[small + large] > 0  # rounding leaves a few
    alias[small + large] = shares.argmax()
    return share, alias


def _times(first: int, count: int) -> NDArray[np.int64]:
    """Seconds since 1970, in the rows' order: two rows a second, busier by day than by night."""
    even = np.arange(first, first + count, dtype=np.float64) * SECONDS_PER_ROW
    turn = 2.0 * np.pi / _DAY
    return TIME_START + (even - 0.6 / turn * np.sin(even * turn)).astype(np.int64)


def generate(config: SynthConfig = DEFAULT, *, chunk_rows: int = CHUNK_ROWS) -> Iterator[Chunk]:
    """The log's rows, in chunks; the same rows whatever `chunk_rows` and the number of threads.

    Example:
        >>> chunk = next(generate(SynthConfig(rows=3, fields=2, ids=50, numeric=1)))
        >>> chunk.ids.shape, chunk.numeric.shape, chunk.label.dtype
        ((2, 3), (1, 3), dtype('int8'))
    """
    truth = _Truth(config)
    for first in range(0, config.rows, chunk_rows):
        yield truth.chunk(first, min(chunk_rows, config.rows - first))


class _Tally:
    """What is counted while the rows pass: ids met, clicks, and the Bayes AUC's bins."""

    def __init__(self, config: SynthConfig) -> None:
        from bitfold.data import _synth_kernels as kernels

        sizes = np.array(config.sizes, np.int64)
        bytes_of = (sizes + 7) // 8
        self._starts = np.concatenate([[0], np.cumsum(bytes_of)[:-1]])
        self._bitmap = np.zeros(int(bytes_of.sum()), np.uint8)
        self._distinct = np.zeros(config.fields, np.int64)
        self._positives, self._negatives = np.zeros(kernels.BINS), np.zeros(kernels.BINS)
        self._rows = 0
        self._clicks = 0

    def add(self, chunk: Chunk) -> None:
        from bitfold.data import _synth_kernels as kernels

        kernels.mark(chunk.ids, self._starts, self._bitmap, self._distinct)
        kernels.tally(chunk.logit, chunk.probability, self._positives, self._negatives)
        self._rows += chunk.rows
        self._clicks += int(chunk.label.sum())

    def report(self, seconds: float) -> SynthReport:
        below = np.cumsum(self._negatives) - 0.5 * self._negatives
        total = self._positives.sum() * self._negatives.sum()
        return SynthReport(
            rows=self._rows,
            distinct={f"field_{f}": int(n) for f, n in enumerate(self._distinct)},
            bayes_auc=float((self._positives * below).sum() / total),
            positive_rate=self._clicks / self._rows,
            seconds=seconds,
        )


def synthesize(
    config: SynthConfig,
    out: str | Path,
    *,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> SynthReport:
    """Write the log to `out` and its report beside it, as `out` + `.json`.

    Args:
        config: the words of the log.
        out: `x.parquet`, `x.csv`, `x.csv.gz`, `x.csv.zst`, or a name without a suffix: a directory
            of Parquet shards. The columns are `label`, `time`, `field_0` (the user) and on,
            `bag_0` and on, `numeric_0` and on.
        force: replace `out` if it exists.
        progress: called as `progress(rows_done, rows_total)`.

    Raises:
        BitfoldError: `out` exists, has an unknown suffix, or cannot be written (a full disk).
            Nothing is left then.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = synthesize(SynthConfig(rows=2000, ids=100), Path(folder) / "log.csv.gz")
        >>> report.rows, 0.5 < report.bayes_auc < 1
        (2000, True)
    """
    from bitfold.data._synth_write import open_log

    start = time.perf_counter()
    with open_log(Path(out), force=force) as log, ThreadPoolExecutor(1) as writer:
        tally = _Tally(config)
        done = 0
        pending: Future[None] | None = None
        for chunk in generate(config):
            tally.add(chunk)
            if pending is not None:
                pending.result()
            pending = writer.submit(log.write, chunk)
            done += chunk.rows
            if progress is not None:
                progress(done, config.rows)
        if pending is not None:
            pending.result()
        report = tally.report(time.perf_counter() - start)
        words = {"format_version": FORMAT_VERSION, **dataclasses.asdict(report)}
        log.finish({**words, "config": to_json(config)})
    return report
