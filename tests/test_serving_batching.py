"""The queue in front of the model: each request gets its own scores, of one model."""

import asyncio
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitfold.errors import BitfoldError
from bitfold.service.batching import BATCH_ROWS, SMALL_ROWS, Batcher, Job
from bitfold.service.messages import Refused
from served import Fake, eventually


class Answers:
    """What became of jobs, in the order in which they were answered."""

    def __init__(self) -> None:
        self.found: dict[int, Any] = {}

    def taker(self, number: int) -> Any:
        def done(scores: Any, error: Exception | None) -> None:
            assert number not in self.found, "answered twice"
            self.found[number] = error if error is not None else list(scores)

        return done


async def all_answered(answers: Answers, jobs: int) -> None:
    for _ in range(2000):
        if len(answers.found) == jobs:
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"{len(answers.found)} of {jobs} answered")


request = st.tuples(
    st.integers(0, 2),  # the model
    st.lists(st.sampled_from([*range(6), "wrong", "fault"]), max_size=5),
    st.booleans(),  # whether the loop takes a turn before the next
)


@given(st.lists(request, max_size=12), st.booleans())
def test_every_request_gets_its_own_scores_of_its_own_model(asked: Any, large: bool) -> None:
    models = [Fake(name) for name in "abc"]
    answers = Answers()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        batcher = Batcher(loop, waiting_rows=10_000, answer_seconds=10)
        for number, (model, users, turn) in enumerate(asked):
            rows = [{"user": user, "item": number} for user in users]
            if large and rows:
                rows = rows * (SMALL_ROWS // len(rows) + 1)
            batcher.submit(Job(models[model], rows, answers.taker(number)))
            if turn:
                await asyncio.sleep(0)
        await all_answered(answers, len(asked))
        assert batcher.waiting == 0
        batcher.close()

    asyncio.run(main())
    for number, (model, users, _) in enumerate(asked):
        found = answers.found[number]
        bad = [user for user in users if isinstance(user, str)]
        if bad:
            assert isinstance(found, BitfoldError | ZeroDivisionError)
            continue
        wanted = [models[model].of({"user": user, "item": number}) for user in users]
        assert found[: len(wanted)] == wanted
        assert found == (wanted * len(found))[: len(found)]


def test_what_the_next_turns_of_the_loop_bring_is_scored_with_it() -> None:
    model, answers = Fake(), Answers()

    async def main() -> None:
        batcher = Batcher(asyncio.get_running_loop(), waiting_rows=100, answer_seconds=10)
        for number in range(5):
            batcher.submit(Job(model, [{"user": number}], answers.taker(number)))
            await asyncio.sleep(0)
        await all_answered(answers, 5)
        batcher.submit(Job(model, [{"user": 5}], answers.taker(5)))  # alone, it waits for nobody
        for _ in range(3):
            await asyncio.sleep(0)
        assert 5 in answers.found
        batcher.close()

    asyncio.run(main())
    assert model.asked == [5, 1]


def test_what_waits_is_scored_together() -> None:
    model, answers = Fake(), Answers()

    async def main() -> None:
        batcher = Batcher(asyncio.get_running_loop(), waiting_rows=10_000, answer_seconds=10)
        for number in range(BATCH_ROWS + 1):
            batcher.submit(Job(model, [{"user": number}], answers.taker(number)))
        await all_answered(answers, BATCH_ROWS + 1)
        batcher.close()

    asyncio.run(main())
    assert model.asked == [BATCH_ROWS, 1]


def test_too_many_rows_are_refused_and_the_others_answered() -> None:
    answers = Answers()

    async def main() -> None:
        batcher = Batcher(asyncio.get_running_loop(), waiting_rows=10, answer_seconds=10)
        for number in range(5):
            batcher.submit(Job(Fake(), [{"user": number}] * 2, answers.taker(number)))
        with pytest.raises(Refused) as caught:
            batcher.submit(Job(Fake(), [{"user": 9}], answers.taker(9)))
        assert caught.value.status == 429
        assert ("retry-after", "1") in caught.value.headers
        await all_answered(answers, 5)
        batcher.submit(Job(Fake(), [{"user": 9}], answers.taker(9)))
        await all_answered(answers, 6)
        batcher.close()

    asyncio.run(main())


@pytest.mark.parametrize("rows", [1, SMALL_ROWS + 1])
def test_what_waits_too_long_is_told_so_once(rows: int) -> None:
    slow, answers = Fake(seconds=0.4), Answers()

    async def main() -> None:
        batcher = Batcher(asyncio.get_running_loop(), waiting_rows=10_000, answer_seconds=0.1)
        for number in range(2):
            scorer = slow if number == 0 else Fake("b")  # another model: another batch
            batcher.submit(Job(scorer, [{"user": number}] * rows, answers.taker(number)))
        await all_answered(answers, 2)
        await asyncio.sleep(0.6)
        assert batcher.waiting == 0
        batcher.close()

    asyncio.run(main())
    assert isinstance(answers.found[1], Refused)
    assert answers.found[1].status == 503


def test_a_job_that_is_given_up_is_not_scored() -> None:
    model, answers = Fake(), Answers()

    async def main() -> None:
        batcher = Batcher(asyncio.get_running_loop(), waiting_rows=10, answer_seconds=10)
        jobs = [Job(model, [{"user": each}], answers.taker(each)) for each in range(3)]
        for job in jobs:
            batcher.submit(job)
        batcher.give_up(jobs[1])
        batcher.give_up(jobs[1])
        await all_answered(answers, 2)
        assert batcher.waiting == 0
        batcher.close()

    asyncio.run(main())
    assert model.asked == [2]
    assert set(answers.found) == {0, 2}


def test_a_table_is_read_and_scored_by_the_worker_in_pieces() -> None:
    import pyarrow as pa

    model, answers, seen = Fake(), Answers(), []
    table = pa.table({"user": list(range(5000)), "item": [1] * 5000})

    async def main() -> None:
        loop = asyncio.get_running_loop()
        batcher = Batcher(loop, waiting_rows=10, answer_seconds=10, batched=seen.append)
        batcher.submit(Job(model, (), answers.taker(0), table=lambda: table, weight=5))
        await all_answered(answers, 1)
        batcher.close()

    asyncio.run(main())
    assert np.array_equal(answers.found[0], [model.of(row) for row in table.to_pylist()])
    assert sum(seen) == 5000
    assert len(seen) > 1


def test_a_model_that_gives_other_numbers_of_scores_is_a_fault() -> None:
    class Short(Fake):
        def scores(self, rows: Any) -> Any:
            return super().scores(rows)[1:]

    answers = Answers()

    async def main() -> None:
        batcher = Batcher(asyncio.get_running_loop(), waiting_rows=9, answer_seconds=10)
        for number in range(2):
            batcher.submit(Job(Short(), [{"user": number}], answers.taker(number)))
        await all_answered(answers, 2)
        batcher.close()

    asyncio.run(main())
    assert all(isinstance(each, BitfoldError) for each in answers.found.values())
    assert eventually(lambda: True)
