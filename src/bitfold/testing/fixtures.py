"""Which cases a test takes, and the fixtures of several tests; a `conftest.py` imports them.

A test that takes `case` is run for every form of every method. One that is marked `first_form`
proves what no option can change once it holds for one: that a face hands on what the embedder
gives, that a tracer sees operations; it is run for the first form of each method.
"""

from collections.abc import Iterator

import pytest
import torch

from bitfold.embedding import EmbeddingCollection
from bitfold.kernels import sharing
from bitfold.method.registry import method_kind
from bitfold.testing.cases import Case, all_cases, first_cases

MARKS = (
    "hashed_ids: skipped for methods whose traits say that they take dense ids alone",
    "first_form: run for the first form of each method alone",
)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marks."""
    for mark in MARKS:
        config.addinivalue_line("markers", mark)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test its cases."""
    if "case" not in metafunc.fixturenames:
        return
    first = metafunc.definition.get_closest_marker("first_form")
    hashed = metafunc.definition.get_closest_marker("hashed_ids")
    params = []
    for case in first_cases() if first else all_cases():
        lacks = hashed and not method_kind(case.method).traits.hashed_ids
        marks = [pytest.mark.skip(reason=f"{case.method} takes dense ids alone")] if lacks else []
        params.append(pytest.param(case, id=str(case), marks=marks))
    metafunc.parametrize("case", params)


@pytest.fixture
def cases() -> list[Case]:
    """Every form of every method, for a test that tries them all at once."""
    return all_cases()


@pytest.fixture
def small(case: Case) -> EmbeddingCollection:
    """A collection of the case's fields."""
    return case.collection()


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """One thread, and more than the machine has."""
    monkeypatch.setattr(sharing, "SERIAL_NUMBERS", 0)
    before = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: request.param)
    yield request.param
    torch.set_num_threads(before)  # loops of Numba's have changed it
