"""The page of a stream: quality, bytes, new ids and churn by window, of one method or several."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import bitfold
from bitfold.errors import BitfoldError
from bitfold.report import stream_charts
from bitfold.report.drawing import svg
from bitfold.report.layout import Chart, Part, Section, Table
from bitfold.report.look import NARROW, WIDE, Look, Spec
from bitfold.report.numbers import auc_text, byte_count, share_text, size
from bitfold.report.page import read_part, style, symbol, template_of
from bitfold.report.stream_charts import Streams
from bitfold.streaming.record import Course, Record, read

if TYPE_CHECKING:
    pass


def stream_page(records: Sequence[Record], name: str) -> str:
    """The page of streams over one log.

    Args:
        records: of one call each, or of several methods.
        name: what the page is about: the folder.

    Raises:
        BitfoldError: no window is over yet.
    """
    from markupsafe import Markup

    streams = Streams(_courses(records))
    if not streams.courses:
        raise BitfoldError(
            f"the stream of {name} has no window that is over",
            got="no figures",
            expected="a stream that has begun",
            fix="go on with --resume",
        )
    made = sections(streams)
    drawings: dict[str, Markup] = {}
    left_out: list[str] = []
    for part in (part for section in made for part in section.parts if part.chart is not None):
        assert part.chart is not None
        try:
            texts = [svg(part.chart.draw, look, part.chart.about) for look in (WIDE, NARROW)]
            drawings[part.chart.name] = Markup("".join(texts))
        except BitfoldError as error:
            left_out.append(f"the chart of {part.chart.title}: {error.got}"[:300])
    first = records[0]
    return template_of("stream.html").render(
        name=name,
        style=Markup(style(read_part("page.css"))),
        headline=headline(streams),
        context=_context(first, streams),
        finished=all(record.finished for record in records),
        key=[(symbol(series), series) for series in streams.series.values()],
        sections=made,
        drawings=drawings,
        left_out=left_out,
        settings=settings(records, streams),
        report=f"bitfold report {name}",
        version=bitfold.__version__,
    )


def _courses(records: Sequence[Record]) -> dict[str, Course]:
    """The courses that have windows, by a name each."""
    every = [course for record in records for course in record.courses if course.lines]
    methods = [course.method for course in every]
    plain = len(every) > 1 and len({*methods}) == len(methods)  # the method alone tells them apart
    found: dict[str, Course] = {}
    for course in every:
        name = title = course.method if plain else course.title
        number = 2
        while name in found:
            name, number = f"{title} ({number})", number + 1
        found[name] = course
    return found


def headline(streams: Streams) -> str:
    """What was found, in a sentence."""
    ranked = sorted(
        ((course.auc, name) for name, course in streams.courses.items() if course.auc is not None),
        reverse=True,
    )
    if not ranked:
        return "No window has been scored yet."
    auc, name = ranked[0]
    windows = len(streams.courses[name].scored)
    mean = f"mean AUC {auc:.4f} over {windows} window{'s' * (windows != 1)}"
    if len(ranked) == 1:
        return f"{name}: {mean}, each scored before it was trained on."
    (other, second) = ranked[1]
    return f"{name} is best: {mean}; {second} follows with {other:.4f}."


def _context(record: Record, streams: Streams) -> str:
    course = next(iter(streams.courses.values()))
    rows = sum(line.rows for line in course.lines)
    by = "" if record.time is None else f", by {record.time}"
    return (
        f"{rows:,} rows in {len(course.lines)} windows of {record.window}{by}. Every row is scored "
        "by a model that was trained on the windows before it alone; then the model is trained on "
        "it. The first window is trained on only."
    )


def sections(streams: Streams) -> list[Section]:
    """All sections in order."""
    many = len(streams.courses) > 1
    quality = Section(
        "quality",
        "Quality by window",
        ["AUC of each window's rows, scored before any of them was trained on."],
        [
            Part(
                _means(streams),
                _chart(
                    streams, stream_charts.auc, "auc", "AUC by window",
                    "Lines of the AUC of each window, scored before training.", many,
                ),
                open=True,
            ),
            *(Part(_lines(name, course)) for name, course in streams.courses.items()),
        ],
    )  # fmt: skip
    weight = Section(
        "bytes",
        "Bytes by window",
        ["What the budget bounds at the end of each window, counted from the modules themselves: "
         "the bytes to serve the embeddings, and with aligned memory those of the network, of "
         "copies of its layers and of stored rows, too. "
         "The dashed line is the budget. Training holds the optimizer's state "
         "beside the weights, and a batch's gradients on top."],
        [
            Part(
                _sizes(streams),
                _chart(
                    streams, stream_charts.sizes, "bytes", "Bytes by window",
                    "Lines of the bytes that are held at the end of each window.", many,
                ),
                open=True,
            )
        ],
    )  # fmt: skip
    change = Section(
        "change",
        "New ids, and rows that change owners",
        ["New: an id that no window before had, by a filter of bounded memory that may take one "
         "new id in some hundreds for a known one. Churn: the share of the rows that single ids "
         "own whose owner at the window's end is another than at its beginning."],
        [
            Part(
                _new_in(streams),
                _chart(
                    streams, stream_charts.new_ids, "new", "New ids by window",
                    "Two lines: shares of rows and of values with an id never seen before.", False,
                ),
            ),
            *_churn(streams, many),
        ],
    )  # fmt: skip
    return [quality, weight, change]


def _chart(
    streams: Streams, draw: Callable[[Streams, Look], Spec | None], name: str, title: str,
    about: str, keyed: bool,
) -> Chart | None:  # fmt: skip
    if draw(streams, WIDE) is None:
        return None

    def drawn(look: Look) -> Spec:
        spec = draw(streams, look)
        assert spec is not None, "it was drawn before"
        return spec

    return Chart(name, title, about, drawn, keyed)


def _means(streams: Streams) -> Table:
    rows = []
    for name, course in streams.courses.items():
        last = course.scored[-1].auc if course.scored else None
        rows.append(
            [name, str(len(course.scored)), auc_text(course.auc), auc_text(last),
             auc_text(course.logloss), byte_count(course.most_bytes)]
        )  # fmt: skip
    columns = ("method", "windows scored", "mean AUC", "last AUC", "log loss", "most bytes")
    return Table("Means over the windows", columns, rows)


def _lines(name: str, course: Course) -> Table:
    rows = [
        [
            line.window, f"{line.rows:,}", auc_text(line.auc), auc_text(line.logloss),
            auc_text(line.constant_logloss), auc_text(line.calibration), auc_text(line.loss),
            "-" if line.rows_per_second is None else f"{line.rows_per_second:,.0f}",
        ]
        for line in course.lines
    ]  # fmt: skip
    columns = (
        "window", "rows", "AUC", "log loss", "of a constant", "calibration", "training loss",
        "rows/s",
    )  # fmt: skip
    return Table(f"{name}, window by window", columns, rows)


def _sizes(streams: Streams) -> Table:
    rows = []
    for name, course in streams.courses.items():
        training = [line.training_bytes for line in course.lines if line.training_bytes]
        rows.append(
            [name, "-" if course.budget_bytes is None else byte_count(course.budget_bytes),
             byte_count(course.most_bytes), size(max(training, default=None)),
             *(size(_most(course, kind)) for kind in KINDS)]
        )  # fmt: skip
    columns = ("method", "budget", "most bytes", "most bytes to train", *KINDS.values())
    return Table("Bytes", columns, rows)


KINDS = {
    "bytes": "tables", "network_bytes": "network", "copy_bytes": "copies", "row_bytes": "rows",
}  # fmt: skip


def _most(course: Course, kind: str) -> int | None:
    told = (getattr(line, kind) for line in course.lines)
    return max((size for size in told if size is not None), default=None)


def _new_in(streams: Streams) -> Table:
    course = next(iter(streams.courses.values()))
    fields = list(dict.fromkeys(name for line in course.lines for name in line.new_in))
    rows = [
        [line.window, byte_count(line.new_ids), share_text(line.new_rows),
         share_text(line.new_values), *(share_text(line.new_in.get(name)) for name in fields)]
        for line in course.lines
    ]  # fmt: skip
    columns = ("window", "new ids", "of rows", "of values", *(f"in {name}" for name in fields))
    return Table("New ids", columns, rows)


def _churn(streams: Streams, many: bool) -> list[Part]:
    chart = _chart(
        streams, stream_charts.churn, "churn", "Churn by window",
        "Lines of the share of owned rows that changed their owner in each window.", many,
    )  # fmt: skip
    if chart is None:
        return []
    owning = {
        name: course
        for name, course in streams.courses.items()
        if any(line.churn is not None for line in course.lines)
    }
    rows = [
        [window, *(share_text(_at(course, place)) for course in owning.values())]
        for place, window in enumerate(streams.windows)
    ]
    return [Part(Table("Churn", ("window", *owning), rows), chart)]


def _at(course: Course, place: int) -> float | None:
    return course.lines[place].churn if place < len(course.lines) else None


def settings(records: Sequence[Record], streams: Streams) -> list[Table]:
    """The options of the methods, and the log."""
    made = []
    for name, course in streams.courses.items():
        rows = [[option, str(value)] for option, value in course.options.items()]
        made.append(
            Table(f"Options of {name}", ("option", "value"), [["seed", str(course.seed)], *rows], 2)
        )
    files = [[str(each[0]), f"{each[1]:,}"] for each in records[0].inputs if len(each) > 1]
    return [*made, Table("Files of the log", ("file", "bytes or rows"), files)]


def write_stream_page(out: Path, name: Path | None = None) -> Path:
    """Write `out/stream.html` from the stream.json in `out`, and return its path.

    Raises:
        BitfoldError: there is none, or no window is over, or a package is missing.
    """
    return write_streams_page([out], out, name)


def write_streams_page(runs: Sequence[Path], out: Path, name: Path | None = None) -> Path:
    """Write one page `out/stream.html` with a line for each of several streams over one log."""
    from bitfold.outputs import new_file
    from bitfold.report.drawing import check_packages
    from bitfold.streaming.record import PAGE

    check_packages()
    text = stream_page([read(run) for run in runs], str(name or out))
    with new_file(out / PAGE, force=True, wait=True) as part:
        part.write_text(text, encoding="utf-8")
    return out / PAGE


def write_stream_pictures(out: Path) -> list[Path]:
    """Write one PNG for each chart of a stream into `out`, and return their paths."""
    from bitfold.outputs import new_file
    from bitfold.report.drawing import check_packages, png
    from bitfold.report.look import SLIDE

    check_packages()
    paths = []
    streams = Streams(_courses([read(out)]))
    for chart in [part.chart for section in sections(streams) for part in section.parts]:
        if chart is not None:
            path = out / f"stream-{chart.name}.png"
            with new_file(path, force=True, wait=True) as part:
                part.write_bytes(png(chart.draw(SLIDE), SLIDE, chart.title))
            paths.append(path)
    return paths
