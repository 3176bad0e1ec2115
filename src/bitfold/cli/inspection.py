"""`bitfold inspect`: what a prepared log, a run or a checkpoint holds."""

from pathlib import Path
from typing import Any

import click

from bitfold.bars import drawing
from bitfold.cli.options import ConfigCommand
from bitfold.cli.plugins import plugins
from bitfold.cli.tables import cold_figures, figure, is_narrow, metrics_table, show, size, table
from bitfold.errors import BitfoldError
from bitfold.files import read_json, without_nan
from bitfold.terminal import json_text

VALUE_WIDTH = 20
TRANSFORMS = {"log": "signed log1p", "standard": "number"}


@click.command(cls=ConfigCommand, short_help="Say what a log, a run or a checkpoint holds.")
@click.argument("path", metavar="PATH")
@click.option(
    "--width", type=int, metavar="D", help="Width of the full table's vectors.  [default: 16]"
)
@click.option("--quick", is_flag=True, help="No pass over the rows, of a log or of tables.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option(
    "--tables", metavar="REGEX", help="Of a checkpoint: which tensors are tables, by their names."
)
@click.option(
    "--rows", is_flag=True, help="Of a checkpoint: read tables of more than 1 GiB in all, too."
)
@click.option(
    "--log",
    metavar="LOG",
    help="Of a checkpoint: a prepared log, or a Parquet or CSV file of ids, that reads its tables.",
)
@click.option(
    "--map",
    "pairs",
    multiple=True,
    metavar="TABLE=FIELD",
    help="The field of --log that reads a table, where names do not say it.",
)
@plugins
def inspect(
    path: str,
    width: int | None,
    quick: bool,
    as_json: bool,
    tables: str | None,
    rows: bool,
    log: str | None,
    pairs: tuple[str, ...],
) -> None:
    """Say what PATH holds: a prepared log, a run, or a checkpoint of anybody's model.

    Of a log: parts, clicks, fields, their ids, skew, bags, missing and unseen values, in one pass.
    Of a run: its figures and where its bytes go. Of a checkpoint (.pt, .pth, .bin, .ckpt,
    .safetensors, or a folder with model.safetensors): which tables weigh what, what ratios keep of
    them, how a log reads their rows, and a budget to begin with. Code in a checkpoint is never run.

    \b
    bitfold inspect log
    bitfold inspect model.safetensors --log clicks.parquet
    """
    if width is not None and width < 1:
        raise BitfoldError("width is out of range", got=width, expected="1 or more")
    kind = _kind(Path(path))
    said = {"--tables": tables, "--rows": rows, "--log": log, "--map": pairs}
    if kind == "checkpoint":
        if width is not None:
            raise _not_of(path, kind, "--width")
        if rows and quick:
            raise BitfoldError(
                "--rows and --quick contradict each other", got="both", expected="one of them"
            )
        read = True if rows else False if quick else None
        _inspect_checkpoint(Path(path), as_json, tables, read, log, pairs)
        return
    for option, value in said.items():
        if value:
            raise _not_of(path, kind, option)
    if kind == "run":
        _inspect_run(Path(path), as_json)
    else:
        _inspect_log(path, 16 if width is None else width, quick, as_json)


def _not_of(path: str, kind: str, option: str) -> BitfoldError:
    """The error for an option that another kind of path has."""
    return BitfoldError(
        f"{option} does not go with {path}",
        got=f"a {kind}",
        expected="a prepared log" if option == "--width" else "a checkpoint",
    )


def _kind(path: Path) -> str:
    """`log`, `run` or `checkpoint`; whatever else the path is raises."""
    from bitfold.data.files import missing_file
    from bitfold.data.folder import looks_prepared
    from bitfold.weights.opening import is_checkpoint

    if not path.exists():
        raise missing_file(path)
    if looks_prepared(path):
        return "log"
    if is_checkpoint(path):  # a folder of Hugging Face has a config.json, too
        return "checkpoint"
    if (path / "config.json").is_file():
        return "run"
    inside = path / "log"
    raise BitfoldError(
        f"{path} is neither a prepared log nor a run nor a checkpoint",
        got="a file" if path.is_file() else "a folder that holds neither",
        expected="a folder that `bitfold prepare` or `bitfold train` wrote, or a file of weights",
        fix=f"did you mean {inside}?"
        if looks_prepared(inside)
        else f"`bitfold prepare {path} --out log ...` makes a log of raw files, then "
        "`bitfold inspect log`",
    )


def _inspect_log(path: str, width: int, quick: bool, as_json: bool) -> None:
    """A log's figures."""
    from bitfold.data.inspection import inspect as look
    from bitfold.data.prepare import negatives_told
    from bitfold.data.prepared import PreparedLog

    log = PreparedLog(path)
    with drawing() as progress:
        figures = look(log, width, quick=quick, progress=progress)
    if as_json:
        click.echo(json_text(without_nan(figures)))
        return
    show(*_log_parts(figures), *negatives_told(log))


def _inspect_checkpoint(
    path: Path,
    as_json: bool,
    tables: str | None,
    rows: bool | None,
    log: str | None,
    pairs: tuple[str, ...],
) -> None:
    """A checkpoint's figures."""
    from bitfold.cli.checkpoints import checkpoint_parts, read_pairs
    from bitfold.weights.inspection import inspect as look

    fields = read_pairs(pairs)
    if fields and log is None:
        raise BitfoldError(
            "--map says fields of a log", got="no --log", expected="--log LOG beside it"
        )
    where = None if log is None else Path(log)
    with drawing() as progress:
        figures = look(path, tables=tables, rows=rows, log=where, fields=fields, progress=progress)
    if as_json:
        click.echo(json_text(without_nan(figures)))
        return
    show(*checkpoint_parts(figures))


def _inspect_run(path: Path, as_json: bool) -> None:
    """A run's figures, and its plan."""
    from bitfold.cli.quotes import plan_parts
    from bitfold.cli.runs import SHOWN
    from bitfold.planning.plan import Plan
    from bitfold.runs.config import RunConfig
    from bitfold.runs.manifest import CONFIG, METRICS, PLAN, read_metrics, verify

    files = verify(path)
    saved = read_json(files.path(CONFIG))
    config = RunConfig.load(files.path(CONFIG))
    plan = Plan.from_json(read_json(files.path(PLAN)), files.path(PLAN))
    metrics = read_metrics(files.path(METRICS))
    if as_json:
        figures = {"run": str(path), "config": saved, "metrics": metrics, "plan": plan.to_json()}
        click.echo(json_text(without_nan(figures)))
        return
    beside = f"{config.taught.told}{config.cold.told}"
    title = f"{path}: {config.train.method}, {config.train.network}{beside}"
    told = {name: metrics[name] for name in SHOWN if metrics.get(name) is not None}
    told |= cold_figures(metrics)
    show(
        metrics_table(title, told),
        *plan_parts(plan, narrow=is_narrow()),
    )


def _log_parts(figures: dict[str, Any]) -> list[Any]:
    """The tables of a log, each within 80 columns."""
    total = sum(figures["rows"].values())
    made = table("Parts", ("part", "rows", "share", "clicked"))
    for part, rows in figures["rows"].items():
        clicked = figures["clicked"].get(part)
        made.add_row(part, f"{rows:,}", f"{rows / total:.1%}", _share(clicked))
    fields = figures["fields"]
    parts: list[Any] = [
        f"{figures['log']}: {total:,} rows, {size(figures['bytes_on_disk'])} on the disk\n"
        f"label {figures['label'] or 'drawn negatives'}, split {figures['split']}, "
        f"ids {figures['ids']}\n",
        made,
        _fields_table(figures),
    ]
    if "map_bytes" in figures:
        parts.append(f"the map from values to ids takes {size(figures['map_bytes'])} more")
    if any("head" in field for field in fields):
        parts.append(_skew_table(fields))
    if any("bags" in field for field in fields):
        bags = table("Bags (training part)", ("field", "values a row", "longest", "empty"))
        for field in fields:
            if "bags" in field:
                mean, longest = field["bags"]["mean"], field["bags"]["longest"]
                bags.add_row(field["name"], f"{mean:.2f}", f"{longest:,}", _share(field["missing"]))
        parts.append(bags)
    if figures["numeric"]:
        numbers = table("Numbers (training part)", ("column", "mean", "deviation", "of", "missing"))
        for number in figures["numeric"]:
            numbers.add_row(
                number["name"],
                f"{number['mean']:.4g}",
                f"{number['deviation']:.4g}",
                TRANSFORMS.get(number["transform"], number["transform"]),
                _share(number["missing"]),
            )
        parts.append(numbers)
    return parts


def _fields_table(figures: dict[str, Any]) -> Any:
    """Kind, ids, share of the full table's bytes, missing and unseen values of each field."""
    fields = figures["fields"]
    told = {part for field in fields for part in field.get("unseen", ())}
    unseen = [part for part in ("valid", "test") if part in told]
    made = table(
        f"Fields: {size(figures['full_bytes'])} as full tables of width {figures['width']}",
        (
            *("field", "kind", "ids", "share", "missing"),
            *(f"unseen in {part}" for part in unseen),
        ),
        left=2,
    )
    for field in fields:
        ids = field.get("num_embeddings", field["distinct"])
        about = "" if field["exact"] else "about "
        seen = field.get("unseen", {})
        made.add_row(
            field["name"],
            field["kind"],
            f"{about}{ids:,}",
            _share(field["share"]),
            _share(field["missing"]),
            *(_share(seen.get(part)) for part in unseen),
        )
    return made


def _skew_table(fields: list[dict[str, Any]]) -> Any:
    """How few ids hold how many of the values."""
    counted = any("once" in field for field in fields)
    more = ("half of all", "met once") if counted else ()
    made = table(
        "Skew (training part)", ("field", "most frequent", "share", "top 20", *more), left=2
    )
    for field in fields:
        if "head" not in field:
            continue
        top = field["head"][0]
        value = top.get("value", f"id {top['id'] % 2**64:x}")  # 16 letters at most
        text = "(missing)" if value is None else str(value)
        half, once = field.get("half"), field.get("once")
        found = ("-" if half is None else f"{figure('ids', half)} ids", _share(once))
        made.add_row(
            field["name"],
            text if len(text) <= VALUE_WIDTH else text[: VALUE_WIDTH - 1] + "…",
            _share(top["share"]),
            _share(field["head_share"]),
            *(found if counted else ()),
        )
    return made


def _share(value: float | None) -> str:
    """A share in percent; a dash where there is no figure.

    Example:
        >>> _share(0.1234), _share(None), _share(0.00004)
        ('12.3%', '-', '<0.1%')
    """
    if value is None:
        return "-"
    return "<0.1%" if 0 < value < 0.0005 else f"{value:.1%}"
