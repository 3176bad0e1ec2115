"""Plain PyTorch's DeepFM, and the network alone on ready vectors: the ceiling.

The words of `settings["form"]`: sparse | dense | dense fused | ceiling | ceiling grad.
"""

from typing import Any

from deepfm import CEILING, CEILING_GRAD, ceiling, plain, race
from process import answer


def measured(settings: dict[str, Any]) -> dict[str, Any]:
    """The form that the settings name."""
    form = settings["form"]
    if form in (CEILING, CEILING_GRAD):
        return race(settings, lambda log: ceiling(log, form == CEILING_GRAD))
    return race(settings, lambda log: plain(log, form == "sparse", form != "dense"))


answer(measured)
