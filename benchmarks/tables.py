"""Write what the benchmarks measured into the tables of a page.

    python benchmarks/tables.py --figures bench-out --page docs/benchmarks.md

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; what stands there now is
replaced. Tables of a subject whose JSON is not there stay as they are, and that is said.
"""

import argparse
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from report import faster, mebibytes, spread

Row = dict[str, Any]
PLACE = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
KINDS = ("uniform", "zipf")
THEIRS = re.compile(r"(nn\.\w+(?:\(\w+\))?)")


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; names of PyTorch's classes are code."""
    lines = [list(heads), ["---"] * len(heads)]
    lines += [[THEIRS.sub(r"`\1`", row[0]), *row[1:]] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def number(value: float) -> str:
    """Three digits, whole from a hundred on."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def named(rows: Sequence[Row]) -> dict[str, Row]:
    """Rows by name, in their order."""
    return {row["name"]: row for row in rows}


def phase_of(phase: str, fill: bool) -> Callable[[Row], str]:
    """A phase of a lookup, uniform ids beside Zipf ids."""

    def made(data: Row) -> str:
        rows = [row for row in data["results"] if row["phase"] == phase]
        uniform, zipf = (named([row for row in rows if row["ids"] == kind]) for kind in KINDS)
        heads = ["", "uniform ids, ms", "faster than the full table"]
        heads += ["times the fill"] * fill + ["Zipf ids, ms", "faster than the full table"]
        lines = []
        for name, row in uniform.items():
            if "missing" in row:
                lines.append([name, row["missing"], *[""] * (len(heads) - 2)])
                continue
            middle, quartiles = number(row["milliseconds"]), spread(*row["quartiles"])
            line = [name, f"{middle} ({quartiles})", faster(row["times_faster"])]
            if fill:
                line.append(f"{row['times_fill']:.2f}" if "times_fill" in row else "")
            line += [number(zipf[name]["milliseconds"]), faster(zipf[name]["times_faster"])]
            lines.append(line)
        return markdown(heads, lines)

    return made


def serving(data: Row) -> str:
    """Latency of a few rows."""
    heads = ["rows", "bitfold p50", "p99", "`nn.Embedding` p50", "p99", "ratio of p50"]
    lines = []
    for row in data["serving"]:
        pairs = zip(row["p50"], row["p99"], strict=True)
        figures = [f"{value:.1f}" for pair in pairs for value in pair]
        lines.append([str(row["rows"]), *figures, f"{row['ratio']:.2f}"])
    return markdown(heads, lines)


def bags(data: Row) -> str:
    """Bags of one field, a line a length."""
    rows = [row for row in data["results"] if row["group"] == "bags"]
    names = list(named(rows))
    short = [name.split(", ", 1)[1] for name in names]
    heads = ["ids", "pooling", "bag"]
    for phase in ("forward", "step"):
        heads += [f"{phase}: full, ms", *short[1:]]
    lines = []
    for key in dict.fromkeys((row["ids"], row["mode"], row["length"]) for row in rows):
        line = [key[0], key[1], str(key[2])]
        for phase in ("forward", "step"):
            here = [row for row in rows if (row["ids"], row["mode"], row["length"]) == key]
            found = named([row for row in here if row["phase"] == phase])
            line.append(number(found[names[0]]["milliseconds"]))
            line += [faster(found[name]["times_faster"]) for name in names[1:]]
        lines.append(line)
    return markdown(heads, lines)


def fields(data: Row) -> str:
    """26 fields of unequal size."""
    rows = [row for row in data["results"] if row["group"] == "fields"]
    lines = []
    for kind in KINDS:
        for name in named(rows):
            line = [f"{name}, {kind}"]
            for phase in ("forward", "step"):
                row = next(
                    row
                    for row in rows
                    if (row["name"], row["ids"], row["phase"]) == (name, kind, phase)
                )
                line += [number(row["milliseconds"]), faster(row["times_faster"])]
            lines.append(line)
    return markdown(["", "forward, ms", "", "step, ms", ""], lines)


def models_of(place: int) -> Callable[[Row], str]:
    """Whole models, of one case."""

    def made(data: Row) -> str:
        case = list(dict.fromkeys(row["case"] for row in data["results"]))[place]
        heads = [
            "", "rows/s", "ms a step", "times plain PyTorch", "of the ceiling", "with gradient",
            "peak resident, MiB",
        ]  # fmt: skip
        lines = []
        for row in data["results"]:
            if row["case"] != case:
                continue
            if "missing" in row:
                lines.append([row["name"], row["missing"], *[""] * 5])
                continue
            lines.append([
                row["name"], f"{row['rows_per_second']:,}",
                f"{number(row['milliseconds'])} ({spread(*row['quartiles'])})",
                f"{row['times_plain']:.2f}", f"{row['of_ceiling']:.0%}",
                f"{row['of_ceiling_grad']:.0%}", mebibytes(row["peak_resident"]),
            ])  # fmt: skip
        return markdown(heads, lines)

    return made


def targets(data: Row) -> str:
    """What we want to reach with whole models, and what is reached."""
    lines = [
        [row["case"], row["against"], f"{row['target']}x", f"{row['reached']:.2f}x"]
        for row in data["targets"]
    ]
    return markdown(["", "against", "wanted", "reached"], lines)


def scale(data: Row) -> str:
    """Nanoseconds an id as one thing grows."""
    heads = ["", "", "bitfold, forward", "step", "`nn.Embedding`, forward", "step"]
    lines: dict[tuple[str, int], list[str]] = {}
    for row in data["results"]:
        key = row["subject"], row[row["word"]]
        line = lines.setdefault(key, [key[0], f"{key[1]:,}", "-", "-", "-", "-"])
        column = 2 + 2 * (row["name"] != "bitfold") + (row["phase"] == "step")
        if "nanoseconds" in row:
            line[column] = number(row["nanoseconds"])
    return markdown(heads, list(lines.values()))


def lowbit(phases: str) -> Callable[[Row], str]:
    """Few bits beside float32, a line a size of the pool; of the phases that begin so."""

    def made(data: Row) -> str:
        rows = [row for row in data["results"] if row["phase"].startswith(phases)]
        names = list(named(rows))
        heads = ["", "ids a row", "float32, ms", *names[1:]]
        lines: dict[tuple[str, int], list[str]] = {}
        for row in rows:
            key = row["phase"], row["share"]
            line = lines.setdefault(key, [key[0].removeprefix("step, "), str(key[1])])
            first = row["name"] == names[0]
            line.append(number(row["milliseconds"]) if first else f"{row['ratio']:.2f}")
        return markdown(heads, list(lines.values()))

    return made


def lowbit_serving(data: Row) -> str:
    """Latency of a few rows, float32's and packed."""
    names = list(data["serving"][0]["microseconds"])
    rows = [
        [str(row["rows"]), *(f"{row['microseconds'][name]:.1f}" for name in names)]
        for row in data["serving"]
    ]
    return markdown(["rows", *names], rows)


def epoch(data: Row) -> str:
    """Where an epoch's time goes."""
    heads = ["log", "reader alone", "step alone", "together", "reader / step", "top costs"]
    lines = []
    for name, row in data["results"].items():
        top = ", ".join(f"`{what}` {share:.0%}" for what, share in list(row["top"].items())[:6])
        speeds = [
            f"{row[word] / 1e3:,.0f} k" for word in ("reader_alone", "step_alone", "together")
        ]
        lines.append([name, *speeds, f"{row['reader_alone'] / row['step_alone']:.0f}", top])
    return markdown(heads, lines)


TABLES: dict[str, tuple[str, Callable[[Row], str]]] = {
    "forward": ("lookups", phase_of("forward", fill=True)),
    "step": ("lookups", phase_of("step", fill=False)),
    "serving": ("lookups", serving),
    "bags": ("bags", bags),
    "fields": ("bags", fields),
    "models": ("training", models_of(0)),
    "models-small": ("training", models_of(1)),
    "targets": ("training", targets),
    "scale": ("scaling", scale),
    "epoch": ("epoch", epoch),
    "lowbit-reads": ("lowbit", lowbit("read")),
    "lowbit-steps": ("lowbit", lowbit("step")),
    "lowbit-serving": ("lowbit", lowbit_serving),
}


def fill(page: str, figures: Path) -> tuple[str, list[str]]:
    """The page with today's tables, and the names of those that have no figures."""
    missing = []

    def put(match: re.Match[str]) -> str:
        subject, made = TABLES[match[2]]
        path = figures / f"{subject}.json"
        if not path.is_file():
            missing.append(match[2])
            return match[0]
        return f"{match[1]}{made(json.loads(path.read_text()))}{match[3]}"

    return PLACE.sub(put, page), missing


def main() -> None:
    """Fill the page's tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--figures", type=Path, default=Path("bench-out"), help="their folder")
    parser.add_argument("--page", type=Path, default=Path("docs/benchmarks.md"), help="to fill")
    words = parser.parse_args()
    page, missing = fill(words.page.read_text(encoding="utf-8"), words.figures)
    words.page.write_text(page, encoding="utf-8")
    print(f"written: {words.page}")
    for name in missing:
        print(f"LEFT AS IT WAS: table {name}: its figures are not in {words.figures}")


if __name__ == "__main__":
    main()
