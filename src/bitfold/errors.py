"""Errors that say what was got, what was expected and what to do.

Every mistake a user can make raises a `BitfoldError`. It is a `ValueError`, so code that
guards against bad arguments in general catches it too.
"""

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from bitfold.terminal import printable, unsafe_letter

WANTING = "allocate memory|out of memory"


class BitfoldError(ValueError):
    """A mistake the caller can mend.

    Args:
        problem: one line that says what is wrong.
        got: what was found.
        expected: what would have been right.
        fix: what to do now.

    Example:
        >>> print(BitfoldError("the width is too small", got=0, expected="1 or more", fix="say 16"))
        the width is too small
          got: 0
          expected: 1 or more
          fix: say 16
    """

    def __init__(
        self,
        problem: str,
        *,
        got: object = None,
        expected: object = None,
        fix: str | None = None,
    ) -> None:
        self.problem = problem
        self.got = got
        self.expected = expected
        self.fix = fix
        # Values, names and paths of the user's are in it: a terminal must not obey them.
        lines = [printable(problem, lines=True)]
        for word, text in (("got", got), ("expected", expected), ("fix", fix)):
            if text is not None:
                lines.append(f"  {word}: {printable(text, lines=True)}")
        super().__init__("\n".join(lines))


@contextmanager
def memory_told() -> Iterator[None]:
    """What fails for want of memory while the block runs is told as a `BitfoldError`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        words = str(error).splitlines()[0] if str(error) else "no memory"
        # torch raises a plain RuntimeError where the system refuses memory.
        if not isinstance(error, MemoryError) and not re.search(WANTING, words):
            raise
        raise BitfoldError(
            "there is not enough memory",
            got=words,
            expected="memory for one step of the work",
            fix="lower what was asked for (the batch, the budget, sizes of layers), or free some",
        ) from error


@contextmanager
def remedied(fix: str, *others: str) -> Iterator[None]:
    """Errors of the block that have no remedy, or one of `others`, have this one.

    Example:
        >>> with remedied("train anew"):
        ...     raise BitfoldError("weights.bin is damaged")
        Traceback (most recent call last):
        bitfold.errors.BitfoldError: weights.bin is damaged
          fix: train anew
    """
    try:
        yield
    except BitfoldError as error:
        if error.fix is not None and error.fix not in others:
            raise
        raise BitfoldError(error.problem, got=error.got, expected=error.expected, fix=fix) from None


class BudgetTooSmall(BitfoldError):
    """No plan fits the budget; `minimum` is the least number of bytes that one needs."""

    def __init__(self, problem: str, *, minimum: int, got: object = None, fix: str | None = None):
        self.minimum = minimum
        super().__init__(
            problem,
            got=got,
            expected=f"{minimum:,} bytes or more",
            fix=fix or f"raise the budget to {minimum} bytes, or choose another method",
        )

    def with_minimum(self, minimum: int) -> "BudgetTooSmall":
        """The same error, where another number of bytes is the least."""
        fix = (self.fix or "").replace(f"{self.minimum} bytes", f"{minimum} bytes")
        return BudgetTooSmall(self.problem, minimum=minimum, got=self.got, fix=fix)


class IdOutOfRange(BitfoldError, IndexError):
    """A dense id lies outside `0..num_embeddings-1`."""


class Diverged(BitfoldError):
    """Training met numbers that are not finite."""


class OtherBase(BitfoldError):
    """A delta of another run than the one it is applied to."""


class UnknownName(BitfoldError):
    """A name that is not in its list; the message names the nearest one."""


def unknown_name(kind: str, got: str, known: Iterable[str]) -> UnknownName:
    """The error for a name that is not in `known`.

    Example:
        >>> print(unknown_name("column", "moive_id", ["user_id", "movie_id"]))
        unknown column 'moive_id'
          got: moive_id
          expected: one of user_id, movie_id
          fix: did you mean 'movie_id'?
    """
    names = list(known)
    near = difflib.get_close_matches(str(got), names, n=1, cutoff=0.5)
    listed = ", ".join(names) if names else "nothing: there are none"
    return UnknownName(
        f"unknown {kind} {got!r}",
        got=got,
        expected=f"one of {listed}",
        fix=f"did you mean {near[0]!r}?" if near else f"name one of them as the {kind}",
    )


def check_name(name: str, what: str) -> str:
    r"""The name itself, if every place that shows or stores it can hold it.

    Raises:
        BitfoldError: for control characters, half characters and marks that turn the direction.

    Example:
        >>> check_name("user id", "field")
        'user id'
    """
    letter = unsafe_letter(name)
    if letter is not None:
        raise BitfoldError(
            f"the name of a {what} holds a character that cannot be shown",
            got=f"{printable(name)} ({letter})",
            expected="letters, digits, spaces and signs",
            fix=f"rename the {what}",
        )
    return name
