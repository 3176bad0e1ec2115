"""What the categorical fields of a log are made of."""

from dataclasses import dataclass

from bitfold.data.config import DataConfig
from bitfold.errors import BitfoldError


@dataclass(frozen=True)
class FieldSpec:
    """What a categorical field is made of.

    Args:
        kind: `plain`, `bag` (several values a row), `cross` or `bucket` (of a number).
        parts: the raw columns.
    """

    name: str
    kind: str
    parts: tuple[str, ...]


def field_specs(config: DataConfig) -> list[FieldSpec]:
    """The fields in order: `fields`, then crosses, then bucketised numbers.

    Example:
        >>> config = DataConfig(fields=("a", "b"), cross=("a*b",))
        >>> [spec.name for spec in field_specs(config)]
        ['a', 'b', 'a*b']
    """
    specs = [
        FieldSpec(name, "bag" if name in config.multi else "plain", (name,))
        for name in config.fields
    ]
    specs += [FieldSpec("*".join(parts), "cross", parts) for parts in config.crosses]
    if config.transform.kind == "buckets":
        specs += [FieldSpec(name, "bucket", (name,)) for name in config.numeric]
    names = [spec.name for spec in specs]
    for name in names:
        if names.count(name) > 1:
            raise BitfoldError(
                f"two fields are named {name!r}",
                got=", ".join(names),
                expected="each name once",
                fix=f"{name} cannot be a field and a bucketised number at once",
            )
    return specs
