"""Other people's models, their tables folded in place.

Shapes: `B` rows of a batch, `V` ids of a table, `D` its width.
"""

from bitfold.folded.constructing import folding
from bitfold.folded.exchange import fold
from bitfold.folded.packing import resume, serving
from bitfold.folded.report import FoldReport
from bitfold.folded.saving import load_model, save

__all__ = ["FoldReport", "fold", "folding", "load_model", "resume", "save", "serving"]
