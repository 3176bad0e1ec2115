"""The folder of a comparison: its words, claimed or gone on with."""

import contextlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitfold.board import CompareConfig
from bitfold.config import renamed, to_json
from bitfold.data.config import DataConfig
from bitfold.data.frames import MemoryLog
from bitfold.errors import BitfoldError
from bitfold.files import read_json
from bitfold.grid import GRID_WORDS

if TYPE_CHECKING:
    from bitfold.training import TrainConfig

FORMAT_VERSION = 1
WORDS_FILE = "compare.json"


def said_words(
    paths: Sequence[str | Path] | MemoryLog,
    data: DataConfig,
    train: "TrainConfig",
    words: CompareConfig,
) -> dict[str, Any]:
    """Everything that decides the board, as it is saved."""
    return {
        "format": FORMAT_VERSION,
        "paths": [{"path": paths.fingerprint(data)}]
        if isinstance(paths, MemoryLog)
        else [_fingerprint(Path(path)) for path in paths],
        "data": to_json(data),
        "train": to_json(train),
        "compare": to_json(words),
    }


def _fingerprint(path: Path) -> dict[str, Any]:
    """A path and what tells its content from a changed one without reading it all."""
    known = path / "schema.json" if path.is_dir() else path
    with contextlib.suppress(OSError):
        stat = known.stat()
        return {"path": str(path), "bytes": stat.st_size, "changed": stat.st_mtime_ns}
    return {"path": str(path)}  # a pattern, or missing: whoever reads it will say so


def claim(out: Path, said: dict[str, Any], *, resume: bool, force: bool) -> bool:
    """Make `out` ready to be written; True when nothing of value stands in it."""
    file = out / WORDS_FILE
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        out.mkdir(parents=True, exist_ok=True)
        return True
    if not file.is_file():
        raise BitfoldError(
            f"{out} exists and is no comparison",
            got=f"a {'directory' if out.is_dir() else 'file'} without {WORDS_FILE}",
            expected="a new directory, or an earlier comparison",
            fix="name another --out",
        )
    if resume:
        _check_same(file, said)
        return False
    if not force:
        raise BitfoldError(
            f"{out} holds a comparison already",
            got=str(out),
            expected="a new directory",
            fix="--resume goes on with it, --force begins anew in its place",
        )
    shutil.rmtree(out)
    out.mkdir()
    return True


def _check_same(file: Path, said: Mapping[str, Any]) -> None:
    """Refuse to go on with a comparison of other words."""
    old = read_json(file)
    version = old.get("format")
    if version != FORMAT_VERSION:
        raise BitfoldError(
            f"{file} is of another format",
            got=version,
            expected=FORMAT_VERSION,
            fix="go on with the bitfold that wrote it, or begin anew with --force",
        )
    new = json.loads(json.dumps(said))
    if old["paths"] != new["paths"]:
        raise BitfoldError(
            "the log is not the one that the comparison began with",
            got=", ".join(path["path"] for path in new["paths"]),
            expected=", ".join(path["path"] for path in old["paths"]) + ", unchanged",
            fix="begin anew with --force, or name another --out",
        )
    fixed = {"data": new["data"], "train": new["train"], "compare": GRID_WORDS}
    for section, names in fixed.items():
        began = renamed(old[section])
        for name in names:
            if began.get(name) != new[section][name]:
                raise BitfoldError(
                    f"--{name.replace('_', '-')} is not what the comparison began with",
                    got=new[section][name],
                    expected=began.get(name),
                    fix="only --methods, --budgets and --seeds may change; or begin with --force",
                )
