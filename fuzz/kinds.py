"""Seven kinds of files, each with a right answer: what is mutated, and what is done with it.

`make` writes what is right into a folder; `attempt` takes a copy, changes it, reads it, and says
what became of it:

- *told*: one `BitfoldError`;
- *right*: the result of the unchanged files (or, where a digest was put right on purpose, one
  that is well-formed: the change was meant then);
- *wrong*: another result without a word.

Any other exception is a traceback, and is the caller's to count.
"""

import contextlib
import gzip
import hashlib
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bitfold.errors import BitfoldError
from fuzz.mutate import change_bytes, change_json, text_of

TOLD, RIGHT, WRONG = "told", "right", "wrong"
SPOILT = (
    *(ValueError, KeyError, TypeError, IndexError, AttributeError, OSError),
    *(RecursionError, OverflowError),
)
"""What a manifest raises that cannot be put right any more."""

ROWS = 240


def columns() -> dict[str, list[str]]:
    """A small raw log."""
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, 20, ROWS), rng.integers(0, 12, ROWS)
    return {
        "user": [f"u{value}" for value in user],
        "item": [str(value) for value in item],
        "tags": ["|".join(f"t{k}" for k in range(value % 4)) for value in item],
        "price": [f"{value:.3f}" for value in rng.lognormal(size=ROWS)],
        "click": [str(value) for value in (user + item + rng.integers(0, 9, ROWS)) % 2],
    }


def config(**more: Any) -> Any:
    """How the log is read."""
    from bitfold.data.config import DataConfig

    words: dict[str, Any] = {
        "label": "click", "fields": ("user", "item", "tags"), "multi": {"tags": "|"},
        "numeric": ("price",), "split": "random:0.6,0.2,0.2",
    }  # fmt: skip
    return DataConfig(**words | more)


def training(**more: Any) -> Any:
    """How the model is trained: as small as can be."""
    from bitfold.training import TrainConfig

    words: dict[str, Any] = {
        "method": "hash", "budget": "512B", "width": 4, "network": "lr", "epochs": 2,
        "batch_size": 64, "lr": 0.01, "device": "cpu",
    }  # fmt: skip
    return TrainConfig(**words | more)


def text(separator: str) -> bytes:
    """The log as text."""
    table = columns()
    lines = [table.keys(), *zip(*table.values(), strict=True)]
    return "".join(separator.join(line) + "\n" for line in lines).encode()


def json_change(rng: random.Random, path: Path, *, seal: bool) -> None:
    """Change a JSON file; with `seal` its digest is put right."""
    from bitfold.records import sealed

    value = json.loads(path.read_text(encoding="utf-8"))
    changed = change_json(rng, value)
    if seal and isinstance(changed, dict) and "digest" in changed:
        with contextlib.suppress(ValueError, UnicodeError):
            changed = sealed(changed)
    path.write_bytes(text_of(changed).encode("utf-8", "surrogatepass"))


def change(rng: random.Random, path: Path, *, seal: bool = False) -> None:
    """Change a file: its bytes, or its JSON."""
    if path.suffix == ".json" and (seal or rng.random() < 0.7):
        json_change(rng, path, seal=seal)
    else:
        path.write_bytes(change_bytes(rng, path.read_bytes()))


class Kind:
    """What is tried of one kind of files."""

    name = ""
    about = ""

    def make(self, folder: Path) -> None:
        """Write what is right."""
        raise NotImplementedError

    def attempt(self, rng: random.Random, folder: Path, work: Path) -> str:
        """Change a copy in `work`, read it, and judge."""
        raise NotImplementedError


class Raw(Kind):
    """Raw logs, through prepare."""

    name, about = "raw", "raw CSV, TSV, gzip, zstd and Parquet through `prepare`"

    def make(self, folder: Path) -> None:
        import polars as pl
        import zstandard

        (folder / "a.csv").write_bytes(text(","))
        (folder / "a.tsv").write_bytes(text("\t"))
        (folder / "a.csv.gz").write_bytes(gzip.compress(text(","), mtime=0))
        (folder / "a.csv.zst").write_bytes(zstandard.compress(text(",")))
        pl.DataFrame(columns()).write_parquet(folder / "a.parquet")

    def attempt(self, rng: random.Random, folder: Path, work: Path) -> str:
        from bitfold.data.prepare import prepare

        name = rng.choice(("a.csv", "a.csv", "a.tsv", "a.csv.gz", "a.csv.zst", "a.parquet"))
        data = (folder / name).read_bytes()
        inner = name in ("a.csv", "a.tsv") or (name != "a.parquet" and rng.random() < 0.5)
        if inner:
            data = change_bytes(rng, text("\t" if name == "a.tsv" else ","))
            packed = _packed(name, data)
        else:
            packed = change_bytes(rng, data)
        (work / name).write_bytes(packed)
        ids = rng.choice(("hashed", "vocabulary"))
        log = prepare([work / name], work / "log", config(ids=ids))
        return self._judge(log, data if inner else None, "\t" if name == "a.tsv" else ",")

    def _judge(self, log: Any, data: bytes | None, separator: str) -> str:
        rows = 0
        for part in ("train", "valid", "test"):
            for batch in log.batches(part, 100):
                rows += batch.rows
                labels = batch.labels.numpy()
                if not np.isfinite(batch.numeric.numpy()).all():
                    return WRONG
                if not np.isin(labels, (0, 1)).all():
                    return WRONG
        if rows == 0 or rows != sum(log.rows.values()):
            return WRONG
        if data is None or b'"' in data or b"\r" in data:
            return RIGHT  # what the rows are then is not for a line count to say
        expected = sum(bool(line.strip()) for line in data.split(b"\n")) - 1
        return RIGHT if rows == expected else WRONG


def _packed(name: str, data: bytes) -> bytes:
    import zstandard

    if name.endswith(".gz"):
        return gzip.compress(data, mtime=0)
    return bytes(zstandard.compress(data)) if name.endswith(".zst") else data


def digest_of(log: Any) -> str:
    """All that a prepared log gives."""
    found = hashlib.sha256(json.dumps(log.stats, sort_keys=True).encode())
    found.update(
        repr((log.rows, log.schema.config, log.schema.fields, log.schema.numeric)).encode()
    )
    for part in ("train", "valid", "test"):
        for batch in log.batches(part, 100):
            for tensor in (batch.ids, batch.offsets, batch.numeric, batch.labels):
                if tensor is not None:
                    found.update(tensor.numpy().tobytes())
    return found.hexdigest()


def raw_file(folder: Path) -> Path:
    """The raw log of a folder."""
    (folder / "a.csv").write_bytes(text(","))
    return folder / "a.csv"


class Logs(Kind):
    """Prepared logs."""

    name, about = "logs", "prepared logs: schema, statistics, manifest, vocabulary, shards"

    def make(self, folder: Path) -> None:
        from bitfold.data.prepare import prepare

        log = prepare([raw_file(folder)], folder / "log", config(ids="vocabulary"))
        (folder / "right").write_text(digest_of(log))

    def attempt(self, rng: random.Random, folder: Path, work: Path) -> str:
        from bitfold.data.prepared import PreparedLog

        log = shutil.copytree(folder / "log", work / "log")
        files = sorted(path for path in log.rglob("*") if path.is_file())
        seal = rng.random() < 0.4
        for path in rng.sample(files, rng.choice((1, 1, 2))):
            change(rng, path, seal=seal)
        if seal:
            reseal_log(log)
        found = digest_of(PreparedLog(log))
        return RIGHT if seal or found == (folder / "right").read_text() else WRONG


def reseal_log(log: Path) -> None:
    """Put the manifest of a log right, where it can be."""
    from bitfold.records import file_digest, sealed

    with contextlib.suppress(*SPOILT):
        manifest = json.loads((log / "log.json").read_text(encoding="utf-8"))
        for name, file in manifest["files"].items():
            path = log / name
            file |= {"bytes": path.stat().st_size, "digest": file_digest(path)}
        for shard in (shard for part in manifest["shards"].values() for shard in part):
            shard[2:] = [(log / shard[0]).stat().st_size, file_digest(log / shard[0])]
        (log / "log.json").write_text(json.dumps(sealed(manifest)), encoding="utf-8")


class Runs(Kind):
    """Runs, loaded and asked."""

    name, about = "runs", "runs through `load` and `predict`"

    def make(self, folder: Path) -> None:
        from bitfold import load
        from bitfold.training import train

        log = raw_file(folder)
        train(
            [log], config(ids="vocabulary"), training(network="deepfm", hidden=(4,)), folder / "run"
        )
        scores = load(folder / "run").predict(self._rows())
        (folder / "right").write_bytes(scores.tobytes())

    def _rows(self) -> dict[str, list[str]]:
        return {name: values[:20] for name, values in columns().items()}

    def attempt(self, rng: random.Random, folder: Path, work: Path) -> str:
        from bitfold import load

        run = shutil.copytree(folder / "run", work / "run", ignore=shutil.ignore_patterns("logs"))
        files = sorted(path for path in run.iterdir() if path.is_file())
        seal = rng.random() < 0.5
        for path in rng.sample(files, rng.choice((1, 1, 2))):
            change(rng, path, seal=seal)
        if seal:
            reseal_run(run)
        found = load(run).predict(self._rows())
        if seal:
            return RIGHT if len(found) == 20 else WRONG
        return RIGHT if found.tobytes() == (folder / "right").read_bytes() else WRONG


def reseal_run(run: Path) -> None:
    """Put the manifest of a run right, where it can be."""
    from bitfold.files import sha256
    from bitfold.records import sealed

    with contextlib.suppress(*SPOILT):
        manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
        for name, file in manifest["files"].items():
            file |= {"bytes": (run / name).stat().st_size, "sha256": sha256(run / name)}
        (run / "manifest.json").write_text(json.dumps(sealed(manifest)), encoding="utf-8")


class Deltas(Kind):
    """Deltas between runs, applied."""

    name, about = "deltas", "deltas of runs through `apply`"

    def make(self, folder: Path) -> None:
        from bitfold import delta
        from bitfold.training import train

        log = raw_file(folder)
        for name, seed in (("old", 0), ("new", 1)):
            words = training(method="full", budget=None, seed=seed)
            train([log], config(ids="vocabulary"), words, folder / name)
        delta(folder / "old", folder / "new", folder / "right")

    def attempt(self, rng: random.Random, folder: Path, work: Path) -> str:
        from bitfold import apply

        path = Path(shutil.copy(folder / "right", work / "delta"))
        seal = rng.random() < 0.6
        if seal:
            reseal_delta(rng, path)
        else:
            path.write_bytes(change_bytes(rng, path.read_bytes()))
        try:
            out = apply(folder / "old", path, work / "run")
        except BitfoldError:
            if sorted(each.name for each in work.iterdir()) != ["delta"]:
                return WRONG
            raise
        found = {each.name: each.read_bytes() for each in out.iterdir()}
        right = {name: (folder / "new" / name).read_bytes() for name in found}
        return RIGHT if found == right else WRONG


def reseal_delta(rng: random.Random, path: Path) -> None:
    """Change the head of a delta, or a piece, and put the digests right."""
    import xxhash

    from bitfold.records import sealed

    data = path.read_bytes()
    length = int.from_bytes(data[8:16], "little")
    head, packed = json.loads(data[16 : 16 + length]), data[16 + length :]
    if rng.random() < 0.5:
        at = 0
        pieces = [piece for file in head["files"].values() for piece in file if "packed" in piece]
        one = rng.choice(pieces)
        for piece in pieces:
            if piece is one:
                end = at + piece["packed"]
                changed = change_bytes(rng, packed[at:end])
                packed = packed[:at] + changed + packed[end:]
                one |= {"packed": len(changed), "digest": xxhash.xxh3_128_hexdigest(changed)}
                break
            at += piece["packed"]
    else:
        head = change_json(rng, head)
    with contextlib.suppress(*SPOILT):
        head = sealed(head)
    text = text_of(head).encode("utf-8", "surrogatepass")
    path.write_bytes(data[:8] + len(text).to_bytes(8, "little") + text + packed)


class Results(Kind):
    """results.json, through report."""

    name, about = "results", "results.json of comparisons through `report`"

    def make(self, folder: Path) -> None:
        make_comparison(folder, methods=("full", "hash"), diagnosis=True, floors=True)

    def attempt(self, rng: random.Random, folder: Path, work: Path) -> str:
        from bitfold.report import write_page

        for name in ("results.json", "compare.json"):
            shutil.copy(folder / "board" / name, work / name)
        path = work / "results.json" if rng.random() < 0.9 else work / "compare.json"
        for _ in range(rng.choice((1, 1, 3))):
            with contextlib.suppress(ValueError, RecursionError):  # no JSON any more
                change(rng, path, seal=rng.random() < 0.8)
        with contextlib.ExitStack() as stack:
            if rng.random() < 0.8:  # the library takes most of the time, and has its turn too
                stack.enter_context(without_charts())
            page = write_page(work).read_text(encoding="utf-8")
        return RIGHT if page.rstrip().endswith("</html>") else WRONG


def make_comparison(folder: Path, **words: Any) -> None:
    """A finished comparison in `folder/board`."""
    from bitfold.comparison.compare import compare
    from bitfold.comparison.config import CompareConfig

    said = CompareConfig(budgets=("512B",), seeds=1, **words)
    train = training(method="hash", budget=None, epochs=1, width=2)
    compare(
        [raw_file(folder)], config(multi={}, fields=("user", "item")), train, said, folder / "board"
    )


class Stop(Exception):
    """Ends a training in its middle."""


class Checkpoints(Kind):
    """Checkpoints, gone on from."""

    name, about = "checkpoints", "checkpoints through `train --resume`"

    def make(self, folder: Path) -> None:
        from bitfold.data.prepare import prepare
        from bitfold.training import train

        log = prepare([raw_file(folder)], folder / "log", config()).path
        words = training(checkpoint_steps=2, epochs=3)
        train([log], None, words, folder / "whole")
        self._interrupted(log, words, folder / "run")
        (folder / "right").write_bytes((folder / "whole" / "weights.safetensors").read_bytes())

    def _interrupted(self, log: Path, words: Any, run: Path) -> None:
        from bitfold.training import train

        def stop(stage: str, done: int, total: int | None = None, **_: object) -> None:
            if (run / "checkpoint" / "best-2.safetensors").is_file():
                raise Stop

        with contextlib.suppress(Stop):
            train([log], None, words, run, progress=stop)
        assert (run / "checkpoint" / "state.safetensors").is_file()

    def attempt(self, rng: random.Random, folder: Path, work: Path) -> str:
        from bitfold.training import train

        run = shutil.copytree(folder / "run", work / "run")
        files = sorted((run / "checkpoint").iterdir())
        if rng.random() < 0.3:
            reseal_checkpoint(rng, run / "checkpoint" / "state.safetensors")
            seal = True
        else:
            seal = False
            path = rng.choice([*files, *files, run / "config.json"])
            change(rng, path)
        words = None if rng.random() < 0.3 else training(checkpoint_steps=2, epochs=3)
        train(None if words is None else [folder / "log"], None, words, run, resume=True)
        if seal:
            return RIGHT
        found = (run / "weights.safetensors").read_bytes()
        return RIGHT if found == (folder / "right").read_bytes() else WRONG


def reseal_checkpoint(rng: random.Random, path: Path) -> None:
    """Change the notes of a checkpoint, and put its digest right."""
    from bitfold.files import read_tensors, write_tensors

    tensors, notes = read_tensors(path)
    notes.pop("digest")
    name = rng.choice(("position", "position", "optimizer", "format"))
    value = change_json(rng, json.loads(notes[name]))
    notes[name] = text_of(value).encode("utf-8", "replace").decode()
    if rng.random() < 0.3:
        tensors.pop(rng.choice(sorted(tensors)))
    write_tensors(path, tensors, notes, seal=True)


class Cells(Kind):
    """The files of a comparison, gone on with."""

    name, about = "cells", "cells of a comparison through `compare --resume`"

    def make(self, folder: Path) -> None:
        make_comparison(folder, methods=("full", "hash"), diagnosis=False, floors=True)
        (folder / "right").write_text(self._figures(folder / "board"))

    def _figures(self, board: Path) -> str:
        values = json.loads((board / "results.json").read_text())
        return json.dumps([values["results"], values["references"]], sort_keys=True)

    def attempt(self, rng: random.Random, folder: Path, work: Path) -> str:
        from bitfold.comparison.compare import compare
        from bitfold.comparison.config import CompareConfig

        board = shutil.copytree(folder / "board", work / "board")
        names = sorted((board / "cells").iterdir())
        path = rng.choice([*names, board / "compare.json", board / "floors.json"])
        seal = rng.random() < 0.4
        change(rng, path, seal=seal)
        said = CompareConfig(
            budgets=("512B",), seeds=1, methods=("full", "hash"), diagnosis=False, floors=True
        )
        train = training(method="hash", budget=None, epochs=1, width=2)
        read = config(multi={}, fields=("user", "item"))
        compare([folder / "a.csv"], read, train, said, board, resume=True)
        right = (folder / "right").read_text()
        return RIGHT if seal or self._figures(board) == right else WRONG


KINDS: dict[str, Kind] = {
    kind.name: kind for kind in (Raw(), Logs(), Runs(), Deltas(), Results(), Checkpoints(), Cells())
}


@contextlib.contextmanager
def without_page() -> Iterator[None]:
    """Comparisons draw no page: that is what the kind `results` is for."""
    import bitfold.report

    was: Callable[[], str | None] = bitfold.report.missing
    bitfold.report.missing = lambda: "a page"  # type: ignore[assignment]
    try:
        yield
    finally:
        bitfold.report.missing = was  # type: ignore[assignment]


@contextlib.contextmanager
def without_charts() -> Iterator[None]:
    """Charts are described, and not drawn."""
    from bitfold.report.renderer import RENDERER, plain_spec

    def described(kind: str, spec: dict[str, Any]) -> bytes:
        json.dumps(plain_spec(spec), allow_nan=False)
        return b'<svg xmlns="http://www.w3.org/2000/svg" width="740" height="9"></svg>'

    RENDERER.draw = described  # type: ignore[method-assign]
    try:
        yield
    finally:
        del RENDERER.draw


def attempt(name: str, seed: int, folder: Path, work: Path) -> str:
    """One try of a kind: told, right or wrong; other exceptions are the caller's."""
    kind = KINDS[name]
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    rng = random.Random(f"{name}:{seed}")
    try:
        if name in ("results",):
            return kind.attempt(rng, folder, work)
        with without_page():
            return kind.attempt(rng, folder, work)
    except BitfoldError as error:
        return TOLD if _one_message(error) else "unprintable"


def _one_message(error: BitfoldError) -> bool:
    """Whether an error can be shown as it is: no control characters, and no novel."""
    said = str(error)
    with contextlib.suppress(UnicodeEncodeError):
        said.encode()
        return len(said) < 5000 and all(c.isprintable() or c == "\n" for c in said)
    return False


__all__ = ["KINDS", "RIGHT", "TOLD", "WRONG", "attempt"]
