"""Labels that are learned: what a student is taught follows from how it does on held-out rows.

Source: Liu et al., MetaDistiller, ECCV 2020 (arXiv 2008.12094). There a generator fuses feature
maps into soft targets; here it is given what a click model has for each row: the label, the
teacher's logit and the student's.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bitfold.errors import BitfoldError
from bitfold.nets.model import click_loss

SQUASH = 3.0  # logits pass a tanh of a third: a network of small weights reads them


class LabelGenerator(nn.Module):
    """Soft targets `[B]`: `(1 - a) * y + a * sigmoid(s * t + b)`, with a, s and b for each row.

    A small network gives a, s and b of the label y, the teacher's logit t and the student's. It
    starts as plain distillation does: a is `share`, s is 1 and b is 0.

    Args:
        share: what the teacher counts for at first; between 0 and 1.
        hidden: units of the network's hidden layer.
        seed: what its first weights are drawn from.

    Raises:
        BitfoldError: a share that no row could leave.

    Example:
        >>> generator = LabelGenerator(0.5)
        >>> labels, teacher = torch.tensor([1.0, 0.0]), torch.tensor([2.0, -1.0])
        >>> generator(labels, teacher, torch.zeros(2)).tolist()  # doctest: +ELLIPSIS
        [0.940..., 0.134...]
    """

    def __init__(self, share: float = 0.5, *, hidden: int = 16, seed: int = 0) -> None:
        super().__init__()
        if not 0 < share < 1:
            raise BitfoldError(
                "a label generator starts between labels and teacher",
                got=f"share {share}",
                expected="above 0 and below 1",
            )
        self.start = float(torch.logit(torch.tensor(share, dtype=torch.float64)))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.hidden = nn.Linear(3, hidden)
            self.out = nn.Linear(hidden, 3)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, labels: Tensor, teacher: Tensor, student: Tensor) -> Tensor:
        """Targets `[B]` in 0..1 of labels `[B]`, the teacher's and the student's logits `[B]`."""
        seen = [2 * labels - 1, (teacher / SQUASH).tanh(), (student / SQUASH).tanh()]
        share, scale, shift = self.out(self.hidden(torch.stack(seen, 1)).tanh()).unbind(1)
        share = (share + self.start).sigmoid()
        soft = (teacher * scale.exp() + shift).sigmoid()
        targets: Tensor = (1 - share) * labels + share * soft
        return targets


@dataclass(frozen=True)
class Rows:
    """What the network above embeddings reads of B rows, and what they are judged by.

    Args:
        vectors: `[B, F, D]`, without gradient.
        numeric: `[B, N]`.
        labels: `[B]`.
        teacher: the teacher's logits `[B]`.
        weights: `[B]` or None.
    """

    vectors: Tensor
    numeric: Tensor
    labels: Tensor
    teacher: Tensor
    weights: Tensor | None = None

    def taken(self, which: Tensor) -> "Rows":
        """Some of them, by a mask `[B]`."""
        return Rows(
            self.vectors[which],
            self.numeric[which],
            self.labels[which],
            self.teacher[which],
            None if self.weights is None else self.weights[which],
        )


def meta_loss(
    network: nn.Module, generator: LabelGenerator, rows: Rows, held: Rows, lr: float
) -> Tensor:
    """The log loss of held-out rows after a virtual step on generated labels.

    The step is one of SGD on `rows`: `w' = w - lr * J^T c (sigmoid(z) - targets)`, with the
    Jacobian J of the logits z and a row's share c of the mean. It is linear in the targets, so the
    derivative that autograd finds through it, `lr * c * (J grad held)`, is exact, and takes one
    more backward pass through the network and no second derivative of its loss.

    Nothing but the generator's parameters gets a gradient by it, and the network is as it was. The
    step is of the network alone: embeddings are moved by kernels within the backward pass, and
    rows of a batch are seldom read by those that are held out.

    Args:
        network: the student's, which gives logits `[B]` of vectors and numeric features.
        generator: what makes the targets.
        rows: those of the virtual step.
        held: those that judge it, by their labels alone.
        lr: its learning rate.

    Returns:
        A scalar to differentiate by the generator's parameters.
    """
    params = {name: each.detach().requires_grad_() for name, each in network.named_parameters()}
    logits = functional_call(network, params, (rows.vectors, rows.numeric)).float()
    before = logits.detach()
    targets = generator(rows.labels, rows.teacher, before)
    share = torch.ones_like(before) if rows.weights is None else rows.weights
    share = share / share.sum().clamp_min(torch.finfo(share.dtype).tiny)
    slopes = torch.autograd.grad(
        logits, list(params.values()), share * (before.sigmoid() - targets), create_graph=True,
        materialize_grads=True,
    )  # fmt: skip
    moved = {
        name: params[name].detach() - lr * slope for name, slope in zip(params, slopes, strict=True)
    }
    after = functional_call(network, moved, (held.vectors, held.numeric)).float()
    return click_loss(after, held.labels, held.weights)
