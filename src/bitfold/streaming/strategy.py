"""What a stream does beside training on each window as it comes.

A strategy is a module: what it keeps is in its state dict, and so in every checkpoint.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from bitfold.data.batch import Batch


class Strategy(nn.Module):
    """Plain fine-tuning: the model goes on from window to window, and nothing is kept."""

    reads = False
    """Whether `ended` reads the window's rows."""

    @property
    def row_bytes(self) -> int:
        """Bytes of the rows that are kept."""
        return sum(tensor.nbytes for tensor in self.state_dict().values())

    def mixed(self, batch: "Batch", step: int) -> "Batch":
        """What is trained on in a step, for the rows of the window that are its turn."""
        return batch

    def begin(self, window: int, network: nn.Module) -> None:
        """The first step of a window is next; windows count from 0."""

    def ended(self, window: int, batches: "Iterable[Batch]") -> None:
        """The last step of a window was made; its rows come once, in the log's order."""
