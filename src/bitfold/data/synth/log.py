"""The synthetic log: any number of rows and ids, and the best AUC a model could reach is known.

An id's hidden numbers are a hash of the id mixed with a hash of its cluster, so nothing is stored
per id. docs/synthetic.md has the formula, and says what is realistic in it and what is not.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitfold.config import option, to_json
from bitfold.data.synth.clock import DAY, LASTING, SECONDS_A_ROW
from bitfold.data.synth.figures import SynthReport
from bitfold.errors import BitfoldError

FORMAT_VERSION = 1
MOST_IDS = 2_000_000_000
MOST_FIELDS = 1000
MOST_DAYS = 3650
_LEAST_IDS = 10
_CHUNK_ROWS = 1 << 18
_CHUNK_VALUES = 1 << 22


@dataclasses.dataclass(frozen=True)
class SynthConfig:
    """What a synthetic log is made of. The same options make the same log, row for row.

    Raises:
        BitfoldError: an option's value is out of its range.

    Example:
        >>> SynthConfig(rows=1000, fields=4, ids=100_000).sizes
        (100000, 4642, 215, 10)
    """

    rows: int = option(1_200_000, help="Rows of the log.")
    fields: int = option(
        10, help="Categorical fields; field_0 is the user (the group) and the largest."
    )
    ids: int = option(
        2_000_000,
        help="Ids that exist in field_0, up to 2e9; the other fields shrink evenly to 10.",
    )
    zipf: float = option(
        1.0, help="Zipf exponent: an id's share falls with its rank to this power; 0 is even."
    )
    numeric: int = option(2, help="Dense numeric fields (log-normal).")
    bags: int = option(0, help="Multi-valued fields of 1 to 6 ids, written as text joined by '|'.")
    bag_ids: int = option(5_000, help="Ids that exist in each bag field.")
    positive: float = option(0.25, help="Share of clicks, 0 to 1.")
    linear: float = option(0.6, help="Standard deviation of the first-order part of the logit.")
    pairs: float = option(1.0, help="Standard deviation of the factorisation machine's part.")
    hidden: float = option(0.4, help="Standard deviation of the hidden network's part.")
    noise: float = option(
        0.3, help="Standard deviation of the logit's noise, which nobody can learn."
    )
    cluster: float = option(
        0.5, help="Share of an id's hidden variance that its cluster of ids has in common, 0 to 1."
    )
    fade: float = option(
        0.3, help="How fast a field counts less the more ids it has: weight = ids ** -fade."
    )
    days: int = option(
        0, help="Days that the rows are spread over; ids are born and die, and popularity drifts. "
        "0: two rows a second, and nothing changes.",
    )  # fmt: skip
    lifetime: float = option(
        10.0, help="With --days: how many an id lives, before another takes its place; 0: all."
    )
    drift: float = option(
        0.05, help="With --days: the share of popularity ranks that another id takes each day."
    )
    seed: int = option(0, help="Another seed makes another log, with other hidden numbers.")

    def __post_init__(self) -> None:
        for name, least, most in (
            ("rows", 1, 1 << 60),
            ("fields", 1, MOST_FIELDS),
            ("ids", 2, MOST_IDS),
            ("zipf", 0, 10),
            ("numeric", 0, MOST_FIELDS),
            ("bags", 0, MOST_FIELDS),
            ("bag_ids", 2, MOST_IDS),
            ("positive", 0.001, 0.999),
            ("linear", 0, 10),
            ("pairs", 0, 10),
            ("hidden", 0, 10),
            ("noise", 0, 10),
            ("cluster", 0, 1),
            ("fade", 0, 10),
            ("days", 0, MOST_DAYS),
            ("lifetime", 0, MOST_DAYS),
            ("drift", 0, 1),
            ("seed", 0, (1 << 63) - 1),
        ):
            value = getattr(self, name)
            whole = isinstance(getattr(type(self), name, None), int)
            if not isinstance(value, int if whole else (int, float)) or not least <= value <= most:
                raise BitfoldError(
                    f"the synthetic log cannot have this {name}",
                    got=f"{name} {value!r}",
                    expected=f"{'a whole number, ' if whole else ''}{least:,} to {most:,}",
                    fix=f"give another --{name.replace('_', '-')}",
                )

        if self.days and sum(self.ever) > 2 * MOST_IDS:
            raise BitfoldError(
                "too many ids live in all days",
                got=f"{sum(self.ever):,} ids: {self.ids:,} in field_0, {self.lifetime:g} days each",
                expected=f"{2 * MOST_IDS:,} at most",
                fix="give a longer --lifetime, fewer --ids or fewer --days",
            )

    @property
    def seconds_a_row(self) -> float:
        """Seconds from a row to the next, in the mean."""
        return DAY * self.days / self.rows if self.days else SECONDS_A_ROW

    @property
    def ever(self) -> tuple[int, ...]:
        """How many ids a field may have over all days: one and all that take its place."""
        lives = 1 if not (self.days and self.lifetime) else 2 + int(self.days / self.lifetime)
        return tuple(size * (lives if size >= LASTING else 1) for size in self.sizes)

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


def generate(config: SynthConfig = DEFAULT, *, chunk_rows: int | None = None) -> Iterator[Chunk]:
    """The log's rows, in chunks; the same rows whatever `chunk_rows` and the number of threads.

    Row n depends on the seed and n alone, so a longer log begins with the shorter one; of a log
    with days on its part of them, too.

    Example:
        >>> chunk = next(generate(SynthConfig(rows=3, fields=2, ids=50, numeric=1)))
        >>> chunk.ids.shape, chunk.numeric.shape, chunk.label.dtype
        ((2, 3), (1, 3), dtype('int8'))
    """
    from bitfold.data.synth.truth import Truth

    truth = Truth(config)
    if chunk_rows is None:
        values = config.fields + config.numeric + 8 * config.bags + 4
        chunk_rows = min(_CHUNK_ROWS, max(_CHUNK_VALUES // values, 1024))
    for first in range(0, config.rows, chunk_rows):
        yield Chunk(first=first, **truth.rows(first, min(chunk_rows, config.rows - first)))


def synthesize(
    config: SynthConfig,
    out: str | Path,
    *,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> SynthReport:
    """Write the log to `out` and its report beside it, as `out` + `.json`.

    Args:
        config: the options of the log.
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
    from bitfold.data.synth.tally import Tally
    from bitfold.data.synth.write import open_log

    start = time.perf_counter()
    with open_log(Path(out), force=force) as log, ThreadPoolExecutor(1) as writer:
        tally = Tally(config)
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
        values = {"format_version": FORMAT_VERSION, **dataclasses.asdict(report)}
        log.finish({**values, "config": to_json(config)})
    return report
