"""What a comparison compares: methods with their options, budgets, seeds; and the cells of them."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bitfold.config import option
from bitfold.errors import BitfoldError, unknown_name

FULL, HASH = "full", "hash"
FULL_BUDGET = "1x"


@dataclass(frozen=True)
class Variant:
    """A method with options of its own, such as `binary-code:strategy=skip,fusion=product`."""

    name: str
    method: str
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CompareConfig:
    """What a comparison adds to the options of training.

    Example:
        >>> config = CompareConfig(methods=("full", "binary-code:blocks=3"), budgets=("10x",))
        >>> [variant.name for variant in config.variants]
        ['full', 'binary-code:blocks=3']
    """

    methods: tuple[str, ...] = option(
        (FULL, "hash", "binary-code"),
        help="What to compare. Options of one entry follow a colon: "
        "binary-code:strategy=skip,fusion=product.",
        metavar="METHODS",
    )
    budgets: tuple[str, ...] = option(
        ("10x", "100x"),
        help="Ratios of the full table (100x) or bytes (64MiB); full appears once, as 1x.",
        metavar="BUDGETS",
    )
    seeds: int = option(3, help="How many seeds: --seed and the numbers after it.", metavar="N")
    grid_lr: tuple[float, ...] = option(
        (),
        help="Learning rates that everybody tries on the first seed; validation AUC chooses. "
        "Without it --lr stands for all.",
        metavar="RATES",
    )
    grid_decay: tuple[float, ...] = option(
        (),
        help="Weight decays of the embeddings that everybody tries, with each learning rate. "
        "Without it --embedding-decay stands for all.",
        metavar="DECAYS",
    )
    equal_within: float = option(
        0.01,
        help="Share of bytes by which a method may miss the hash trick's; beyond it hash is run "
        "again at the method's own bytes. 1 never does.",
        metavar="SHARE",
    )
    floors: bool = option(
        True,
        help="Measure what figures lie between: logistic regression (one more training), the "
        "click rates of one field, and the truth of a synthetic log.",
    )
    diagnosis: bool = option(
        True,
        help="Measure, after each cell, what the page tells beyond figures: curves, bytes by "
        "field, AUC by frequency, abundance. It reads the test part again and the log once.",
    )
    keep_runs: bool = option(
        False, help="Keep each cell's run (OUT/runs) for evaluate and predict; they take disk."
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "methods", tuple(joined(self.methods)))
        object.__setattr__(self, "budgets", tuple(dict.fromkeys(self.budgets)))
        for name, least in (("grid_lr", "above 0"), ("grid_decay", "0 or more")):
            values = getattr(self, name)
            object.__setattr__(self, name, tuple(dict.fromkeys(values)))
            for value in values:
                if not (0 <= value < math.inf) or (value == 0 and name == "grid_lr"):
                    raise BitfoldError(
                        f"{name} holds a value out of range",
                        got=f"{value!r} in {', '.join(map(str, values))}",
                        expected=f"numbers {least}",
                    )
        if not self.methods:
            raise BitfoldError(
                "there is nothing to compare", got="no methods", fix="name some with --methods"
            )
        if self.seeds < 1:
            raise BitfoldError(
                "a comparison needs a seed", got=f"seeds {self.seeds}", expected="1 or more"
            )
        if not 0 <= self.equal_within <= 1:
            raise BitfoldError(
                "equal_within is no share", got=self.equal_within, expected="0 to 1, such as 0.01"
            )
        variants = self.variants
        if not self.budgets and any(variant.method != FULL for variant in variants):
            raise BitfoldError(
                "a comparison needs a budget",
                got="no budgets",
                expected="ratios or bytes, such as 10x,100x",
            )
        names = [variant.name for variant in variants]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise BitfoldError(f"{twice[0]!r} is compared twice", got=", ".join(names))

    @property
    def variants(self) -> list[Variant]:
        """The entries of `methods`, read."""
        return [parse_variant(text) for text in self.methods]


def joined(parts: Sequence[str]) -> Iterator[str]:
    """Entries of a comma-separated list whose own options hold commas, put together again.

    Example:
        >>> list(joined(["hash", "binary-code:strategy=skip", "fusion=product"]))
        ['hash', 'binary-code:strategy=skip,fusion=product']
    """
    entry = ""
    for part in parts:
        if "=" in part and ":" not in part and ":" in entry:
            entry += "," + part
            continue
        if entry:
            yield entry
        entry = part
    if entry:
        yield entry


def parse_variant(text: str) -> Variant:
    """Read `method` or `method:option=value,...`.

    Example:
        >>> parse_variant("binary-code:blocks=3").options
        {'blocks': '3'}
    """
    method, colon, rest = text.partition(":")
    options: dict[str, str] = {}
    for pair in rest.split(",") if colon else []:
        name, sign, value = pair.partition("=")
        if not sign or not name.strip():
            raise BitfoldError(
                "an entry of --methods cannot be read",
                got=repr(text),
                expected="METHOD or METHOD:OPTION=VALUE,..., such as binary-code:strategy=skip",
            )
        options[name.strip()] = value.strip()
    return Variant(text, method.strip(), options)


def cell_options(
    variant: Variant, settings: Mapping[str, str], known: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """The options of one entry: `option=value` for each method that has it, `method.option=value`
    for that method, and the entry's own, which win.

    Args:
        variant: the entry.
        settings: the options of `--set`.
        known: the option names of each method that is compared.

    Raises:
        BitfoldError: a method or an option that nothing in the comparison has.
    """
    general: dict[str, str] = {}
    special: dict[str, str] = {}
    for key, value in settings.items():
        method, dot, option = key.rpartition(".")
        if dot and method not in known:
            raise unknown_name("method in --set", method, known)
        having = [method] if dot else [name for name in known if option in known[name]]
        if not having or option not in known[having[0]]:
            owners = [method] if dot else list(known)
            raise unknown_name(
                f"option of {' or '.join(owners)}",
                option,
                dict.fromkeys(name for owner in owners for name in known[owner]),
            )
        if variant.method in having:
            (special if dot else general)[option] = value
    return {**general, **special, **variant.options}


@dataclass(frozen=True)
class Cell:
    """One run of a comparison; `tried` names the point of a grid that it tries."""

    variant: Variant
    budget: str
    seed: int
    tried: str = ""

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.variant.name} {self.budget} seed {self.seed} {self.tried}".rstrip()

    @property
    def slug(self) -> str:
        """For file names."""
        parts = (self.variant.name, self.budget, str(self.seed), self.tried)
        return re.sub(r"[^A-Za-z0-9.=-]+", "_", "-".join(part for part in parts if part))


def cells(config: CompareConfig, seed: int) -> list[Cell]:
    """Every cell, cheapest disappointment first: all methods at one seed, then the next seed."""
    return [
        Cell(variant, budget, seed + step)
        for step in range(config.seeds)
        for variant in config.variants
        for budget in ((FULL_BUDGET,) if variant.method == FULL else config.budgets)
    ]
