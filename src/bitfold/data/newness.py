"""Whether far more values are new than training's held-out rows had: another spelling, most likely.

A schema keeps some ids of each field's training part: all of them, or those whose hash begins with
`level` zero bits, at most 2,048 a field. A value with such a hash that is not among them is new.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bitfold.data.hashing import missing_id, mix
from bitfold.data.rows import Rows
from bitfold.errors import BitfoldError
from bitfold.notes import note
from bitfold.records import broken

if TYPE_CHECKING:
    import polars as pl

    from bitfold.data.fitting import FieldFit
    from bitfold.data.prepared import PreparedLog
    from bitfold.data.schema import Schema

KNOWN_FILE = "known.safetensors"
KEPT = 2048
_SALT = 0x0DD
_LOOKED_AT = 1024  # values of a field in each chunk
_SHARDS = 4  # of a prepared log that are looked at
_ENOUGH = 50  # values without which nothing is said

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Known:
    """Some ids of each field's training part, but for bucketised numbers.

    Args:
        keys: for each field sorted int64 ids `[n]`, n at most 2,048.
        levels: how many zero bits the hash of a kept id begins with.
        unseen: the share of the held-out rows whose value training lacked; NaN without such rows.
    """

    keys: tuple[Ids, ...]
    levels: tuple[int, ...]
    unseen: tuple[float, ...]

    @classmethod
    def of(cls, fields: "Sequence[FieldFit]", lacking: npt.NDArray[np.int64]) -> "Known":
        """What to keep of fields counted in the training part.

        Args:
            fields: F counted fields.
            lacking: `[F, 2]`: held-out values that the training part lacks, and all of them.
        """
        keys, levels = [], []
        for field in fields:
            kept, _ = field.counter.counts()
            level = 0
            if field.counter.level:  # a sample of too many ids, by another hash: nothing is known
                kept = kept[:0]
            while len(kept) > KEPT:
                level += 1
                kept = kept[_begins(kept, level)]
            keys.append(kept)
            levels.append(level if field.counter.level == 0 else -1)
        unseen = [float(new / of) if of else float("nan") for new, of in lacking.tolist()]
        return cls(tuple(keys), tuple(levels), tuple(unseen[: len(keys)]))

    def save(self, path: Path) -> None:
        """Write the ids as safetensors: `I.keys` of field I, `levels` and `unseen`."""
        from safetensors.numpy import save_file

        from bitfold.files import whole

        tensors: dict[str, npt.NDArray[Any]] = {
            f"{index}.keys": keys for index, keys in enumerate(self.keys)
        }
        tensors["levels"] = np.array(self.levels, np.int64)
        tensors["unseen"] = np.array(self.unseen, np.float64)
        with whole(path):  # one note: several come in an order of chance
            save_file(tensors, str(path), metadata={"format": "bitfold.known 1"})

    @classmethod
    def load(cls, path: Path, fields: int) -> "Known":
        """Read what `save` wrote, of so many fields.

        Raises:
            BitfoldError: the file is missing or broken.
        """
        from safetensors import SafetensorError, safe_open

        fix = "prepare the log again"
        try:
            with safe_open(str(path), framework="np") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            keys = tuple(tensors[f"{index}.keys"] for index in range(fields))
            levels, unseen = tensors["levels"], tensors["unseen"]
        except (OSError, SafetensorError, LookupError, TypeError, ValueError) as error:
            raise BitfoldError(
                f"{path} is missing or broken", got=str(error)[:200], fix=fix
            ) from error
        good = len(tensors) == fields + 2 and levels.shape == unseen.shape == (fields,)
        good = good and levels.dtype == np.int64 and unseen.dtype == np.float64
        good = good and bool(((levels >= -1) & (levels < 64)).all())
        # NaN: the log had no held-out rows.
        good = good and bool((np.isnan(unseen) | ((unseen >= 0) & (unseen <= 1))).all())
        for each in keys:
            good = good and each.dtype == np.int64 and each.ndim == 1
            good = good and len(each) <= KEPT and bool((each[1:] > each[:-1]).all())
        if not good:
            raise broken(path, "ids that are not sorted, or of other fields", "known ids", fix)
        return cls(keys, tuple(map(int, levels)), tuple(map(float, unseen)))


def _begins(ids: Ids, level: int) -> npt.NDArray[np.bool_]:
    """Which ids have a hash that begins with `level` zero bits."""
    if level == 0:
        return np.ones(len(ids), bool)
    found: npt.NDArray[np.bool_] = mix(ids, _SALT) >> np.uint64(64 - level) == 0
    return found


class Watch:
    """Counts new values while rows are read, and says so at the end.

    Args:
        schema: what was known in training.
    """

    def __init__(self, schema: "Schema") -> None:
        self._schema = schema
        self._missing = missing_id(schema.config.hash_seed)
        known = schema.known
        count = 0 if known is None else len(known.keys)
        self._counts = np.zeros((count, 2), np.int64)
        self._distinct: list[set[int]] = [set() for _ in range(count)]
        self._examples: dict[int, Any] = {}

    def see(self, frame: "pl.DataFrame", rows: Rows) -> None:
        """Look at some encoded rows, and at what they were made of."""
        known = self._schema.known
        if known is None:
            return
        few = frame.head(_LOOKED_AT)
        for index, info in enumerate(self._schema.fields[: len(known.keys)]):
            column = few[f"f{index}"]
            if info.kind == "bag":
                column = column.list.explode(empty_as_null=False, keep_nulls=False)
            new = self.see_ids(index, column.to_numpy())
            if info.kind == "plain" and index not in self._examples and len(new):
                self._examples[index] = rows.frame[info.name][int(new[0])]

    def see_ids(self, index: int, ids: Ids) -> npt.NDArray[np.int64]:
        """Look at some ids of a field, as hashed; returns the places of new ones."""
        known = self._schema.known
        assert known is not None
        keys, level = known.keys[index], known.levels[index]
        if level < 0:  # more ids than could be counted
            return np.zeros(0, np.int64)
        looked = np.flatnonzero(_begins(ids, level) & (ids != self._missing))
        seen = ids[looked]
        place = np.searchsorted(keys, seen)
        place[place == len(keys)] = 0
        met = keys[place] == seen if len(keys) else np.zeros(len(seen), bool)
        self._counts[index] += (int((~met).sum()), len(seen))
        if len(self._distinct[index]) < _ENOUGH:
            self._distinct[index].update(seen[:_ENOUGH].tolist())
        places: Ids = looked[~met]
        return places

    def told(self) -> dict[str, str]:
        """What there is to say: a line for each field with far more new values."""
        known = self._schema.known
        if known is None:
            return {}
        lines = {}
        for index, (new, of) in enumerate(self._counts.tolist()):
            before = known.unseen[index]
            usual = 0.0 if before != before else before
            # Of a sample of ids, a few frequent ones say little.
            enough = known.levels[index] == 0 or len(self._distinct[index]) >= _ENOUGH // 2
            if of < _ENOUGH or not enough:
                continue
            share = new / of
            if share - usual > 0.1 and 1 - share < 0.75 * (1 - usual):
                name = self._schema.fields[index].name
                lines[name] = self._line(index, share, before)
        return lines

    def _line(self, index: int, share: float, before: float) -> str:
        info = self._schema.fields[index]
        example = self._examples.get(index)
        text = f"{share:.0%} of the values of {info.name!r} are new"
        text += "" if before != before else f" ({before:.0%} of the held-out rows' were)"
        text += "" if example is None else f", such as {str(example)[:60]!r}"
        kind = self._schema.types.get(info.name)
        written = f" (training: {kind.replace(':', ', all ')})" if kind else ""
        return f"{text}: are they written as in training?{written}"

    def tell(self) -> None:
        """Say it by `bitfold.notes`, once for each field and loaded schema."""
        for name, line in self.told().items():
            if name not in self._schema.noted:
                self._schema.noted.add(name)
                note(line)


def watch_log(log: "PreparedLog", part: str, schema: "Schema") -> None:
    """Say so if a prepared log of hashed ids holds far more new values than a run's own log."""
    if schema.known is None or schema.vocabulary is not None:
        return
    watch = Watch(schema)
    for columns in islice(log.id_columns(part), _SHARDS):
        for index in range(len(schema.known.keys)):
            watch.see_ids(index, columns[index][:_LOOKED_AT])
    watch.tell()
