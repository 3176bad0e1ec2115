"""The parts of a stream, one by one: windows, clocks, cuts, seen ids, owners, charts."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitfold import BitfoldError, Embedding
from bitfold.data.batch import Batch
from bitfold.data.config import DataConfig
from bitfold.data.frames import in_memory
from bitfold.data.rows import Rows
from bitfold.embedder.contract import Embedder, Table
from bitfold.pool.moved import RowMove
from bitfold.report.look import NARROW, SLIDE, WIDE
from bitfold.report.stream_charts import Streams, auc, churn, new_ids, sizes
from bitfold.streaming.clock import Clock, number_of, span_of
from bitfold.streaming.config import WHOLE, StreamConfig, WindowRule, parse_window
from bitfold.streaming.cutting import Cutter
from bitfold.streaming.record import Course, Line
from bitfold.streaming.seen import Newness, Seen, filter_bytes
from bitfold.streaming.watching import Watched

DAY = 86_400


@pytest.mark.parametrize(
    ("text", "kind", "size"),
    [
        ("1d", "time", DAY),
        ("6h", "time", 6 * 3600),
        ("30min", "time", 1800),
        ("1.5h", "time", 5400),
        ("2w", "time", 14 * DAY),
        ("90s", "time", 90),
        (" 500_000 R", "rows", 500_000),
        ("file", "file", 0),
    ],
)
def test_windows_are_read(text: str, kind: str, size: float) -> None:
    found = parse_window(text)
    assert (found.kind, found.size) == (kind, size)


@pytest.mark.parametrize(
    "text", ["", "d", "0d", "-1d", "1.5r", "1y", "1d@last", "5r@first", "1 1d"]
)
def test_windows_that_cannot_be_read(text: str) -> None:
    with pytest.raises(BitfoldError, match="the window cannot be read"):
        parse_window(text)


def test_weeks_begin_on_mondays() -> None:
    rule = parse_window("1w")
    moment = datetime(2024, 2, 1, 12, tzinfo=UTC).timestamp()  # a Thursday
    number = int(number_of(np.array([moment]), rule)[0])
    assert span_of(number, number, rule).name == "2024-01-29"


@given(st.floats(0, 4e9), st.sampled_from(["1d", "6h", "1w", "7min"]))
def test_a_moment_lies_in_its_window(moment: float, text: str) -> None:
    rule = parse_window(text)
    span = span_of(int(number_of(np.array([moment]), rule)[0]), 0, rule)
    assert span.start is not None
    assert span.end is not None
    assert span.start <= moment < span.end


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([14102100, 14102123], ["2014-10-21T00:00", "2014-10-21T23:00"]),  # Avazu's
        ([2024013100, 2024013123], ["2024-01-31T00:00", "2024-01-31T23:00"]),
        ([20240131, 20240229], ["2024-01-31T00:00", "2024-02-29T00:00"]),
        (["2024-01-31 10:00:00"], ["2024-01-31T10:00"]),
        ([1_700_000_000, 1_700_000_060], ["2023-11-14T22:13", "2023-11-14T22:14"]),
        ([1_700_000_000_000], ["2023-11-14T22:13"]),
    ],
)
def test_clocks_read_times(values: list[Any], expected: list[str]) -> None:
    seconds = Clock("t").read(Rows(pl.DataFrame({"t": values}), Path("log")))
    told = [datetime.fromtimestamp(each, UTC).strftime("%Y-%m-%dT%H:%M") for each in seconds]
    assert told == expected


@pytest.mark.parametrize("values", [[20240230, 20240231], [0, 1, 2], [86_400, 12_345_678]])
def test_other_numbers_are_seconds_as_they_are(values: list[int]) -> None:
    seconds = Clock("t").read(Rows(pl.DataFrame({"t": values}), Path("log")))
    assert seconds.tolist() == values


def test_a_clock_holds_to_its_first_spelling() -> None:
    clock = Clock("t")
    clock.read(Rows(pl.DataFrame({"t": [14102100]}), Path("log")))
    with pytest.raises(BitfoldError, match="spelt in several ways"):
        clock.read(Rows(pl.DataFrame({"t": [14133100]}), Path("log")))


def cut(
    times: list[float], text: str, folder: Path, wanted: Any = lambda number: True
) -> list[tuple[str, list[int]]]:
    """The windows of a log of rows numbered from 0, and which rows each has."""
    rows = {"row": [*range(len(times))], "y": [0] * len(times), "t": times}
    config = DataConfig(label="y", fields=("row",), time="t", split=WHOLE)
    cutter = Cutter(in_memory(rows, keep=True), config, parse_window(text), folder / "spill")
    found = []
    for each in cutter.windows(wanted):
        held: list[int] = []
        if each.log is not None:
            held = [row for part in each.log.read(config, ["row"]) for row in part.frame["row"]]
            assert len(held) == each.rows == each.log.rows
        found.append((each.span.name, held))
    assert not (folder / "spill").exists()
    return found


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.sampled_from(["1d", "7r", "2d"]))
def test_every_row_is_in_one_window(tmp_path_factory: Any, days: list[int], text: str) -> None:
    times = [float(day * DAY) for day in sorted(days)]
    found = cut(times, text, tmp_path_factory.mktemp("cut"))
    assert [row for _, rows in found for row in rows] == [*range(len(times))]
    if text == "1d":
        assert [name for name, _ in found] == [f"day {n}" for n in range(min(days), max(days) + 1)]
    if text == "7r":
        assert all(len(rows) == 7 for _, rows in found[:-1])


def test_windows_that_nobody_wants_are_counted(tmp_path: Path) -> None:
    found = cut([0.0, 1.0, DAY, 3.0 * DAY], "1d", tmp_path, lambda number: number > 0)
    assert found == [("day 0", []), ("day 1", [2]), ("day 2", []), ("day 3", [3])]


def test_a_window_is_cut_over_chunks(tmp_path: Path) -> None:
    times = [float(row // 70_000 * DAY) for row in range(200_000)]
    found = cut(times, "1d", tmp_path)
    assert [len(rows) for _, rows in found] == [70_000, 70_000, 60_000]


def test_a_filter_knows_what_it_was_given() -> None:
    draw = np.random.default_rng(0)
    keys = draw.integers(0, 2**63, 100_000, dtype=np.uint64)
    seen = Seen(np.zeros(filter_bytes(len(keys) // 16), np.uint8))
    seen.add(keys)
    assert seen.has(keys).all()
    others = draw.integers(0, 2**63, 100_000, dtype=np.uint64)
    assert seen.has(others).mean() < 0.01


def test_an_empty_filter_knows_nothing() -> None:
    seen = Seen(np.zeros(1 << 16, np.uint8))
    assert not seen.has(np.arange(1000, dtype=np.uint64)).any()


def batch(ids: list[list[int]]) -> Batch:
    return Batch(torch.tensor(ids), None, torch.zeros(len(ids), 0))


def test_newness_by_hand() -> None:
    bits = np.zeros(1 << 16, np.uint8)
    first = Newness(bits, ["a", "b", None])
    first.see(batch([[1, 1, 0], [2, 1, 5]]))
    assert first.figures()["new_ids"] == 3  # 1 and 2 of a, 1 of b: fields do not share ids
    second = Newness(first.end(), ["a", "b", None])
    second.see(batch([[1, 1, 9], [1, 7, 9]]))
    second.see(batch([[3, 7, 9], [2, 1, 9]]))
    found = second.figures()
    assert found == {
        "new_rows": 2 / 4, "new_values": 3 / 8, "new_ids": 2, "new:a": 1 / 4, "new:b": 2 / 4,
    }  # fmt: skip
    assert not bits.any()  # a window's own ids are not known while it is counted


def test_newness_of_bags() -> None:
    first = Newness(np.zeros(1 << 16, np.uint8), ["a", "b"])
    # Rows 0 and 1: a has [1, 2] and [3]; b has [4] and nothing.
    ids, offsets = torch.tensor([1, 2, 3, 4]), torch.tensor([0, 2, 3, 4, 4])
    first.see(Batch(ids, offsets, torch.zeros(2, 0)))
    second = Newness(first.end(), ["a", "b"])
    second.see(Batch(torch.tensor([1, 9, 3, 8]), offsets, torch.zeros(2, 0)))
    found = second.figures()
    assert found["new_rows"] == 1 / 2
    assert (found["new:a"], found["new:b"]) == (1 / 3, 1.0)


class Owning(Embedder):
    """An embedder of one table whose first rows may be owned."""

    def __init__(self, rows: int, owned: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(rows, 2))
        self.owned, self.observes = owned, True

    def tables(self) -> list[Table]:
        return [Table(self, self.weight)]


def moved(watched: Watched, part: Owning, *pairs: tuple[int, int]) -> float | None:
    source, target = (torch.tensor(list(each)) for each in zip(*pairs, strict=True))
    watched.moved(part, [RowMove(part.weight, source, target)])
    return watched.churn()


def test_churn_by_hand() -> None:
    part = Owning(rows=6, owned=4)
    watched = Watched([part], distinct=10)
    assert watched.churn() == 0
    assert moved(watched, part, (0, 1), (1, 0), (5, 2), (3, 3)) == 1 / 4  # one came from shared
    assert moved(watched, part, (2, 3), (3, 2)) == 1 / 4  # it went along
    assert moved(watched, part, (-1, 0)) == 2 / 4
    again = Watched([part], distinct=10)
    again.load_state_dict(watched.state_dict())
    assert again.churn() == 2 / 4
    watched.begin()
    assert watched.churn() == 0


def test_churn_where_nobody_says_who_owns() -> None:
    part = Owning(rows=4, owned=0)
    watched = Watched([part], distinct=10)
    assert moved(watched, part, (0, 1), (1, 0)) == 0
    assert moved(watched, part, (-1, 3)) == 1 / 4


def test_no_churn_where_no_rows_move() -> None:
    layer = Embedding(100, 4, method="hash", budget="4x")
    parts = [part for part in layer.modules() if isinstance(part, Embedder)]
    assert Watched(parts, distinct=10).churn() is None


def course(windows: int = 3, churned: float | None = 0.5) -> Course:
    lines = [
        Line(
            f"2024-01-0{n + 1}", 10, n > 0, auc=0.6 + n / 100 if n else None, bytes=900,
            new_rows=0.5 if n else None, new_values=0.25 if n else None,
            churn=churned if n else None,
        )
        for n in range(windows)
    ]  # fmt: skip
    return Course("cafe", "1KiB", 1024, 0, lines=lines)


@pytest.mark.parametrize("look", [WIDE, NARROW, SLIDE])
def test_charts_hold_the_figures(look: Any) -> None:
    streams = Streams({"cafe": course(), "a method of a very long name": course(churned=None)})
    drawn = {chart.__name__: chart(streams, look) for chart in (auc, sizes, churn, new_ids)}
    for name, count in {"auc": 4, "sizes": 6, "churn": 2, "new_ids": 4}.items():
        spec = drawn[name]
        assert spec is not None
        assert len(spec["layer"][1]["data"]["values"]) == count
    assert drawn["sizes"]["layer"][0]["data"]["values"] == [{"value": 1024.0}]  # type: ignore[index]


def test_charts_without_figures_are_left_out() -> None:
    streams = Streams({"cafe": course(windows=1, churned=None)})
    assert auc(streams, WIDE) is None
    assert churn(streams, WIDE) is None
    assert sizes(streams, WIDE) is not None


def test_the_rule_of_a_window_is_plain() -> None:
    assert parse_window("1d@first") == WindowRule("time", DAY, None)


@pytest.mark.parametrize(
    "values",
    [[5e11, 5e11 + 1], [1e17], [1e30, 1e30], [0.0, 100.0, 1e300], [20240131, 20240132, 20240201]],
)
def test_numbers_that_are_no_moments_are_refused(values: list[float]) -> None:
    with pytest.raises(BitfoldError, match="is no moment") as raised:
        Clock("t").read(Rows(pl.DataFrame({"t": values}), Path("log"), 7))
    bad = next((row for row, each in enumerate(values) if each > 1e11), 1)
    assert f"in row {7 + bad + 1} of log" in str(raised.value)


@pytest.mark.parametrize("text", ["99999999999999999999r", str(2**62) + "r"])
def test_windows_of_more_rows_than_are_counted(text: str) -> None:
    with pytest.raises(BitfoldError, match="window cannot be read"):
        parse_window(text)


@pytest.mark.parametrize(
    ("option", "value"),
    [("replay_rows", 10**20), ("expand_every", 10**24), ("passes", 2**31), ("expand_heads", 10**8)],
)
def test_options_beyond_any_use(option: str, value: int) -> None:
    with pytest.raises(BitfoldError, match=f"{option} is out of range"):
        StreamConfig(**{option: value})  # type: ignore[arg-type]
