"""The options of a stream, and how a window is said."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from bitfold.config import check_choices, check_number, check_whole, option, to_json
from bitfold.data.config import DataConfig
from bitfold.data.formats import with_defaults
from bitfold.errors import BitfoldError
from bitfold.runs.options import TrainConfig

WHOLE = "random:1,0,0"
"""The split of a window: all of its rows are scored, and all of them train."""

NOT_TRAINING = (
    *("epochs", "patience", "rank", "rank_at", "rank_items", "rank_seen", "rank_users"),
    *("devices", "log", "log_steps", "unseen"),
)
NOT_READING = ("split", "ids", "min_count", "negatives", "negatives_by", "negatives_seed")
WITHOUT = (*NOT_TRAINING, *NOT_READING)
"""Options of training and reading that a stream does not have."""

MOST_HEADS = 1000
STRATEGIES = ("finetune", "replay", "expand")
MEMORIES = ("model", "aligned")

UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
MONDAY = 4 * UNITS["d"]  # 1970 began on a Thursday
FIRST = "@first"
_FORMS = 'a time such as "1d", "6h" or "1d@first", rows such as "500000r", or "file"'


@dataclass(frozen=True)
class WindowRule:
    """How a log is cut.

    Args:
        kind: `time`, `rows` or `file`.
        size: seconds, or rows; 0 for files.
        origin: where windows of time are counted from, in seconds since 1970; None: from the first
            row on.
    """

    kind: str
    size: float = 0.0
    origin: float | None = 0.0


def parse_window(text: str) -> WindowRule:
    """Read `1d`, `6h`, `1d@first`, `500000r` or `file`.

    Days begin at midnight UTC, weeks on Mondays; with `@first` the first one begins with the log.

    Raises:
        BitfoldError: it is none of them.

    Example:
        >>> parse_window("1d"), parse_window("500000r")
        (WindowRule(kind='time', size=86400.0, origin=0.0), WindowRule(kind='rows', size=500000, origin=0.0))
    """  # noqa: E501
    said = str(text).strip().lower().replace("_", "").replace(",", "")
    if said == "file":
        return WindowRule("file")
    early = said.endswith(FIRST)
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]+)", said.removesuffix(FIRST))
    number = float(match.group(1)) if match else 0.0
    unit = match.group(2) if match else ""
    if unit == "r" and not early and 1 <= number < 2**62 and number.is_integer():
        return WindowRule("rows", int(number))
    seconds = number * UNITS.get(unit, 0)
    if not 1 <= seconds < 1e10:
        raise BitfoldError("the window cannot be read", got=repr(text), expected=_FORMS)
    return WindowRule("time", seconds, None if early else MONDAY if unit == "w" else 0.0)


@dataclass(frozen=True)
class StreamConfig:
    """How a log becomes a stream: the options of `bitfold stream` beside those of `train`.

    Raises:
        BitfoldError: an option whose value cannot be right, whatever the log holds.

    Example:
        >>> StreamConfig(window="6h").rule.size
        21600.0
    """

    window: str = option(
        "1d",
        help="What is scored and then trained on at a time: a span of --time (1d, 6h, 1w; 1d@first "
        "begins with the first row, not at midnight), so many rows (500000r), or one file (file).",
        metavar="WINDOW",
    )
    passes: int = option(1, help="How often a window is trained on, once it is scored.")
    strategy: str = option(
        "finetune",
        help="What there is beside training on each window: nothing (finetune), rows of past "
        "windows in every step (replay), or last layers that are copied now and then (expand).",
        choices=STRATEGIES,
    )
    memory: str = option(
        "model",
        help="What the budget bounds: the embeddings (model), or the network, copies of its layers "
        "and stored rows with them (aligned), so that the embeddings get what is left.",
        choices=MEMORIES,
    )
    replay_rows: int = option(1000, help="Past rows that replay keeps.", metavar="ROWS")
    replay_share: float = option(0.2, help="The share of a step's rows that are past ones.")
    expand_every: int = option(1, help="Windows between two copies of the last layers.")
    expand_heads: int = option(
        4, help="Last layers side by side, the trained ones among them; then the oldest go."
    )

    def __post_init__(self) -> None:
        _ = self.rule
        check_choices(self)
        for name in ("passes", "replay_rows", "expand_every"):
            check_whole(self, name, 1)
        check_whole(self, "expand_heads", 2, MOST_HEADS)
        check_number(self, "replay_share", above=0, below=1)

    @property
    def beside(self) -> dict[str, Any]:
        """The options of the strategy and of what is counted."""
        said = to_json(self)
        return {name: value for name, value in said.items() if name not in ("window", "passes")}

    @property
    def rule(self) -> WindowRule:
        """How the log is cut."""
        return parse_window(self.window)


def check_none(options: Iterable[str]) -> None:
    """Refuse options of training and reading that a stream does not have.

    Raises:
        BitfoldError: it names the first of them.
    """
    for name in options:
        if name in WITHOUT:
            raise BitfoldError(
                f"{name} is no option of a stream",
                got=name,
                expected="every row scored once, then trained on; ids that are hashed",
                fix="leave it out"
                + ("; --passes trains on a window more than once" if name == "epochs" else ""),
            )


def reading_of(config: DataConfig, rule: WindowRule) -> DataConfig:
    """How windows are read, with what the format brings.

    Raises:
        BitfoldError: there is no label, or windows of time and no time column.
    """
    config = with_defaults(replace(config, split=WHOLE))
    if config.label is None:
        raise BitfoldError(
            "no label is named",
            got="no label",
            expected="the column to predict, or a comparison",
            fix="say --label clicked, or --label 'rating>=4'",
        )
    if config.ids != "hashed" or config.negatives:
        raise BitfoldError(
            "a stream has hashed ids and no drawn negatives",
            got=f"ids {config.ids}, negatives {config.negatives}",
            expected="ids hashed, negatives 0: what comes tomorrow is not known",
        )
    if rule.kind == "time" and config.time is None:
        raise BitfoldError(
            "windows of time need the time column",
            got="no time",
            expected="--time COLUMN",
            fix="name the column, or cut by rows (--window 500000r) or files (--window file)",
        )
    return config


def training_of(config: TrainConfig, passes: int) -> TrainConfig:
    """How each window is trained on."""
    return replace(config, epochs=passes, patience=0, devices=1, log="none")
