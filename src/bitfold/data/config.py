"""The options that say how a raw log is read."""

import secrets
from dataclasses import dataclass
from typing import Any

from bitfold.config import check_choices, option
from bitfold.data.hashing import check_seed
from bitfold.data.syntax import (
    Label,
    Split,
    Transform,
    check_split,
    parse_cross,
    parse_label,
    parse_split,
    parse_transform,
)
from bitfold.errors import BitfoldError, check_name, unknown_name

FORMATS = ("auto", "csv", "tsv", "parquet", "criteo", "avazu", "movielens", "sequences")
MOST_NEGATIVES = 10_000
DRAWS = ("uniform", "popularity")
SECRET = "secret"
"""As `hash_seed`: one that is drawn, and known to the schema only."""

LEAST_RATE = 1e-9
"""The least share of negatives: a kept one then counts for a milliard rows."""


@dataclass(frozen=True)
class DataConfig:
    """How a raw log is read: the options of `bitfold prepare`, `train` and `compare`.

    Raises:
        BitfoldError: for an option whose value cannot be right, whatever the log holds.

    Example:
        >>> config = DataConfig(label="rating>=4", fields=("user", "item"), group="user")
        >>> config.label_rule
        Label(column='rating', compare='>=', value='4')
    """

    format: str = option(
        "auto",
        help="How the files are written; auto goes by their names (.csv, .tsv, .parquet; "
        ".gz and .zst are unpacked). criteo, avazu and movielens bring defaults for all options; "
        "sequences: lines of a user and the items that the user has.",
        choices=FORMATS,
    )
    columns: tuple[str, ...] = option(
        (), help="Names of the columns of a file without a header line.", metavar="NAMES"
    )
    header: str = option(
        "auto",
        help="Whether text files begin with a header line; auto: unless --columns is given.",
        choices=("auto", "yes", "no"),
    )
    separator: str | None = option(
        None,
        help="What parts the columns of a text file, if not a comma (.csv) or a tab (.tsv); "
        "'tab' is a tab, and '::' may be doubled.",
        metavar="TEXT",
    )
    quote: str = option(
        "auto",
        help="What encloses cells that hold the separator: double, single or none. auto: double, "
        "but none in text with tabs unless a column is quoted throughout.",
        choices=("auto", "none", "double", "single"),
    )
    missing: tuple[str, ...] = option(
        (), help="Texts that mean a missing value, besides an empty cell.", metavar="TEXTS"
    )
    label: str | None = option(
        None,
        help="The column to predict, holding 0 and 1, or a comparison such as 'rating>=4'.",
        metavar="COLUMN",
    )
    fields: tuple[str, ...] = option((), help="Categorical columns, by name.", metavar="NAMES")
    multi: dict[str, str] = option(  # noqa: RUF009
        {},
        help="A field that holds several values, and what parts them: genres='|'.",
        metavar="FIELD=SEPARATOR",
    )
    numeric: tuple[str, ...] = option(
        (),
        help="Columns of numbers; 'none' when a named format's own are not wanted.",
        metavar="NAMES",
    )
    numeric_transform: str = option(
        "log",
        help="log: sign-aware log1p, then mean 0 and deviation 1; standard: without the log; "
        "buckets:N: a categorical field of N quantile buckets. Fitted on the training part.",
        metavar="NAME",
    )
    cross: tuple[str, ...] = option(
        (), help="Crossed fields, such as 'movie*age'; the parts need not be fields.", metavar="A*B"
    )
    group: str | None = option(
        None, help="The column of the user, for GAUC and for 'last' splits.", metavar="COLUMN"
    )
    time: str | None = option(None, help="The column that orders the log.", metavar="COLUMN")
    weight: str | None = option(None, help="A column of weights of the rows.", metavar="COLUMN")
    negative_rate: float | None = option(
        None,
        help="The share of negatives that was kept, if the log was down-sampled; predictions "
        "are corrected for it.",
        metavar="SHARE",
    )
    item: str | None = option(
        None, help="The field of the item, for negatives and rankings.", metavar="FIELD"
    )
    item_fields: tuple[str, ...] = option(
        (),
        help="Columns that belong to the item, such as its genre: a drawn or ranked item brings "
        "its own.",
        metavar="NAMES",
    )
    negatives: int = option(
        0,
        help="For a log of positives: negatives drawn for each. A negative is a copy with an item "
        "that its user (--group) has nowhere in the log. A label is optional then.",
        metavar="N",
    )
    negatives_by: str = option(
        "uniform",
        help="How their items are drawn: uniform, all alike; popularity, by their positives.",
        choices=DRAWS,
    )
    negatives_seed: int = option(0, help="Seed of the drawn negatives.", metavar="N")
    ids: str = option(
        "hashed",
        help="hashed: 64-bit ids, nothing is stored, new values work; vocabulary: dense ids by "
        "falling frequency in the training part; dense: the columns hold 0..V-1 already.",
        choices=("hashed", "vocabulary", "dense"),
    )
    min_count: int = option(
        1,
        help="With a vocabulary: values met less often than this in training share the id of "
        "unseen values.",
        metavar="N",
    )
    split: str = option(
        "random:0.8,0.1,0.1",
        help="random:A,B,C or time:A,B,C by fractions for train, valid, test; last:V,T the last "
        "T rows of each user test, the V before valid; column:NAME a column says which.",
        metavar="SPLIT",
    )
    hash_seed: int = option(
        0,
        help="Seed of the hash of values; 'secret' draws one of 64 bits and keeps it in the "
        "schema, so that nobody else can choose values that collide.",
        metavar="N",
        texts=("secret",),
    )
    split_seed: int = option(0, help="Seed of random splits and of the rows' order.", metavar="N")

    def __post_init__(self) -> None:
        check_choices(self)
        seed: Any = self.hash_seed
        if seed == SECRET:
            object.__setattr__(self, "hash_seed", secrets.randbits(64))
        check_seed(self.hash_seed)
        for name in ("split_seed", "min_count", "negatives", "negatives_seed"):
            value = getattr(self, name)
            least = 1 if name == "min_count" else 0
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise BitfoldError(
                    f"{name} is no number", got=repr(value), expected=f"{least} or more"
                )
        if self.negatives > MOST_NEGATIVES:
            raise BitfoldError(
                "negatives is too large",
                got=f"{self.negatives:,} for each positive",
                expected=f"at most {MOST_NEGATIVES:,}",
            )
        self._check_shares()
        self._check_names()
        _ = (self.label_rule, self.transform, self.crosses)
        # A public format may bring the columns that a split needs.
        if self.format in ("auto", "csv", "tsv", "parquet"):
            check_split(self.split_rule, group=self.group, time=self.time)
            self.check_item()
        else:
            _ = self.split_rule

    def _check_shares(self) -> None:
        rate = self.negative_rate
        if rate is not None and not LEAST_RATE <= rate <= 1:
            raise BitfoldError(
                "negative_rate is no share",
                got=rate,
                expected=f"{LEAST_RATE:g} to 1",
                fix="give the share of negatives that were kept, such as 0.1",
            )

    def _check_names(self) -> None:
        told = [*self.columns, *self.fields, *self.numeric, *self.multi, *self.item_fields]
        told += [part for parts in self.crosses for part in parts]
        rule, split = self.label_rule, self.split_rule
        told += [rule.column if rule else "", split.column or ""]
        told += [name or "" for name in (self.group, self.time, self.weight, self.item)]
        for name in told:
            check_name(name, "column")
        for kind in ("columns", "fields", "numeric", "cross"):
            names = getattr(self, kind)
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise BitfoldError(
                    f"{kind} names {twice[0]!r} twice",
                    got=", ".join(names),
                    expected="each name once",
                )
        for name, separator in self.multi.items():
            if not separator:
                raise BitfoldError(
                    f"the separator of the multi-valued field {name!r} is empty",
                    got=repr(separator),
                    expected="one or more characters, such as '|'",
                )
            if self.fields and name not in self.fields:
                raise BitfoldError(
                    f"the multi-valued column {name!r} is not among the fields",
                    got=", ".join(self.fields),
                    expected=f"{name!r} too",
                    fix=f"add {name} to fields",
                )
        for parts in self.crosses:
            for part in parts:
                if part in self.multi:
                    raise BitfoldError(
                        f"{'*'.join(parts)!r} crosses a multi-valued field",
                        got=f"{part!r} has several values a row",
                        expected="parts with one value a row",
                        fix=f"leave {part} out of the cross",
                    )

    def check_item(self) -> None:
        """Raise unless the item, its columns and the user are there where negatives need them."""
        if self.negatives:
            for name, what in (("group", "user"), ("item", "item")):
                if getattr(self, name) is None:
                    raise BitfoldError(
                        f"negatives need the {what}'s column",
                        got=f"no {name}",
                        expected=f"the column of the {what}",
                        fix=f"say --{name} {what}",
                    )
            if self.negative_rate is not None:
                raise BitfoldError(
                    "negative_rate and negatives exclude each other",
                    got=f"negative_rate {self.negative_rate}, negatives {self.negatives}",
                    expected="a log whose negatives were kept in part, or one without any",
                )
        if self.item is not None and self.item == self.group:
            raise BitfoldError(
                "the item is the user", got=f"{self.item} as both", expected="two columns"
            )
        if self.item is not None and (self.item not in self.fields or self.item in self.multi):
            raise BitfoldError(
                f"the item {self.item!r} is no field with one value a row",
                got=", ".join(self.fields) or "no fields",
                expected=f"{self.item} among the fields",
                fix=f"add {self.item} to --fields, or name another --item",
            )
        parts = [part for cross in self.crosses for part in cross]
        for name in self.item_fields:
            if self.item is None or name == self.group or name == self.item:
                raise BitfoldError(
                    f"{name!r} cannot be a column of the item",
                    got="no item" if self.item is None else f"the {name} itself",
                    expected="columns that belong to --item, such as its genre",
                )
            if name not in (*self.fields, *self.numeric, *parts):
                raise unknown_name("column of the item", name, (*self.fields, *self.numeric))

    @property
    def label_rule(self) -> Label | None:
        """The label's column and comparison."""
        return None if self.label is None else parse_label(self.label)

    @property
    def labelled(self) -> bool:
        """Whether a prepared log has labels: read, or of positives and drawn negatives."""
        return self.label is not None or self.negatives > 0

    @property
    def split_rule(self) -> Split:
        """The split's kind and its numbers."""
        return parse_split(self.split)

    @property
    def transform(self) -> Transform:
        """What is done to numeric columns."""
        return parse_transform(self.numeric_transform)

    @property
    def crosses(self) -> tuple[tuple[str, ...], ...]:
        """The parts of each crossed field."""
        return tuple(parse_cross(text) for text in self.cross)

    def replace(self, **options: Any) -> "DataConfig":
        """The same configuration with some options changed."""
        from dataclasses import replace

        return replace(self, **options)
