"""Options of methods that no table can be made with, each refused before it costs anything."""

from typing import Any

import pytest

from bitfold import BitfoldError, Embedding

HUGE = 10**12


@pytest.mark.parametrize(
    ("method", "option", "value"),
    [
        *(("pep", "start", value) for value in ("nan", float("inf"), 100, -1e9)),
        *(("mpe", "penalty", value) for value in (float("nan"), float("inf"))),
        *((method, "temperature", 1e-300) for method in ("mpe", "amtl")),
        *(("scall", "slots", value) for value in (float("inf"), 0, float("nan"))),
        *(("scall", name, HUGE) for name in ("hidden", "bands")),
        *(("fiited", "std", value) for value in (1e300, float("nan"), 0)),
        ("mpe", "groups_each", HUGE),
        ("scma", "power", HUGE),
    ],
)
def test_options_that_no_table_can_have(method: str, option: str, value: Any) -> None:
    with pytest.raises(BitfoldError, match=option):
        Embedding(100, 4, method=method, budget=600, seed=0, **{option: value})


def test_a_number_that_no_float_holds() -> None:
    with pytest.raises(BitfoldError, match="wrong type"):
        Embedding(100, 4, method="fiited", budget=600, std=10**400)
