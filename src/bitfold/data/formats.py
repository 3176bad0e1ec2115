"""The layouts of public click logs, by name: what their columns are and mean."""

from dataclasses import dataclass, replace

from bitfold.data.config import DataConfig
from bitfold.data.syntax import check_split

_AVAZU_FIELDS = (
    "C1",
    "banner_pos",
    "site_id",
    "site_domain",
    "site_category",
    "app_id",
    "app_domain",
    "app_category",
    "device_id",
    "device_ip",
    "device_model",
    "device_type",
    "device_conn_type",
    *(f"C{index}" for index in range(14, 22)),
)


@dataclass(frozen=True)
class Layout:
    """Defaults of a public format; any option the user says goes before them.

    Args:
        columns: names of the columns where a file has no header line.
        header: whether files have one: `yes`, `no`, or `auto` (a first line that holds a known
            column name is a header, as MovieLens changed its mind).
        quoted: whether quotes enclose cells.
    """

    summary: str
    columns: tuple[str, ...]
    header: str
    separator: str
    label: str | None
    fields: tuple[str, ...]
    numeric: tuple[str, ...] = ()
    time: str | None = None
    group: str | None = None
    item: str | None = None
    missing: tuple[str, ...] = ()
    quoted: bool = True


LAYOUTS = {
    "criteo": Layout(
        "Criteo display ads (Kaggle, Terabyte): tabs, no header, I1-I13 and C1-C26",
        columns=(
            "label",
            *(f"I{index}" for index in range(1, 14)),
            *(f"C{index}" for index in range(1, 27)),
        ),
        header="no",
        separator="\t",
        label="label",
        fields=tuple(f"C{index}" for index in range(1, 27)),
        numeric=tuple(f"I{index}" for index in range(1, 14)),
        quoted=False,
    ),
    "avazu": Layout(
        "Avazu mobile ads: commas, a header; hour is YYMMDDHH, -1 is missing",
        columns=(),
        header="yes",
        separator=",",
        label="click",
        fields=_AVAZU_FIELDS,
        time="hour",
        missing=("-1",),
    ),
    "movielens": Layout(
        "MovieLens ratings: user, movie, rating, timestamp (ratings.csv, ratings.dat)",
        columns=("user", "movie", "rating", "timestamp"),
        header="auto",
        separator=",",
        label="rating>=4",
        fields=("user", "movie"),
        time="timestamp",
        group="user",
        item="movie",
    ),
    "sequences": Layout(
        "Lines of a user and the items that the user has, in order (train.txt of NGCF, LightGCN)",
        columns=("user", "item"),
        header="no",
        separator=" ",
        label=None,
        fields=("user", "item"),
        group="user",
        item="item",
        quoted=False,
    ),
}

MOVIELENS_HEADER = "userId"
"""The first cell of the header line that newer MovieLens files have."""


def _item(config: DataConfig, layout: Layout) -> str | None:
    """The item that a format brings, where it is among the fields."""
    return layout.item if layout.item in (config.fields or layout.fields) else None


def with_defaults(config: DataConfig) -> DataConfig:
    """The configuration with the options that its named format brings, and `none` made empty."""
    layout = LAYOUTS.get(config.format)
    if layout is not None:
        config = replace(
            config,
            columns=config.columns or layout.columns,
            header=layout.header if config.header == "auto" else config.header,
            separator=config.separator,
            missing=config.missing or layout.missing,
            label=config.label or layout.label,
            fields=config.fields or layout.fields,
            numeric=config.numeric or layout.numeric,
            time=config.time or layout.time,
            group=config.group or layout.group,
            item=config.item or _item(config, layout),
        )
    emptied = {
        name: () for name in ("fields", "numeric", "missing") if getattr(config, name) == ("none",)
    }
    for name in ("group", "time", "weight"):
        if getattr(config, name) == "none":
            emptied[name] = None  # type: ignore[assignment]
    config = replace(config, **emptied) if emptied else config  # type: ignore[arg-type]
    check_split(config.split_rule, group=config.group, time=config.time)
    config.check_item()
    return config
