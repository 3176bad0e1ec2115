"""The former name of `bitfold.comparison`; importing it gives the function `bitfold.compare`.

A module of the function's name would hide the function, so this one steps aside for it.
"""

import sys

from bitfold.api import compare

sys.modules[__name__] = compare  # type: ignore[assignment]
