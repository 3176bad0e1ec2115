"""The first room of the corridor: ids to cells.

- `codes`: bits, and the blocks they are dealt to (succession, skip).
- `radices`: how many rows each digit gets.
- `mixing`: the salted bijection.
- `source`: where codes come from; `lookup`: one digit of a code; `program`: an address as data.
- `stored`, `compact_map`: what sources read beside the program.
- `cells`: the program run in plain torch; `words`: its integers, eager and exported; `stacked`:
  sources that are alike, in one go.
"""

from bitfold.address.cells import Address
from bitfold.address.lookup import Lookup
from bitfold.address.program import Program
from bitfold.address.source import Mapped, Mixed, Raw, Salted, Source, Stored

__all__ = ["Address", "Lookup", "Mapped", "Mixed", "Program", "Raw", "Salted", "Source", "Stored"]
