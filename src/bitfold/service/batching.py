"""Requests that wait are scored together; a large one goes to a thread of its own.

Small requests are scored in the server's own thread. What arrived while the model was busy is read
in the next turns of its loop and makes one batch, which is scored as soon as a turn brings no more:
nothing waits for a batch to fill, and no thread has to hand the interpreter to another. A request
of many rows, or a table, would hold up everybody: it is scored in pieces by one worker thread.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from bitfold.errors import BitfoldError
from bitfold.service.messages import Refused, refused

if TYPE_CHECKING:
    from bitfold.service.bodies import Row
    from bitfold.service.models import Scorer

SMALL_ROWS = 256
"""A request of more rows is scored by the worker thread."""

BATCH_ROWS = 512
"""Rows that are scored at once in the server's thread."""

PIECE_ROWS = 2048
"""Rows that the worker scores at once."""

Scores = npt.NDArray[np.float32]


class Done(Protocol):
    """Takes what became of a job, in the server's thread: its scores, or why there are none."""

    def __call__(self, scores: Scores | None, error: Exception | None) -> None:
        """Called once."""


class Job:
    """Rows of one request, and the model that they began with."""

    __slots__ = ("deadline", "done", "over", "rows", "scorer", "table", "timer", "weight")

    def __init__(
        self,
        scorer: "Scorer",
        rows: "Sequence[Row]",
        done: Done,
        *,
        table: "Callable[[], Any] | None" = None,
        weight: int | None = None,
    ) -> None:
        self.scorer, self.rows, self.done = scorer, rows, done
        self.table = table
        self.weight = len(rows) if weight is None else weight
        self.deadline = 0.0
        self.timer: asyncio.TimerHandle | None = None
        self.over = False  # answered, or nobody wants the answer


class Batcher:
    """The queue in front of the model.

    Args:
        loop: of the server.
        waiting_rows: rows that may wait.
        answer_seconds: how long a request may wait and be scored.
        batched: told of each batch's rows.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        waiting_rows: int,
        answer_seconds: float,
        batched: Callable[[int], None] = lambda rows: None,
    ) -> None:
        self._loop = loop
        self._most, self._seconds, self._batched = waiting_rows, answer_seconds, batched
        self._queue: deque[Job] = deque()
        self._asked = False
        self._queued = 0  # when the loop's last turn ended
        self._worker = ThreadPoolExecutor(1, "bitfold-scoring")
        self.waiting = 0

    def submit(self, job: Job) -> None:
        """Let a job be scored; `job.done` is called once, unless it is given up.

        Raises:
            Refused: too many rows wait (429).
        """
        if self.waiting + job.weight > self._most:
            raise refused(
                429, "too many rows wait for the model", ("retry-after", "1"),
                got=f"{self.waiting:,} rows wait", expected=f"{self._most:,} at most",
                fix="try again in a second; send fewer rows at a time",
            )  # fmt: skip
        self.waiting += job.weight
        job.deadline = self._loop.time() + self._seconds
        if job.table is not None or len(job.rows) > SMALL_ROWS:
            job.timer = self._loop.call_at(job.deadline, self._late, job)
            self._worker.submit(self._work, job)
            return
        self._queue.append(job)
        if not self._asked:
            self._asked = True
            self._loop.call_soon(self._turn)

    def give_up(self, job: Job) -> None:
        """Forget a job whose answer nobody wants."""
        self._finish(job, None, None, tell=False)

    def worker(self, function: Callable[[], object]) -> None:
        """Let the worker thread do something before it scores."""
        self._worker.submit(function)

    def close(self) -> None:
        """Take no more jobs for the worker; the one at work ends on its own."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _finish(
        self, job: Job, scores: Scores | None, error: Exception | None, *, tell: bool = True
    ) -> None:
        if job.over:
            return
        job.over = True
        self.waiting -= job.weight
        if job.timer is not None:
            job.timer.cancel()
        if tell:
            job.done(scores, error)

    def _late(self, job: Job) -> None:
        self._finish(job, None, _too_late(self._seconds))

    def _turn(self) -> None:
        """Score one batch of what waits, unless this turn of the loop brought more of it."""
        queue = self._queue
        if self._queued < len(queue) < BATCH_ROWS:
            self._queued = len(queue)
            self._loop.call_soon(self._turn)
            return
        jobs: list[Job] = []
        rows = 0
        now = self._loop.time()
        while queue:
            job = queue[0]
            if job.over:
                queue.popleft()
            elif now > job.deadline:
                queue.popleft()
                self._late(job)
            elif jobs and (rows + len(job.rows) > BATCH_ROWS or job.scorer is not jobs[0].scorer):
                break
            else:
                jobs.append(queue.popleft())
                rows += len(job.rows)
        if queue:
            self._loop.call_soon(self._turn)  # after what the sockets bring
        else:
            self._asked = False
        self._queued = 0
        if jobs:
            self._score(jobs, rows)

    def _score(self, jobs: list[Job], rows: int) -> None:
        self._batched(rows)
        try:
            together = [row for job in jobs for row in job.rows] if jobs[1:] else jobs[0].rows
            scores = jobs[0].scorer.scores(together)
            if len(scores) != rows:
                raise _wrong_number(len(scores), rows)
        except Exception as error:
            if len(jobs) == 1:
                self._finish(jobs[0], None, error)
                return
            for job in jobs:  # one of them is wrong: the others have nothing to do with it
                self._score([job], len(job.rows))
            return
        first = 0
        for job in jobs:
            self._finish(job, scores[first : first + len(job.rows)], None)
            first += len(job.rows)

    def _work(self, job: Job) -> None:
        """In the worker thread: a job in pieces."""
        error: Exception | None = None
        scores: Scores | None = None
        try:
            parts = []
            table = None if job.table is None else job.table()
            rows = len(job.rows) if table is None else table.num_rows
            for first in range(0, rows, PIECE_ROWS):
                if job.over:
                    return
                if table is None:
                    part = job.scorer.scores(job.rows[first : first + PIECE_ROWS])
                else:
                    part = job.scorer.scores_of(table.slice(first, PIECE_ROWS))
                parts.append(part)
                self._later(self._batched, len(part))
            scores = np.concatenate(parts) if parts else np.zeros(0, np.float32)
            if len(scores) != rows:
                raise _wrong_number(len(scores), rows)
        except Exception as caught:
            scores, error = None, caught
        self._later(self._finish, job, scores, error)

    def _later(self, function: Callable[..., None], *args: object) -> None:
        """Call something in the server's thread; nothing if that has ended."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *args)


def _too_late(seconds: float) -> Refused:
    return refused(
        503, "the answer took too long", ("retry-after", "1"),
        expected=f"an answer within {seconds:g} s", fix="send fewer rows at a time, or try later",
    )  # fmt: skip


def _wrong_number(got: int, rows: int) -> BitfoldError:
    return BitfoldError("the model gave another number of scores", got=got, expected=rows)
