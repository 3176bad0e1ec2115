"""Fitting a corridor: what is read as it stands, what is solved for, heads and few bits."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bitfold.address import Address, Raw
from bitfold.embedder.chunks import Chunks
from bitfold.embedder.corridor import Corridor
from bitfold.embedder.importances import Importances
from bitfold.fitting.few_bits import make_up
from bitfold.fitting.gradients import descend
from bitfold.fitting.heads import directions, lift_best, narrowing
from bitfold.fitting.holding import hold
from bitfold.fitting.importances import weigh
from bitfold.fitting.linear import least_squares
from bitfold.fitting.pointers import point
from bitfold.fitting.products import multiply
from bitfold.fitting.reading import NUMBERS, Reading
from bitfold.fitting.tables import Trained
from bitfold.pool import LowBitPool, LowPrecisionPool


@torch.no_grad()
def fit_corridor(part: Corridor, tables: Sequence[Trained], seed: int) -> list[str]:
    """Put the numbers of a corridor that come nearest to the tables of its fields.

    Returns:
        How, for each field.
    """
    generator = torch.Generator().manual_seed(seed)
    turns: list[Tensor | None] = [None] * len(tables)
    how = [""] * len(tables)
    if part.head is not None:
        for number, trained in enumerate(tables):
            found = directions(trained, part.width, part.head.weight[number])
            part.head.weight[number].copy_(found)
            turns[number] = narrowing(found)
    if isinstance(part, Chunks):
        pointed = hold(part, tables)
    else:
        pointed = [
            "k-means and " * point(part, number, trained, turns[number], generator)
            for number, trained in enumerate(tables)
        ]
    with _in_floats(part):
        whole = _whole(part, tables)
        for number in whole:
            _write(part, number, tables[number], turns[number])
            how[number] = "rows as they are"
        rest = [number for number in range(len(tables)) if number not in whole]
        reading = None
        if rest:
            reading = Reading(part, rest, [tables[n] for n in rest], [turns[n] for n in rest])
            solved = multiply(reading, generator) if reading.product else least_squares(reading)
            if isinstance(part, Importances):
                weigh(part, reading)
                solved = "least squares of rows and importances in turns"
            for number in rest:
                how[number] = pointed[number] + solved
        _choose(part, tables)
        for pool in part.pools():
            pool.refresh()
        if reading is not None and part.rounds and not make_up(reading):
            descend(part, tables, seed)
    if part.head is not None:
        for number, trained in enumerate(tables):
            lift_best(part, number, trained)
            how[number] = f"SVD to {part.width} of {trained.dim}, {how[number]}"
    for pool in part.plan.group.pools:
        if pool.packed:
            how = [f"{each}, rounded to {pool.bits} bits" for each in how]
            break
    return how


def _whole(part: Corridor, tables: Sequence[Trained]) -> list[int]:
    """The fields whose ids each have one row and one vector, and no factor that differs by id."""
    if type(part).factors is not Corridor.factors or part.program.signed:
        return []
    return [
        number
        for number in part.own_rows()
        if len(part.program.fields[number]) == 1
        and tables[number].distinct
        and isinstance(part.program.fields[number][0].source, Raw)
    ]


def _write(part: Corridor, number: int, trained: Trained, turn: Tensor | None) -> None:
    """Write the vectors of a field whose ids are rows."""
    (lookup,) = part.program.fields[number]
    address = Address(replace(part.program, fields=((lookup,),)), part.pool.weight.device)
    pool, share = part.pools()[lookup.pool], part.fuse.share(number, 1)
    for chunk in trained.chunks(max(256, NUMBERS // trained.dim)):
        vectors = chunk.vectors if turn is None else chunk.vectors.to(turn.dtype) @ turn
        if share is not None:
            vectors = vectors / share.to(vectors)
        cells = address.cells(chunk.ids.unsqueeze(1), None, part.stored.named()).reshape(-1)
        pool.put(cells, pool.held(cells, vectors))


def _choose(part: Corridor, tables: Sequence[Trained]) -> None:
    """Let pools of which some numbers count keep those that weigh most."""
    if all(spec.kept is None for spec in part.plan.group.pools):
        return
    counts = torch.zeros(part.program.rows, dtype=torch.float64, device=part.pool.weight.device)
    for lookups, trained in zip(part.program.fields, tables, strict=True):
        address = Address(replace(part.program, fields=(lookups,)), part.pool.weight.device)
        for chunk in trained.chunks(trained.at_once()):
            cells = address.cells(chunk.ids.unsqueeze(1), None, part.stored.named())
            cells = cells.reshape(len(chunk.ids), -1)
            counts.index_add_(0, cells.reshape(-1), chunk.weights.repeat_interleave(cells.shape[1]))
    part.pool.choose(counts)


@contextmanager
def _in_floats(part: Corridor) -> Iterator[None]:
    """Have pools that are codes while they are trained be rows of floats, and codes afterwards."""
    coded: list[tuple[str, Any]] = [
        (name, pool)
        for name, pool in zip(part.pool_names, part.pools(), strict=True)
        if isinstance(pool, LowPrecisionPool)
    ]
    for name, pool in coded:
        floats = LowBitPool(
            pool.rows, pool.width, pool.bits, pool.slices, device=pool.codes.device
        ).eval()
        floats.weight.copy_(pool.numbers(torch.arange(pool.rows, device=pool.codes.device)))
        setattr(part, name, floats)
    try:
        yield
    finally:
        for name, pool in coded:
            floats = getattr(part, name)
            setattr(part, name, pool)
            pool.load_state_dict(LowPrecisionPool.resumed(floats.serving()).state_dict())
