"""Raw rows scored by an exported file: ONNX Runtime, NumPy and plain Python alone.

`bitfold export RUN --out model.onnx --text` writes `model.onnx` and `model.onnx.json`; these two
files, `pip install --no-deps bitfold`, NumPy and ONNX Runtime are all that a scoring process needs.
torch, Polars, Arrow and Numba are not imported; without xxhash ids are hashed in Python.

    import bitfold.lite
    scorer = bitfold.lite.load("model.onnx")
    scorer.score({"user": 7, "item": "i3", "price": 2.5})

    python -m bitfold.lite model.onnx < rows.jsonl > scores.txt
"""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bitfold.data.checking import rows_of
from bitfold.data.records import is_column, values_of
from bitfold.data.rules_json import AGAIN, read, rules_of
from bitfold.data.single import Encoded, RowEncoder
from bitfold.errors import BitfoldError, IdOutOfRange, unknown_name

AT_ONCE = 1024  # rows in one call of the runtime: what they need lies in a cache, and is little
Scored = npt.NDArray[np.float32]


class Scorer:
    """Scores rows in memory; `load` makes one. Any number of threads may use it.

    Ids and numbers are those of the run, bit for bit; scores are its own up to rounding (1e-6).

    Args:
        session: of ONNX Runtime.
        encoder: what makes its inputs of raw values.
        digest: of the run that was exported.
    """

    def __init__(self, session: Any, encoder: RowEncoder, digest: str) -> None:
        self.digest = digest
        self.columns: tuple[str, ...] = encoder.columns
        """The names of the raw columns that are read; others are not looked at."""
        self._run, self._encoder = session.run, encoder
        self._inputs = [each.name for each in session.get_inputs()]

    def score(self, row: Mapping[str, Any]) -> float:
        """The probability of one row: values by column name; a key that lacks is a missing value.

        Raises:
            BitfoldError: naming the column, for a value that cannot be read.
        """
        return float(self._scored(self._encoder.encode((row,)), 0)[0])

    def scores(self, rows: Sequence[Mapping[str, Any]]) -> Scored:
        """Probabilities float32 `[B]` of B rows, in their order.

        Raises:
            BitfoldError: naming the row and the column, for a value that cannot be read.
        """
        rows = rows_of(rows)
        return self._parts(lambda at, to: self._encoder.encode(rows[at:to], at), len(rows))

    def scores_of(self, data: Any) -> Scored:
        """Probabilities float32 `[B]` of columns by name, or of dictionaries.

        Raises:
            BitfoldError: a column is missing, or holds what cannot be read.
        """
        if not isinstance(data, Mapping):
            return self.scores(data)
        if not all(is_column(column) for column in data.values()):
            return self.scores([data])  # one row, with a bag
        for name in self.columns:
            if name not in data:
                raise unknown_name("column", name, map(str, data))
        lists = [values_of(data[name], name) for name in self.columns]
        lengths = {name: len(column) for name, column in zip(self.columns, lists, strict=True)}
        if len({*lengths.values()}) > 1:
            got = ", ".join(f"{name} {length:,}" for name, length in lengths.items())
            raise BitfoldError(
                "the columns are not of one length", got=got, expected="as many values in each"
            )

        def encode(at: int, to: int) -> Encoded:
            return self._encoder.encode_columns([each[at:to] for each in lists], to - at, at)

        return self._parts(encode, len(lists[0]))

    def _parts(self, encode: Callable[[int, int], Encoded], rows: int) -> Scored:
        """All rows, some at a time."""
        starts = range(0, rows, AT_ONCE)
        parts = [self._scored(encode(at, min(at + AT_ONCE, rows)), at) for at in starts]
        return np.concatenate([np.zeros(0, np.float32), *parts])

    def _scored(self, rows: Encoded, first: int) -> Scored:
        given = {"ids": rows.ids, "offsets": rows.offsets, "numbers": rows.numbers}
        scores: Scored = self._run(["scores"], {name: given[name] for name in self._inputs})[0]
        if isnan(scores.sum()):
            raise IdOutOfRange(
                f"a dense id is out of range: row {first + int(np.isnan(scores).argmax()) + 1}",
                got="no score",
                expected="ids that the training log has",
            )
        return scores

    def __repr__(self) -> str:
        return f"<Scorer {self.digest[:12]}: {len(self.columns)} columns>"


def load(path: "str | os.PathLike[str]", threads: int = 1) -> Scorer:
    """What scores raw rows by an exported file and the schema beside it, `PATH.json`.

    Args:
        path: an ONNX file that was exported with `--text`.
        threads: of the runtime, for each call; callers' threads work beside each other anyway.

    Raises:
        BitfoldError: ONNX Runtime is not installed; a file is missing, damaged, of a newer format,
            or not the one that belongs to the other.

    Example:
        >>> import tempfile, bitfold
        >>> rows = {"user": [1, 2, 3, 4] * 50, "clicked": [0, 1, 1, 0] * 50}
        >>> run = bitfold.train(rows, label="clicked", fields="user", method="full", width=4)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = bitfold.export(run, Path(folder, "model.onnx"), text=True)
        ...     scorer = load(file)
        >>> abs(scorer.score({"user": 1}) - run.scorer().score({"user": 1})) < 1e-6
        True
    """
    try:
        import onnxruntime
    except ImportError:
        raise BitfoldError(
            "bitfold.lite needs ONNX Runtime", got="not installed", fix="pip install onnxruntime"
        ) from None
    beside = Path(f"{os.fspath(path)}.json")
    told = read(beside)
    encoder = RowEncoder(rules_of(told, beside))
    try:
        with Path(path).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BitfoldError(f"{path} cannot be read", got=error.strerror or str(error)) from None
    if found != told.get("file"):
        raise _apart(path, "a file with another SHA-256")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False  # it would keep the memory of the largest batch
    try:
        # By its path, since its bytes would be in memory a second time.
        session = onnxruntime.InferenceSession(
            os.fspath(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # the runtime's own kinds of errors
        got = str(error).splitlines()[0][:200]
        raise BitfoldError(f"ONNX Runtime refuses {path}", got=got, fix=AGAIN) from None
    digest = session.get_modelmeta().custom_metadata_map.get("bitfold.digest")
    if digest != told.get("digest"):
        raise _apart(path, f"the model of the run {str(digest)[:12]}")
    return Scorer(session, encoder, str(digest))


def _apart(path: object, got: str) -> BitfoldError:
    return BitfoldError(
        f"{path} is not the file that {path}.json belongs to",
        got=got,
        expected="the two files of one export",
        fix=AGAIN,
    )


def _lines(file: Any) -> Iterator[Any]:
    for number, line in enumerate(file, 1):
        try:
            yield json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BitfoldError(
                f"line {number} is no JSON", got=str(error)[:100], expected="one object a line"
            ) from None


def main(arguments: Sequence[str]) -> int:
    """`python -m bitfold.lite MODEL < rows.jsonl`: a score a line. Exit code 2 for a mistake."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m bitfold.lite model.onnx < rows.jsonl", file=sys.stderr)
        return 2
    try:
        scorer, done = load(arguments[0]), 0
        rows = _lines(sys.stdin.buffer)
        while part := list(islice(rows, 256)):
            scores = scorer._scored(scorer._encoder.encode(part, done), done)
            print("\n".join(f"{score:.9g}" for score in scores.tolist()), flush=True)
            done += len(part)
    except BitfoldError as error:
        print(f"bitfold: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
