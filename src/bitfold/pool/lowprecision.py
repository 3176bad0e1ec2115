"""Low-precision training: rows are codes while they are trained too, rounded by chance.

A move decodes the batch's rows, takes an optimizer's step in float32 and encodes them again. What
falls between two levels goes to one of them at random, the nearer one more often, so that steps far
smaller than a level still add up. No float32 row is kept: training takes the bytes of serving, and
the optimizer's state.

Source: low-precision training of embedding tables with stochastic rounding, and steps that adapt,
follows Li, Guo, Zhang, Xu, Xia, Zhu, Li, Li, "Adaptive Low-Precision Training for Embeddings in
Click-Through Rate Prediction", AAAI 2023, arXiv 2212.05735. There steps are learned by gradients, a
row each; here slices share them, and they follow what the moved rows are.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bitfold.errors import BitfoldError
from bitfold.kernels.choice import DIRECT, way_of
from bitfold.kernels.move import Move
from bitfold.kernels.pages import ask_for_large_pages
from bitfold.kernels.reading import lanes_of_packed, row_bytes
from bitfold.pool.chance import codes_by_chance
from bitfold.pool.coded import Coded
from bitfold.pool.counted import Counted
from bitfold.pool.dense import Cells, DensePool
from bitfold.pool.lowbit import PackedPool
from bitfold.pool.refreshing import due
from bitfold.pool.rounding import (
    OF_DEVIATION,
    as_half,
    codes_of,
    lowest_of,
    pack,
    unpack,
    values_of,
)
from bitfold.pool.sliced import CHUNK, Sliced, runs_of

if TYPE_CHECKING:
    from bitfold.kernels.coding import Coded as CodedRows

FOLLOW = 0.25
"""How far the moments of a slice go towards those of the rows that a move brings."""
APART = 1 / 8
"""Scales are made anew, and codes with them, when steps are this part off what they should be."""


class LowPrecisionPool(Coded, Counted, Sliced, DensePool):
    """Rows of codes that are trained: read as `PackedPool` reads them, moved by chance.

    Its state dict is that of a `PackedPool`, with `moments` `[2, S, w]` of the rows that moves
    brought, and `moves`, how many there were.

    Args:
        rows, width, bits, slices: as in `Sliced`; a step belongs to a column of a slice.
        every: after how many moves centres and steps are looked at anew.
        sparse: whether the gradient is a sparse tensor.
        device: where it lives.
        dtype: of the pieces.

    Shapes:
        cells int64 `[...]` -> pieces `[..., w]`.

    Example:
        >>> from bitfold.optim import RowWiseAdagrad
        >>> pool = LowPrecisionPool(100, 8, bits=4, sparse=True)
        >>> pool.draw(torch.zeros(100), torch.ones(100), torch.Generator().manual_seed(0))
        >>> pool(torch.tensor([3, 99])).sum().backward()
        >>> optimizer = RowWiseAdagrad(pool.parameters(), lr=0.1)
        >>> optimizer.step()
        >>> pool.codes.shape, pool.codes.dtype
        (torch.Size([100, 4]), torch.uint8)
    """

    counter = "moves"
    moves: Tensor
    moments: Tensor
    steps: Tensor

    def __init__(
        self,
        rows: int,
        width: int,
        bits: int,
        slices: Sequence[int] = (0,),
        *,
        every: int = 16,
        sparse: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        nn.Module.__init__(self)
        self.describe(rows, width, bits, slices, "slice")
        self.every, self.moved_by = every, None
        self.make_sparse(sparse)
        self.register_parameter("weight", self._weight(torch.empty(0, dtype=dtype, device=device)))
        with torch.inference_mode(False):
            codes = torch.empty(rows, row_bytes(width, bits), dtype=torch.uint8, device=device)
            self.register_buffer("codes", ask_for_large_pages(codes).zero_(), persistent=False)
            scales = len(self.slices), width
            moments = torch.zeros(2, *scales, dtype=torch.float32, device=device)
            self.register_buffer("moments", moments)
        self.start_count()
        self.add_scales(scales, device)
        self.place_constants(device)

    @classmethod
    def kinds(cls) -> tuple[type[DensePool], type[DensePool]]:
        """The classes of pools whose gradients are dense, and sparse."""
        return LowPrecisionPool, SparseLowPrecisionPool

    @property
    def in_pieces(self) -> bool:
        """Whether the kernels can read the codes."""
        return self.dtype is torch.float32 and lanes_of_packed(self.width, self.bits) > 0

    def read_by_kernels(self, weight: Tensor) -> bool:
        """Whether the kernels know how its rows are packed."""
        return self.in_pieces

    def refresh(self) -> None:
        """Centres and steps follow moves."""

    def forward(self, cells: Tensor | Callable[[Tensor], Tensor]) -> Tensor:
        """Read the rows at `cells`, or let a function read the weight while it is there."""
        return self.at(self.weight, cells) if isinstance(cells, Tensor) else cells(self.weight)

    def at(self, weight: Tensor, cells: Tensor) -> Tensor:
        """The values of the codes at cells, whose gradient is the weight's."""
        values = self.numbers(cells).to(self.dtype)
        if not torch.is_grad_enabled() or not weight.requires_grad:
            return values
        return values + F.embedding(cells, weight, sparse=self.sparse)  # zeros

    def numbers(self, cells: Tensor) -> Tensor:
        """The values of the codes at cells, float32 `[..., w]`."""
        return self._decode(cells, self.centres, self.steps)

    def _decode(self, cells: Tensor, centres: Tensor, steps: Tensor) -> Tensor:
        """The values of codes that were made with these scales."""
        if self._compiled(cells):
            from bitfold.kernels.coding import decode

            return decode(self._coded(centres, steps), cells)
        codes = unpack(F.embedding(cells, self.codes), self.width, self.bits)
        centre, step = self.of_slice(centres, cells), self.of_slice(steps, cells)
        return values_of(codes, centre, step, self.bits)

    def _compiled(self, cells: Tensor) -> bool:
        """Whether the kernels decode and encode these rows: a list of them, on the CPU."""
        plain = cells.dim() == 1 and cells.is_contiguous() and cells.dtype is torch.int64
        return plain and type(cells) is Tensor and way_of(self.codes) == DIRECT

    def _coded(self, centres: Tensor, steps: Tensor) -> "CodedRows":
        from bitfold.kernels.coding import Coded as CodedRows

        lowest = lowest_of(centres, steps, self.bits)
        return CodedRows(self.codes, lowest, steps.float(), self.first_rows, self.bits)

    @torch.no_grad()
    def put(self, cells: Tensor, numbers: Tensor) -> None:
        """Keep numbers `[n, w]` at cells `[n]`, each as its nearest level."""
        centre, step = self.of_slice(self.centres, cells), self.of_slice(self.steps, cells)
        self.codes[cells] = pack(codes_of(numbers, centre, step, self.bits), self.bits)

    @torch.no_grad()
    def draw(self, means: Tensor, deviations: Tensor, generator: torch.Generator) -> None:
        """Fill the rows with normal numbers, of a mean and a deviation `[R]` for each row."""
        self.moves.zero_()
        for number, (begin, end) in enumerate(runs_of(self.slices, self.rows)):
            mean, of_rows = means[begin:end].double(), deviations[begin:end].double()
            square = (mean.square() + of_rows.square()).mean()
            self.moments[0, number], self.moments[1, number] = mean.mean(), square
        self._take_scales(torch.arange(len(self.slices)))
        for cells in self._chunks(0, self.rows):
            size = len(cells), self.width
            noise = torch.randn(size, generator=generator, dtype=torch.float32, device="cpu")
            rows = slice(int(cells[0]), int(cells[-1]) + 1)
            drawn = noise * deviations[rows, None] + means[rows, None]
            self.put(cells, drawn.to(cells.device))

    @torch.no_grad()
    def move(self, cells: Tensor, numbers: Tensor) -> None:
        """Keep what rows have become.

        Args:
            cells: int64 `[n]`, each once.
            numbers: float32 `[n, w]`.

        Raises:
            BitfoldError: for what is not a number, which no code stands for; nothing is moved.
        """
        check_finite(numbers)
        moves = int(self.moves)
        if len(cells) and due(moves, self.every):
            self._follow(cells, numbers)
        self._encode(cells, numbers, moves)
        self.moves += 1

    @torch.no_grad()
    def move_by(self, how: Move, cells: Tensor, grad: Tensor) -> bool:
        """Move rows by an optimizer's words, in one pass of a kernel; False where none can.

        None can where scales are due to be looked at, which takes all that the rows become.

        Args:
            how: the words; their weight has the pool's shape, and their states.
            cells: int64 `[n]`, each once.
            grad: finite, float32 `[n, w]`.

        Raises:
            BitfoldError: rows would be infinite; those keep their codes.
        """
        moves = int(self.moves)
        if due(moves, self.every) or not self._compiled(cells) or not self.in_pieces:
            return False
        from bitfold.kernels.recoding import move
        from bitfold.kernels.sharing import threads_of

        threads = threads_of(grad.numel(), len(grad))
        kept = move(self._coded(self.centres, self.steps), how, cells, grad, moves, threads)
        self.moves += 1
        if kept:
            raise _not_numbers(f"{kept} of {len(cells)} rows not finite after the step")
        return True

    def _encode(self, cells: Tensor, numbers: Tensor, moves: int) -> None:
        """Write the codes of numbers, rounded by chance."""
        if self._compiled(cells):
            from bitfold.kernels.coding import encode

            encode(self._coded(self.centres, self.steps), cells, numbers, moves)
            return
        centre, step = self.of_slice(self.centres, cells), self.of_slice(self.steps, cells)
        codes = codes_by_chance(numbers, centre, step, self.bits, cells, moves)
        self.codes[cells] = pack(codes, self.bits)

    def _follow(self, cells: Tensor, numbers: Tensor) -> None:
        """Let scales follow the rows of a move, and code rows anew whose scales have gone."""
        number = self.slice_at(cells)
        counts = torch.bincount(number, minlength=len(self.slices))
        met = counts > 0
        for moment, values in zip(self.moments, (numbers, numbers.square()), strict=True):
            sums = torch.zeros_like(moment).index_add_(0, number, values)
            found = sums[met] / counts[met].unsqueeze(1)
            moment[met] += FOLLOW * (found - moment[met])
        centre, step = self._wanted()
        old = self.steps.float()
        off = (step - old).abs() > APART * old
        off |= (centre - self.centres.float()).abs() > old / 2
        gone = (off.any(1) & met).nonzero().squeeze(1).tolist()
        if not gone:
            return
        before = self.centres.clone(), self.steps.clone()
        self._take_scales(torch.tensor(gone))
        runs = runs_of(self.slices, self.rows)
        for each in gone:
            for rows in self._chunks(*runs[each]):
                # Another chance than the move's own, which comes after.
                self._encode(rows, self._decode(rows, *before), ~int(self.moves))

    def _wanted(self) -> tuple[Tensor, Tensor]:
        """The centres and steps that follow from the moments, float32 `[S, w]`."""
        mean, square = self.moments
        deviation = (square - mean.square()).clamp_min(0).sqrt()
        return mean, deviation * OF_DEVIATION[self.bits]

    def _take_scales(self, slices: Tensor) -> None:
        for kept, wanted in zip((self.centres, self.steps), self._wanted(), strict=True):
            kept[slices] = as_half(wanted[slices])

    def _chunks(self, begin: int, end: int) -> Iterator[Tensor]:
        """The rows of a slice, so many at a time."""
        for first in range(begin, end, CHUNK):
            yield torch.arange(first, min(first + CHUNK, end), device=self.codes.device)

    @classmethod
    @torch.no_grad()
    def resumed(cls, packed: PackedPool) -> "LowPrecisionPool":
        """The pool of packed codes, to train on: it reads the same numbers.

        Raises:
            BitfoldError: with a step for each row.
        """
        packed.check_resumable()
        made = cls(
            packed.rows, packed.width, packed.bits, packed.slices, device=packed.weight.device,
            dtype=packed.dtype,
        ).train(packed.training)  # fmt: skip
        for name, value in (
            ("codes", packed.weight), ("centres", packed.centres), ("steps", packed.steps),
        ):  # fmt: skip
            getattr(made, name).copy_(value)
        mean, deviation = made.centres.float(), made.steps.float() / OF_DEVIATION[made.bits]
        made.moments.copy_(torch.stack((mean, deviation.square() + mean.square())))
        made.moves += made.every + 1  # it goes on with the scales that it has for a while
        return made

    @torch.no_grad()
    def serving(self) -> PackedPool:
        """The packed pool of the same codes."""
        made = PackedPool(
            self.rows, self.width, self.bits, self.slices, device=self.codes.device,
            dtype=self.dtype,
        ).train(self.training)  # fmt: skip
        for name, value in (
            ("weight", self.codes),
            ("centres", self.centres),
            ("steps", self.steps),
        ):
            getattr(made, name).copy_(value)
        return made


def check_finite(numbers: Tensor) -> None:
    """Raise unless all numbers are finite, which no code stands for."""
    if not math.isfinite(numbers.sum().item()):  # one pass; finite numbers may have such a sum
        lost = int((~numbers.isfinite()).sum())
        if lost:
            raise _not_numbers(f"{lost} of {numbers.numel()} not finite")


def _not_numbers(got: str) -> BitfoldError:
    return BitfoldError(
        "rows that are not numbers cannot be kept as codes",
        got=got,
        expected="finite gradients, and steps that leave finite rows",
        fix="train with a smaller learning rate, or skip steps with infinite gradients",
    )


class SparseLowPrecisionPool(LowPrecisionPool, Cells):  # type: ignore[misc] # as `SparsePool`
    """A pool of trained codes whose gradient is a sparse tensor."""
