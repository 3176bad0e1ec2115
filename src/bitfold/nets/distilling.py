"""Distillation: a student learns from a teacher's probabilities beside the labels."""

import math

from torch import Tensor

from bitfold.errors import BitfoldError
from bitfold.nets.model import click_loss


def distill(
    student_logits: Tensor,
    labels: Tensor,
    teacher_logits: Tensor,
    share: float = 0.5,
    temperature: float = 1.0,
    *,
    weights: Tensor | None = None,
) -> Tensor:
    """Loss of a student that learns from labels and from a teacher's probabilities.

    `(1 - share) * BCE(z, y) + share * T**2 * BCE(z / T, sigmoid(t / T))`, with the student's logits
    z, the labels y, the teacher's logits t and the temperature T. No gradient goes to the teacher.

    Args:
        student_logits: z, of any shape.
        labels: y, 0 and 1, of the same shape.
        teacher_logits: t, of the same shape; of a model in evaluation mode, under
            `torch.no_grad()`.
        share: what the teacher counts for, 0 to 1; at 0 it is the mean log loss of the labels.
        temperature: T, above 0. The larger it is, the more the soft part is like the squared
            difference of logits.
        weights: what each row counts for, of the same shape; None: all the same.

    Shapes:
        `[B]` for B rows, and the loss is a scalar.

    Raises:
        BitfoldError: tensors of different shapes, or a share or temperature out of range.

    Source: Hinton et al., Distilling the Knowledge in a Neural Network, 2015.

    Example:
        >>> import torch
        >>> student = torch.zeros(2, requires_grad=True)
        >>> labels, teacher = torch.tensor([1.0, 0.0]), torch.tensor([2.0, -1.0])
        >>> loss = distill(student, labels, teacher)
        >>> loss.backward()
        >>> student.grad
        tensor([-0.2202,  0.1828])
    """
    shapes = [tuple(each.shape) for each in (student_logits, labels, teacher_logits)]
    shapes += [] if weights is None else [tuple(weights.shape)]
    if len(set(shapes)) > 1:
        raise BitfoldError(
            "logits, labels and weights are of different shapes",
            got=", ".join(map(str, shapes)),
            expected="one shape, such as [B] each",
            fix="squeeze what a model gives as [B, 1]",
        )
    check_share(share)
    if not 0 < temperature < math.inf:
        raise BitfoldError("temperature is out of range", got=temperature, expected="above 0")
    hard = click_loss(student_logits, labels, weights)
    soft = (teacher_logits.detach() / temperature).sigmoid()
    softened = click_loss(student_logits / temperature, soft, weights)
    return (1 - share) * hard + share * temperature**2 * softened


def check_share(share: float) -> None:
    """Raise unless a share is from 0 to 1."""
    if not 0 <= share <= 1:
        raise BitfoldError("share is out of range", got=share, expected="a number from 0 to 1")
