"""`case`: every form of every registered method, less what opts out, with the reason."""

import pytest
import torch
from contract_cases import OPT_OUTS, Case, all_cases

from bitfold.kernels import lookup


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "aspect(name): what the test proves of a method")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("aspect")
    params = []
    for case in all_cases():
        reason = OPT_OUTS.get((case.method, marker.args[0])) if marker else None
        marks = [pytest.mark.skip(reason=f"{case.method} opts out: {reason}")] if reason else []
        params.append(pytest.param(case, id=str(case), marks=marks))
    metafunc.parametrize("case", params)


@pytest.fixture
def small(case: Case):
    """A collection of the case's fields."""
    return case.collection()


@pytest.fixture(params=[1, 3])
def threads(request, monkeypatch):
    """One thread, and more than the machine has."""
    monkeypatch.setattr(lookup, "SERIAL_NUMBERS", 0)
    before = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: request.param)
    yield request.param
    torch.set_num_threads(before)  # loops of Numba's have changed it
