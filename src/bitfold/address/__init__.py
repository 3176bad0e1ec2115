"""The first room of the corridor: ids to cells.

- `codes`: bits, and the blocks they are dealt to (succession, skip).
- `radices`: how many rows each digit gets.
- `mixing`: the salted bijection.
- `program`: an address as data.
- `cells`: the program run in plain torch.
"""

from bitfold.address.cells import Address
from bitfold.address.program import Lookup, Program, Source

__all__ = ["Address", "Lookup", "Program", "Source"]
