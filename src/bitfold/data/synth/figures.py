"""What is told of a synthetic log that was written."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Day:
    """A day of a log: `new` counts the ids, of all fields, that no day before had."""

    rows: int
    new: int
    bayes_auc: float
    positive_rate: float


@dataclasses.dataclass(frozen=True)
class SynthReport:
    """What `synthesize` wrote; the same figures stand in the JSON file beside the log.

    `bayes_auc` is the expected AUC, over these rows, of a scorer that knows the true logit.
    `distinct` counts the ids that appear, per field; `days` has a line a day of a log with days.
    """

    rows: int
    distinct: dict[str, int]
    bayes_auc: float
    positive_rate: float
    seconds: float
    days: tuple[Day, ...] = ()
