"""Words of a configuration: Python, JSON and text say the same."""

import json
from dataclasses import dataclass, fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitfold import BitfoldError, UnknownName
from bitfold.config import check_choices, from_json, option, parse_options, to_json


@dataclass(frozen=True)
class Words:
    """One word of each type."""

    path: str = option(help="where")
    count: int = option(3, help="how many")
    rate: float = option(0.5, help="how fast", metavar="RATE")
    loud: bool = option(False, help="say more")
    limit: int | None = option(None, help="at most")
    mode: str | None = option("fast", help="how", choices=("fast", "slow"))
    columns: tuple[str, ...] = option((), help="which")
    extra: dict[str, str] = option({}, help="more")  # noqa: RUF009

    def __post_init__(self) -> None:
        check_choices(self)


@given(
    st.builds(
        Words,
        path=st.text(),
        count=st.integers(),
        rate=st.floats(allow_nan=False),
        loud=st.booleans(),
        limit=st.none() | st.integers(),
        mode=st.sampled_from(["fast", "slow", None]),
        columns=st.lists(st.text()).map(tuple),
        extra=st.dictionaries(st.text(), st.text()),
    )
)
def test_words_go_through_json_and_back(words):
    assert from_json(Words, json.loads(json.dumps(to_json(words)))) == words


def test_defaults_are_their_own():
    one, other = Words("a"), Words("b")
    assert one.extra == {}
    assert one.extra is not other.extra
    by_name = {field.name: field for field in fields(Words)}
    assert by_name["rate"].metadata["metavar"] == "RATE"
    assert by_name["count"].metadata["help"] == "how many"


def test_mistakes_in_json_are_named():
    with pytest.raises(UnknownName, match="did you mean 'count'"):
        from_json(Words, {"path": "x", "conut": 3})
    with pytest.raises(BitfoldError, match="lacks path"):
        from_json(Words, {"count": 3})
    with pytest.raises(UnknownName, match="did you mean 'slow'"):
        from_json(Words, {"path": "x", "mode": "slo"})


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("count", "7", 7),
        ("count", " -7 ", -7),
        ("rate", "1e-3", 0.001),
        ("rate", "2", 2.0),
        ("rate", 2, 2.0),
        ("loud", "true", True),
        ("loud", "No", False),
        ("loud", "1", True),
        ("loud", True, True),
        ("limit", "none", None),
        ("limit", None, None),
        ("limit", "12", 12),
        ("mode", "None", None),
        ("mode", "slow", "slow"),
        ("path", "7", "7"),
        ("path", "none", "none"),
    ],
)
def test_text_becomes_a_value_of_the_word(name, text, value):
    got = getattr(parse_options(Words, {"path": "x", name: text}), name)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("count", "seven"),
        ("count", "7.5"),
        ("count", 7.5),
        ("count", True),
        ("count", None),
        ("count", "none"),
        ("rate", "fast"),
        ("rate", True),
        ("loud", "maybe"),
        ("loud", 1),
        ("path", 7),
        ("limit", "few"),
    ],
)
def test_values_of_another_type_are_refused(name, value):
    with pytest.raises(BitfoldError, match=f"{name} has a value of the wrong type") as error:
        parse_options(Words, {"path": "x", name: value})
    assert error.value.expected


def test_an_unknown_word_is_called_what_it_is():
    with pytest.raises(UnknownName, match="unknown option of method 'x' 'cont'"):
        parse_options(Words, {"cont": 1}, what="option of method 'x'")


def test_options_of_older_files_are_read_under_their_new_names() -> None:
    from bitfold.runs.options import TrainConfig

    old = {"embedding": "hash", "width": 8}
    assert from_json(TrainConfig, old) == TrainConfig(method="hash", width=8)
