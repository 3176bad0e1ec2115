"""Which field of a log reads which table, by their names or as the user says."""

from collections.abc import Mapping, Sequence

from bitfold.errors import BitfoldError, unknown_name
from bitfold.weights.tables import FoundTable, words_of


def pair_up(
    tables: Sequence[FoundTable], fields: Sequence[str], said: Mapping[str, str]
) -> dict[str, str]:
    """The field of each table, by the table's name; tables without one are left out.

    Args:
        tables: the tables found.
        fields: the fields of the log.
        said: tables and their fields, which win over names. A table may be called by its last
            part, if only one table ends so.

    Raises:
        UnknownName: a table or field that is not there.
        BitfoldError: no table has a field.
    """
    pairs = {}
    for name, field in said.items():
        if field not in fields:
            raise unknown_name("field", field, fields)
        pairs[_table_named(name, tables)] = field
    for table in tables:
        if table.name not in pairs:
            named = field_of(table.name, fields)
            if named is not None:
                pairs[table.name] = named
    if not pairs:
        raise BitfoldError(
            "no table is named like a field of the log",
            got=f"tables {', '.join(table.name for table in tables[:5])}",
            expected=f"one of the fields {', '.join(fields)} in a table's name",
            fix=f"say it: --map {tables[0].name}={fields[0]}",
        )
    return pairs


def field_of(table: str, fields: Sequence[str]) -> str | None:
    """The field whose words follow one another in a table's name; the longest one.

    None where no field's do, or where two are as long.

    Example:
        >>> field_of("embedding_dict.user_id.weight", ["user", "user_id", "item"])
        'user_id'
    """
    words = words_of(table)
    found: dict[str, int] = {}
    for field in fields:
        own = words_of(field)
        starts = range(len(words) - len(own) + 1)
        if own and any(words[start : start + len(own)] == own for start in starts):
            found[field] = len(own)
    best = [field for field, length in found.items() if length == max(found.values())]
    return best[0] if len(best) == 1 else None


def _table_named(name: str, tables: Sequence[FoundTable]) -> str:
    names = {other: table.name for table in tables for other in (table.name, *table.also)}
    if name in names:
        return names[name]
    end = f".{name.removesuffix('.weight')}"
    found = {
        table for other, table in names.items() if f".{other.removesuffix('.weight')}".endswith(end)
    }
    if len(found) != 1:
        raise unknown_name("table", name, [table.name for table in tables])
    return found.pop()
