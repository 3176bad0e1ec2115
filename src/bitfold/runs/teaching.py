"""The options that say who teaches a training."""

from dataclasses import dataclass

from bitfold.config import option
from bitfold.errors import BitfoldError


@dataclass(frozen=True)
class TeacherConfig:
    """Who teaches a training, and how: options of `bitfold train` alone.

    Raises:
        BitfoldError: a share out of range, or options of a teacher without one.

    Example:
        >>> TeacherConfig("FULL", 0.7).told
        ', taught by FULL (share 0.7)'
    """

    teacher: str | None = option(
        None,
        help="Learn from this run's probabilities, too: one of the same log, such as the full "
        "table's.",
        metavar="RUN",
    )
    teacher_share: float = option(
        0.5, help="What the teacher's probabilities count for; the labels count for the rest."
    )
    teacher_meta: bool = option(
        False,
        help="Let a small network make the targets of labels and teacher. It learns from every "
        "16th row, which the model is not trained on; --teacher-share is where it starts.",
    )

    def __post_init__(self) -> None:
        share: object = self.teacher_share
        number = isinstance(share, int | float) and not isinstance(share, bool)
        if not number or not 0 <= self.teacher_share <= 1:
            raise BitfoldError(
                "teacher_share is out of range", got=share, expected="a number from 0 to 1"
            )
        if self.teacher is None and (self.teacher_share != 0.5 or self.teacher_meta):
            raise BitfoldError(
                "there is no teacher",
                got="teacher_meta" if self.teacher_meta else f"teacher_share {share}",
                expected="the run that teaches",
                fix="name it with --teacher",
            )
        if self.teacher_meta and not 0 < self.teacher_share < 1:
            raise BitfoldError(
                "targets that are learned start between labels and teacher",
                got=f"teacher_share {share}",
                expected="above 0 and below 1, with --teacher-meta",
            )

    @property
    def told(self) -> str:
        """What a run's title says of it."""
        if self.teacher is None:
            return ""
        how = "learned targets" if self.teacher_meta else f"share {self.teacher_share:g}"
        return f", taught by {self.teacher} ({how})"
