"""`bitfold inspect` of a checkpoint: its figures as tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from bitfold.cli.quotes import short
from bitfold.cli.tables import size, table
from bitfold.errors import BitfoldError

MOST = 60
"""Tables that are shown; --json has them all."""


def read_pairs(said: Sequence[str]) -> dict[str, str]:
    """Read `--map TABLE=FIELD`; the last sign parts them, since names of tables may hold it.

    Example:
        >>> read_pairs(["emb.0.weight=user"])
        {'emb.0.weight': 'user'}
    """
    pairs: dict[str, str] = {}
    for text in said:
        name, sign, field = text.rpartition("=")
        if not (sign and name and field):
            raise BitfoldError(
                "--map cannot be read",
                got=repr(text),
                expected="TABLE=FIELD, such as --map emb.0.weight=user",
            )
        if name in pairs:
            raise BitfoldError(
                f"--map says the field of {name!r} twice",
                got=f"{pairs[name]} and {field}",
                expected="one of them",
            )
        pairs[name] = field
    return pairs


def checkpoint_parts(figures: dict[str, Any]) -> list[Any]:
    """The tables and sentences of a checkpoint."""
    head = (
        f"{figures['checkpoint']}: {size(figures['bytes'])} of weights ({figures['format']}), "
        f"{size(figures['bytes_on_disk'])} on the disk"
    )
    if figures["beside"]:
        head += f"; {size(figures['beside'])} beside them, such as an optimizer's state"
    parts: list[Any] = [head + "\n", _tables(figures)]
    others = figures["others"]["largest"]
    if others:
        named = ", ".join(f"{each['name']} {each['shape']}" for each in others[:3])
        parts.append(f"the largest of everything else: {named}\n")
    if any("usage" in each for each in figures["tables"]):
        parts.append(_usage(figures["tables"]))
    if figures["costs"]:
        parts.append(_costs(figures))
        times = figures["full_bytes"] / figures["least"]
        parts.append(f"the least that is possible: {figures['least']:,} bytes ({times:,.0f}x)\n")
    parts += [f"note: {note}" for note in figures["notes"]]
    found = figures["suggestion"]
    if found is None:
        parts.append("no budget is suggested: the tables are too small to fold")
    else:
        parts += ["", "suggested:", f"  {found['code']}", *found["why"]]
    return parts


def _tables(figures: dict[str, Any]) -> Any:
    """What every table weighs, and the rest."""
    tables = figures["tables"]
    looked = any("zero_rows" in each for each in tables)
    columns = ("table", "type", "rows", "width", "bytes", "share", *["zero rows"] * looked)
    made = table("Tables", columns, left=2)
    made.columns[0].no_wrap = False
    for each in tables[:MOST]:
        row = (
            each["name"],
            each["dtype"],
            f"{each['rows']:,}",
            f"{each['width']:,}",
            size(each["bytes"]),
            f"{each['share']:.1%}",
        )
        zeros = each.get("zero_rows")
        made.add_row(*row, *["-" if zeros is None else f"{zeros:,}"] * looked)
    if len(tables) > MOST:
        made.add_row(f"and {len(tables) - MOST:,} more (--json)", *[""] * (len(columns) - 1))
    made.add_section()
    rest = figures["others"]
    about = f"everything else ({rest['tensors']:,} tensors)"
    made.add_row(about, "", "", "", size(rest["bytes"]), f"{rest['share']:.1%}", *[""] * looked)
    return made


def _usage(tables: Sequence[Mapping[str, Any]]) -> Any:
    """How the log reads the rows."""
    made = table(
        "How the log reads them",
        ("table", "field", "reads", "rows read", "never", "the 1 % most read", "half of all"),
        left=2,
    )
    made.columns[0].no_wrap = False
    for each in tables:
        if "usage" not in each:
            continue
        used = each["usage"]
        about = "" if used["exact"] else "about "
        hot, half = used.get("hot"), used.get("half")
        made.add_row(
            each["name"],
            used["field"],
            short(used["reads"]),
            f"{about}{used['rows_read']:,}",
            f"{used['never']:.1%}",
            "-" if hot is None else f"{hot:.1%}",
            "-" if half is None else f"{half:,} rows",
        )
    return made


def _costs(figures: Mapping[str, Any]) -> Any:
    """What each ratio keeps."""
    made = table(
        "What a ratio keeps, by auto",
        ("ratio", "tables", "all weights", "bits", "widths", "ids with own rows", "AUC lost"),
    )
    made.caption = "AUC lost: the most on our boards (docs/results.md), trained at that size"
    made.caption_justify, made.caption_style = "left", ""
    rest = figures["others"]["bytes"]
    for each in figures["costs"]:
        ratio = f"{each['ratio']}x"
        if each["bytes"] is None:
            made.add_row(ratio, f"needs {each['least']:,} B", style="yellow")
            continue
        widths = each["widths"]
        made.add_row(
            ratio,
            size(each["bytes"]),
            size(each["bytes"] + rest),
            ", ".join(map(str, each["bits"])),
            str(widths[0]) if len(widths) == 1 else f"{widths[0]} to {widths[-1]}",
            f"{each['own']:.1%}",
            f"{each['lost']:.4f}" if "lost" in each else "-",
        )
    return made
