"""A small log of days, in which ids are born and forgotten, and streams over it."""

import json
import random
from pathlib import Path
from typing import Any

from bitfold import stream
from bitfold.files import read_tensors
from bitfold.streaming.record import Course, read

MIDNIGHT = 1_700_006_400  # of 2023-11-15, UTC
TIMES = ("rows_per_second", "scoring_seconds")  # the figures that no two runs share
READ: dict[str, Any] = {"label": "clicked", "fields": "user,item", "time": "time"}
SMALL: dict[str, Any] = {
    **{"width": 4, "hidden": [8], "batch_size": 32, "lr": 0.02, "method": "cafe", "seed": 3},
    **{"budget": "4KiB", "set": {"every": 5}, "dropout": 0.1, "progress": False},
}


def rows_of(days: int = 4, each: int = 160, seed: int = 0) -> dict[str, list[Any]]:
    """Clicks that users and items explain; each day brings ids of its own."""
    draw = random.Random(seed)
    taste = [draw.gauss(0, 1.5) for _ in range(2000)]
    found: dict[str, list[Any]] = {name: [] for name in ("user", "item", "clicked", "time")}
    for day in range(days):
        moments = sorted(draw.randrange(86_400) for _ in range(each))
        for moment in moments:
            user = min(int(draw.paretovariate(0.7)), 60) + 20 * day
            item = min(int(draw.paretovariate(0.7)), 40) + 10 * day
            wish = taste[user] + taste[1000 + item] + draw.gauss(0, 0.7)
            found["user"].append(f"u{user}")
            found["item"].append(f"i{item}")
            found["clicked"].append(int(wish > 0))
            found["time"].append(MIDNIGHT + 86_400 * day + moment)
    return found


def write_csv(path: Path, rows: dict[str, list[Any]]) -> Path:
    lines = [",".join(rows), *(",".join(map(str, row)) for row in zip(*rows.values(), strict=True))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def figures(course: Course) -> list[dict[str, Any]]:
    """A course's lines without what the clock decides."""
    found = []
    for line in course.lines:
        values = {name: getattr(line, name) for name in line.__struct_fields__}
        found.append({name: value for name, value in values.items() if name not in TIMES})
    return found


def outcome(out: Path) -> tuple[list[dict[str, Any]], dict[str, Any], str]:
    """What two runs of one stream share: figures, weights, plan."""
    tensors, _ = read_tensors(out / "weights.safetensors")
    weights = {name: each.tolist() for name, each in tensors.items()}
    plan = json.loads((out / "plan.json").read_text())
    return figures(read(out).courses[0]), weights, json.dumps(plan, sort_keys=True)


__all__ = ["READ", "SMALL", "figures", "outcome", "rows_of", "stream", "write_csv"]
