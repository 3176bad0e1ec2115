"""A prepared log, and its batches for anybody's loop."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bitfold.data.batch import Batch
from bitfold.data.finishing import assemble
from bitfold.data.folder import looks_prepared
from bitfold.data.manifest import AGAIN, PARTS, Manifest, ShardInfo, check_digest
from bitfold.data.schema import Schema
from bitfold.data.stats import STATS_FILE, read_stats
from bitfold.data.table import Bags, Table
from bitfold.errors import BitfoldError, unknown_name
from bitfold.records import unreadable

_CHECKED: set[tuple[str, int, int, str]] = set()
"""Shards whose digests were found right, by path, inode, time and digest: once a process."""


class PreparedLog:
    """A log that `prepare` wrote: its schema, its statistics and its batches.

    Args:
        path: the folder.

    Raises:
        BitfoldError: if it is no prepared log, or not a whole one.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not looks_prepared(self.path):
            raise BitfoldError(
                f"{self.path} is no prepared log",
                got="a folder without schema.json" if self.path.is_dir() else "no such folder",
                expected="a folder that prepare wrote",
                fix="run bitfold prepare, or check the path",
            )
        self.manifest = manifest = Manifest.load(self.path)
        self.schema = Schema.load(self.path, self.file)
        self._shards = manifest.shards
        self.inputs = manifest.inputs
        self.rows: dict[str, int] = {
            part: sum(shard.rows for shard in shards) for part, shards in self._shards.items()
        }

    @property
    def size(self) -> int:
        """Bytes of the shards on the disk."""
        return sum(shard.size for shards in self._shards.values() for shard in shards)

    def file(self, name: str) -> Path:
        """The path of a file of the log beside its shards, once its digest is found right.

        Raises:
            BitfoldError: it does not belong to the log, or is not what was saved.
        """
        return self.manifest.check(self.path, name)

    @cached_property
    def stats(self) -> dict[str, Any]:
        """Counts per field over the training part: distinct, missing, head, unseen."""
        return read_stats(self.file(STATS_FILE), self.schema)

    def num_batches(
        self, part: str, batch_size: int, world_size: int = 1, drop_last: bool = False
    ) -> int:
        """How many batches each rank gets: the same number for all."""
        self._check(part, batch_size)
        whole, rest = divmod(self.rows[part], batch_size * world_size)
        return whole + (0 if drop_last or rest < world_size else 1)

    def batches(
        self,
        part: str,
        batch_size: int,
        *,
        shuffle_seed: int | None = None,
        epoch: int = 0,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
    ) -> Iterator[Batch]:
        """Batches of one part, read shard by shard (two shards are in memory at a time).

        Args:
            part: `train`, `valid` or `test`.
            batch_size: B, the rows of a batch of one rank.
            shuffle_seed: with a seed, the order of shards and rows is drawn from
                `(shuffle_seed, epoch)` alone; without, rows come as they lie in the shards
                (which is a random order too, the same each time).
            epoch: counts from 0; each has an order of its own.
            start: batches to skip, to resume where a run stopped; skipped shards are not read.
            rank: which of `world_size` equal shares of each step's `B * world_size` rows to yield.
            world_size: how many ranks there are. In the last, smaller step the rows left are
                shared evenly, sizes differing by one at most; if there are fewer rows than ranks
                they are left out, so that all ranks take the same number of steps.
            drop_last: leave out the last step if it is smaller than the others.

        Yields:
            `num_batches(part, batch_size, world_size, drop_last) - start` batches.
        """
        self._check(part, batch_size)
        if not 0 <= rank < world_size or start < 0:
            raise BitfoldError(
                "there is no such share of the batches",
                got=f"rank {rank} of {world_size}, start {start}",
                expected="0 <= rank < world_size, start of 0 or more",
            )
        steps = self.num_batches(part, batch_size, world_size, drop_last)
        return self._steps(part, batch_size, shuffle_seed, epoch, start, steps, rank, world_size)

    def _steps(
        self,
        part: str,
        batch_size: int,
        seed: int | None,
        epoch: int,
        start: int,
        steps: int,
        rank: int,
        world_size: int,
    ) -> Iterator[Batch]:
        if start >= steps:
            return
        stride = batch_size * world_size
        total = self.rows[part]
        position = start * stride
        tables = self._tables(part, seed, epoch, position)
        base, held = next(tables)
        for step in range(start, steps):
            rows = min(stride, total - step * stride)
            first = step * stride + rows * rank // world_size
            last = step * stride + rows * (rank + 1) // world_size
            pieces = []
            while True:
                low, high = max(first, base), min(last, base + held.rows)
                if low < high:
                    pieces.append(held.cut(low - base, high - base))
                if last <= base + held.rows:
                    break
                base, held = next(tables)
            yield Table.join(pieces).batch()

    def _tables(
        self, part: str, seed: int | None, epoch: int, position: int
    ) -> Iterator[tuple[int, Table]]:
        """Shards in this epoch's order, from the one that holds row `position`, read ahead."""
        shards = self._shards[part]
        order = np.arange(len(shards))
        if seed is not None:
            order = np.random.default_rng([seed, epoch]).permutation(len(shards))
        starts = np.concatenate([[0], np.cumsum([shards[i].rows for i in order])])
        wanted = [
            (int(starts[place]), int(index))
            for place, index in enumerate(order)
            if starts[place + 1] > position
        ]

        def load(index: int) -> Table:
            rows = None
            if seed is not None:
                rows = np.random.default_rng([seed, epoch, index]).permutation(shards[index].rows)
            return self._read(shards[index], rows)

        with ThreadPoolExecutor(1) as pool:
            ahead: Future[Table] | None = pool.submit(load, wanted[0][1])
            for place, (base, _) in enumerate(wanted):
                assert ahead is not None
                table = ahead.result()
                following = wanted[place + 1 : place + 2]
                ahead = pool.submit(load, following[0][1]) if following else None
                yield base, table

    def _read(self, shard: ShardInfo, order: npt.NDArray[Any] | None) -> Table:
        columns = self._columns(shard)
        ids = self._ids(columns)
        names = self.schema.numeric_names
        numeric = np.empty((shard.rows, len(names)), np.float32)
        for index, name in enumerate(names):
            numeric[:, index] = columns[f"number:{name}"]
        return assemble(ids, numeric, columns, order)

    def _columns(self, shard: ShardInfo, only: Sequence[str] | None = None) -> dict[str, Any]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self._whole(shard)
        try:
            with pq.ParquetFile(path, memory_map=False, pre_buffer=False) as file:
                self._fits(shard, file)
                table = file.read(columns=only, use_threads=False).combine_chunks()
            out = {name: _plain(table.column(name)) for name in table.column_names}
        except PermissionError as error:
            raise unreadable(path, error) from None
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, IndexError) as error:
            if isinstance(error, BitfoldError):
                raise
            raise BitfoldError(
                f"the shard {path} cannot be read",
                got=(str(error).splitlines() or [type(error).__name__])[0],
                expected="the shard that prepare wrote",
                fix=AGAIN,
            ) from error
        return out

    def _whole(self, shard: ShardInfo) -> Path:
        """The shard's path, its digest checked when it is read for the first time."""
        path = self.path / shard.name
        if shard.digest is not None:
            try:
                found = path.stat()
            except OSError as error:
                raise unreadable(path, error) from None
            mark = (str(path.absolute()), found.st_ino, found.st_mtime_ns, shard.digest)
            if mark not in _CHECKED:
                check_digest(self.path, shard.name, shard.digest)
                _CHECKED.add(mark)
        return path

    def _fits(self, shard: ShardInfo, file: Any) -> None:
        """Raise unless a shard's own rows and columns are the manifest's and the schema's."""
        types = {field.name: str(field.type) for field in file.schema_arrow}
        wrong = None
        if file.metadata.num_rows != shard.rows:
            wrong = f"{file.metadata.num_rows:,} rows for {shard.rows:,}"
        for info in self.schema.fields:
            kinds = ("large_list", "list") if info.kind == "bag" else ("int64",)
            if not types.get(f"id:{info.name}", "").startswith(kinds):
                wrong = wrong or f"no ids of {info.name!r}"
        for name in self.schema.numeric_names:
            if types.get(f"number:{name}") != "float":
                wrong = wrong or f"no numbers of {name!r}"
        if self.schema.config.labelled and "label" not in types:
            wrong = wrong or "no labels"
        if wrong:
            raise BitfoldError(
                f"the shard {self.path / shard.name} cannot be read",
                got=wrong,
                expected="the shard that prepare wrote",
                fix=AGAIN,
            )

    def _ids(self, columns: dict[str, Any]) -> list[npt.NDArray[np.int64] | Bags]:
        return [columns[f"id:{name}"] for name in self.schema.field_names]

    def id_columns(self, part: str) -> Iterator[list[npt.NDArray[np.int64]]]:
        """The ids of each field, shard by shard; the values of all bags of a bag field."""
        only = [f"id:{name}" for name in self.schema.field_names]
        for columns in self.columns(part, only):
            ids = self._ids(columns)
            yield [column.values if isinstance(column, Bags) else column for column in ids]

    def columns(self, part: str, only: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Some columns of one part as they are stored (`id:NAME`, `label`, ...), shard by shard."""
        for shard in self._shards[part]:
            yield self._columns(shard, only)

    def _check(self, part: str, batch_size: int) -> None:
        if part not in PARTS:
            raise unknown_name("part", part, PARTS)
        if batch_size < 1:
            raise BitfoldError(
                "the batch size is too small", got=batch_size, expected="1 or more", fix="try 2048"
            )


def _plain(column: Any) -> Any:
    """A column as an array, or as bags."""
    import pyarrow as pa

    chunk = column.chunk(0) if column.num_chunks else pa.array([], column.type)
    if pa.types.is_large_list(chunk.type) or pa.types.is_list(chunk.type):
        if chunk.null_count or chunk.values.null_count:
            raise ValueError("missing ids")
        offsets = chunk.offsets.to_numpy().astype(np.int64, copy=False)
        return Bags(chunk.values.to_numpy(), offsets)
    return chunk.to_numpy()


def is_prepared(path: str | Path) -> bool:
    """Whether a folder is a whole prepared log that this bitfold can read."""
    if not looks_prepared(Path(path)):
        return False
    try:
        PreparedLog(path)
    except BitfoldError:
        return False
    return True
