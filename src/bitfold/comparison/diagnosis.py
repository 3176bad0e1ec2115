"""What a trained cell of a comparison tells beyond its figures.

Where its bytes are, how training went, which ids it fails, and how many directions its vectors
use. Measured once, before the run is removed, and kept in the cell's row for the page.
"""

import csv
import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from bitfold.address.program import Program
from bitfold.comparison.machine import machine
from bitfold.comparison.survey import Survey
from bitfold.embedding import EmbeddingCollection
from bitfold.files import without_nan
from bitfold.planning.plan import Plan
from bitfold.planning.spec import Group
from bitfold.progress import Progress, silent
from bitfold.runs import metrics
from bitfold.runs.folder import load
from bitfold.runs.run import Run
from bitfold.runs.scoring import EVALUATION_ROWS, Scores, score

if TYPE_CHECKING:
    from bitfold.data.prepared import PreparedLog

GROUPS = 10
CHUNK = 512  # ids whose vectors of all fields are held at once


def diagnose(
    path: Path, log: "PreparedLog", known: Survey, progress: Progress = silent
) -> dict[str, Any]:
    """All that the page shows of one run, as JSON values.

    Args:
        path: the run's folder, complete.
        log: the prepared log it was trained on.
        known: what `bitfold.comparison.survey.survey` found in that log.
        progress: told of the rows scored.

    Returns:
        curve: an epoch a row: loss, valid_auc, valid_logloss, seconds, rows_per_second.
        by_kind: serving bytes by kind.
        by_field: a field a row: ids met in training, bytes, information abundance and the number
            of ids it was computed on; of several embedding sets the abundance of their vectors side
            by side, and `abundance_by_set`, that of each set.
        by_frequency: test AUC by how often the ids of a field were met in training.
        environment: the machine.
    """
    run = load(path, "cuda" if torch.cuda.is_available() else "cpu")
    collection = run.model.embeddings
    assert isinstance(collection, EmbeddingCollection)
    sets, width, count = run.plan.sets, run.plan.embedding_dim, len(run.plan.set_fields)
    moments = second_moments(run, known)
    together = abundances(moments)
    parts = [slice(number * width, (number + 1) * width) for number in range(sets)]
    by_set = [abundances(moments[:, part, part]) for part in parts]
    shares = bytes_by_field(run.plan)
    by_field = [
        {
            "field": info.name,
            "ids": info.distinct,
            "bytes": round(sum(shares[number::count])),
            "abundance": together[number],
            "sampled": len(known.sampled[number]),
        }
        | ({"abundance_by_set": [found[number] for found in by_set]} if sets > 1 else {})
        for number, info in enumerate(log.schema.fields)
    ]
    found = {
        "curve": curve(path),
        "by_kind": collection.bytes("serving"),
        "by_field": by_field,
        "by_frequency": _by_frequency(run, log, known, progress),
        "environment": machine(),
    }
    clean: dict[str, Any] = without_nan(found)
    return clean


def curve(path: Path) -> list[dict[str, Any]]:
    """The epochs of a run, from its log; speeds are each epoch's own."""
    out = []
    rows = seconds = 0.0
    with (path / "logs" / "training.csv").open(newline="", encoding="utf-8") as file:
        lines = [{k: float(v) for k, v in line.items() if v} for line in csv.DictReader(file)]
    for line, following in zip(lines, [*lines[1:], None], strict=True):
        if following is not None and following["epoch"] == line["epoch"]:
            continue  # an epoch ends with its last line
        stepping = line["rows"] / max(line["rows_per_second"], 1e-9)
        speed = (line["rows"] - rows) / max(stepping - seconds, 1e-9)
        rows, seconds = line["rows"], stepping
        figures = {name: line.get(name) for name in ("loss", "valid_auc", "valid_logloss")}
        spent = {"seconds": line["seconds"], "rows_per_second": speed}
        out.append({"epoch": int(line["epoch"]), **figures, **spent})
    return out


def bytes_by_field(plan: Plan) -> list[float]:
    """The bytes of the pool that each field occupies; they add up to the rows that are used.

    Rows that several lookups read are shared out evenly among those lookups.

    Example:
        >>> from bitfold import Field
        >>> from bitfold.method.planner import plan
        >>> bytes_by_field(plan([Field("user", 30), Field("day", 7)], 4, method="full"))
        [480.0, 112.0]
    """
    out = [0.0] * len(plan.fields)
    for group in plan.groups:
        for number, size in zip(group.fields, _shares(group), strict=True):
            out[number] += size
    return out


def _shares(group: Group) -> list[float]:
    """The bytes of a group's pools that each of its fields occupies."""
    if group.program is None:
        size = sum(pool.bytes for pool in group.pools) + sum(group.own.values())
        return [size / len(group.fields)] * len(group.fields)
    out = [0.0] * len(group.fields)
    for number, pool in enumerate(group.pools):
        found = _shares_of_pool(group.program, number, pool.mean_row_bytes)
        for field, share in enumerate(found):
            out[field] += share
    return out


def _shares_of_pool(program: Program, number: int, row: float) -> list[float]:
    spans = [
        (lookup.base, lookup.base + lookup.span, field)
        for field, lookups in enumerate(program.fields)
        for lookup in lookups
        if lookup.pool == number
    ]
    edges = sorted({edge for low, high, _ in spans for edge in (low, high)})
    out = [0.0] * len(program.fields)
    for low, high in itertools.pairwise(edges):
        owners = [field for first, end, field in spans if first <= low and high <= end]
        for field in owners:
            out[field] += (high - low) * row / len(owners)
    return out


def information_abundance(run: Run, known: Survey) -> list[float | None]:
    """How many directions the vectors of each field use: 1 (collapsed) to min(ids, D).

    The sum of the singular values of a field's vectors `[ids, D]` over the largest, on the ids
    that the survey sampled, each counted once. None where all vectors are zero or no id was met.
    The vectors of M embedding sets are taken side by side, `[ids, M*D]`.

    Source: Guo et al., On the Embedding Collapse when Scaling up Recommendation Models, 2024.
    """
    return abundances(second_moments(run, known))


def abundances(moments: torch.Tensor) -> list[float | None]:
    """Information abundance of each field, of sums of outer products `[F, D, D]`.

    Their eigenvalues are the squares of the vectors' singular values.

    Example:
        >>> abundances(torch.eye(3).unsqueeze(0)), abundances(torch.zeros(1, 2, 2))
        ([3.0], [None])
    """
    singular = torch.linalg.eigvalsh(moments).clamp_min(0).sqrt().cpu()
    largest = singular.amax(1)
    return [
        float(values.sum() / most) if most > 0 else None
        for values, most in zip(singular, largest, strict=True)
    ]


@torch.no_grad()
def second_moments(run: Run, known: Survey) -> torch.Tensor:
    """Sums of the outer products of each field's vectors, `[F, M*D, M*D]` in float64.

    Over the ids that the survey sampled, each counted once; the vectors of M sets side by side.
    """
    from bitfold.data.batch import Batch

    device = next(run.model.parameters()).device
    sets, fields = run.plan.sets, len(known.sampled)
    width = sets * run.plan.embedding_dim
    sums = torch.zeros(fields, width, width, dtype=torch.float64, device=device)
    longest = max(len(ids) for ids in known.sampled)
    for start in range(0, longest, CHUNK):
        rows = min(CHUNK, longest - start)
        ids = np.zeros((rows, fields), np.int64)
        mask = torch.zeros(rows, fields, 1, dtype=torch.float64)
        for field, sampled in enumerate(known.sampled):
            part = sampled[start : start + rows]
            # A field with fewer ids repeats one of them, which then counts for nothing.
            ids[:, field] = sampled[0] if len(sampled) else 0
            ids[: len(part), field] = part
            mask[: len(part), field] = 1
        batch = Batch(torch.from_numpy(ids), None, torch.zeros(rows, 0))
        batch = batch if run.dense is None else run.dense.apply(batch)
        found = run.model.vectors(batch.ids.to(device)).double().view(rows, sets, fields, -1)
        vectors = found.transpose(1, 2).flatten(2) * mask.to(device)
        sums += torch.einsum("nfd,nfe->fde", vectors, vectors)
    return sums


def _by_frequency(
    run: Run, log: "PreparedLog", known: Survey, progress: Progress
) -> list[dict[str, Any]]:
    if known.part is None:
        return []
    batches = log.batches(known.part, EVALUATION_ROWS)
    scores = score(
        run.model,
        batches if run.dense is None else map(run.dense.apply, batches),
        negative_rate=run.negative_rate,
        device=next(run.model.parameters()).device,
        stage="diagnosis",
        total=log.rows[known.part],
        progress=progress,
    )
    return auc_by_frequency(scores, known.frequency, log.schema.field_names, run.negative_rate)


def auc_by_frequency(
    scores: Scores,
    frequency: Mapping[int, npt.NDArray[np.int64]],
    names: list[str],
    negative_rate: float | None = None,
) -> list[dict[str, Any]]:
    """The AUC of rows whose id was unseen in training, and of tenths of the others.

    The rows of seen ids are ranked by how often the id was met, and cut into ten groups of about
    as many rows; equal counts stay together, so there may be fewer. Group 1 has the rarest ids.

    Args:
        scores: predictions of the rows, with labels.
        frequency: counts `[rows]` by the field's place.
        names: the fields' names.
        negative_rate: the share of negatives that the log kept.

    Returns:
        A field a row: its groups with `group` (0 unseen, 1 to 10), `least` and `most` counts,
        `rows`, `clicks`, `auc` and `logloss`, which are NaN where the rows have one class only.
    """
    assert scores.labels is not None
    weights = scores.counted(negative_rate)
    out = []
    for field, counts in frequency.items():
        group_of = frequency_groups(counts)
        groups = []
        for group in np.unique(group_of):
            rows = group_of == group
            judged = (
                scores.labels[rows],
                scores.predictions[rows],
                None if weights is None else weights[rows],
            )
            value = metrics.auc(*judged)
            groups.append(
                {
                    "group": int(group),
                    "least": int(counts[rows].min()),
                    "most": int(counts[rows].max()),
                    "rows": int(rows.sum()),
                    "clicks": int((scores.labels[rows] > 0.5).sum()),
                    "auc": value,
                    "logloss": math.nan if math.isnan(value) else metrics.logloss(*judged),
                }
            )
        out.append({"field": names[field], "groups": groups})
    return out


def frequency_groups(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The group of each row: 0 where the count is zero, else 1 to 10 from rare to frequent.

    Example:
        >>> frequency_groups(np.array([0, 1, 1, 5, 9])).tolist()
        [0, 1, 1, 6, 8]
    """
    seen = counts > 0
    levels, level_of, sizes = np.unique(counts[seen], return_inverse=True, return_counts=True)
    below = np.cumsum(sizes) - sizes
    group_of_level = below * GROUPS // max(int(seen.sum()), 1) + 1
    out = np.zeros(len(counts), np.int64)
    out[seen] = group_of_level[level_of] if len(levels) else 0
    return out
