"""Draw what the benchmarks wrote: one SVG a subject, for light and dark pages.

    python benchmarks/charts.py --figures bench-out --out docs/charts

A subject whose JSON is not there is left out, and said so.
"""

import argparse
import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

Row = dict[str, Any]
# Ink and lines have a colour for light pages and one for dark ones; series are readable on both.
THEMES = {"ink": ("#24292f", "#e6edf3"), "faint": ("#d0d7de", "#3d444d")}
INK, FAINT = (THEMES[name][0] for name in ("ink", "faint"))
OURS, RIVAL, PLAIN, LIMIT = "#1f7ae0", "#d1570c", "#8b949e", "#2da44e"
FORMS = ((OURS, "o"), (RIVAL, "s"), (LIMIT, "^"))
STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "bitfold", "font.family": "sans-serif",
    "font.sans-serif": ["system-ui", "DejaVu Sans"], "font.size": 9, "text.color": INK,
    "axes.edgecolor": FAINT, "axes.labelcolor": INK, "axes.titlesize": 10,
    "axes.spines.top": False, "axes.spines.right": False, "xtick.color": INK,
    "ytick.color": INK, "grid.color": FAINT, "legend.frameon": False,
}  # fmt: skip


def colour(name: str) -> str:
    """Of a contestant."""
    for start, each in (
        ("bitfold", OURS), ("limit", LIMIT), ("ceiling", LIMIT), ("nn.", PLAIN), ("plain", PLAIN),
    ):  # fmt: skip
        if name.startswith(start):
            return each
    return RIVAL


def bars(axes: Axes, rows: list[Row], word: str, label: Callable[[Row], str]) -> None:
    """A bar for each row, with what it says; why, where nothing was measured."""
    longest = max((row[word] for row in rows if word in row), default=1.0)
    for place, row in enumerate(rows):
        much = row.get(word, 0.0)
        axes.barh(place, much, height=0.7, color=colour(row["name"]))
        said = label(row) if word in row else row["missing"]
        axes.text(much + longest * 0.01, place, said, va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, longest * 1.35)
    axes.tick_params(left=False)
    axes.spines["left"].set_visible(False)


def training(results: Row) -> Figure:
    """Rows a second of whole models, by the yardstick that runs beside each."""
    rows = results["results"]
    cases = list(dict.fromkeys(row["case"] for row in rows))
    figure, panels = plt.subplots(len(cases), 1, figsize=(8.4, 3.3 * len(cases)), squeeze=False)
    for axes, case in zip(panels.flat, cases, strict=True):
        part = [row for row in rows if row["case"] == case]
        bars(
            axes, part, "times_plain",
            lambda row: f"{row['times_plain']:.2f}x · {row['rows_per_second']:,} rows/s",
        )  # fmt: skip
        axes.set_title(f"DeepFM, {case}", loc="left")
    panels.flat[-1].set_xlabel("times plain PyTorch with sparse gradients and SparseAdam")
    return figure


def lookups(results: Row) -> Figure:
    """Forwards and steps of one layer on uniform ids, by the full table."""
    rows = [row for row in results["results"] if row["ids"] == "uniform"]
    phases = list(dict.fromkeys(row["phase"] for row in rows))
    figure, panels = plt.subplots(len(phases), 1, figsize=(8.4, 3.6 * len(phases)), squeeze=False)
    for axes, phase in zip(panels.flat, phases, strict=True):
        part = [row for row in rows if row["phase"] == phase and "read the ids" not in row["name"]]
        bars(
            axes, part, "times_faster",
            lambda row: f"{row['times_faster']:.2f}x · {row['milliseconds']:.1f} ms",
        )  # fmt: skip
        axes.set_title(f"{phase}, 212,992 uniform ids of 33.7 M", loc="left")
    panels.flat[-1].set_xlabel("times faster than the full table")
    return figure


def bags(results: Row) -> Figure:
    """How much faster bags are, by their length."""
    rows = [row for row in results["results"] if row["group"] == "bags" and row["mode"] == "sum"]
    phases = list(dict.fromkeys(row["phase"] for row in rows))
    kinds = list(dict.fromkeys(row["ids"] for row in rows))
    lengths = sorted({row["length"] for row in rows})
    names = [name for name in dict.fromkeys(row["name"] for row in rows) if "bitfold" in name]
    figure, panels = plt.subplots(1, len(phases), figsize=(8.4, 3.2), squeeze=False)
    for axes, phase in zip(panels.flat, phases, strict=True):
        for name, (paint, mark) in zip(names, FORMS, strict=False):
            for kind, line in zip(kinds, ("-", "--"), strict=False):
                part = {
                    row["length"]: row["times_faster"]
                    for row in rows
                    if (row["name"], row["ids"], row["phase"]) == (name, kind, phase)
                }
                axes.plot(
                    range(len(lengths)), [part[length] for length in lengths], line,
                    marker=mark, color=paint, label=f"{name.split(', ', 1)[1]}, {kind} ids",
                )  # fmt: skip
        axes.axhline(1.0, color=PLAIN, linewidth=1)
        axes.set_xticks(range(len(lengths)), [str(length) for length in lengths])
        axes.set_xlabel("ids a bag")
        axes.set_ylim(0, 1.1 * max(row["times_faster"] for row in rows if row["phase"] == phase))
        axes.set_title(f"bags of 33.7 M ids, summed: {phase}", loc="left")
    panels.flat[0].set_ylabel("times faster than the full table")
    panels.flat[-1].legend(fontsize=8)
    return figure


def scaling(results: Row) -> Figure:
    """Nanoseconds an id as one thing grows."""
    rows = results["results"]
    subjects = list(dict.fromkeys(row["subject"] for row in rows))
    figure, panels = plt.subplots(2, 3, figsize=(8.4, 5.4))
    for axes, subject in zip(panels.flat, subjects, strict=False):
        part = [row for row in rows if row["subject"] == subject]
        word = part[0]["word"]
        for name, paint in (("bitfold", OURS), ("nn.Embedding", PLAIN)):
            for phase, line in (("forward", "-"), ("step", "--")):
                mine = [row for row in part if (row["name"], row["phase"]) == (name, phase)]
                spots = [row[word] for row in mine]
                axes.plot(
                    spots, [row["nanoseconds"] for row in mine], line, marker="o", markersize=3,
                    color=paint,
                )  # fmt: skip
        axes.set_yscale("log")
        values = sorted({row[word] for row in part})
        if values[-1] > 1000:
            axes.set_xscale("log")
        else:
            axes.set_xscale("log", base=2) if subject == "width" else None
            axes.set_xticks(values, [str(value) for value in values])
            axes.minorticks_off()
        axes.set_title(subject, loc="left")
        axes.grid(axis="y", linewidth=0.5)
    for axes in panels[:, 0]:
        axes.set_ylabel("nanoseconds an id")
    for axes in list(panels.flat)[len(subjects) :]:
        axes.axis("off")
    lines = [
        Line2D([], [], color=paint, linestyle=line, label=f"{name}, {phase}")
        for name, paint in (("bitfold, 5 MiB", OURS), ("nn.Embedding, full table", PLAIN))
        for phase, line in (("forward", "-"), ("step", "--"))
    ]
    panels.flat[-1].legend(handles=lines, loc="center")
    return figure


def themed(text: str) -> str:
    """The SVG with its ink and lines taken from the page's theme."""
    for name, (light, _) in THEMES.items():
        text = text.replace(light, f"var(--{name}, {light})")
    light, dark = (
        ";".join(f"--{name}:{pair[place]}" for name, pair in THEMES.items()) for place in (0, 1)
    )
    style = f"<style>svg{{{light}}}@media(prefers-color-scheme:dark){{svg{{{dark}}}}}</style>"
    head, tail = text.split("<defs>", 1)
    return f"{head}{style}\n <defs>{tail}"


def save(figure: Figure, path: Path) -> None:
    """Leave a figure as a themed SVG without a background."""
    figure.tight_layout()
    buffer = StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    plt.close(figure)
    path.write_text(themed(buffer.getvalue()), encoding="utf-8")


def main() -> None:
    """Draw every subject that was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--figures", type=Path, default=Path("bench-out"), help="the JSON files")
    parser.add_argument("--out", type=Path, default=Path("docs/charts"), help="where to draw")
    words = parser.parse_args()
    words.out.mkdir(parents=True, exist_ok=True)
    for draw in (training, lookups, bags, scaling):
        name = draw.__name__
        source = words.figures / f"{name}.json"
        if not source.exists():
            print(f"not drawn: {name}, there is no {source}")
            continue
        with plt.rc_context(STYLE):
            save(draw(json.loads(source.read_text(encoding="utf-8"))), words.out / f"{name}.svg")
        print(f"drawn: {words.out / name}.svg")


if __name__ == "__main__":
    main()
