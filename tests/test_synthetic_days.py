"""A synthetic log with days: ids are born and die, popularity drifts, and the truth stays known."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from bitfold.data.synth.clock import DAY, LASTING
from bitfold.data.synth.log import SynthConfig, generate, synthesize
from bitfold.errors import BitfoldError

STREAM = SynthConfig(
    rows=60_000, days=6, fields=2, ids=2000, numeric=0, bags=1, bag_ids=40, lifetime=2.0, drift=0.1
)  # fields of 2,000 and 10 ids


def days_of(config: SynthConfig) -> list[np.ndarray]:
    """The ids of the first field, day by day."""
    ids = np.concatenate([chunk.ids[0] for chunk in generate(config)])
    return np.array_split(ids, config.days)


def test_rows_do_not_depend_on_chunks() -> None:
    whole = next(generate(STREAM, chunk_rows=STREAM.rows))
    pieces = list(generate(STREAM, chunk_rows=777))
    for name in ("ids", "logit", "label", "time"):
        joined = np.concatenate([getattr(piece, name) for piece in pieces], axis=-1)
        np.testing.assert_array_equal(getattr(whole, name), joined, err_msg=name)


def test_a_log_without_days_knows_no_lifetime() -> None:
    one, other = (
        next(generate(SynthConfig(rows=500, ids=3000, lifetime=lifetime, drift=drift)))
        for lifetime, drift in ((10.0, 0.05), (0.5, 1.0))
    )
    np.testing.assert_array_equal(one.ids, other.ids)


def test_rows_take_the_days() -> None:
    times = np.concatenate([chunk.time for chunk in generate(STREAM)])
    assert (np.diff(times) >= 0).all()
    days = (times - times[0]) // int(DAY)
    assert days.max() == STREAM.days - 1
    assert np.bincount(days).tolist() == pytest.approx([10_000] * 6, abs=3)


def test_ids_live_as_long_as_said_and_never_return() -> None:
    config = SynthConfig(**{**vars(STREAM), "drift": 0.0, "zipf": 0.0, "rows": 600_000})
    ids = np.concatenate([chunk.ids[0] for chunk in generate(config)])
    when = np.arange(len(ids)) * config.days / config.rows
    first, last = np.full(config.ever[0], np.inf), np.full(config.ever[0], -np.inf)
    np.minimum.at(first, ids, when)
    np.maximum.at(last, ids, when)
    inside = (first > 0.1) & (last < config.days - 0.1)  # born and dead within the log
    assert inside.sum() > 2000
    lived = (last - first)[inside]
    assert lived.max() <= config.lifetime
    assert np.median(lived) > 0.95 * config.lifetime
    ages = np.bincount(ids // 2000)  # under each number one after the other
    assert len(ages) == 1 + config.days / config.lifetime


def test_without_deaths_and_drift_nothing_changes() -> None:
    still = days_of(SynthConfig(**{**vars(STREAM), "lifetime": 0.0, "drift": 0.0}))
    head = [set(np.argsort(-np.bincount(day, minlength=2000))[:5].tolist()) for day in still]
    assert all(len(day & head[0]) >= 4 for day in head)
    assert max(day.max() for day in still) < 2000


def test_popularity_drifts_as_fast_as_said() -> None:
    config = SynthConfig(
        rows=900_000, days=9, fields=1, ids=LASTING, numeric=0, lifetime=0.0, drift=0.25, zipf=0.5
    )
    counts = [np.bincount(day, minlength=LASTING) for day in days_of(config)]
    near = np.corrcoef(counts[0], counts[1])[0, 1]
    far = np.corrcoef(counts[0], counts[8])[0, 1]
    # A day changes a quarter of the ranks: in the mean of both days an eighth, each counted twice.
    assert near == pytest.approx(0.75, abs=0.1)
    assert abs(far) < 0.15


def test_small_fields_last() -> None:
    ids = np.concatenate([chunk.ids[1] for chunk in generate(STREAM)])
    assert set(ids.tolist()) == set(range(10))


def test_the_report_counts_each_day(tmp_path: Path) -> None:
    report = synthesize(STREAM, tmp_path / "log.parquet")
    chunks = list(generate(STREAM))
    ids = np.concatenate([chunk.ids for chunk in chunks], axis=1)
    met: list[set[int]] = [set(), set()]
    for day, found in zip(np.split(ids, 6, axis=1), report.days, strict=True):
        new = [set(row.tolist()) - old for row, old in zip(day, met, strict=True)]
        assert found.new == sum(len(each) for each in new)
        assert found.rows == 10_000
        for old, more in zip(met, new, strict=True):
            old |= more
    assert sum(day.new for day in report.days) == sum(report.distinct.values())
    logit = np.concatenate([chunk.logit for chunk in chunks])[:10_000]
    label = np.concatenate([chunk.label for chunk in chunks])[:10_000]
    assert report.days[0].bayes_auc == pytest.approx(roc_auc_score(label, logit), abs=0.02)
    kept = json.loads((tmp_path / "log.parquet.json").read_text())
    assert [day["rows"] for day in kept["days"]] == [10_000] * 6
    assert kept["config"]["lifetime"] == 2.0


def test_more_days_than_rows() -> None:
    config = SynthConfig(rows=3, days=7, fields=1, ids=5, numeric=0)
    assert sum(chunk.rows for chunk in generate(config)) == 3


@pytest.mark.parametrize(
    "wrong", [{"days": -1}, {"days": 5000}, {"lifetime": -0.5}, {"drift": 1.5}, {"days": 1.5}]
)
def test_impossible_clocks_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(BitfoldError, match="cannot have this"):
        SynthConfig(**wrong)  # type: ignore[arg-type]


def test_too_many_lives_are_refused() -> None:
    with pytest.raises(BitfoldError, match="too many ids live"):
        SynthConfig(ids=2_000_000_000, days=3000, lifetime=0.1)
