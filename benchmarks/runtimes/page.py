"""What was measured, as tables of a page."""

from typing import Any

from benchmarks.runtimes.agree import RUNTIMES

MARK = "<!-- runtimes: {} -->"


def operations(found: dict[str, dict[str, float | str]]) -> str:
    """The share of wrong results of each operation, in each runtime."""
    heads = list(next(iter(found.values())))
    lines = [f"| operation on int64 | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name, shares in found.items():
        lines.append(f"| {name} | {' | '.join(_share(shares[head]) for head in heads)} |")
    return "\n".join(lines)


def agreement(programs: dict[str, Any]) -> str:
    """Ids, wrong rows and the largest difference of each program."""
    heads = [f"{name}: wrong rows, largest difference" for name in RUNTIMES.values()]
    lines = [
        f"| ids' way to their rows | ids | {' | '.join(heads)} |",
        "|---|--:" + "|--:" * len(heads) + "|",
    ]
    for each in programs.values():
        cells = [f"{each['wrong'][key]:,}, {each['largest'][key]:.1e}" for key in RUNTIMES]
        lines.append(f"| {each['what']} | {each['ids']:,} | {' | '.join(cells)} |")
    total = sum(each["ids"] for each in programs.values())
    wrong = [f"{sum(each['wrong'][key] for each in programs.values()):,}" for key in RUNTIMES]
    lines.append(f"| all | {total:,} | {' | '.join(wrong)} |")
    return "\n".join(lines)


def costs(programs: dict[str, Any]) -> str:
    """What a row costs, and a file's bytes beside its weights."""
    names = {"eager": "eager", **RUNTIMES}
    heads = [f"{name}: us alone, ns among 4,096" for name in names.values()]
    more = [f"{name}, KB beside the weights" for name in RUNTIMES.values()]
    lines = [
        f"| ids' way to their rows | {' | '.join(heads)} | {' | '.join(more)} |",
        "|---" + "|--:" * len(heads + more) + "|",
    ]
    for each in programs.values():
        speed = [each["speed"][key] for key in names]
        cells = [f"{row['us_one']:.0f}, {row['ns_many']:,.0f}" for row in speed]
        cells += [f"{(each['bytes'][key] - each['weights']) / 1000:.0f}" for key in RUNTIMES]
        lines.append(f"| {each['what']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _share(value: float | str) -> str:
    if isinstance(value, str):
        return value.partition(":")[0]
    return "0" if value == 0 else f"**{value:.1%}**"
