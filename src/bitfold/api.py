"""The public functions: `bitfold.prepare`, `train`, `retrieve`, `stream`, `compare` and `inspect`.

They take files or rows in memory, and the options of the command of the same name as keyword
arguments: `--vector-width 8` is `vector_width=8`, `--fields user,item` is `fields=["user", "item"]`
or `fields="user,item"`.
"""

import contextlib
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bitfold import remote
from bitfold.config import RENAMED, to_json
from bitfold.data.asked import check_settled
from bitfold.data.config import DataConfig
from bitfold.data.folder import looks_prepared
from bitfold.data.frames import Data, in_memory
from bitfold.data.memory_log import MemoryLog
from bitfold.data.prepared import PreparedLog
from bitfold.errors import BitfoldError, unknown_name
from bitfold.listening import Drawing, listening
from bitfold.progress import reading
from bitfold.settings import options_of, parse, said

if TYPE_CHECKING:
    from bitfold.comparison.compare import Comparison
    from bitfold.data.inspected import Inspection
    from bitfold.data.schema import Schema
    from bitfold.progress import Progress
    from bitfold.retrieval.retriever import Retriever
    from bitfold.runs.run import Run
    from bitfold.streaming.fit import Stream
    from bitfold.weights.inspected import CheckpointInspection

T = TypeVar("T")


def prepare(
    data: Data,
    out: str | Path | None = None,
    *,
    force: bool = False,
    schema: "Schema | None" = None,
    progress: Drawing = None,
    **options: Any,
) -> PreparedLog:
    """Read a raw log once: hash its values, split it, and write it prepared.

    Args:
        data: paths, patterns or folders; or rows in memory: a pandas or Polars frame, an Arrow
            table, columns by name, or any iterable of dictionaries.
        out: the folder to write. Without one a temporary folder is used, which lives as long as
            the log that is returned.
        force: replace the prepared log that is in `out`.
        schema: that of an earlier log or run, to give the same values the same ids.
        progress: None draws bars in a terminal or a notebook and nothing elsewhere; False draws
            nothing; a function is told (`bitfold.progress.Progress`).
        options: those of `bitfold prepare`, such as `label`, `fields`, `numeric`, `split`.

    Raises:
        BitfoldError: options, rows or an output that cannot be.

    Example:
        >>> log = prepare(
        ...     {"user": [1, 2, 3, 4] * 5, "clicked": [0, 1, 1, 0] * 5},
        ...     label="clicked", fields="user", split="random:0.6,0.2,0.2",
        ... )
        >>> sum(log.rows.values()), log.schema.field_names
        (20, ['user'])
    """
    from bitfold.data.prepare import prepare as run

    (config,) = configs((DataConfig,), options, {} if schema is None else to_json(schema.config))
    with listening(progress) as tell, _source(data) as source:
        folder = _Folder(out, "log", force=force)
        return folder.made(
            lambda place: run(
                source, place, config, force=force, schema=schema, progress=reading(tell)
            )
        )


def train(
    data: Data,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    force: bool = False,
    from_run: "Run | str | Path | None" = None,
    teacher: "Run | str | Path | None" = None,
    progress: Drawing = None,
    **options: Any,
) -> "Run":
    """Train a click model whose embeddings fit in a byte budget.

    Args:
        data: as for `prepare`, or a prepared log.
        out: the run's folder. Without one a temporary folder is used, which lives as long as the
            run that is returned; `Run.save` keeps it.
        resume: go on with the training in `out` that was stopped; give the same data and options.
        force: replace the run that is in `out`.
        from_run: a run to go on from: its options hold where none is said.
        teacher: a run of the same log to learn from, beside the labels; see `teacher_share` and
            `teacher_meta` among the options.
        progress: as for `prepare`.
        options: those of `bitfold train`, such as `label`, `fields`, `method`, `budget`, `epochs`.

    Returns:
        The finished run, loaded: `run.metrics`, `run.predict(rows)`.

    Raises:
        BitfoldError: options, rows, a budget or an output that cannot be.

    Example:
        >>> rows = {"user": [1, 2, 3, 4] * 50, "clicked": [0, 1, 1, 0] * 50}
        >>> run = train(rows, label="clicked", fields="user", method="full", width=4, hidden=[8])
        >>> run.predict({"user": [1, 2]}).shape
        (2,)
    """
    from bitfold.runs.cold import ColdConfig
    from bitfold.runs.config import RunConfig
    from bitfold.runs.folder import load
    from bitfold.runs.manifest import CONFIG
    from bitfold.runs.run import Run
    from bitfold.runs.teaching import TeacherConfig
    from bitfold.training import TrainConfig
    from bitfold.training import train as job

    base: dict[str, Any] = {}
    start = from_run.path if isinstance(from_run, Run) else from_run
    settled = out if resume and out is not None else start
    if settled is not None and (Path(settled) / CONFIG).is_file():
        found = RunConfig.load(Path(settled) / CONFIG)
        base = to_json(found.data) | to_json(found.train)
        if settled is out:  # a teacher does not teach on from one run to the next
            base |= to_json(found.taught) | to_json(found.cold)
    if teacher is not None:
        options["teacher"] = str(teacher.path if isinstance(teacher, Run) else teacher)
    kinds = (TrainConfig, TeacherConfig, ColdConfig, DataConfig)
    train_config, taught, cold, data_config = configs(kinds, options, base)
    with listening(progress) as tell, _source(data) as source:
        _check_settled(source, options)
        folder = _Folder(out, "run", resume=resume, force=force)
        return folder.made(
            lambda place: load(
                job(
                    source,
                    data_config,
                    train_config,
                    place,
                    resume=resume,
                    force=force,
                    from_run=start,
                    taught=taught,
                    cold=cold,
                    progress=tell,
                ).path
            )
        )


def retrieve(
    data: "Data | None",
    out: str | Path | None = None,
    *,
    resume: bool = False,
    force: bool = False,
    progress: Drawing = None,
    **options: Any,
) -> "Retriever":
    """Train two towers, of users and of items, and index the items' vectors.

    Args:
        data: as for `train`; a log of what users took, with the user as `group` and the `item`.
            None loads the retriever that is in `out`.
        out: the retriever's folder. Without one a temporary folder is used, which lives as long as
            the retriever that is returned.
        resume: go on with the training in `out` that was stopped; give the same data and options.
        force: replace the retriever that is in `out`.
        progress: as for `prepare`.
        options: those of `bitfold retrieve`, such as `method`, `budget`, `width`, `memory`,
            `index`, and those of `prepare`.

    Returns:
        The retriever: `.metrics`, `.search(users, k)`.

    Raises:
        BitfoldError: options, rows, a budget or an output that cannot be.

    Example:
        >>> rows = {"user": [u for u in range(20) for _ in range(6)], "item": list(range(8)) * 15}
        >>> found = retrieve(
        ...     rows, fields="user,item", group="user", item="item", split="last:1,1", width=4,
        ...     method="full", epochs=1, batch_size=64,
        ... )
        >>> found.search([3, 4], 5)[0].shape
        (2, 5)
    """
    from bitfold.retrieval.folder import load
    from bitfold.retrieval.job import retrieve as job
    from bitfold.retrieval.options import RetrieveConfig

    if data is None:
        if out is None:
            raise BitfoldError("there is no retriever to load", got="no out", expected="its folder")
        return load(out)
    config, reading = configs((RetrieveConfig, DataConfig), options, {})
    with listening(progress) as tell, _source(data) as source:
        _check_settled(source, options)
        folder = _Folder(out, "retriever", resume=resume, force=force)
        return folder.made(
            lambda place: job(
                source, reading, config, place, resume=resume, force=force, progress=tell
            )
        )


def stream(
    data: Data,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    force: bool = False,
    progress: Drawing = None,
    **options: Any,
) -> "Stream":
    """Go through a log in time order, window by window: score each, then train on it.

    Args:
        data: raw files in time order, or rows in memory, as for `train`.
        out: the run's folder. Without one a temporary folder is used, which lives as long as the
            stream that is returned.
        resume: go on with the stream in `out` that was stopped; give the same data and options.
        force: replace the run that is in `out`.
        progress: as for `prepare`.
        options: those of `bitfold stream`, such as `time`, `window`, `label`, `fields`, `method`,
            `budget`.

    Returns:
        The figures, a line a window: `.course.lines`, `.course.auc`, `.to_frame()`; `.run` is the
        model at the end.

    Raises:
        BitfoldError: options, rows, a budget or an output that cannot be; rows that are not in
            time order.

    Example:
        >>> rows = {"user": list(range(50)) * 20, "clicked": [0, 1] * 500, "day": [*range(1000)]}
        >>> found = stream(
        ...     rows, label="clicked", fields="user", time="day", window="250r", method="hash",
        ...     budget="2KiB", width=4, hidden=[8],
        ... )
        >>> [line.scored for line in found.course.lines]
        [False, True, True, True]
    """
    from bitfold.report import stream_page_of
    from bitfold.streaming import StreamConfig
    from bitfold.streaming import stream as job
    from bitfold.streaming.config import check_none
    from bitfold.streaming.folder import begun
    from bitfold.training import TrainConfig

    check_none(name for name, value in options.items() if value is not None)
    base: dict[str, Any] = {}
    before = begun(Path(out)) if resume and out is not None and not remote.is_remote(out) else None
    if before is not None:
        base = to_json(before[0].data) | to_json(before[0].train)
        base |= {"window": before[1].window, "passes": before[1].passes}
        base |= before[1].beside
    stream_config, train_config, data_config = configs(
        (StreamConfig, TrainConfig, DataConfig), options, base
    )
    with listening(progress, keep=("windows",)) as tell, _source(data) as source:
        folder = _Folder(out, "stream", resume=resume, force=force)
        return folder.made(
            lambda place: job(
                source,
                data_config,
                train_config,
                stream_config,
                place,
                resume=resume,
                force=force,
                progress=tell,
                page=stream_page_of,
            )
        )


def compare(
    data: Data,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    force: bool = False,
    progress: Drawing = None,
    **options: Any,
) -> "Comparison":
    """Train methods at equal bytes on one log, and table quality against bytes.

    Args:
        data: as for `train`.
        out: the folder of the results and the page. Without one a temporary folder is used, which
            lives as long as the comparison that is returned.
        resume: keep the cells that `out` has already.
        force: replace the comparison that is in `out`.
        progress: as for `prepare`.
        options: those of `bitfold compare`, such as `methods`, `budgets`, `seeds`, and those of
            `train`.

    Returns:
        The figures: `.lines`, `.results`, `.to_frame()`; and `.page`, the page's path.

    Raises:
        BitfoldError: options, rows, budgets or an output that cannot be.

    Example:
        >>> rows = {"user": list(range(40)) * 20, "clicked": [0, 1] * 400}
        >>> found = compare(
        ...     rows, label="clicked", fields="user", methods="full,hash", budgets="2x", seeds=1,
        ...     width=4, hidden=[8], epochs=1, floors=False, diagnosis=False,
        ... )
        >>> [(line.method, line.budget) for line in found.lines]
        [('full', '1x'), ('hash', '2x')]
    """
    from bitfold.comparison.compare import compare as job
    from bitfold.comparison.config import CompareConfig
    from bitfold.report import page_of
    from bitfold.training import TrainConfig

    compare_config, train_config, data_config = configs(
        (CompareConfig, TrainConfig, DataConfig), options, {}
    )
    with listening(progress, keep=("cells",)) as tell, _source(data) as source:
        _check_settled(source, options)
        folder = _Folder(out, "board", resume=resume, force=force)
        return folder.made(
            lambda place: job(
                source,
                data_config,
                train_config,
                compare_config,
                place,
                resume=resume,
                force=force,
                progress=tell,
                page=page_of,
            )
        )


def inspect(
    data: Data,
    *,
    width: int | None = None,
    quick: bool = False,
    tables: str | None = None,
    rows: bool | None = None,
    log: str | Path | None = None,
    map: Mapping[str, str] | None = None,
    progress: Drawing = None,
    **options: Any,
) -> "Inspection | CheckpointInspection":
    """Say what a log holds, or a checkpoint of anybody's model.

    Of a log: parts, clicks, fields, their ids, skew, missing and unseen values. Of a checkpoint
    (`.pt`, `.pth`, `.bin`, `.ckpt`, `.safetensors`, or a folder with `model.safetensors`): which
    tables weigh what, what ratios keep of them, how a log reads their rows, and a budget to begin
    with. Code in a checkpoint is never run.

    Args:
        data: a prepared log; raw files or rows, which are prepared first, in a temporary folder;
            or the path of a checkpoint.
        width: of a log: `D`, for the bytes of the full table; 16 if None.
        quick: no pass over the rows, of the log or of tables.
        tables: of a checkpoint: a regular expression that says by their names which tensors are
            tables.
        rows: of a checkpoint: whether its tables' rows are read; None reads up to 1 GiB.
        log: of a checkpoint: a prepared log, or a Parquet or CSV file of ids, that reads its rows.
        map: of a checkpoint: the field of `log` that reads a table, by the table's name, where
            names do not say it.
        progress: as for `prepare`.
        options: those of `bitfold prepare`, for raw data.

    Returns:
        The figures by name (`found["rows"]`, `found["suggestion"]`), with `.to_frame()`, a row a
        field or table.

    Raises:
        BitfoldError: options or rows that cannot be; a checkpoint that is damaged, needs code, or
            has no table.

    Example:
        >>> found = inspect(
        ...     {"user": [1, 2, 3, 4] * 5, "clicked": [0, 1, 1, 0] * 5},
        ...     label="clicked", fields="user", split="random:0.6,0.2,0.2",
        ... )
        >>> found["fields"][0]["name"], found["fields"][0]["distinct"]
        ('user', 4)
    """
    from bitfold.data.inspected import Inspection
    from bitfold.data.inspection import inspect as job
    from bitfold.weights.opening import is_checkpoint

    of_checkpoint: dict[str, Any] = {"tables": tables, "rows": rows, "log": log, "map": map}
    if width is not None and (isinstance(width, bool) or not isinstance(width, int) or width < 1):
        raise BitfoldError("width is out of range", got=width, expected="1 or more")
    with listening(progress) as tell, _source(data) as source:
        alone = Path(source[0]) if isinstance(source, list) and len(source) == 1 else None
        if alone is not None and is_checkpoint(alone):
            _check_none({"width": width, **options}, "a log or raw data", alone)
            return _checkpoint(alone, quick=quick, progress=tell, **of_checkpoint)
        _check_none(of_checkpoint, "a checkpoint", data)
        _check_settled(source, options)
        if alone is not None and looks_prepared(alone):
            found = PreparedLog(alone)
        else:
            found = prepare(source, progress=tell, **options)
        return Inspection(job(found, width or 16, quick=quick, progress=tell))


def _check_none(said: Mapping[str, Any], whose: str, data: Any) -> None:
    """Refuse options of `inspect` that another kind of data has."""
    for name, value in said.items():
        if value is not None:
            got = data if isinstance(data, str | Path) else type(data).__name__
            raise BitfoldError(f"{name} is an option for {whose}", got=f"{name} beside {got}")


def _checkpoint(
    path: Path,
    *,
    quick: bool,
    tables: str | None,
    rows: bool | None,
    log: str | Path | None,
    map: Mapping[str, str] | None,
    progress: "Progress",
) -> "CheckpointInspection":
    """What a checkpoint holds."""
    from bitfold.weights.inspected import CheckpointInspection
    from bitfold.weights.inspection import inspect as job

    if map is not None and log is None:
        raise BitfoldError("map says fields of a log", got="no log", expected="log=... beside it")
    with remote.fetched([] if log is None else [log]) as places:
        figures = job(
            path,
            tables=tables,
            rows=False if quick else rows,
            log=Path(places[0]) if places else None,
            fields=map,
            progress=progress,
        )
    return CheckpointInspection(figures)


def configs(
    kinds: Sequence[type[Any]], options: Mapping[str, Any], base: Mapping[str, Any]
) -> list[Any]:
    """Configurations of some kinds out of keyword options.

    Args:
        kinds: dataclasses of options; no two have an option of one name.
        options: what was said; None is not said.
        base: values for what was not said, instead of the defaults.

    Raises:
        UnknownName: an option that none of them has; it names the nearest.
    """
    found = [options_of(kind) for kind in kinds]
    known = {name: option for each in found for name, option in each.items()}
    values = {name: parse(known[name], value) for name, value in base.items() if name in known}
    for name, value in options.items():
        now = name if name in known else RENAMED.get(name, name)
        if now not in known:
            raise unknown_name("option", name, known)
        if value is not None:
            values[now] = parse(known[now], _plain(value))
    return [
        kind(**{name: values[name] for name in each if name in values})
        for kind, each in zip(kinds, found, strict=True)
    ]


def _plain(value: Any) -> Any:
    """An option's value as JSON has it: any collection but a mapping is a list."""
    if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
        return value
    return [item if isinstance(item, int | float) else str(item) for item in value]


@contextlib.contextmanager
def _source(data: Data) -> "Iterator[list[str | Path] | MemoryLog]":
    """Paths on this machine, or rows in memory that can be read more than once."""
    if isinstance(data, PreparedLog):
        yield [data.path]
        return
    memory = in_memory(data, keep=True)
    if memory is not None:
        yield memory
        return
    paths = [data] if isinstance(data, str | Path) else list(data)  # type: ignore[arg-type]
    with remote.fetched(paths) as places:
        yield places


def _check_settled(source: "list[str | Path] | MemoryLog", options: Mapping[str, Any]) -> None:
    """Refuse options of reading that a prepared log has settled otherwise."""
    if isinstance(source, list):
        plain = {name: _plain(value) for name, value in options.items()}
        check_settled(source, said(DataConfig, plain))


class _Folder:
    """Where a result is written: the user's folder, or a temporary one that lives with it.

    A folder of another machine is sent what is in a temporary one.
    """

    def __init__(
        self, out: str | Path | None, name: str, *, resume: bool = False, force: bool = False
    ) -> None:
        self._away = str(out) if remote.is_remote(out) else None
        if self._away is not None:
            remote.check_free(self._away, force=force, resume=resume)
            out = None
        elif isinstance(out, str):
            out = remote.local_path(out)
        self._temporary = tempfile.mkdtemp(prefix="bitfold-") if out is None else None
        self.path = Path(out) if out is not None else Path(str(self._temporary)) / name

    def made(self, make: Callable[[Path], T]) -> T:
        """What `make` makes of the path; a temporary folder goes when the result does."""
        try:
            result = make(self.path)
            if self._away is not None:
                remote.send(self.path, self._away)
        except BaseException:
            if self._temporary is not None:
                shutil.rmtree(self._temporary, ignore_errors=True)
            raise
        if self._temporary is not None:
            weakref.finalize(result, shutil.rmtree, self._temporary, ignore_errors=True)
        return result


def temporary_run(files: Mapping[str, bytes]) -> "Run":
    """A run out of the content of its files, in a folder that lives as long as the run."""
    from bitfold.runs.folder import load

    def written(place: Path) -> "Run":
        place.mkdir()
        for name, content in files.items():
            (place / Path(name).name).write_bytes(content)
        return load(place)

    return _Folder(None, "run").made(written)
