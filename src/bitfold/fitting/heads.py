"""Heads: the directions in which a table's vectors differ most, and rows along them.

With the narrow vectors `X = Y V`, where the columns of `V` are the first eigenvectors of the
weighted second moments `Y'CY`, and the head `V'`, the product `X V'` is the nearest to the table of
all of its rank (Eckart, Young, Psychometrika 1936). What rows then lose of `X` adds to that.
"""

import torch
from torch import Tensor

from bitfold.embedder import plain
from bitfold.embedder.corridor import Corridor
from bitfold.fitting.tables import Trained

RIDGE = 1e-7


def directions(trained: Trained, width: int, head: Tensor) -> Tensor:
    """The head `[w, D]` of a table, float64: orthonormal rows, those of most weight first.

    Args:
        trained: the table.
        width: `w`.
        head: what rows beyond `D` stay.
    """
    moments = torch.zeros(trained.dim, trained.dim, dtype=torch.float64, device=trained.device)
    for chunk in trained.chunks(trained.at_once()):
        vectors = chunk.vectors.double()
        moments += vectors.T @ (vectors * chunk.weights.unsqueeze(1))
    found = torch.linalg.eigh(moments)[1].flip(1).T
    # An eigenvector's sign is anyone's: the largest number is positive, so that all agree.
    largest = found.gather(1, found.abs().argmax(1, keepdim=True))
    found = found * largest.sign()
    kept = min(width, trained.dim)
    return torch.cat([found[:kept], head[kept:].double()])


def narrowing(head: Tensor) -> Tensor:
    """The matrix `[D, w]` that makes narrow vectors for a head of `directions`."""
    width, dim = head.shape
    turn = head.T.clone()
    turn[:, min(width, dim) :] = 0
    return turn


@torch.no_grad()
def lift_best(part: Corridor, number: int, trained: Trained) -> None:
    """Give a field the head that makes the most of its narrow vectors as they are read."""
    assert part.head is not None, "the caller looks"
    head = part.head.weight[number]
    width = len(head)
    square = torch.zeros(width, width, dtype=torch.float64, device=head.device)
    cross = torch.zeros(width, trained.dim, dtype=torch.float64, device=head.device)
    for chunk in trained.chunks(trained.at_once()):
        field = torch.full_like(chunk.ids, number)
        narrow = plain.each(part, part.pool.weight, chunk.ids, field).double()
        counted = narrow * chunk.weights.unsqueeze(1)
        square += counted.T @ narrow
        cross += counted.T @ chunk.vectors.double()
    # Directions that no vector has keep what the head says of them.
    ridge = RIDGE * square.diagonal().mean().clamp_min(1e-30)
    eye = torch.eye(width, dtype=torch.float64, device=head.device)
    found = torch.linalg.solve(square + ridge * eye, cross + ridge * head.double())
    head.copy_(found)
