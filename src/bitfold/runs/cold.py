"""The options of a training that say how ids with few clicks lean on their prototypes."""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from bitfold.config import check_choices, option
from bitfold.data.fields import field_specs
from bitfold.errors import BitfoldError, unknown_name

if TYPE_CHECKING:
    from bitfold.data.config import DataConfig

MOST_BITS = 8


@dataclass(frozen=True)
class ColdConfig:
    """What is done for the ids of one field that have few clicks: options of `bitfold train` alone.

    Raises:
        BitfoldError: a value that cannot be, or options of cold ids without them.

    Example:
        >>> ColdConfig("remarnet", "item").told
        ', cold item by remarnet'
    """

    cold: str = option(
        "none",
        help="remarnet: ids with few clicks lean on prototypes, the mean context of the rows that "
        "clicked them, and two heads train for it.",
        choices=("none", "remarnet"),
    )
    cold_field: str | None = option(
        None, help="The field whose ids are cold or warm, such as the item's.", metavar="FIELD"
    )
    cold_margin: float = option(
        0.1, help="What logits of rows with a cold id must be ahead by in training; 0 leaves it."
    )
    cold_relation: float = option(
        0.1, help="Weight of the relation head's loss; 0 leaves it out of training."
    )
    cold_bits: int = option(
        4, help="Bits of a number of a prototype, 1 to 8; they count against the budget."
    )

    def __post_init__(self) -> None:
        check_choices(self)
        for name in ("cold_margin", "cold_relation"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 <= value <= 1e6:
                raise BitfoldError(
                    f"{name} is out of range", got=repr(value), expected="a number, 0 or more"
                )
        bits: object = self.cold_bits
        if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= MOST_BITS:
            raise BitfoldError(
                "cold_bits is out of range",
                got=repr(bits),
                expected=f"a whole number, 1 to {MOST_BITS}",
            )
        if self.on and self.cold_field is None:
            raise BitfoldError(
                "nobody says whose ids are cold",
                got=f"cold {self.cold}",
                expected="the field, such as the item's",
                fix="name it with --cold-field",
            )
        if not self.on and any(getattr(self, each.name) != each.default for each in fields(self)):
            raise BitfoldError(
                "there are no cold ids to set options of",
                got="cold none, and others of its options",
                expected="cold remarnet beside them",
                fix="say --cold remarnet, or leave them out",
            )

    @property
    def on(self) -> bool:
        """Whether anything is done."""
        return self.cold != "none"

    @property
    def told(self) -> str:
        """What a run's title says of it."""
        return f", cold {self.cold_field} by {self.cold}" if self.on else ""


def check_cold(reading: "DataConfig", config: ColdConfig) -> None:
    """Raise unless a log that is read so has the field of cold ids, and others beside it.

    Raises:
        BitfoldError: no such field, a field of several values a row, or no context.
    """
    if not config.on or not reading.fields:
        return
    specs = {spec.name: spec for spec in field_specs(reading)}
    name = str(config.cold_field)
    if name not in specs:
        raise unknown_name("field of cold ids", name, specs)
    if specs[name].kind == "bag":
        raise BitfoldError(
            f"ids of {name!r} have no prototypes",
            got="a field of several values a row",
            expected="a field with one value a row",
        )
    if len(specs) == 1:
        raise BitfoldError(
            f"rows have no context beside {name!r}",
            got="one field",
            expected="two fields or more: prototypes are made of the others",
        )
