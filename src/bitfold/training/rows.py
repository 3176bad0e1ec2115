"""Where the loop's batches come from: a prepared log, read ahead in a thread."""

import queue
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from bitfold.config import parse_options
from bitfold.method.registry import method_kind

if TYPE_CHECKING:
    from bitfold.data.batch import Batch
    from bitfold.data.prepared import PreparedLog
    from bitfold.data.vocabulary import Vocabulary
    from bitfold.planning.field import Field
    from bitfold.planning.statistics import Ids

T = TypeVar("T")
AHEAD = 4  # batches read before they are asked for


def needs_map(
    method: str, fields: "Sequence[Field]", options: "Mapping[str, object] | None" = None
) -> bool:
    """Whether a method needs a vocabulary from these fields' hashed ids to dense ones.

    With its option `map` it keeps a compact one of its own.

    Example:
        >>> from bitfold import Field
        >>> needs_map("full", [Field("user")]), needs_map("hash", [Field("user")])
        (True, False)
    """
    hashed = any(field.hashed for field in fields)
    kind = method_kind(method)
    if not hashed or kind.traits.hashed_ids:
        return False
    said = {"map": (options or {}).get("map", False)}
    return not parse_options(kind, said, what=f"option of method {method!r}").map


@dataclass(frozen=True)
class TrainingRows:
    """The batches of a prepared log, with dense ids where the method needs them.

    Args:
        log: the prepared log.
        dense: a map from its hashed ids to dense ones, or None.
    """

    log: "PreparedLog"
    dense: "Vocabulary | None" = None

    def count(self, part: str) -> int:
        """Rows of a part; 0 if there is none."""
        return self.log.rows.get(part, 0)

    def dense_ids(self, field: int, ids: "Ids") -> "Ids":
        """A field's ids of the log as the model is given them."""
        found = None if self.dense is None else self.dense.maps[field]
        return ids if found is None else found.apply(ids)

    def batches(self, part: str, batch_size: int, **place: Any) -> Iterator["Batch"]:
        """The batches of a part; `place` is passed on to `PreparedLog.batches`."""
        batches: Iterable[Batch] = self.log.batches(part, batch_size, **place)
        if self.dense is not None:
            batches = map(self.dense.apply, batches)
        return ahead(batches)

    def pairs(
        self, part: str, batch_size: int, other: "Vocabulary | None", **place: Any
    ) -> Iterator[tuple["Batch", "Batch"]]:
        """The batches of a part, each with the same rows by another map to dense ids, or none."""

        def mapped(batch: "Batch", dense: "Vocabulary | None") -> "Batch":
            return batch if dense is None else dense.apply(batch)

        batches = self.log.batches(part, batch_size, **place)
        return ahead((mapped(batch, self.dense), mapped(batch, other)) for batch in batches)


def ahead(items: Iterable[T], count: int = AHEAD) -> Iterator[T]:
    """The same items, up to `count` of them made early by a thread.

    An error of `items` is raised where it would have been. The thread ends with the iterator.

    Example:
        >>> list(ahead(range(3)))
        [0, 1, 2]
    """
    made: queue.Queue[tuple[str, Any]] = queue.Queue(count)
    stop = threading.Event()

    def give(kind: str, value: Any) -> bool:
        while not stop.is_set():
            try:
                made.put((kind, value), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not give("item", item):
                    return
            give("end", None)
        except BaseException as error:
            give("error", error)

    thread = threading.Thread(target=work, name="bitfold-read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = made.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
    finally:
        stop.set()
        thread.join()
