"""Bodies of requests: what is read is what was sent, and what is not clear is refused."""

import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitfold.errors import BitfoldError
from bitfold.service.bodies import json_rows
from bitfold.service.messages import Refused, without_paths
from bitfold.service.tables import ARROW, PARQUET, arrow_answer, table_of

MOST = 1000
scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)  # fmt: skip
rows = st.lists(
    st.dictionaries(st.text(), scalars | st.lists(scalars, max_size=4), max_size=5), max_size=6
)


def refusal(call: Any, *args: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        call(*args)
    return caught.value


@given(rows, st.booleans(), st.sampled_from([None, 2]))
def test_any_rows_are_read_as_they_were_sent(sent: Any, ascii: bool, indent: int | None) -> None:
    try:
        bodies = [json.dumps(each, ensure_ascii=ascii, indent=indent).encode() for each in
                  ({"rows": sent}, sent)]  # fmt: skip
    except UnicodeEncodeError:
        return  # half a character, which no body of UTF-8 holds
    for body in bodies:
        try:
            assert json_rows(body, MOST) == sent
        except Refused:
            # Half a character as an escape is all that is refused.
            assert "\\ud" in json.dumps(sent)


@given(st.dictionaries(st.text(), scalars, min_size=1, max_size=4), st.data())
def test_a_key_that_is_twice_is_refused_wherever_it_stands(row: Any, data: Any) -> None:
    pairs = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in row.items()]
    again = data.draw(st.sampled_from(sorted(row)))
    place = data.draw(st.integers(0, len(pairs)))
    pairs.insert(place, f'{json.dumps(again)} : "x: y"')
    body = ('[{"a": 1}, {' + ", ".join(pairs) + "}]").encode()
    assert refusal(json_rows, body, MOST).status == 400


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b'{"rows": [{"a": NaN}]}', 400),
        (b'{"rows": [{"a": Infinity}]}', 400),
        (b'{"rows": [{"a": 1}]} more', 400),
        (b'{"rows": [{"a": "\xff"}]}', 400),
        (b'\xef\xbb\xbf{"rows": []}', 400),
        (b'{"rows": [{"a": 01}]}', 400),
        (b'{"rows": [{"a": "\\ud800"}]}', 400),
        (b'{"rows": [], "rows": []}', 400),
        (b'{"rows": [{"a": 1e999}]}', 422),
        (b'{"rows": [{"a": ' + b"9" * 5000 + b"}]}", 422),
        (b'{"rows": [{"a": {"b": 1}}]}', 422),
        (b'{"rows": [{"a": [[1]]}]}', 422),
        (b'{"rows": [[1, 2]]}', 422),
        (b'{"rows": [{}], "more": 1}', 422),
        (b"null", 422),
        (b"7", 422),
        (b'"text"', 422),
        (b"[" * 1_000_000, 422),
        (b'{"a":' * 200_000, 413),  # each brace might be a row
        (b'{"rows":' * 100, 422),
        (b'{"rows": [' + b"{}," * 1500 + b"{}]}", 413),
    ],
)
def test_what_is_not_clear_is_refused(body: bytes, status: int) -> None:
    assert refusal(json_rows, body, MOST).status == status


def test_braces_and_colons_within_text_count_for_nothing() -> None:
    row = {"a:b": "{" * 3000 + '\\":"', "c": ":"}
    assert json_rows(json.dumps(row).encode(), 2) == [row]


def test_a_row_may_have_a_column_that_is_called_rows() -> None:
    assert json_rows(b'{"rows": [1, 2]}', 2) == [{"rows": [1, 2]}]


def test_a_whole_number_of_any_length_stays_exact() -> None:
    assert json_rows(b'[{"id": 123456789012345678901234567890}]', 1) == [
        {"id": 123456789012345678901234567890}
    ]


def stream(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as out:
        out.write_table(table)
    return bytes(sink.getvalue())


def parquet(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


TABLE = pa.table({"user": ["a", None, "c"], "item": [1, 2, 3], "more": [0.5, 1.5, 2.5]})
COLUMNS = ("user", "item")


def read(body: bytes, kind: str, most: int = MOST, most_bytes: int = 1 << 20) -> pa.Table:
    return table_of(body, kind, COLUMNS, most, most_bytes)


@pytest.mark.parametrize(("kind", "write"), [(ARROW, stream), (PARQUET, parquet)])
def test_tables_are_read(kind: str, write: Any) -> None:
    got = read(write(TABLE), kind)
    assert got.to_pylist() == TABLE.select(["user", "item"]).to_pylist()


@pytest.mark.parametrize(("kind", "write"), [(ARROW, stream), (PARQUET, parquet)])
def test_tables_are_held_to_their_limits(kind: str, write: Any) -> None:
    assert refusal(read, write(TABLE), kind, 2).status == 413
    assert refusal(read, write(TABLE.select(["more"])), kind).status == 422
    body = write(TABLE)
    for cut in (0, 3, 8, len(body) // 2, len(body) - 9):
        assert refusal(read, body[:cut], kind).status == 400


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_a_compressed_stream_is_refused_before_it_is_unpacked(codec: str) -> None:
    bomb = pa.table({"user": pa.array(["x" * 1_000_000] * 30), "item": [1] * 30})
    body = stream(bomb, compression=codec)
    assert len(body) < 1_000_000
    assert refusal(read, body, ARROW).status == 415
    coded = pa.table({"user": bomb["user"].dictionary_encode(), "item": bomb["item"]})
    assert refusal(read, stream(coded, compression=codec), ARROW).status == 415


def test_long_texts_in_every_row_are_counted_before_they_are_unpacked() -> None:
    bomb = pa.table({"user": pa.array(["x" * 100_000] * 900), "item": [1] * 900})
    assert len(parquet(bomb)) < 1 << 20
    assert refusal(read, parquet(bomb), PARQUET).status == 413
    coded = pa.table({"user": bomb["user"].dictionary_encode(), "item": bomb["item"]})
    assert refusal(read, stream(coded), ARROW).status == 413


@given(st.integers(0, 2000), st.binary(max_size=8), st.booleans())
def test_a_damaged_table_is_read_or_refused(place: int, junk: bytes, arrow: bool) -> None:
    body = stream(TABLE) if arrow else parquet(TABLE)
    place %= len(body)
    statuses = []
    try:
        read(body[:place] + junk + body[place + len(junk) :], ARROW if arrow else PARQUET)
    except Refused as error:
        statuses.append(error.status)
    assert statuses in ([], [400], [413], [415], [422])


def test_scores_as_arrow_name_the_run() -> None:
    got = pa.ipc.open_stream(arrow_answer([0.25, 0.5], "d")).read_all()
    assert got.to_pydict() == {"score": [0.25, 0.5]}
    assert got.schema.metadata == {b"bitfold.run": b"d"}


@pytest.mark.parametrize(
    "path", ["/srv/runs/day 2", "/srv/runs/x", "../runs/x", "~/runs/x", "C:\\runs\\x"]
)
def test_errors_lose_their_paths(path: str) -> None:
    error = BitfoldError(
        f"{path}/plan.json is damaged", got=f"'{path}'", expected=f"see {path}/config.json: a file"
    )
    told = without_paths(error, path)
    for text in (told.problem, told.got, told.expected):
        assert "runs" not in str(text)
        assert "/" not in str(text)
    assert told.problem == "plan.json is damaged"
